"""The paper's split of SVHN: which images are in which part, in which order.

Source: docs/published_program.md, "Data"; the taken rows stand in the order of taking
before they are shuffled.
"""

from collections.abc import Mapping

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from datasets.parts import Labels
from errors import DataError

SPLIT_SEED = 322

Rows = NDArray[np.int64]


def split_rows(
    train_labels: Labels, extra_labels: Labels, per_class: Mapping[str, int]
) -> dict[str, Rows]:
    """The rows of both parts, counted through train and on through extra.

    Parameters
    ----------
    train_labels, extra_labels
        1..10 (n,).
    per_class
        "train" and "extra" -> how many images of each class valid takes from it.

    Returns
    -------
    {"train": rows, "valid": rows}
        A partition of them all; "train" is splitted_train.

    Raises
    ------
    DataError
        A class has fewer images than valid takes.
    """
    n = len(train_labels) + len(extra_labels)
    rows = {}
    for part in ("train", "valid"):
        rng = RandomState(SPLIT_SEED)
        taken = np.concatenate(
            [
                _taken("train", train_labels, per_class["train"], rng),
                _taken("extra", extra_labels, per_class["extra"], rng) + len(train_labels),
            ]
        )
        if part == "train":
            taken = np.setdiff1d(np.arange(n), taken, assume_unique=True)
        rows[part] = taken[shuffled(len(taken), rng)]
    return rows


def own_rows(n: int, split: Mapping[str, int]) -> dict[str, Rows]:
    """The rows of both parts of a set of somebody's own: the first and the last of all, mixed.

    The training examples of the task come in chunks, in which no class is to be missing.
    """
    order = shuffled(n, RandomState(SPLIT_SEED))
    return {"train": order[: split["train"]], "valid": order[n - split["valid"] :]}


def test_rows(n: int) -> Rows:
    """The order of the test images."""
    return shuffled(n, RandomState(SPLIT_SEED))


def _taken(name: str, labels: Labels, count: int, rng: RandomState) -> Rows:
    """Rows that valid takes from a file: the first `count` of each class, shuffled."""
    taken = []
    for label in range(1, 11):
        rows = np.flatnonzero(labels == label)
        if len(rows) < count:
            raise DataError(
                f"SVHN: {name} has {len(rows)} images with label {label}, valid takes {count}: "
                "give the whole files"
            )
        rng.shuffle(rows)
        taken.append(rows[:count])
    return np.concatenate(taken)


def shuffled(n: int, rng: RandomState) -> Rows:
    order = np.arange(n)
    rng.shuffle(order)
    return order
