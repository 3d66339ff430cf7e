"""datasets/svhn_split.py, against the text of the published program with lists."""

import numpy as np
import pytest

from datasets.svhn_split import split_rows
from errors import DataError


def reference_split(labels, more, counts, part):
    """With lists, as docs/published_program.md, "Data", goes."""
    rng, taken = np.random.RandomState(322), []
    for first, of, count in ((0, labels, counts[0]), (len(labels), more, counts[1])):
        for label in range(1, 11):
            indices = [k for k, one in enumerate(of) if one == label]
            rng.shuffle(indices)
            taken += [first + k for k in indices[:count]]
    rows = taken if part == "valid" else sorted(set(range(len(labels) + len(more))) - set(taken))
    order = list(range(len(rows)))
    rng.shuffle(order)
    return [rows[k] for k in order]


def test_split():
    rng = np.random.RandomState(0)
    labels, more = rng.randint(1, 11, 7000), rng.randint(1, 11, 5000)
    rows = split_rows(labels, more, {"train": 400, "extra": 200})
    assert len(rows["valid"]) == 6000 and len(rows["train"]) == 6000
    assert sorted([*rows["valid"], *rows["train"]]) == list(range(12000))
    both = np.concatenate([labels, more])
    of_train = rows["valid"] < 7000
    assert np.bincount(both[rows["valid"][of_train]]).tolist() == [0] + [400] * 10
    assert np.bincount(both[rows["valid"][~of_train]]).tolist() == [0] + [200] * 10
    for part in rows:
        assert rows[part].tolist() == reference_split(labels, more, (400, 200), part)


def test_split_with_too_few_images():
    labels = np.repeat(np.arange(1, 11), 3)
    split_rows(labels, labels, {"train": 3, "extra": 0})
    with pytest.raises(DataError, match="extra has 2 images with label 7"):
        split_rows(
            labels, labels[labels.cumsum() != labels[labels <= 7].sum()], {"train": 3, "extra": 3}
        )
