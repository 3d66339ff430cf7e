"""The .mat files of SVHN (MATLAB 5): X uint8 (32, 32, 3, n), y (n, 1) of 1..10."""

import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.manifest import MOST_EXAMPLES
from datasets.parts import CLASSES, Pixels
from datasets.reading import unreadable
from errors import DataError
from files import file_md5, plain

# The classes of MATLAB's arrays of numbers.
NUMERIC = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
NUMERIC |= {"single", "double"}
# How a MATLAB 5 file is laid out: type numbers of its elements, classes of its arrays.
MATRIX, COMPRESSED, OPAQUE = 14, 15, 17
NUMBERS = range(6, 16)
HEAD = 4096  # bytes in which the names and sizes of an array are
MOST_NAME = 1000  # letters; MATLAB has 63 at most


def read_mat(path: Path, md5: str | None = None) -> tuple[Pixels, NDArray[np.int64]]:
    """One official file.

    Parameters
    ----------
    md5
        The sum that the file must have.

    Returns
    -------
    x : uint8 (n, 3072) in (channel, row, column) order
    labels : int64 (n,), 1..10, where 10 is the digit 0

    Raises
    ------
    DataError
        The file is missing, damaged, has another sum, or holds something else.
    """
    if not os.path.exists(path):
        raise DataError(
            f"SVHN: {path.name} missing: put the format-2 files into {path.parent}, "
            "or use --sample for a small generated set"
        )
    if md5 is not None and sum_of(path) != md5:
        raise DataError(
            f"{path} is truncated, corrupted or another file (its MD5 differs): give a folder with "
            "the official files with --data; main.py --data-set DIR trains on another set's"
        )
    x, labels = _variables(path)
    _check(path, x, labels)
    return _rows(x), labels[:, 0].astype(np.int64)


def sum_of(path: Path) -> str:
    """The MD5 sum of a file; DataError if it cannot be read."""
    try:
        return file_md5(path)
    except OSError as error:
        raise unreadable(path, error) from error


def count(path: Path) -> int:
    """How many images a file has; DataError if it is none with X and y."""
    import scipy.io

    try:
        check_sizes(path)
        shapes = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
        *image, n = map(int, shapes["X"])
    except Exception as error:  # whosmat raises nearly anything on a damaged file
        raise _of_another_form(path, error) from error
    if image != [32, 32, 3]:
        raise DataError(f"{path} has X {shapes['X']}, not (32, 32, 3, n): give a file of that form")
    return n


def _of_another_form(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is truncated, corrupted or no MATLAB 5 file with X and y "
        f"({type(error).__name__}): give one that is (MATLAB's save has -v7 for it)"
    )


def _variables(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """X and y, whatever they are."""
    import scipy.io

    try:
        check_sizes(path)
        there = scipy.io.whosmat(path)
        announced = {name: shape for name, shape, _ in there}
        kinds = {name: kind for name, _, kind in there}
        if kinds["X"] not in NUMERIC or kinds["y"] not in NUMERIC:
            raise ValueError("no numbers")  # cells in cells could be as deep as they like
        if math.prod(map(int, announced["X"])) > MOST_EXAMPLES * 3072 or (
            math.prod(map(int, announced["y"])) > MOST_EXAMPLES
        ):
            raise ValueError("too many images")
        variables = scipy.io.loadmat(path, variable_names=("X", "y"))
        return np.asarray(variables["X"]), np.asarray(variables["y"])
    except Exception as error:  # loadmat raises nearly anything on a damaged file
        raise _of_another_form(path, error) from error


def check_sizes(path: Path) -> None:
    """ValueError unless all arrays of a file have as much content as their shapes need, at most.

    SciPy unpacks as many bytes as a name, or an array, says that it has. Also struct.error or
    zlib.error, of a damaged file.
    """
    with open(path, "rb", opener=plain) as file:
        start = file.read(128)
        if start[124:] not in (b"\0\1IM", b"\1\0MI"):
            raise ValueError("no MATLAB 5 file")
        order = "<" if start.endswith(b"IM") else ">"
        while tag := file.read(8):
            kind, size = struct.unpack(f"{order}2I", tag)
            head = file.read(min(size, HEAD))
            file.seek(size - len(head), os.SEEK_CUR)
            if kind == COMPRESSED:
                head = zlib.decompressobj().decompress(head, HEAD)
                kind, head = struct.unpack_from(f"{order}I", head)[0], head[8:]
            if kind == MATRIX:
                _check_array(head, order)


def _check_array(head: bytes, order: str) -> None:
    """ValueError if the name or the numbers of an array, which begins so, are too many."""
    flags = struct.unpack_from(f"{order}I", head, 8)[0]
    if flags & 0xFF == OPAQUE:  # which has neither, and SciPy does not look into it
        return
    (dimensions,) = struct.unpack_from(f"{order}I", head, 20)
    shape = struct.unpack_from(f"{order}{min(dimensions, 128) // 4}i", head, 24)
    place, length = _element(head, order, 24 + dimensions + -dimensions % 8)
    if length > MOST_NAME:
        raise ValueError(f"a name of {length:,} letters")
    if flags & 0xFF in NUMBERS:
        size = _element(head, order, place)[1]
        if flags & 0x800 or size > 8 * math.prod(shape):
            raise ValueError("complex numbers, or more than its shape says")


def _element(head: bytes, order: str, start: int) -> tuple[int, int]:
    """(where the next one begins, its bytes) of an element; of up to four they are in its tag."""
    (first,) = struct.unpack_from(f"{order}I", head, start)
    if first >> 16:
        return start + 8, first >> 16
    (size,) = struct.unpack_from(f"{order}I", head, start + 4)
    return start + 8 + size + -size % 8, size


def _check(path: Path, x: NDArray[Any], labels: NDArray[Any]) -> None:
    """DataError unless X and y are images and labels."""
    if (
        x.ndim != 4
        or x.shape[:3] != (32, 32, 3)
        or x.dtype != np.uint8
        or labels.shape != (x.shape[3], 1)
    ):
        raise DataError(
            f"{path} has X {x.dtype} {x.shape} and y {labels.shape}, not uint8 (32, 32, 3, n) "
            "and (n, 1): give a file of that form"
        )
    if labels.dtype.kind not in "iuf" or not np.isin(labels, np.arange(1, CLASSES + 1)).all():
        raise DataError(f"{path} has labels other than 1..10: give a set with these")


def _rows(x: Pixels) -> Pixels:
    """X in rows; no second copy of it is made."""
    # (n, channel, column, row): MATLAB's order, so that nothing is copied
    images = np.require(x.T, requirements=("C", "W"))
    for start in range(0, len(images), 5000):
        some = slice(start, start + 5000)
        images[some] = images[some].swapaxes(2, 3).copy()
    return images.reshape(-1, 3072)
