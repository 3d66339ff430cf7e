"""xla/convolution*.py, compiled: correlation and its gradients, in both ways."""

from functools import cache

import numpy as np
import numpy_reference as ref
import pytest
from compiling import run, run_looped, run_vectorized
from pytensor.gradient import grad

from xla import convolution, convolution_by_rows, convolution_by_xla
from xla.convolution import (
    Correlation,
    CorrelationFilterGradient,
    CorrelationInputGradient,
    correlate,
)
from xla.convolution_by_rows import FEW_MAPS

f4 = np.float32


def rows_first(x):
    """(B, C, H, W) -> (H, C, W, B)."""
    return x.transpose(2, 1, 3, 0)


def batch_first(x):
    """(H, C, W, B) -> (B, C, H, W)."""
    return x.transpose(3, 1, 0, 2)


@cache
def correlation(pad):
    return lambda x, W: batch_first(correlate(rows_first(x), W, pad))


@cache
def correlation_and_gradients(pad):
    def graph(x, W, dz):
        z = batch_first(correlate(rows_first(x), W, pad))
        return z, *grad(None, [x, W], known_grads={z: dz})

    return graph


@pytest.mark.parametrize(
    ("images", "filters", "pad", "run"),
    [
        ((2, 3, 6, 6), (4, 3, 3, 3), 0, run),
        ((2, 3, 6, 6), (4, 3, 3, 3), 1, run_looped),
        ((1, 2, 5, 7), (3, 2, 5, 4), 2, run),
        ((3, 1, 4, 4), (2, 1, 5, 5), 3, run),
        ((2, 2, 8, 8), (2, 2, 8, 8), 0, run),
    ],
)
def test_correlation_and_its_gradients(images, filters, pad, run):
    rng = np.random.RandomState(pad)
    x = rng.randint(-8, 9, images).astype(f4)
    W = rng.randint(-8, 9, filters).astype(f4)  # exact sums
    expected = ref.correlate(x, W, pad)
    dz = rng.randint(-8, 9, expected.shape).astype(f4)
    z, dx, dW = run(correlation_and_gradients(pad), x, W, dz)
    np.testing.assert_array_equal(z, expected)
    for computed, plain in zip((dx, dW), ref.correlate_gradients(x, W, dz, pad), strict=True):
        np.testing.assert_array_equal(computed, plain)


@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("maps", [1, FEW_MAPS, FEW_MAPS + 1])
def test_both_ways_to_compute_a_correlation(monkeypatch, maps, pad):
    """XLA's convolution and the products of rows are the same function of the same arrays."""
    rng = np.random.RandomState(pad)
    x = rng.randint(-8, 9, (6, maps, 7, 4)).astype(f4)
    W = rng.randint(-8, 9, (5, maps, 4, 5)).astype(f4)
    dz = rng.randint(-8, 9, (6 + 2 * pad - 3, 5, 7 + 2 * pad - 4, 4)).astype(f4)
    calls = [
        (Correlation(pad), x, W),
        (CorrelationInputGradient(pad), dz, W),
        (CorrelationFilterGradient(pad), x, dz),
    ]
    results = []
    for way in (convolution_by_rows, convolution_by_xla):
        monkeypatch.setattr(convolution, "way", lambda way=way: way)
        results.append([np.asarray(op.apply(*arrays)) for op, *arrays in calls])
        for (op, *arrays), computed in zip(calls, results[-1], strict=True):
            types = [(a.shape, str(a.dtype)) for a in arrays]
            assert op.result(*types) == (computed.shape, "float32")
    for by_rows, by_xla in zip(*results, strict=True):
        assert by_rows.any()
        np.testing.assert_array_equal(by_rows, by_xla)


def test_correlation_by_hand():
    x = np.arange(9, dtype=f4).reshape(1, 1, 3, 3)
    W = f4([[1, 2], [3, 4]]).reshape(1, 1, 2, 2)
    assert run(correlation(0), x, W).ravel().tolist() == [27, 37, 57, 67]  # not flipped
    assert run(correlation(1), x, W).shape == (1, 1, 4, 4)
    assert run(correlation(1), x, W)[0, 0, 0].tolist() == [0, 4, 11, 6]


def test_correlation_is_computed_in_full_precision():
    rng = np.random.RandomState(8)
    x = rng.normal(size=(2, 6, 9, 9)).astype(f4)
    W = rng.normal(size=(4, 6, 5, 5)).astype(f4)
    terms = ref.correlate(np.abs(x), np.abs(W), 2)
    assert (
        np.abs(run(correlation(2), x, W) - ref.correlate(x, W, 2)) <= 150 * 2.0**-24 * terms
    ).all()


@pytest.mark.parametrize(
    ("function", "plain", "arrays"),
    [
        (
            correlation(1),
            lambda x, W: ref.correlate(x, W, 1),
            [
                np.arange(50, dtype=f4).reshape(1, 2, 5, 5),
                np.arange(36, dtype=f4).reshape(2, 2, 3, 3),
            ],
        ),
    ],
    ids=["correlation"],
)
def test_vectorized(function, plain, arrays):
    first, second = run_vectorized(function, *arrays)
    np.testing.assert_array_equal(first, plain(*arrays))
    np.testing.assert_array_equal(second, plain(*map(np.flip, arrays)))
