"""xla/pooling.py, compiled: max pooling and its gradient."""

from functools import cache

import numpy as np
import numpy_reference as ref
import pytest
from compiling import run, run_looped, run_vectorized
from pytensor.gradient import grad

from xla.pooling import max_pool

f4 = np.float32


def rows_first(x):
    """(B, C, H, W) -> (H, C, W, B)."""
    return x.transpose(2, 1, 3, 0)


def batch_first(x):
    """(H, C, W, B) -> (B, C, H, W)."""
    return x.transpose(3, 1, 0, 2)


@cache
def pooling(size, stride):
    def graph(x, g):
        pooled = batch_first(max_pool(rows_first(x), size, stride))
        return pooled, grad(None, [x], known_grads={pooled: g})[0]

    return graph


def pooling_case(size, stride, sides):
    """(x with many ties, gradient), (their pooled x, gradient of x)."""
    rng = np.random.RandomState(sum(sides))
    x = rng.randint(-2, 3, (2, 3, *sides)).astype(f4)
    pooled = ref.max_pool(x, size, stride)
    assert pooled.shape[2:] == tuple(int(np.ceil((n - size) / stride)) + 1 for n in sides)
    g = rng.randint(-50, 51, pooled.shape).astype(f4)
    return (x, g), (pooled, ref.unpool(x, pooled, g, size, stride))


@pytest.mark.parametrize(
    ("size", "stride", "sides"),
    [
        (4, 2, (6, 7)),
        (4, 2, (8, 21)),
        (3, 2, (6, 7)),
        (3, 2, (8, 32)),
        (2, 2, (6, 7)),
        (2, 2, (8, 5)),
        (3, 1, (6, 7)),
        (3, 3, (7, 8)),
        (1, 1, (4, 5)),
        (5, 2, (6, 9)),
        (5, 3, (7, 10)),
    ],
)
def test_pooling_and_its_gradient(size, stride, sides):
    (x, g), (pooled, dx) = pooling_case(size, stride, sides)
    assert size == 1 or dx.sum() != g.sum()  # ties get more than there was
    for computed, expected in zip(run(pooling(size, stride), x, g), (pooled, dx), strict=True):
        np.testing.assert_array_equal(computed, expected)


@pytest.mark.parametrize(("size", "stride"), [(4, 2), (3, 2), (2, 2)])
def test_pooling_in_a_loop(size, stride):
    given, expected = pooling_case(size, stride, (7, 8))
    for computed, plain in zip(run_looped(pooling(size, stride), *given), expected, strict=True):
        np.testing.assert_array_equal(computed, plain)


def test_a_constant_image_is_all_ties():
    x = np.full((1, 1, 5, 5), -3, f4)
    g = f4([[1, 10], [100, 1000]]).reshape(1, 1, 2, 2)
    pooled, dx = run(pooling(3, 2), x, g)
    assert (pooled == -3).all()  # no border pixels of another value
    top = [1, 1, 11, 10, 10]
    middle = [101, 101, 1111, 1010, 1010]
    bottom = [100, 100, 1100, 1000, 1000]
    assert dx[0, 0].tolist() == [top, top, middle, bottom, bottom]


@pytest.mark.parametrize(
    ("function", "plain", "arrays"),
    [
        (
            lambda x, g: pooling(3, 2)(x, g)[1],
            lambda x, g: ref.unpool(x, ref.max_pool(x, 3, 2), g, 3, 2),
            pooling_case(3, 2, (7, 8))[0],
        ),
    ],
    ids=["pooling"],
)
def test_vectorized(function, plain, arrays):
    first, second = run_vectorized(function, *arrays)
    np.testing.assert_array_equal(first, plain(*arrays))
    np.testing.assert_array_equal(second, plain(*map(np.flip, arrays)))
