"""ops.py, compiled: each Op alone, in a loop and vectorized."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference as ref
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from pytensor.gradient import grad

import ops
from compilation import compiled, to_jax

f4 = np.float32


@cache
def graph(function, *types):
    inputs = {
        f"input{i}": pt.tensor(f"input{i}", dtype=dtype, shape=shape)
        for i, (dtype, shape) in enumerate(types)
    }
    outputs = function(*inputs.values())
    return inputs, list(outputs) if isinstance(outputs, tuple) else [outputs]


@cache
def program(function, *types):
    inputs, outputs = graph(function, *types)
    return compiled(inputs, [], outputs)


@cache
def loop(function, *types):
    inputs, outputs = graph(function, *types)
    code = to_jax(inputs, [], outputs)

    @jax.jit
    def repeat(values, count):
        start = jax.tree.map(
            lambda v: jnp.zeros(v.shape, v.dtype), jax.eval_shape(code, values, {})
        )
        return lax.fori_loop(0, count, lambda _, before: code(values, {}), start)

    return lambda values, _: repeat(values, np.int32(2))


def call(make, function, arrays):
    arrays = [np.asarray(a) for a in arrays]
    values = {f"input{i}": a for i, a in enumerate(arrays)}
    outputs = [
        np.asarray(a)
        for a in make(function, *((str(a.dtype), a.shape) for a in arrays))(values, {})
    ]
    return outputs if len(outputs) > 1 else outputs[0]


def run(function, *arrays):
    """function of PyTensor variables, compiled, on these arrays; a list if it returns a tuple."""
    return call(program, function, arrays)


def run_looped(function, *arrays):
    """The same inside a loop, which XLA compiles in another way; the loop count is not known to it."""
    return call(loop, function, arrays)


def run_vectorized(function, *arrays):
    """The same for two problems at once, the second with every input reversed: jax.vmap."""
    inputs, outputs = graph(function, *((str(a.dtype), a.shape) for a in map(np.asarray, arrays)))
    code = jax.jit(jax.vmap(lambda values: to_jax(inputs, [], outputs)(values, {})[0]))
    pairs = {
        name: np.stack([a, np.flip(a)])
        for name, a in zip(inputs, map(np.asarray, arrays), strict=True)
    }
    return np.asarray(code(pairs))


EVERYWHERE = pytest.mark.parametrize("run", [run, run_looped], ids=["alone", "looped"])


# ------------------------------------------------------------------------------------------------------ elementwise


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
    M, rate = f4(0.6999), f4(0.04)
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
    x, divisor = rng.uniform(size=(200, 10)).astype(f4), rng.uniform(1, 10, (200, 1)).astype(f4)
    assert np.count_nonzero(x * (f4(1) / divisor) != x / divisor) > 100
    np.testing.assert_array_equal(run(ops.rounded_quotient, x, divisor), x / divisor)
    np.testing.assert_array_equal(run(ops.rounded_quotient, x, divisor[7, 0]), x / divisor[7, 0])


# ------------------------------------------------------------------------------------------------ sums and counts


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


COLUMN_NORM_SHAPES = [(784, 12), (97, 5), (1, 3), (211, 1), (6, 2, 3, 3), (96, 1, 8, 8), (64, 10)]


@EVERYWHERE
@pytest.mark.parametrize("shape", COLUMN_NORM_SHAPES, ids=str)
def test_column_norm(run, shape):
    W = (np.random.RandomState(4).normal(size=shape) * 0.1).astype(f4)
    expected = np.sqrt((W.astype("f8") ** 2).sum(0).astype("f4"))
    norm = run(ops.column_norm, W)
    assert norm.dtype == "float32"
    np.testing.assert_array_equal(norm, expected)


def test_column_norm_needs_the_float64_sum():
    W = (np.random.RandomState(4).normal(size=(784, 400)) * 0.1).astype(f4)
    expected = np.sqrt((W.astype("f8") ** 2).sum(0).astype("f4"))
    assert np.count_nonzero(np.sqrt((W**2).sum(0)) != expected) > 20
    assert np.count_nonzero(np.sqrt((W.astype("f8") ** 2).sum(0)).astype("f4") != expected) > 20
    np.testing.assert_array_equal(run(ops.column_norm, W), expected)
    zero = np.zeros((9, 4), f4)
    np.testing.assert_array_equal(run(ops.column_norm, zero), np.zeros(4, f4))


def counts_at_least(v, thresholds):
    return ops.total_counts(ops.partial_counts(v, thresholds))[0]


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
    all_one, grid = np.ones(shape, f4), (np.rint(v * 4) / 4).astype(f4)
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
        return ops.total_counts(
            *(ops.partial_counts(v, thresholds[k]) for k, v in enumerate(tensors))
        )

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
    v, thresholds = np.random.RandomState(0).uniform(size=shape).astype(f4), f4([0.9, 0.45])
    assert run_looped(counts_at_least, v, thresholds).tolist() == [
        np.count_nonzero(v >= t) for t in thresholds
    ]


# --------------------------------------------------------------------------------------------------- convolution


def rows_first(x):
    """(B, C, H, W) -> (H, C, W, B)."""
    return x.transpose(2, 1, 3, 0)


def batch_first(x):
    """(H, C, W, B) -> (B, C, H, W)."""
    return x.transpose(3, 1, 0, 2)


@cache
def correlation(pad):
    return lambda x, W: batch_first(ops.correlate(rows_first(x), W, pad, True))


@cache
def correlation_and_gradients(pad):
    def graph(x, W, dz):
        z = batch_first(ops.correlate(rows_first(x), W, pad, True))
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
    x, W = (
        rng.randint(-8, 9, images).astype(f4),
        rng.randint(-8, 9, filters).astype(f4),
    )  # exact sums
    expected = ref.correlate(x, W, pad)
    dz = rng.randint(-8, 9, expected.shape).astype(f4)
    z, dx, dW = run(correlation_and_gradients(pad), x, W, dz)
    np.testing.assert_array_equal(z, expected)
    for computed, plain in zip((dx, dW), ref.correlate_gradients(x, W, dz, pad), strict=True):
        np.testing.assert_array_equal(computed, plain)


@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("maps", [1, ops.FEW_MAPS, ops.FEW_MAPS + 1])
def test_both_ways_to_compute_a_correlation(monkeypatch, maps, pad):
    """XLA's convolution, which other devices use, and the products of rows are the same function of the same arrays."""
    rng = np.random.RandomState(pad)
    x, W = (
        rng.randint(-8, 9, (6, maps, 7, 4)).astype(f4),
        rng.randint(-8, 9, (5, maps, 4, 5)).astype(f4),
    )
    dz = rng.randint(-8, 9, (6 + 2 * pad - 3, 5, 7 + 2 * pad - 4, 4)).astype(f4)
    calls = [
        (ops.Correlation(pad, True), x, W),
        (ops.CorrelationInputGradient(pad), dz, W),
        (ops.CorrelationFilterGradient(pad, True), x, dz),
    ]
    results = []
    for explicit in (True, False):
        monkeypatch.setattr(ops, "_explicit_products", lambda explicit=explicit: explicit)
        results.append([np.asarray(op.apply(*arrays)) for op, *arrays in calls])
        for (op, *arrays), computed in zip(calls, results[-1], strict=True):
            assert op.result(*((a.shape, str(a.dtype)) for a in arrays)) == (
                computed.shape,
                "float32",
            )
    for products, convolution in zip(*results, strict=True):
        assert products.any()
        np.testing.assert_array_equal(products, convolution)


def test_correlation_by_hand():
    x, W = np.arange(9, dtype=f4).reshape(1, 1, 3, 3), f4([[1, 2], [3, 4]]).reshape(1, 1, 2, 2)
    assert run(correlation(0), x, W).ravel().tolist() == [27, 37, 57, 67]  # not flipped
    assert run(correlation(1), x, W).shape == (1, 1, 4, 4)
    assert run(correlation(1), x, W)[0, 0, 0].tolist() == [0, 4, 11, 6]


def test_correlation_is_computed_in_full_precision():
    rng = np.random.RandomState(8)
    x, W = rng.normal(size=(2, 6, 9, 9)).astype(f4), rng.normal(size=(4, 6, 5, 5)).astype(f4)
    terms = ref.correlate(np.abs(x), np.abs(W), 2)
    assert (
        np.abs(run(correlation(2), x, W) - ref.correlate(x, W, 2)) <= 150 * 2.0**-24 * terms
    ).all()


# ------------------------------------------------------------------------------------------------------- pooling


@cache
def pooling(size, stride):
    def graph(x, g):
        pooled = batch_first(ops.max_pool(rows_first(x), size, stride))
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
    x, g = np.full((1, 1, 5, 5), -3, f4), f4([[1, 10], [100, 1000]]).reshape(1, 1, 2, 2)
    pooled, dx = run(pooling(3, 2), x, g)
    assert (pooled == -3).all()  # no border pixels of another value
    top, middle, bottom = (
        [1, 1, 11, 10, 10],
        [101, 101, 1111, 1010, 1010],
        [100, 100, 1100, 1000, 1000],
    )
    assert dx[0, 0].tolist() == [top, top, middle, bottom, bottom]


# ------------------------------------------------------------------------------------------------- vectorized, others


@pytest.mark.parametrize(
    ("function", "plain", "arrays"),
    [
        (ops.round_half_away_from_zero, ref.round_half_away, [hard_to_round()]),
        (ops.half_precision, ref.half, [hard_to_round() * f4(1e-3)]),
        (
            ops.column_norm,
            lambda W: np.sqrt((W.astype("f8") ** 2).sum(0).astype("f4")),
            [np.random.RandomState(0).normal(size=(50, 6)).astype(f4)],
        ),
        (
            counts_at_least,
            lambda v, t: [np.count_nonzero(v >= k) for k in t],
            [np.random.RandomState(0).uniform(size=(30, 7)).astype(f4), f4([0.5, 0.25])],
        ),
        (
            ops.rounded_quotient,
            np.divide,
            [np.random.RandomState(0).uniform(1, 2, (30, 7)).astype(f4) for _ in range(2)],
        ),
        (
            correlation(1),
            lambda x, W: ref.correlate(x, W, 1),
            [
                np.arange(50, dtype=f4).reshape(1, 2, 5, 5),
                np.arange(36, dtype=f4).reshape(2, 2, 3, 3),
            ],
        ),
        (
            lambda x, g: pooling(3, 2)(x, g)[1],
            lambda x, g: ref.unpool(x, ref.max_pool(x, 3, 2), g, 3, 2),
            pooling_case(3, 2, (7, 8))[0],
        ),
    ],
    ids=["round", "half", "column_norm", "count", "quotient", "correlation", "pooling"],
)
def test_vectorized(function, plain, arrays):
    first, second = run_vectorized(function, *arrays)
    np.testing.assert_array_equal(first, plain(*arrays))
    np.testing.assert_array_equal(second, plain(*map(np.flip, arrays)))


def test_shapes_must_be_known():
    with pytest.raises(TypeError, match="static shape"):
        ops.max_pool(pt.tensor4("x", dtype="float32"), 2, 2)
