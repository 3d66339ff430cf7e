"""The data sets: arrays out of files with known MD5 sums, or a DataError that says why.

Under the data folder (PYLEARN2_DATA_PATH):

    mnist/                        the four idx files, .gz or not
    cifar10/cifar-10-batches-py/  the official pickles data_batch_1..5 and test_batch;
                                  preprocessed on first use
    SVHN/format2/                 {train,test,extra}_32x32.mat, of which python -m
                                  utilities.svhn_preprocessing makes HDF5 files under
                                  SVHN_LOCAL_PATH; those are read

There are further places for each, OFFICIAL.places in its module, which are looked at in
their order. Missing official files are downloaded. A generated sample (python -m
utilities.sample_data) has the same files; it is read only when asked for, as is a set of
somebody's own in files of the same form (own.py). A further data set needs a module
beside these, a line in LOADERS and in OWN_LOADERS, and one in sample.SETS for --sample.
Source: docs/published_program.md, "Data".
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from datasets import cifar10, mnist, svhn
from datasets.own import OwnSet
from datasets.parts import ArrayPart, Dataset, Part
from datasets.progress import report
from datasets.sample import ensure_sample
from errors import DataError

__all__ = ["LOADERS", "ArrayPart", "Dataset", "OwnSet", "Part", "load", "load_own", "make_sample"]

# Name -> loader(data folder, whether to take the sample).
LOADERS: dict[str, Callable[[Path, bool], Dataset]] = {
    "mnist": mnist.load,
    "cifar10": cifar10.load,
    "svhn": svhn.load,
}
# Name -> loader of a set of somebody's own in files of that form.
OWN_LOADERS: dict[str, Callable[[OwnSet], Dataset]] = {
    "mnist": mnist.load_own,
    "cifar10": cifar10.load_own,
    "svhn": svhn.load_own,
}

ENOUGH = 50  # examples, among which no class is missing by chance
OFFICIAL = {"mnist": mnist.OFFICIAL, "cifar10": cifar10.OFFICIAL, "svhn": svhn.OFFICIAL}


def load(data_set: str, folder: Path, sample: bool = False) -> Dataset:
    """The data set of that name in LOADERS, from a data folder.

    Parameters
    ----------
    sample
        Take the generated sample there instead, which is made on first use.

    Raises
    ------
    DataError
        It cannot be had, or is not what it should be.
    """
    if data_set not in LOADERS:
        raise DataError(f"the data set {data_set!r} is none of {', '.join(LOADERS)}")
    if sample:
        make_sample(data_set, folder)
    return LOADERS[data_set](folder, sample)


def load_own(data_set: str, own: OwnSet) -> Dataset:
    """A set of somebody's own in the form of the data set of that name.

    Raises
    ------
    DataError
        It cannot be used.
    """
    data = OWN_LOADERS[data_set](own)
    sums = OFFICIAL[data_set].sums
    if all(data.identity.get(name, md5) == md5 for name, md5 in sums.items()):
        report(f"{data.name}: these are the official files, with --data they count as such")
    for part in ("train", "valid"):
        examples = getattr(data, part)
        if not isinstance(examples, ArrayPart) or len(examples) < ENOUGH:
            continue
        if (without := np.flatnonzero(~examples.y.any(axis=0))).size:
            classes = ", ".join(map(str, without))
            report(f"{data.name}: {part} has no example of class {classes}; are they sorted?")
    return data


def make_sample(data_set: str, folder: Path) -> None:
    """Make the generated sample of a data set, unless it is there.

    Raises
    ------
    DataError
        Something else is there, or the folder cannot be written.
    """
    try:
        ensure_sample(folder, [data_set])
    except (DataError, OSError) as error:
        raise DataError(f"no sample: {error}") from None
