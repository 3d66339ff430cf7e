"""CIFAR-10: the official pickles, after GCN and ZCA.

They are in data folder/cifar10/cifar-10-batches-py or another of the places, or come out
of an official cifar-10-python.tar.gz, which is downloaded if need be. What is made of
them is cached in data folder/cifar10/preprocessed-KEY. The last rows of the training
images are valid. Source: docs/published_program.md, "Data".
"""

import contextlib
import errno
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.array_cache import ArrayCache
from datasets.batches import parse_batch, training_names
from datasets.contrast import PREPROCESSING_VERSION, ZCA, global_contrast_normalize
from datasets.downloads import unpack
from datasets.own import OwnSet, marked
from datasets.parts import ArrayPart, Dataset, Floats, Labels, Pixels, check_finite
from datasets.progress import image_bar, report
from datasets.reading import read_bytes
from datasets.source import Source, paths
from errors import DataError, DownloadError, FileError
from files import file_md5, md5
from locks import locked

GCN_SCALE = 55.0
ZCA_BIAS = 0.1
MOST_BYTES = 100_000_000  # of a batch; the official ones have 31 MB

SUMS = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
OFFICIAL = Source(
    data_set="CIFAR10",
    folder=Path("cifar10", "cifar-10-batches-py"),
    names=tuple(SUMS),
    sums=SUMS,
    split={"train": 45_000, "valid": 5_000, "test": 10_000},
    places=paths(
        "cifar-10-batches-py",  # torchvision's
        "cifar10",
        "cifar10/cifar-10-python/cifar-10-batches-py",  # unpacked into a folder of its own
        "cifar-10-python/cifar-10-batches-py",
        "CIFAR10/cifar-10-batches-py",
        "cifar-10-batches-py/cifar-10-batches-py",
        "",
    ),
)
ARCHIVE_SUMS = {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}
ARCHIVE = Source(
    data_set="CIFAR10",
    folder=Path("cifar10"),
    names=tuple(ARCHIVE_SUMS),
    sums=ARCHIVE_SUMS,
    split={},
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    places=paths("", "cifar10/cifar-10-batches-py", "cifar-10-python", "CIFAR10"),
    ways=lambda name: (name, "cifar-10-batches-py.tar.gz"),  # which is Keras's
)


def load(folder: Path, sample: bool = False) -> Dataset:
    """CIFAR-10, or its sample, from a data folder.

    Raises
    ------
    DataError
        A file is missing and cannot be had, is not the file it should be, or there is
        no room for the result.
    """
    source = OFFICIAL.under(folder, sample)
    missing = source.missing(source.names)
    if missing and not sample:
        _unpack(ARCHIVE.found(folder), missing, source)
    source.say_where()
    return _preprocessed(source, folder / ARCHIVE.folder)


def load_own(own: OwnSet) -> Dataset:
    """A set of somebody's own in batches of this form, from its folder; the cache goes there.

    Raises
    ------
    DataError
        A file is missing, or of another form; the set is too small, or there is no room.
    """
    source = own_source(own)
    source.say_where()
    return _preprocessed(source, own.folder)


def own_source(own: OwnSet) -> Source:
    """A set of somebody's own, which has as many training batches as there are."""
    source = OFFICIAL.of_own(own)
    if source.missing([source.names[0], source.names[-1]]):
        return source
    return replace(source, names=(*training_names(source.folder), source.names[-1]))


def _preprocessed(source: Source, folder: Path) -> Dataset:
    """The batches of a source after GCN and ZCA, which are cached in a folder."""
    images, labels, test_images, test_labels, identity = read(source)
    x, test_x = whiten(folder, images, test_images, identity)
    split = source.split
    identity |= {"preprocessing": str(PREPROCESSING_VERSION)}
    if source.own:
        split = source.own.split(split, len(x), len(test_x))
        identity |= marked(split)
    train = slice(0, split["train"])
    valid = slice(len(x) - split["valid"], len(x))
    return Dataset(
        source.name,
        train=ArrayPart(x[train], labels[train]),
        valid=ArrayPart(x[valid], labels[valid]),
        test=ArrayPart(test_x, test_labels),
        identity=identity,
    )


def _unpack(source: Source, missing: list[str], pickles: Source) -> None:
    """Missing pickles, out of the archive, which is downloaded if it is not there."""
    (name,) = source.names
    given = source.there(name)
    archive = given[0] if given else source.folder / name
    source.say_where()
    source.fetch(source.missing([name]))
    folder = OFFICIAL.folder.name
    try:
        if given and file_md5(archive) != source.sums[name]:
            raise source.wrong(
                f"{archive} is truncated, corrupted or another file (its MD5 differs)"
            )
        unpack(archive, {f"{folder}/{name}": name for name in missing}, pickles.folder)
    except DownloadError as error:
        raise source.wrong(str(error)) from error
    except OSError as error:
        raise DataError(
            f"cannot unpack {archive} into {pickles.folder} ({error.strerror or error}): make the "
            "folder writable and room for 200 MB"
        ) from error
    if not given:
        archive.unlink(missing_ok=True)


def read(source: Source) -> tuple[Pixels, Labels, Pixels, Labels, dict[str, str]]:
    """The pickles, read without running what they say.

    Returns
    -------
    train_x : uint8 (50000, 3072) in (channel, row, column) order; fewer in the sample
    train_labels : int64 (50000,)
    test_x : uint8 (10000, 3072)
    test_labels : int64 (10000,)
    identity : file name -> MD5

    Raises
    ------
    DataError
        A file is missing, has another MD5 sum, or is not a CIFAR-10 batch.
    """
    missing = source.missing(source.names)
    if missing and (source.sample or source.own):
        source.fetch(missing)
    if missing:
        raise source.absent(missing)
    batches = []
    identity = {}
    for name in source.names:
        path = source.folder / name
        content = read_bytes(path, MOST_BYTES * (30 if source.own else 1))
        identity[name] = md5(content)
        if not source.own and identity[name] != source.sums.get(name):
            raise source.wrong(f"{path} {_what_it_is(source, path, content)}")
        batches.append(parse_batch(path, content))
    *train, test = batches
    x = np.concatenate([images for images, _ in train])
    labels = np.concatenate([some for _, some in train])
    if not source.own:
        _check_size(source, "train + valid", len(x), source.split["train"] + source.split["valid"])
        _check_size(source, "test", len(test[0]), source.split["test"])
    return x, labels, *test, identity


def _what_it_is(source: Source, path: Path, content: bytes) -> str:
    """What to say of a file that is another one than its name says."""
    others = [other for other in source.names if md5(content) == source.sums.get(other)]
    if others:
        return f"has the content of {others[0]}"
    with contextlib.suppress(DataError):
        parse_batch(path, content)
        if not source.sample:
            return f"is not the official file (its MD5 differs), but {source.of_another_set()}"
    return "is truncated, corrupted or another file (its MD5 differs)"


def _check_size(source: Source, what: str, found: int, announced: int) -> None:
    if found != announced:
        raise source.wrong(
            f"{source.folder}: {what} has {found} images but its manifest says {announced}"
        )


def whiten(folder: Path, train: NDArray, test: NDArray, inputs: Mapping[str, str]) -> list[Floats]:
    """GCN, then ZCA fitted on the training images: cached, or made and cached.

    It is made again when it is damaged; what other inputs or another version left is
    deleted.

    Parameters
    ----------
    folder
        Where the cache is.
    train, test
        Images uint8 (n, 3072).
    inputs
        File name -> MD5 of the files they come from; with the parameters and the
        version it makes the cache's key.

    Returns
    -------
    float32 (n, 3072) of train and of test
        Maps of the files, or arrays where the folder cannot be written.

    Raises
    ------
    DataError
        No space is left on the device.
    """
    facts = [dict(inputs), GCN_SCALE, ZCA_BIAS, PREPROCESSING_VERSION]
    key = md5(json.dumps(facts, sort_keys=True).encode())[:16]
    cache = ArrayCache(folder, key, {"train": train.shape, "test": test.shape})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(cache.lock):
            return _cached(cache, train, test)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _cached_without_writing(cache, train, test)
        raise DataError(
            f"cannot write {cache.path} ({error.strerror or error}): make room for "
            f"{(train.size + test.size) * 4 / 1e6:.0f} MB there"
        ) from error


def _cached(cache: ArrayCache, train: NDArray, test: NDArray) -> list[Floats]:
    """What the cache has, after it is made if need be."""
    why = None
    if cache.path.exists():
        try:
            return cache.read()
        except FileError as error:
            why = str(error)
    stale = cache.stale()
    if why is None and stale:
        why = f"{stale[0]} is of other files or of another version"
    report(
        f"CIFAR10: {f'{why}: made again' if why else 'first use'}: GCN and ZCA of "
        f"{len(train) + len(test):,} images, kept in {cache.path}"
    )
    cache.tidy()
    cache.write(_whitened(train, test))
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
    return cache.read()


def _cached_without_writing(cache: ArrayCache, train: NDArray, test: NDArray) -> list[Floats]:
    """What the cache has, or the arrays themselves."""
    with contextlib.suppress(FileError):
        return cache.read()
    report(
        f"CIFAR10: GCN and ZCA of {len(train) + len(test):,} images, not kept ({cache.folder} is "
        "not writable)"
    )
    return _whitened(train, test)


def _whitened(train: NDArray, test: NDArray) -> list[Floats]:
    with image_bar(2 * len(train) + len(test), "GCN and ZCA") as bar:
        x = global_contrast_normalize(train, GCN_SCALE)
        zca = ZCA.fit(x, ZCA_BIAS, progress=bar.update)
        whitened = [zca.apply(x, progress=bar.update)]
        del x
        test = global_contrast_normalize(test, GCN_SCALE)
        whitened.append(zca.apply(test, progress=bar.update))
    for name, part in zip(("train", "test"), whitened, strict=True):
        check_finite(f"CIFAR10 {name}", part)
    return whitened
