"""What a trainer sees of a data set: three parts, rows of features and of targets.

A part in memory is an ArrayPart, one in an HDF5 file an hdf5.HDF5Part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from errors import DataError

CLASSES = 10
PARTS = ("train", "valid", "test")

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.integer]


class Part(Protocol):
    """One part (train, valid or test) of a data set."""

    n_features: int

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """Rows start..stop-1: x float32 (n, features), y float32 one-hot (n, 10)."""


class ArrayPart:
    """A Part in memory.

    Parameters
    ----------
    x
        Examples (n, features), held as float32.
    labels_or_onehot
        Integer labels 0..9 (n,), or one-hot rows (n, 10).

    Raises
    ------
    DataError
        The two do not fit together.
    """

    def __init__(self, x: ArrayLike, labels_or_onehot: ArrayLike) -> None:
        y = np.asarray(labels_or_onehot)
        self.x = np.ascontiguousarray(x, np.float32)
        self.y = one_hot(y) if y.ndim == 1 else np.ascontiguousarray(y, np.float32)
        if self.x.ndim != 2 or self.y.shape != (len(self.x), CLASSES):
            raise DataError(
                f"examples {self.x.shape} and targets {self.y.shape} do not fit together: "
                f"give (n, features) and (n,) labels or (n, {CLASSES}) one-hot rows"
            )
        self.n_features = self.x.shape[1]

    def __len__(self) -> int:
        return len(self.x)

    def read(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """Views of rows start..stop-1: x float32 (n, features), y float32 (n, 10)."""
        return self.x[start:stop], self.y[start:stop]


@dataclass(frozen=True)
class Dataset:
    """The three parts, and what the data is.

    Parameters
    ----------
    identity
        What the data was made from, above all file name -> MD5 of its uncompressed
        content.
    """

    name: str
    train: Part
    valid: Part
    test: Part
    identity: Mapping[str, str]


def one_hot(labels: ArrayLike) -> Floats:
    """Rows (n, 10) with a 1 at each label.

    Raises
    ------
    DataError
        The labels are not integers 0..9 in one row.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels are {labels.dtype} {labels.shape}: one integer for each example is needed"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < CLASSES:
        raise DataError(
            f"labels reach from {labels.min()} to {labels.max()}: classes are 0..{CLASSES - 1}"
        )
    return np.eye(CLASSES, dtype=np.float32)[labels]


def check_finite(part_name: str, array: NDArray) -> None:
    """DataError if `array` has a NaN or an infinity."""
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise DataError(
            f"{part_name}: {bad} of {array.size} values are NaN or infinite: make the data again"
        )
