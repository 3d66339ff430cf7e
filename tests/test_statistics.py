"""xla/statistics.py, compiled: column norms and counts, alone, in a loop and vectorized."""

import jax
import numpy as np
import pytest
from compiling import EVERYWHERE, equations, run, run_looped, run_vectorized
from hypothesis import given, settings
from hypothesis import strategies as st

from xla.statistics import PartialCounts, column_norm, partial_counts, total_counts

f4 = np.float32


COLUMN_NORM_SHAPES = [(784, 12), (97, 5), (1, 3), (211, 1), (6, 2, 3, 3), (96, 1, 8, 8), (64, 10)]


@EVERYWHERE
@pytest.mark.parametrize("shape", COLUMN_NORM_SHAPES, ids=str)
def test_column_norm(run, shape):
    W = (np.random.RandomState(4).normal(size=shape) * 0.1).astype(f4)
    expected = np.sqrt((W.astype("f8") ** 2).sum(0).astype("f4"))
    norm = run(column_norm, W)
    assert norm.dtype == "float32"
    np.testing.assert_array_equal(norm, expected)


def test_column_norm_needs_the_float64_sum():
    W = (np.random.RandomState(4).normal(size=(784, 400)) * 0.1).astype(f4)
    expected = np.sqrt((W.astype("f8") ** 2).sum(0).astype("f4"))
    assert np.count_nonzero(np.sqrt((W**2).sum(0)) != expected) > 20
    assert np.count_nonzero(np.sqrt((W.astype("f8") ** 2).sum(0)).astype("f4") != expected) > 20
    np.testing.assert_array_equal(run(column_norm, W), expected)
    zero = np.zeros((9, 4), f4)
    np.testing.assert_array_equal(run(column_norm, zero), np.zeros(4, f4))


def counts_at_least(v, thresholds):
    return total_counts(partial_counts(v, thresholds))[0]


COUNT_SHAPES = [
    (1,),
    (7,),
    (1200,),
    (10_007,),
    (100, 97),
    (31, 37),
    (4, 3, 5, 5),
    (13, 2, 11, 3),
    (64, 1024),
    (2, 96, 21, 21),
]


@pytest.mark.parametrize("shape", COUNT_SHAPES, ids=str)
def test_counts(shape):
    rng = np.random.RandomState(len(shape))
    v = np.abs(rng.normal(size=shape)).astype(f4)
    all_one = np.ones(shape, f4)
    grid = (np.rint(v * 4) / 4).astype(f4)
    for array in (v, all_one, grid, -v):
        for thresholds in (f4([1, 0.5]), f4([0.25, 0.25]), f4([2, -3]), f4([np.inf, 1])):
            counts = run(counts_at_least, array, thresholds)
            assert counts.dtype == "int32"
            assert counts.tolist() == [np.count_nonzero(array >= t) for t in thresholds]


def test_counts_where_everything_overflows():
    """So that no partial count may be too large for its place."""
    assert run(counts_at_least, np.ones((2**11, 2**12), f4), f4([1, 1])).tolist() == [2**23, 2**23]


def test_counts_of_several_tensors():
    tensors = [
        np.random.RandomState(k).uniform(size=shape).astype(f4)
        for k, shape in enumerate(COUNT_SHAPES)
    ]
    thresholds = f4([[0.9 - k / 20, 0.5 - k / 20] for k in range(len(tensors))])

    def graph(thresholds, *tensors):
        return total_counts(*(partial_counts(v, thresholds[k]) for k, v in enumerate(tensors)))

    expected = [
        [np.count_nonzero(v >= t) for t in pair]
        for v, pair in zip(tensors, thresholds, strict=True)
    ]
    assert run(graph, thresholds, *tensors).tolist() == expected


@settings(max_examples=8, deadline=None)
@given(shape=st.lists(st.integers(1, 40), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_counts_of_any_shape(shape, seed):
    v = np.random.RandomState(seed).uniform(size=shape).astype(f4)
    thresholds = f4([0.75, 0.25])
    assert run(counts_at_least, v, thresholds).tolist() == [
        np.count_nonzero(v >= t) for t in thresholds
    ]


@pytest.mark.parametrize("shape", [(37,), (100, 12), (4, 6, 5, 5)], ids=str)
def test_counts_in_a_loop(shape):
    v = np.random.RandomState(0).uniform(size=shape).astype(f4)
    thresholds = f4([0.9, 0.45])
    assert run_looped(counts_at_least, v, thresholds).tolist() == [
        np.count_nonzero(v >= t) for t in thresholds
    ]


@pytest.mark.parametrize(
    ("function", "plain", "arrays"),
    [
        (
            column_norm,
            lambda W: np.sqrt((W.astype("f8") ** 2).sum(0).astype("f4")),
            [np.random.RandomState(0).normal(size=(50, 6)).astype(f4)],
        ),
        (
            counts_at_least,
            lambda v, t: [np.count_nonzero(v >= k) for k in t],
            [np.random.RandomState(0).uniform(size=(30, 7)).astype(f4), f4([0.5, 0.25])],
        ),
    ],
    ids=["column_norm", "count"],
)
def test_vectorized(function, plain, arrays):
    first, second = run_vectorized(function, *arrays)
    np.testing.assert_array_equal(first, plain(*arrays))
    np.testing.assert_array_equal(second, plain(*map(np.flip, arrays)))


def test_counts_of_large_tensors_on_a_gpu(monkeypatch):
    """Images are summed as they lie, at once; what is small is counted as on a CPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(PartialCounts, "LARGE", 500)
    rng = np.random.RandomState(0)
    tensors = [rng.uniform(size=shape).astype(f4) for shape in ((7, 8, 9, 3), (5,), (40, 50))]
    thresholds = f4([0.75, 0.25])

    def graph(thresholds, *tensors):
        return total_counts(*(partial_counts(v, thresholds) for v in tensors))

    expected = [[np.count_nonzero(v >= t) for t in thresholds] for v in tensors]
    assert run(graph, thresholds, *tensors).tolist() == expected
    traced = jax.make_jaxpr(partial_counts.apply)(tensors[0], thresholds).jaxpr
    moved = [e for e in equations(traced) if e.primitive.name in ("reshape", "transpose")]
    assert all(e.outvars[0].aval.size == 1 for e in moved)
