"""Parts of a data set: arrays as the trainer sees them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from errors import DataError

CLASSES = 10


class Part(Protocol):
    """One part (train, valid or test) of a data set."""

    n_features: int

    def __len__(self): ...

    def read(self, start, stop):
        """Examples start..stop-1: x float32 (n, features), y float32 one-hot (n, 10)."""


class ArrayPart:
    """A Part in memory.

    Parameters
    ----------
    x : (n, features) array, stored as float32
    labels_or_onehot : (n,) integer labels 0..9, or (n, 10) one-hot rows

    Raises
    ------
    DataError : x and labels do not fit together.
    """

    def __init__(self, x, labels_or_onehot):
        y = np.asarray(labels_or_onehot)
        self.x = np.ascontiguousarray(x, np.float32)
        self.y = one_hot(y) if y.ndim == 1 else np.ascontiguousarray(y, np.float32)
        if self.x.ndim != 2 or self.y.shape != (len(self.x), CLASSES):
            raise DataError(
                f"examples {self.x.shape} and targets {self.y.shape} do not fit together: "
                f"give (n, features) and (n,) labels or (n, {CLASSES}) one-hot rows"
            )
        self.n_features = self.x.shape[1]

    def __len__(self):
        return len(self.x)

    def read(self, start, stop):
        """Views of rows start..stop-1: x float32 (n, features), y float32 (n, 10)."""
        return self.x[start:stop], self.y[start:stop]


@dataclass(frozen=True)
class Dataset:
    """The three parts, and what the data is: identity, file name -> MD5 of its uncompressed content."""

    name: str
    train: Part
    valid: Part
    test: Part
    identity: dict


def one_hot(labels):
    """float32 (n, 10) with a 1 at each label; DataError unless labels is (n,) of integers 0..9."""
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


def check_finite(part_name, array):
    """DataError if `array` has a NaN or an infinity."""
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise DataError(
            f"{part_name}: {bad} of {array.size} values are NaN or infinite: make the data again"
        )
