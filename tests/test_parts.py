"""datasets/parts.py: targets and features that fit together, and nothing else."""

import numpy as np
import pytest
from data_files import refused

from datasets.parts import ArrayPart, check_finite, one_hot
from errors import DataError


def test_one_hot():
    y = one_hot(np.array([0, 9, 3], np.uint8))
    assert y.dtype == np.float32 and y.tolist() == [
        [1] + [0] * 9,
        [0] * 9 + [1],
        [0, 0, 0, 1] + [0] * 6,
    ]
    assert one_hot(np.zeros(0, int)).shape == (0, 10)


@pytest.mark.parametrize("labels", [[10], [-1], [0.5], [[1, 2]]])
def test_one_hot_refuses_what_is_no_label(labels):
    with refused("label"):
        one_hot(labels)


def test_array_part():
    x = np.arange(12, dtype=np.float64).reshape(4, 3)
    part = ArrayPart(x, [1, 2, 3, 4])
    assert len(part) == 4 and part.n_features == 3
    rows, y = part.read(1, 3)
    assert rows.dtype == y.dtype == np.float32
    assert np.array_equal(rows, x[1:3]) and y.argmax(1).tolist() == [2, 3]
    assert np.array_equal(ArrayPart(x, part.y).y, part.y)
    for labels in ([1, 2, 3], np.zeros((4, 9)), np.zeros((3, 10))):
        with refused("do not fit"):
            ArrayPart(x, labels)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_check_finite(bad):
    x = np.zeros((3, 4), np.float32)
    check_finite("train", x)
    x[1, 2] = bad
    with refused("train", "1 of 12"):
        check_finite("train", x)


def test_data_error_is_always_one_line():
    assert str(DataError("a\nb\r\nc")) == "a b c"
