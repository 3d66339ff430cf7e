"""Readers of the data sets (SPEC section 12): arrays whose files have the known MD5 sums, or a DataError.

Under the data folder (PYLEARN2_DATA_PATH):

    mnist/                        the four idx files, .gz or not
    cifar10/cifar-10-batches-py/  the official pickles data_batch_1..5 and test_batch; preprocessed on first use
    SVHN/format2/                 {train,test,extra}_32x32.mat, of which python -m utilities.svhn_preprocessing makes
                                  HDF5 files under SVHN_LOCAL_PATH; those are read

Missing official files are downloaded. A generated sample (python -m utilities.sample_data) has the same files and a
manifest.json beside them, which holds their MD5 sums and split sizes in place of the official ones. It is read only
when asked for.
"""

from datasets.cifar10 import load_cifar10
from datasets.mnist import load_mnist
from datasets.parts import ArrayPart, Dataset, Part
from datasets.sample import ensure_sample
from datasets.svhn import load_svhn
from errors import DataError

__all__ = ["LOADERS", "ArrayPart", "Dataset", "Part", "load", "make_sample"]


def load(data_set, folder, sample=False):
    """The Dataset named in LOADERS from the data folder; DataError says why not.

    The sample is made on first use.
    """
    if data_set not in LOADERS:
        raise DataError(f"the data set {data_set!r} is none of {', '.join(LOADERS)}")
    if sample:
        make_sample(data_set, folder)
    return LOADERS[data_set](folder, sample)


def make_sample(data_set, folder):
    """Make the generated sample of a data set, unless it is there; DataError says why not."""
    try:
        ensure_sample(folder, [data_set])
    except (ValueError, OSError) as error:
        raise DataError(f"no sample: {error}") from None


LOADERS = {"mnist": load_mnist, "cifar10": load_cifar10, "svhn": load_svhn}
