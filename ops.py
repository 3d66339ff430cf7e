"""PyTensor operations that PyTensor lacks, or that XLA must not rewrite, with their JAX code.

Every Op here is one function of JAX arrays, `apply`; its output types follow from that function, PyTensor's JAX linker
calls it, and outside the linker it runs on its own. The functions at the end of the file are what the other modules use.

This module and `compilation` are the only ones that know JAX.
"""

import contextlib
import functools
import itertools
from contextvars import ContextVar

import jax
import jax.numpy as jnp
import numpy as np
import pytensor
import pytensor.tensor as pt
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.jax.dispatch import jax_funcify

# PyTensor's dispatcher switches float64 off. The graphs here name every dtype, so nothing becomes float64 by accident,
# and the column norms and overflow accumulators (SPEC 2, 5) need it.
jax.config.update("jax_enable_x64", True)


class JaxOp(Op):
    """An Op given by one function of JAX arrays with one output; inputs need static shapes."""

    __props__ = ()

    def apply(self, *arrays):
        raise NotImplementedError(f"{type(self).__name__}.apply")

    def make_node(self, *inputs):
        inputs = [pt.as_tensor_variable(i) for i in inputs]
        if any(n is None for i in inputs for n in i.type.shape):
            raise TypeError(
                f"{type(self).__name__} needs inputs of static shape, got {[i.type for i in inputs]}"
            )
        shape, dtype = self.result(*((i.type.shape, i.type.dtype) for i in inputs))
        return Apply(self, inputs, [pt.tensor(dtype=dtype, shape=shape)])

    def result(self, *types):
        """(shape, dtype) of the output from those of the inputs."""
        return _result(self, *types)

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = np.asarray(self.apply(*inputs))


class ElementwiseOp(JaxOp):
    """A JaxOp whose output has the shape and type of its first input."""

    def result(self, first, *others):
        return first


@functools.cache  # tracing takes milliseconds
def _result(op, *types):
    out = jax.eval_shape(op.apply, *(jax.ShapeDtypeStruct(*t) for t in types))
    return out.shape, str(out.dtype)


@jax_funcify.register(JaxOp)
def _jax_code(op, **kwargs):
    return op.apply


def _zero_unless_nan(x):
    """An integer 0 of x's width, or 1 where x is NaN: a zero that no compiler can fold away."""
    return (x != x).astype(jnp.int64 if x.dtype == jnp.float64 else jnp.int32)


def _flip_bits(x, bits):
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, bits.dtype) ^ bits, x.dtype)


class RoundHalfAwayFromZero(ElementwiseOp):
    """float32 -> nearest integer, halves away from zero."""

    def apply(self, x):
        return lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO)


class HalfPrecision(ElementwiseOp):
    """float32 -> nearest IEEE binary16 value, as float32: ties to even, overflow to infinity, subnormals kept.

    Not a pair of casts, which XLA may delete; reduce_precision alone would flush the subnormals.
    """

    def apply(self, x):
        subnormal = lax.round(
            x * np.float32(2.0**24), lax.RoundingMethod.TO_NEAREST_EVEN
        ) * np.float32(2.0**-24)
        return jnp.where(
            jnp.abs(x) < np.float32(2.0**-14), subnormal, lax.reduce_precision(x, 5, 10)
        )


@jax.jit
def _same(x):
    return x


def keep(x):
    """x, computed once: XLA's CPU code would compute it again in everything that uses it, optimization_barrier or not.

    XLA leaves a call that must not be inlined alone, and gives it its argument in memory. It costs nothing else.
    """
    if jax.default_backend() != "cpu":
        return x
    with set_xla_metadata(inlineable="false"):
        return _same(x)


class Stored(ElementwiseOp):
    """The tensor itself, computed once and kept in memory."""

    def apply(self, x):
        return keep(x)


class PowerOfTwo(JaxOp):
    """int32 n -> 2^n, exact, float32; n is cut to -126..126, where both 2^n and 2^-n are normal numbers."""

    def apply(self, n):
        return lax.bitcast_convert_type((jnp.clip(n, -126, 126) + 127) << 23, jnp.float32)


class RoundedProduct(ElementwiseOp):
    """float32 tensor x scalar, rounded before anything is added to it: never part of a fused multiply-add."""

    def apply(self, x, scalar):
        return _flip_bits(x * scalar, _zero_unless_nan(scalar))


class RoundedQuotient(ElementwiseOp):
    """x / divisor in the precision of x, correctly rounded; the divisor is broadcast to x.

    XLA would multiply by the reciprocal of a divisor that is constant or the same for many elements of x.
    """

    def apply(self, x, divisor):
        divisor = jnp.broadcast_to(
            jnp.asarray(divisor, x.dtype), x.shape
        )  # constants come as Python numbers
        return x / _flip_bits(divisor, _zero_unless_nan(x))


class PairwiseSum(JaxOp):
    """Sum over the last axis, kept as an axis of length 1, in pairs of pairs: rounding errors stay small."""

    def apply(self, x):
        while x.shape[-1] > 1:
            if x.shape[-1] % 2:
                x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)])
            x = x[..., 0::2] + x[..., 1::2]
        return x


# On recent GPUs a product of float32 matrices is fast where its operands may be rounded to TF32, 11 significant bits. Values
# on a grid of at most 11 bits are TF32 numbers, and the sums stay float32: nothing is lost. Elsewhere precision is "highest".
TF32_BITS = 11
_narrow = ContextVar("narrow", default=False)


@contextlib.contextmanager
def narrow_operands(narrow):
    """While a program is traced: whether propagated signals have at most TF32_BITS bits."""
    token = _narrow.set(narrow)
    try:
        yield
    finally:
        _narrow.reset(token)


def _precision(on_grid):
    """Of a product whose operands are (or are not) both propagated signals."""
    return lax.Precision.DEFAULT if on_grid and _narrow.get() else lax.Precision.HIGHEST


class Product(JaxOp):
    """Matrix product x W; `on_grid` says that x is a propagated signal, and not data."""

    __props__ = ("on_grid",)

    def __init__(self, on_grid):
        self.on_grid = on_grid

    def apply(self, x, W):
        return _product(x, W, _precision(self.on_grid))

    def result(self, x, W):
        return (x[0][0], W[0][1]), x[1]

    def pullback(self, inputs, outputs, cotangents):
        x, W = inputs
        (dz,) = cotangents
        return [Product(True)(dz, W.T), Product(self.on_grid)(x.T, dz)]


# Images are arrays of (rows, maps, columns, batch). Then R neighbouring rows of one column are the operand of a matrix
# product as they stand, and everything else runs along the batch.


FEW_MAPS = 8  # up to here matrix products would be short and the columns are unfolded


def _explicit_products():
    """On a CPU convolutions are written as matrix products, near its peak; XLA's own are slow, most of all in a loop."""
    return jax.default_backend() == "cpu"


class Correlation(JaxOp):
    """Cross-correlation, stride 1, `pad` (< R, S) zeros a side.

    (H, C, W, B), filters (O, C, R, S) -> (H + 2 pad - R + 1, O, W + 2 pad - S + 1, B).
    """

    __props__ = ("pad", "on_grid")

    def __init__(self, pad, on_grid):
        self.pad, self.on_grid = pad, on_grid

    def apply(self, x, W):
        if not _explicit_products():
            return _convolve(
                x, W, (self.pad, self.pad), ("HCWN", "OIHW", "HCWN"), _precision(self.on_grid)
            )
        pad, (n_out, C, R, S) = self.pad, W.shape
        if C <= FEW_MAPS:
            x, W, pad = _unfold(x, S, pad), W.transpose(0, 3, 1, 2).reshape(n_out, S * C, R, 1), 0
        by_taps, width = W.transpose(3, 0, 2, 1), x.shape[2] + 2 * pad - W.shape[3] + 1

        def row(image, tap):
            filters = lax.dynamic_slice_in_dim(by_taps, tap, len(image), axis=2)
            total = jnp.zeros((n_out, width, x.shape[3]), x.dtype)
            for s, columns, outputs in _taps(W.shape[3], pad, x.shape[2], width):
                product = _product(filters[s].reshape(n_out, -1), _matrix(image[:, :, columns]))
                total += _pad(
                    product.reshape(n_out, -1, x.shape[3]),
                    0,
                    1,
                    outputs.start,
                    width - outputs.stop,
                )
            return total

        return _map_rows(row, x, len(x) + 2 * self.pad - R + 1, -self.pad, R)

    def result(self, x, W):
        (H, _, width, B), (n_out, _, R, S) = x[0], W[0]
        return (H + 2 * self.pad - R + 1, n_out, width + 2 * self.pad - S + 1, B), x[1]

    def pullback(self, inputs, outputs, cotangents):
        x, W = inputs
        (dz,) = cotangents
        return [
            CorrelationInputGradient(self.pad)(dz, W),
            CorrelationFilterGradient(self.pad, self.on_grid)(x, dz),
        ]


class CorrelationInputGradient(JaxOp):
    """The gradient of Correlation(pad) in its input: (H', O, W', B), (O, C, R, S) -> (H, C, W, B)."""

    __props__ = ("pad",)

    def __init__(self, pad):
        self.pad = pad

    def apply(self, dz, W):
        n_out, C, R, S = W.shape
        flipped = jnp.flip(W, (2, 3))
        if not _explicit_products():
            pads = R - 1 - self.pad, S - 1 - self.pad
            return _convolve(dz, flipped, pads, ("HCWN", "IOHW", "HCWN"), _precision(True))
        height, _, width, B = dz.shape
        by_rows = flipped.transpose(2, 3, 1, 0).reshape(R, S * C, n_out)

        def row(gradient, tap):
            filters = (
                lax.dynamic_slice_in_dim(by_rows, tap, len(gradient))
                .transpose(1, 0, 2)
                .reshape(S * C, -1)
            )
            return _fold(
                _product(filters, _matrix(gradient)).reshape(S, C, width, B), S - 1 - self.pad
            )

        return _map_rows(row, dz, height + R - 1 - 2 * self.pad, self.pad - R + 1, R)

    def result(self, dz, W):
        (height, _, width, B), (_, C, R, S) = dz[0], W[0]
        return (height + R - 1 - 2 * self.pad, C, width + S - 1 - 2 * self.pad, B), dz[1]


class CorrelationFilterGradient(JaxOp):
    """The gradient of Correlation(pad) in its filters: (H, C, W, B), (H', O, W', B) -> (O, C, R, S)."""

    __props__ = ("pad", "on_grid")

    def __init__(self, pad, on_grid):
        self.pad, self.on_grid = pad, on_grid

    def apply(self, x, dz):
        if not _explicit_products():
            return _convolve(
                x, dz, (self.pad, self.pad), ("HNWC", "HOWI", "CNHW"), _precision(self.on_grid)
            )
        (H, C, W, _), (height, n_out, width, _) = x.shape, dz.shape
        R, S = H + 2 * self.pad - height + 1, W + 2 * self.pad - width + 1
        few = C <= FEW_MAPS
        if few:
            x = _unfold(x, S, self.pad)
        taps, pad = (1, 0) if few else (S, self.pad)
        maps = x.shape[1]

        def add_row(h, totals, length):
            (image, tap), gradient = (
                _block(x, h - self.pad, length),
                lax.dynamic_index_in_dim(dz, h, keepdims=False),
            )
            totals = list(totals)
            for s, columns, outputs in _taps(taps, pad, x.shape[2], width):
                product = _product(
                    _matrix(image[:, :, columns]), gradient[:, outputs].reshape(n_out, -1).T
                )
                product = product.reshape(length, maps, n_out) + lax.dynamic_slice_in_dim(
                    totals[s], tap, length
                )
                totals[s] = lax.dynamic_update_slice_in_dim(totals[s], product, tap, axis=0)
            return totals

        totals = [jnp.zeros((R, maps, n_out), x.dtype)] * taps
        for length, rows in _blocks(height, -self.pad, R, H).items():
            step = np.int32(
                rows[1] - rows[0] if len(rows) > 1 else 1
            )  # one above and one below, or neighbours
            totals = lax.fori_loop(
                np.int32(0),
                np.int32(len(rows)),
                lambda i, totals, length=length, rows=rows, step=step: add_row(
                    rows[0] + i * step, totals, length
                ),
                totals,
            )
        return jnp.stack(totals, axis=1).reshape(R, S, C, n_out).transpose(3, 2, 0, 1)

    def result(self, x, dz):
        (H, C, W, _), (height, n_out, width, _) = x[0], dz[0]
        return (n_out, C, H + 2 * self.pad - height + 1, W + 2 * self.pad - width + 1), x[1]


def _convolve(x, W, pads, dimensions, precision):
    return lax.conv_general_dilated(
        x, W, (1, 1), [(n, n) for n in pads], dimension_numbers=dimensions, precision=precision
    )


def _product(a, b, precision=lax.Precision.HIGHEST):
    return jnp.matmul(a, b, precision=precision)


def _overlap(start, size, n):
    """Of `size` rows from `start` on, those that are among rows 0..n-1, and which of the `size` they are: two slices."""
    low, high = max(0, start), min(n, start + size)
    return slice(low, high), slice(low - start, high - start)


def _blocks(count, offset, size, n):
    """Of rows h + offset .. h + offset + size - 1, those among rows 0..n-1, for h = 0..count-1.

    A dict from how many they are to the h with so many. Blocks at the upper and the lower edge that have the same number of
    rows share a piece of code, in a loop, as those inside do: about half as much to compile.
    """
    blocks = {}
    for h in range(count):
        rows, _ = _overlap(h + offset, size, n)
        blocks.setdefault(rows.stop - rows.start, []).append(h)
    return {length: np.array(found, "int32") for length, found in blocks.items()}


def _block(x, start, length):
    """`length` rows of x, the first of those that exist from `start` on, and how many before it do not."""
    first = jnp.maximum(start, 0)
    return lax.dynamic_slice_in_dim(x, first, length), first - start


def _map_rows(row, x, count, offset, size):
    """row(*block of x), as `_blocks` has them, for h = 0..count-1, stacked."""
    results = [None] * count
    for length, outputs in _blocks(count, offset, size, len(x)).items():
        found = lax.map(
            lambda h, length=length: row(*_block(x, h + offset, length)), jnp.asarray(outputs)
        )
        cuts = [
            0,
            *np.flatnonzero(np.diff(outputs) > 1) + 1,
            len(outputs),
        ]  # neighbours stay together
        for a, b in itertools.pairwise(cuts):
            results[outputs[a]] = found[a:b]
    return jnp.concatenate([r for r in results if r is not None])


def _taps(taps, pad, n, n_out):
    """(tap, input columns under it, output columns they belong to) of each tap that has any: slices of 0..n-1, 0..n_out-1."""
    for s in range(taps):
        columns, outputs = _overlap(s - pad, n_out, n)
        if columns.start < columns.stop:
            yield s, columns, outputs


def _matrix(x):
    """(rows, maps, columns, batch) -> (rows * maps, columns * batch)."""
    return x.reshape(x.shape[0] * x.shape[1], -1)


def _unfold(x, S, pad):
    """The S columns under a filter as maps: (H, C, W, B) -> (H, S * C, W + 2 pad - S + 1, B)."""
    x = jnp.pad(x, [(0, 0), (0, 0), (pad, pad), (0, 0)])
    return jnp.concatenate([x[:, :, s : s + x.shape[2] - S + 1] for s in range(S)], axis=1)


def _fold(taps, pad):
    """Sum of column w + s - pad of each tap s, for every w: (S, C, W, B) -> (C, W + 2 pad - S + 1, B)."""
    S, _, W, _ = taps.shape
    taps = jnp.pad(taps, [(0, 0), (0, 0), (pad, pad), (0, 0)])
    return functools.reduce(jnp.add, [taps[s, :, s : s + W + 2 * pad - S + 1] for s in range(S)])


class MaxPool(JaxOp):
    """Max pooling of (H, C, W, B): ceil((n - size) / stride) + 1 windows a side, cut to the pixels there are."""

    __props__ = ("size", "stride")

    def __init__(self, size, stride):
        self.size, self.stride = size, stride

    def apply(self, x):
        for axis in (0, 2):
            n = x.shape[axis]
            windows = -(-(n - self.size) // self.stride) + 1  # -(-a // b) is ceil(a / b)
            shifted = [
                lax.slice_in_dim(
                    x, a, min(n, a + (windows - 1) * self.stride + 1), self.stride, axis
                )
                for a in range(self.size)
            ]
            x = functools.reduce(
                jnp.maximum, [_pad(v, -np.inf, axis, 0, windows - v.shape[axis]) for v in shifted]
            )
        return x

    def pullback(self, inputs, outputs, cotangents):
        return [MaxUnpool(self.size, self.stride)(inputs[0], outputs[0], cotangents[0])]


class MaxUnpool(JaxOp):
    """The gradient of MaxPool: every pixel equal to its window's maximum gets all of that window's gradient.

    x (H, C, W, B), pooled and gradient (h, C, w, B) -> (H, C, W, B); the gradients of overlapping windows add up.
    """

    __props__ = ("size", "stride")

    def __init__(self, size, stride):
        self.size, self.stride = size, stride

    def apply(self, x, pooled, gradient):
        # Pixel i lies in the windows i // stride - k with i % stride + k * stride < size: no scattering.
        most = (self.size - 1) // self.stride

        def spread(v, outside):
            """[k][m]: for every pixel, v of the window k rows up and m columns left, `outside` where there is none."""
            for axis in (0, 2):
                v = _pad(v, outside, axis, most, -(-x.shape[axis] // self.stride) - v.shape[axis])
            v = keep(v)  # bounds are checked once, not for every pixel
            rows = [self._repeat(v, 0, most - k, x.shape[0]) for k in range(most + 1)]
            return [
                [self._repeat(r, 2, most - m, x.shape[2]) for m in range(most + 1)] for r in rows
            ]

        def inside(k, axis):
            return jnp.arange(x.shape[axis]) % self.stride + k * self.stride < self.size

        maxima, gradients, total = (
            spread(pooled, np.nan),
            spread(gradient, 0),
            jnp.zeros((), x.dtype),
        )
        for k in range(most + 1):
            for m in range(most + 1):
                window = inside(k, 0)[:, None, None, None] & inside(m, 2)[:, None]
                total = total + jnp.where(
                    (x == maxima[k][m]) & window, gradients[k][m], np.float32(0)
                )
        return total

    def _repeat(self, v, axis, start, length):
        v = lax.slice_in_dim(v, start, start + -(-length // self.stride), axis=axis)
        return lax.slice_in_dim(jnp.repeat(v, self.stride, axis), 0, length, axis=axis)


def _pad(x, value, axis, before, after):
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, after, 0)
    return lax.pad(x, np.float32(value), edges)


def _sum_blocks(a, stages, most, enough=1):
    """Sum over axis 0 in at most `stages` steps, each adding up to `most` equal blocks of rows, as far as they divide.

    Some rows are left: at most `enough`, if so many stages do it.

    Written as plain additions, which XLA's CPU code fuses with what makes `a`, vectorizes and spreads over cores; its own
    reductions of long axes first write their whole input to memory.
    """
    for stage in range(stages):
        if len(a) <= enough:
            break
        blocks = max(k for k in range(1, most + 1) if len(a) % k == 0)
        a = (keep(a) if stage else a).reshape(blocks, len(a) // blocks, *a.shape[1:])
        a = functools.reduce(lax.add, lax.split(a, (1,) * blocks))[0]
    return a


class ColumnNorm(JaxOp):
    """Euclidean norms over axis 0, float32: squares summed in float64, the sum rounded, the root in float32 (SPEC 5)."""

    def apply(self, W):
        squares = keep(_sum_blocks(jnp.square(W.astype(jnp.float64)), stages=2, most=32))
        return jnp.sqrt(jnp.sum(squares, axis=0).astype(jnp.float32))


class PartialCounts(JaxOp):
    """How many elements of a float32 tensor are at least thresholds[0] and thresholds[1], for TotalCounts to add up (SPEC 6).

    float32, float32 (2,) -> int32 (n, 1024), n small: each the first count of some elements times 2^16, plus the second.
    """

    def apply(self, v, thresholds):
        # Both counts in one pass: three stages count to 4,096 at most.
        both = (v >= thresholds[0]).astype(jnp.int32) * 2**16 + (v >= thresholds[1]).astype(
            jnp.int32
        )
        both = _sum_blocks(both.ravel(), stages=3, most=8 if v.size < 2**22 else 16, enough=1024)
        return keep(jnp.pad(both, (0, -len(both) % 1024)).reshape(-1, 1024))


class TotalCounts(JaxOp):
    """n arrays of PartialCounts -> the counts, int32 (n, 2) (SPEC 6): all at once, which is less code to compile."""

    def apply(self, *parts):
        both = keep(jnp.concatenate(parts))
        sums = keep(jnp.sum((both >> 16).astype(jnp.int64) * 2**32 + (both & 0xFFFF), axis=1))
        belongs = np.repeat(np.eye(len(parts), dtype=bool), [len(p) for p in parts], axis=1)
        sums = jnp.sum(jnp.where(belongs, sums, 0), axis=1)
        return jnp.stack([sums >> 32, sums & 0xFFFFFFFF], axis=1).astype(jnp.int32)


round_half_away_from_zero = RoundHalfAwayFromZero()
half_precision = HalfPrecision()
stored = Stored()
power_of_two = PowerOfTwo()
rounded_product = RoundedProduct()
rounded_quotient = RoundedQuotient()
pairwise_sum = PairwiseSum()
column_norm = ColumnNorm()
partial_counts = PartialCounts()
total_counts = TotalCounts()


def shared(value, name):
    """A shared variable whose shape is part of its type, as the Ops here need it."""
    return pytensor.shared(value, name=name, shape=value.shape)


def product(x, W, on_grid):
    """Matrix product x W; on_grid: x is a propagated signal, as its gradient and W are, and not data."""
    return Product(on_grid)(x, W)


def correlate(x, W, pad, on_grid):
    """Cross-correlation of images x (H, C, W, B) with filters W (O, C, R, S), stride 1, `pad` zeros on each side.

    on_grid: as for `product`.
    """
    return Correlation(pad, on_grid)(x, W)


def max_pool(x, size, stride):
    """Max pooling of (H, C, W, B) over size x size windows; its gradient goes whole to every tie."""
    return MaxPool(size, stride)(x)
