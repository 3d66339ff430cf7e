"""xla/ops.py, compiled: each Op alone, in a loop and vectorized."""

from functools import cache

import numpy as np
import numpy_reference as ref
import pytensor.tensor as pt
import pytest
from compiling import EVERYWHERE, run, run_vectorized

from xla import ops
from xla.pooling import max_pool

f4 = np.float32


def hard_to_round():
    n = np.arange(-40, 41) + 0.5
    big = 2.0 ** np.arange(20, 33)
    neighbours = [np.nextafter(f4(n), f4(0)), np.nextafter(f4(n), f4(99))]
    x = np.concatenate([n, *neighbours, big, big - 0.5, big + 1, [0.0, 1e30]])
    return np.concatenate([x, -x, np.random.RandomState(0).normal(size=1000) * 100]).astype(f4)


@EVERYWHERE
def test_rounding(run):
    x = hard_to_round()
    np.testing.assert_array_equal(run(ops.round_half_away_from_zero, x), ref.round_half_away(x))
    exact = np.copysign(np.floor(np.abs(x.astype("f8")) + 0.5), x)  # no rounding errors in float64
    np.testing.assert_array_equal(run(ops.round_half_away_from_zero, x), exact)
    special = f4([np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(run(ops.round_half_away_from_zero, special), special)


@EVERYWHERE
def test_every_power_of_two(run):
    n = np.arange(-126, 127, dtype="int32")
    np.testing.assert_array_equal(run(ops.power_of_two, n), (2.0**n).astype(f4))
    beyond = np.array([-(2**31) + 1, -1000, -127, 127, 1000, 2**31 - 1], "int32")
    np.testing.assert_array_equal(
        run(ops.power_of_two, beyond), f4([2.0**-126] * 3 + [2.0**126] * 3)
    )


def momentum(update, gradient, M, rate):
    return ops.rounded_product(update, M) - ops.rounded_product(gradient, rate)


@EVERYWHERE
def test_products_are_rounded_before_they_are_subtracted(run):
    rng = np.random.RandomState(1)
    update, gradient = (rng.normal(size=100_000).astype(f4) for _ in range(2))
    M = f4(0.6999)
    rate = f4(0.04)
    expected = M * update - rate * gradient
    fused = (np.float64(M) * update - rate * gradient).astype(f4)
    assert np.count_nonzero(fused != expected) > 10_000  # one rounding fewer shows in these numbers
    np.testing.assert_array_equal(run(momentum, update, gradient, M, rate), expected)


def test_products_with_special_scalars():
    x = f4([1.5, -0.0, np.inf, 3e38])
    for scalar in f4([0, -1, np.inf, np.nan]):
        with np.errstate(invalid="ignore", over="ignore"):
            np.testing.assert_array_equal(run(ops.rounded_product, x, scalar), x * scalar)


def quotient_by(divisor):
    return cache(lambda x: ops.rounded_quotient(x, f4(divisor)))


BY = {divisor: quotient_by(divisor) for divisor in (3, 10, 255)}


@EVERYWHERE
@pytest.mark.parametrize("divisor", BY)
def test_quotients_by_a_constant(run, divisor):
    x = np.concatenate(
        [np.random.RandomState(divisor).normal(size=20_000), np.arange(-300, 301)]
    ).astype(f4)
    assert (
        np.count_nonzero(x * (f4(1) / f4(divisor)) != x / f4(divisor)) > 1000
    )  # a reciprocal will not do
    np.testing.assert_array_equal(run(BY[divisor], x), x / f4(divisor))


@EVERYWHERE
def test_quotients_by_a_row_divisor(run):
    rng = np.random.RandomState(3)
    x = rng.uniform(size=(200, 10)).astype(f4)
    divisor = rng.uniform(1, 10, (200, 1)).astype(f4)
    assert np.count_nonzero(x * (f4(1) / divisor) != x / divisor) > 100
    np.testing.assert_array_equal(run(ops.rounded_quotient, x, divisor), x / divisor)
    np.testing.assert_array_equal(run(ops.rounded_quotient, x, divisor[7, 0]), x / divisor[7, 0])


def pairs_of_pairs(row):
    if len(row) == 1:
        return row[0]
    row = [*row, f4(0)] if len(row) % 2 else row
    return pairs_of_pairs([a + b for a, b in zip(row[0::2], row[1::2], strict=True)])


@EVERYWHERE
@pytest.mark.parametrize("shape", [(30, 10), (4, 1), (5, 7), (3, 4, 33)])
def test_pairwise_sum(run, shape):
    x = np.exp(3 * np.random.RandomState(2).normal(size=shape)).astype(f4)
    expected = np.array([pairs_of_pairs(list(row)) for row in x.reshape(-1, shape[-1])], f4)
    np.testing.assert_array_equal(run(ops.pairwise_sum, x), expected.reshape(*shape[:-1], 1))


@pytest.mark.parametrize(
    ("function", "plain", "arrays"),
    [
        (ops.round_half_away_from_zero, ref.round_half_away, [hard_to_round()]),
        (ops.half_precision, ref.half, [hard_to_round() * f4(1e-3)]),
        (
            ops.rounded_quotient,
            np.divide,
            [np.random.RandomState(0).uniform(1, 2, (30, 7)).astype(f4) for _ in range(2)],
        ),
    ],
    ids=["round", "half", "quotient"],
)
def test_vectorized(function, plain, arrays):
    first, second = run_vectorized(function, *arrays)
    np.testing.assert_array_equal(first, plain(*arrays))
    np.testing.assert_array_equal(second, plain(*map(np.flip, arrays)))


def test_shapes_must_be_known():
    with pytest.raises(TypeError, match="static shape"):
        max_pool(pt.tensor4("x", dtype="float32"), 2, 2)
