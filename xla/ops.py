"""PyTensor operations that PyTensor lacks, or that XLA must not rewrite, with their JAX code.

Every Op here is one function of JAX arrays, `apply`; its output types follow from that function, PyTensor's JAX linker
calls it, and outside the linker it runs on its own. The functions at the end of the file are what the other modules use.
"""

import functools

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


def pad_axis(x, value, axis, before, after):
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, after, 0)
    return lax.pad(x, np.float32(value), edges)


round_half_away_from_zero = RoundHalfAwayFromZero()
half_precision = HalfPrecision()
stored = Stored()
power_of_two = PowerOfTwo()
rounded_product = RoundedProduct()
rounded_quotient = RoundedQuotient()
pairwise_sum = PairwiseSum()


def shared(value, name):
    """A shared variable whose shape is part of its type, as the Ops here need it."""
    return pytensor.shared(value, name=name, shape=value.shape)
