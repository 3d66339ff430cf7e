"""PyTensor operations that PyTensor lacks, or that XLA must not rewrite, with their JAX code.

Every Op here is one function of JAX arrays, `apply`; its output types follow from that function, PyTensor's JAX linker
calls it, and outside the linker it runs on its own. The functions at the end of the file are what the other modules use.

This module and `compilation` are the only ones that know JAX.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytensor
import pytensor.tensor as pt
from jax import lax
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
            raise TypeError(f"{type(self).__name__} needs inputs of static shape, got {[i.type for i in inputs]}")
        shapes = [jax.ShapeDtypeStruct(i.type.shape, i.type.dtype) for i in inputs]
        out = jax.eval_shape(self.apply, *shapes)
        return Apply(self, inputs, [pt.tensor(dtype=str(out.dtype), shape=out.shape)])

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = np.asarray(self.apply(*inputs))


@jax_funcify.register(JaxOp)
def _jax_code(op, **kwargs):
    return op.apply


def _zero_unless_nan(x):
    """An integer 0 of x's width, or 1 where x is NaN: a zero that no compiler can fold away."""
    return (x != x).astype(jnp.int64 if x.dtype == jnp.float64 else jnp.int32)


def _flip_bits(x, bits):
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, bits.dtype) ^ bits, x.dtype)


class RoundHalfAwayFromZero(JaxOp):
    """float32 -> nearest integer, halves away from zero."""

    def apply(self, x):
        return lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO)


class HalfPrecision(JaxOp):
    """float32 -> nearest IEEE binary16 value, as float32: ties to even, overflow to infinity, subnormals kept.

    Not a pair of casts, which XLA may delete; reduce_precision alone would flush the subnormals.
    """

    def apply(self, x):
        subnormal = lax.round(x * np.float32(2.0**24), lax.RoundingMethod.TO_NEAREST_EVEN) * np.float32(2.0**-24)
        return jnp.where(jnp.abs(x) < np.float32(2.0**-14), subnormal, lax.reduce_precision(x, 5, 10))


class PowerOfTwo(JaxOp):
    """int32 n -> 2^n, exact, float32; n is cut to -126..126, where both 2^n and 2^-n are normal numbers."""

    def apply(self, n):
        return lax.bitcast_convert_type((jnp.clip(n, -126, 126) + 127) << 23, jnp.float32)


class RoundedProduct(JaxOp):
    """float32 tensor x scalar, rounded before anything is added to it: never part of a fused multiply-add."""

    def apply(self, x, scalar):
        return _flip_bits(x * scalar, _zero_unless_nan(scalar))


class RoundedQuotient(JaxOp):
    """x / divisor in the precision of x, correctly rounded; the divisor is broadcast to x.

    XLA would multiply by the reciprocal of a divisor that is constant or the same for many elements of x.
    """

    def apply(self, x, divisor):
        divisor = jnp.broadcast_to(jnp.asarray(divisor, x.dtype), x.shape)  # constants come as Python numbers
        return x / _flip_bits(divisor, _zero_unless_nan(x))


class PairwiseSum(JaxOp):
    """Sum over the last axis, kept as an axis of length 1, in pairs of pairs: rounding errors stay small."""

    def apply(self, x):
        while x.shape[-1] > 1:
            if x.shape[-1] % 2:
                x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)])
            x = x[..., 0::2] + x[..., 1::2]
        return x


class Correlation(JaxOp):
    """Cross-correlation, stride 1, `pad` zeros a side: (B, C, H, W), (O, C, R, S) -> (B, O, H + 2 pad - R + 1, ...)."""

    __props__ = ("pad",)

    def __init__(self, pad):
        self.pad = pad

    def apply(self, x, W):
        return _correlate(x, W, [self.pad, self.pad])

    def pullback(self, inputs, outputs, cotangents):
        x, W = inputs
        (dz,) = cotangents
        return [CorrelationInputGradient(self.pad)(dz, W), CorrelationFilterGradient(self.pad)(x, dz)]


class CorrelationInputGradient(JaxOp):
    """The gradient of Correlation(pad) in its input: (B, O, H', W'), (O, C, R, S) -> (B, C, H, W)."""

    __props__ = ("pad",)

    def __init__(self, pad):
        self.pad = pad

    def apply(self, dz, W):
        return _correlate(dz, jnp.flip(W, (2, 3)).transpose(1, 0, 2, 3), [n - 1 - self.pad for n in W.shape[2:]])


class CorrelationFilterGradient(JaxOp):
    """The gradient of Correlation(pad) in its filters: (B, C, H, W), (B, O, H', W') -> (O, C, R, S)."""

    __props__ = ("pad",)

    def __init__(self, pad):
        self.pad = pad

    def apply(self, x, dz):
        out = _correlate(x.transpose(1, 0, 2, 3), dz.transpose(1, 0, 2, 3), [self.pad, self.pad])
        return out.transpose(1, 0, 2, 3)


def _correlate(x, W, pads):
    return lax.conv_general_dilated(
        x,
        W,
        window_strides=(1, 1),
        padding=[(n, n) for n in pads],
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
        precision=lax.Precision.HIGHEST,
    )


class MaxPool(JaxOp):
    """Max pooling of (B, C, H, W): ceil((n - size) / stride) + 1 windows a side, cut to the pixels there are."""

    __props__ = ("size", "stride")

    def __init__(self, size, stride):
        self.size, self.stride = size, stride

    def apply(self, x):
        window, strides = (1, 1, self.size, self.size), (1, 1, self.stride, self.stride)
        # -(-a // b) is ceil(a / b); the last window may reach this far over the border.
        over = [-(-(n - self.size) // self.stride) * self.stride + self.size - n for n in x.shape[2:]]
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, [(0, 0), (0, 0), *((0, n) for n in over)])

    def pullback(self, inputs, outputs, cotangents):
        return [MaxUnpool(self.size, self.stride)(inputs[0], outputs[0], cotangents[0])]


class MaxUnpool(JaxOp):
    """The gradient of MaxPool: every pixel equal to its window's maximum gets all of that window's gradient.

    x (B, C, H, W), pooled and gradient (B, C, h, w) -> (B, C, H, W); the gradients of overlapping windows add up.
    """

    __props__ = ("size", "stride")

    def __init__(self, size, stride):
        self.size, self.stride = size, stride

    def apply(self, x, pooled, gradient):
        # Pixel i * stride + a lies in the windows i - k with k * stride + a < size: shifted copies, no scattering.
        (batch, maps, *sides), stride = x.shape, self.stride
        height, width = (-(-n // stride) for n in sides)
        grid = [(0, height * stride - sides[0]), (0, width * stride - sides[1])]
        grid = jnp.pad(x, [(0, 0), (0, 0), *grid]).reshape(batch, maps, height, stride, width, stride)

        def shifted(v, outside, k, m):
            edges = [(0, 0, 0), (0, 0, 0), (k, height - k - v.shape[2], 0), (m, width - m - v.shape[3], 0)]
            return lax.pad(v, np.float32(outside), edges)

        def gather(pixels, shifts):
            parts = [jnp.where(pixels == shifted(pooled, np.nan, *k), shifted(gradient, 0, *k), np.float32(0))
                     for k in shifts]
            return sum(parts) if parts else jnp.zeros_like(pixels)

        reach = [range((self.size - 1 - a) // stride + 1) for a in range(stride)]
        rows = [jnp.stack([gather(grid[:, :, :, a, :, b], [(k, m) for k in reach[a] for m in reach[b]])
                           for b in range(stride)], axis=-1) for a in range(stride)]
        full = jnp.stack(rows, axis=3).reshape(batch, maps, height * stride, width * stride)
        return full[:, :, : sides[0], : sides[1]]


def _sum_blocks(a, stages):
    """Sum over axis 0 in at most `stages` steps, each adding up to 32 equal blocks of rows, as far as they divide.

    Written as plain additions, which XLA's CPU code fuses with what makes `a`, vectorizes and spreads over cores; its own
    reductions of long axes first write their whole input to memory.
    """
    for _ in range(stages):
        blocks = max(k for k in range(1, 33) if len(a) % k == 0)
        a = a.reshape(blocks, len(a) // blocks, *a.shape[1:])
        a = lax.optimization_barrier(functools.reduce(lambda total, i: total + a[i], range(1, blocks), a[0]))
    return a


class ColumnNorm(JaxOp):
    """Euclidean norms over axis 0, float32: squares summed in float64, the sum rounded, the root in float32 (SPEC 5)."""

    def apply(self, W):
        squares = _sum_blocks(jnp.square(W.astype(jnp.float64)), stages=2)
        return jnp.sqrt(jnp.sum(squares, axis=0).astype(jnp.float32))


class CountAtLeast(JaxOp):
    """How many elements of a float32 tensor are at least thresholds[0], and thresholds[1]: int32 (2,)."""

    def apply(self, v, thresholds):
        # Both counts in one pass, the first in the upper half of an int32: two stages count to 1,024 at most.
        both = (v >= thresholds[0]).astype(jnp.int32) * 2**16 + (v >= thresholds[1]).astype(jnp.int32)
        both = _sum_blocks(both.ravel(), stages=2)
        return jnp.stack([jnp.sum(both >> 16, dtype=jnp.int32), jnp.sum(both & 0xFFFF, dtype=jnp.int32)])


round_half_away_from_zero = RoundHalfAwayFromZero()
half_precision = HalfPrecision()
power_of_two = PowerOfTwo()
rounded_product = RoundedProduct()
rounded_quotient = RoundedQuotient()
pairwise_sum = PairwiseSum()
column_norm = ColumnNorm()
count_at_least = CountAtLeast()


def shared(value, name):
    """A shared variable whose shape is part of its type, as the Ops here need it."""
    return pytensor.shared(value, name=name, shape=value.shape)


def correlate(x, W, pad):
    """Cross-correlation of images x (B, C, H, W) with filters W (O, C, R, S), stride 1, `pad` zeros on each side."""
    return Correlation(pad)(x, W)


def max_pool(x, size, stride):
    """Max pooling of (B, C, H, W) over size x size windows; its gradient goes whole to every tie."""
    return MaxPool(size, stride)(x)
