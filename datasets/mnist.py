"""MNIST."""

import gzip
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from datasets.parts import CLASSES, ArrayPart, Dataset, check_finite
from datasets.source import _fetch, _manifest, _missing_sample, _read_bytes, _remedy
from errors import DataError
from files import md5 as _md5

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_MD5 = {  # of the published .gz files and of what they decompress to
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MNIST_NAMES = tuple(name for name in MNIST_MD5 if not name.endswith(".gz"))
MNIST_SPLIT = {"train": 50_000, "valid": 10_000, "test": 10_000}


def load_mnist(folder, sample=False, download=True):
    """MNIST: pixel/255 in float32, file order, the last rows of the train files are valid (SPEC section 12).

    Parameters
    ----------
    folder : path of the data folder; the files are in folder/mnist
    sample : read the generated sample that lies there instead of MNIST
    download : fetch missing official files

    Raises
    ------
    DataError : a file is missing and cannot be had, or is not the file it should be.
    """
    folder = Path(folder) / "mnist"
    manifest = _manifest(folder, sample)
    sums = manifest["files"] if sample else MNIST_MD5
    split = manifest["split"] if sample else MNIST_SPLIT
    missing = [
        name for name in MNIST_NAMES if not any(map(os.path.exists, _gz_and_plain(folder, name)))
    ]
    if missing and sample:
        raise _missing_sample(folder, missing)
    if missing:
        _fetch_mnist(folder, missing, download)
    arrays, identity = {}, {}
    for name in MNIST_NAMES:
        path, content = _read_idx_file(folder, name, sums, sample)
        arrays[name], identity[name] = _parse_idx(path, content), _md5(content)
    parts = {}
    for images, labels, names in (
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", ("train", "valid")),
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", ("test",)),
    ):
        pixels, digits = arrays[images], arrays[labels]
        if len(pixels) != len(digits):
            raise DataError(
                f"{folder}: {images} has {len(pixels)} images but {labels} has {len(digits)} "
                f"labels: {_remedy(sample)}"
            )
        announced = sum(split[name] for name in names)
        if len(pixels) != announced:
            raise DataError(
                f"{folder}: {images} has {len(pixels)} images, not the {announced} of "
                f"{' + '.join(names)}: {_remedy(sample)}"
            )
        start = 0
        for name in names:
            rows = slice(start, start + split[name])
            parts[name] = ArrayPart(pixels[rows].astype(np.float32) / np.float32(255), digits[rows])
            check_finite(f"{folder} {name}", parts[name].x)
            start += split[name]
    return Dataset("MNIST sample" if sample else "MNIST", identity=identity, **parts)


def _gz_and_plain(folder, name):
    return folder / f"{name}.gz", folder / name


def _read_idx_file(folder, name, sums, sample):
    """(path, uncompressed bytes) of an idx file whose sum is right, .gz first; DataError if none is."""
    wrong = None
    for path in _gz_and_plain(folder, name):
        if not os.path.exists(path):
            continue
        data = _read_bytes(path)
        known, zipped = _md5(data) == sums.get(path.name), path.suffix == ".gz"
        try:
            content = gzip.decompress(data) if zipped else data
        except (EOFError, OSError, zlib.error) as error:
            wrong = wrong or f"{path} is truncated or corrupted ({error})"
            continue
        if known or _md5(content) == sums.get(name):  # the latter: compressed by somebody else
            return path, content
        other = [one for one in MNIST_NAMES if sums.get(one) == _md5(content)]
        kind = "the sample" if sample else "the official"
        wrong = wrong or (
            f"{path} has the content of {other[0]}"
            if other
            else f"{path} is not {kind} file (its MD5 differs)"
        )
    raise DataError(f"{wrong}: {_remedy(sample)}")


def _parse_idx(path, content):
    """uint8 (n, 784) of an idx3 file of 28 x 28 images, uint8 (n,) of an idx1 file of labels 0..9."""
    shape, magic = ((28, 28), 2051) if "idx3" in path.name else ((), 2049)
    header = 8 + 4 * len(shape)
    if len(content) < header or struct.unpack(">i", content[:4])[0] != magic:
        raise DataError(
            f"{path} does not begin like an idx file (magic number {magic}): replace it"
        )
    n, *dims = struct.unpack(f">{1 + len(shape)}i", content[4:header])
    if tuple(dims) != shape or len(content) != header + n * int(np.prod(shape)):
        raise DataError(
            f"{path} announces {n} items of {tuple(dims)} but has {len(content) - header} bytes "
            f"for items of {shape}: replace it"
        )
    array = np.frombuffer(content, np.uint8, offset=header)
    if not shape and n and array.max() >= CLASSES:
        raise DataError(
            f"{path} has the label {array.max()}; labels are 0..{CLASSES - 1}: replace it"
        )
    return array.reshape(n, -1) if shape else array


def _fetch_mnist(folder, missing, allowed):
    _fetch("MNIST", [f"{name}.gz" for name in missing], folder, MNIST_MIRRORS, MNIST_MD5, allowed)
