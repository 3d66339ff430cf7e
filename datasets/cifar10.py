"""CIFAR-10."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

from datasets.array_cache import _lock, _read_cache, _write_cache
from datasets.batches import _parse_batch
from datasets.contrast import PREPROCESSING_VERSION, ZCA, ZCA_BIAS, global_contrast_normalize
from datasets.downloads import unpack
from datasets.parts import ArrayPart, Dataset, check_finite
from datasets.progress import _bar, _report
from datasets.source import _fetch, _manifest, _missing_sample, _read_bytes, _remedy
from errors import DataError, DownloadError
from files import file_md5
from files import md5 as _md5

CIFAR10_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
CIFAR10_ARCHIVE = {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}
CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CIFAR10_SPLIT = {"train": 45_000, "valid": 5_000, "test": 10_000}
GCN_SCALE = {"CIFAR10": 55.0, "SVHN": 1.0}


def load_cifar10(folder, sample=False, download=True):
    """CIFAR-10 after GCN and ZCA, the last rows of the training images are valid (SPEC section 12).

    Parameters
    ----------
    folder : path of the data folder; the pickles are in folder/cifar10/cifar-10-batches-py, or come out of an official
        cifar-10-python.tar.gz in folder/cifar10; what is made of them is kept in folder/cifar10/preprocessed-...
    sample : read the generated sample that lies there instead of CIFAR-10
    download : fetch the archive if neither is there

    Raises
    ------
    DataError : a file is missing and cannot be had, is not the file it should be, or the result cannot be kept.
    """
    cifar10 = Path(folder) / "cifar10"
    pickles = cifar10 / "cifar-10-batches-py"
    manifest = _manifest(pickles, sample)
    if not sample and (
        missing := [name for name in CIFAR10_MD5 if not os.path.exists(pickles / name)]
    ):
        _unpack_cifar10(cifar10, missing, download)
    x, labels, test_x, test_labels, identity = read_cifar10_pickles(folder, sample)
    x, test_x = whiten_cifar10(cifar10, x, test_x, identity)
    n = (manifest["split"] if sample else CIFAR10_SPLIT)["train"]
    return Dataset(
        "CIFAR10 sample" if sample else "CIFAR10",
        train=ArrayPart(x[:n], labels[:n]),
        valid=ArrayPart(x[n:], labels[n:]),
        test=ArrayPart(test_x, test_labels),
        identity=identity | {"preprocessing": str(PREPROCESSING_VERSION)},
    )


def _unpack_cifar10(folder, missing, allowed):
    """The missing pickles, out of the archive in `folder`, which is downloaded for it if it is not there."""
    ((name, md5),) = CIFAR10_ARCHIVE.items()
    archive = folder / name
    given = os.path.exists(archive)
    if not given:
        _fetch("CIFAR10", [name], folder, CIFAR10_MIRRORS, CIFAR10_ARCHIVE, allowed)
    try:
        if given and file_md5(archive) != md5:
            raise DataError(
                f"{archive} is truncated, corrupted or another file (its MD5 differs): {_remedy(False)}"
            )
        unpack(
            archive,
            {f"cifar-10-batches-py/{name}": name for name in missing},
            folder / "cifar-10-batches-py",
        )
    except DownloadError as error:
        raise DataError(f"{error}: {_remedy(False)}") from error
    except OSError as error:
        raise DataError(
            f"cannot unpack {archive} into {folder} ({error.strerror or error}): make the folder writable "
            "and room for 200 MB"
        ) from error
    if not given:
        archive.unlink(missing_ok=True)


def read_cifar10_pickles(folder, sample=False):
    """The official pickles in folder/cifar10/cifar-10-batches-py, read without running what they say.

    Returns
    -------
    train_x uint8 (50000, 3072) in (channel, row, column) order, train_labels int64 (50000,), test_x uint8
    (10000, 3072), test_labels int64 (10000,), identity (file name -> MD5). The sample has fewer rows.

    Raises
    ------
    DataError : a file is missing, has another MD5 sum, or is not a CIFAR-10 batch.
    """
    folder = Path(folder) / "cifar10" / "cifar-10-batches-py"
    manifest = _manifest(folder, sample)
    sums = manifest["files"] if sample else CIFAR10_MD5
    missing = [name for name in CIFAR10_MD5 if not os.path.exists(folder / name)]
    if missing and sample:
        raise _missing_sample(folder, missing)
    if missing:
        raise DataError(
            f"CIFAR10: {', '.join(missing)} missing: unpack the official cifar-10-python.tar.gz "
            f"so that they are in {folder}, or use --sample for a small generated set"
        )
    batches, identity = [], {}
    for name in CIFAR10_MD5:
        data = _read_bytes(folder / name)
        identity[name] = _md5(data)
        if identity[name] != sums.get(name):
            other = [one for one in CIFAR10_MD5 if sums.get(one) == identity[name]]
            what = (
                f"has the content of {other[0]}"
                if other
                else "is truncated, corrupted or another file (its MD5 differs)"
            )
            raise DataError(f"{folder / name} {what}: {_remedy(sample)}")
        batches.append(_parse_batch(folder / name, data))
    x, labels = (np.concatenate(column) for column in zip(*batches[:-1], strict=True))
    sizes = (
        {
            "train + valid": (len(x), manifest["split"]["train"] + manifest["split"]["valid"]),
            "test": (len(batches[-1][0]), manifest["split"]["test"]),
        }
        if sample
        else {}
    )
    for name, (found, announced) in sizes.items():
        if found != announced:
            raise DataError(
                f"{folder}: {name} has {found} images but its manifest says {announced}: "
                f"{_remedy(sample)}"
            )
    return x, labels, *batches[-1], identity


def whiten_cifar10(folder, train, test, inputs):
    """GCN with scale 55, then ZCA fitted on the training images (SPEC section 12): kept, or made and kept.

    The result is in folder/preprocessed-KEY (train.npy, test.npy and their sums), KEY being that of inputs, parameters
    and version. It is made again when it is damaged; what other inputs or another version left is deleted.

    Parameters
    ----------
    folder : the folder with cifar-10-batches-py in it
    train, test : uint8 (n, 3072) images
    inputs : file name -> MD5 of the files they come from

    Returns
    -------
    float32 (n, 3072) of train and of test: maps of the files, or arrays where the folder cannot be written.

    Raises
    ------
    DataError : no space is left on the device.
    """
    key = hashlib.md5(
        json.dumps(
            [inputs, GCN_SCALE["CIFAR10"], ZCA_BIAS, PREPROCESSING_VERSION], sort_keys=True
        ).encode(),
        usedforsecurity=False,
    ).hexdigest()[:16]
    folder = Path(folder)
    target, shapes = folder / f"preprocessed-{key}", {"train": train.shape, "test": test.shape}
    try:
        with _lock(folder / ".preprocessed.lock"):
            kept, why = _read_cache(target, shapes)
            if kept:
                return kept
            stale = [
                path for path in folder.glob("preprocessed-*") if path != target and path.is_dir()
            ]
            if why is None and stale:
                why = f"{stale[0]} is of other files or of another version"
            _report(
                "CIFAR10: " + (f"{why}: made again" if why else "first use") + ": GCN and ZCA of "
                f"{len(train) + len(test):,} images, kept in {target}"
            )
            for left in folder.glob(".preprocessed-*"):  # by an interrupted process
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            _write_cache(target, *_whitened(train, test))
            for path in stale:
                shutil.rmtree(path, ignore_errors=True)
            return _read_cache(target, shapes)[0]
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            kept, _ = _read_cache(target, shapes)
            if not kept:
                _report(
                    f"CIFAR10: GCN and ZCA of {len(train) + len(test):,} images, not kept ({folder} is not "
                    "writable)"
                )
            return kept or _whitened(train, test)
        raise DataError(
            f"cannot write {target} ({error.strerror or error}): make room for "
            f"{(train.size + test.size) * 4 / 1e6:.0f} MB there"
        ) from error


def _whitened(train, test):
    with _bar(2 * len(train) + len(test), "GCN and ZCA") as bar:
        x = global_contrast_normalize(train, GCN_SCALE["CIFAR10"])
        zca = ZCA.fit(x, ZCA_BIAS, progress=bar.update)
        whitened = [zca.apply(x, progress=bar.update)]
        del x
        whitened.append(
            zca.apply(global_contrast_normalize(test, GCN_SCALE["CIFAR10"]), progress=bar.update)
        )
    for name, x in zip(("train", "test"), whitened, strict=True):
        check_finite(f"CIFAR10 {name}", x)
    return whitened
