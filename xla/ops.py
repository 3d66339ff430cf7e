"""PyTensor operations by their JAX functions; those that XLA must not rewrite.

An Op here is one function of JAX arrays, `apply`: its output types follow from that
function, PyTensor's JAX linker calls it, and outside the linker it runs on its own. The
instances at the end of the file are what the other modules use.
"""

import functools
from collections.abc import Sequence
from typing import Any, cast

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
from pytensor.tensor.sharedvar import TensorSharedVariable
from pytensor.tensor.variable import TensorVariable

# PyTensor's dispatcher switches float64 off. The graphs here name every dtype, so
# nothing becomes float64 by accident, and column norms and overflow accumulators need
# it.
jax.config.update("jax_enable_x64", True)

Type = tuple[tuple[int, ...], str]  # of an array: shape, dtype
Variables = Sequence[Any]  # of TensorVariable


class JaxOp(Op):
    """An Op given by one function of JAX arrays; its inputs need static shapes."""

    __props__: Sequence[str] = ()

    def apply(self, *arrays: Any, **none: Any) -> jax.Array:
        """The output from the inputs."""
        raise NotImplementedError(f"{type(self).__name__}.apply")

    def result(self, *types: Any, **none: Any) -> Type:
        """The type of the output from those of the inputs."""
        return _result(self, jax.default_backend(), *types)

    def __call__(self, *inputs: Any, **options: Any) -> TensorVariable:
        return cast(TensorVariable, super().__call__(*inputs, **options))

    def make_node(self, *inputs: Any) -> Apply:
        inputs = tuple(pt.as_tensor_variable(i) for i in inputs)
        if any(n is None for i in inputs for n in i.type.shape):
            types = [i.type for i in inputs]
            raise TypeError(f"{type(self).__name__} needs inputs of static shape, got {types}")
        shape, dtype = self.result(*((i.type.shape, i.type.dtype) for i in inputs))
        return Apply(self, inputs, [pt.tensor(dtype=dtype, shape=shape)])

    def perform(self, node: Apply, inputs: Sequence[Any], output_storage: list) -> None:
        output_storage[0][0] = np.asarray(self.apply(*inputs))


class ElementwiseOp(JaxOp):
    """A JaxOp whose output has the type of its first input."""

    def result(self, *types: Any, **none: Any) -> Type:
        return types[0]


@functools.cache  # tracing takes milliseconds
def _result(op: JaxOp, backend: str, *types: Type) -> Type:
    out = jax.eval_shape(op.apply, *(jax.ShapeDtypeStruct(*t) for t in types))
    return out.shape, str(out.dtype)


@jax_funcify.register(JaxOp)
def _jax_code(op: JaxOp, **options: Any) -> Any:
    return jax.named_scope(type(op).__name__)(op.apply)  # a name for profiles


def _zero_unless_nan(x: jax.Array) -> jax.Array:
    """An integer 0 of x's width, or 1 where x is NaN: no compiler can fold it away."""
    return (x != x).astype(jnp.int64 if x.dtype == jnp.float64 else jnp.int32)


def _flip_bits(x: jax.Array, bits: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, bits.dtype) ^ bits, x.dtype)


def to_float32(x: jax.Array) -> jax.Array:
    """float64 -> float32, a rounding that stays.

    XLA may delete it if the next thing is a conversion back, for CPUs only in large arrays.
    Not reduce_precision, which is free to be simplified away as well.
    """
    rounded = x.astype(jnp.float32)
    return _flip_bits(rounded, _zero_unless_nan(rounded))


def root(x: jax.Array) -> jax.Array:
    """The square root of float32, correctly rounded.

    XLA for GPUs has instructions for float32 that err in the last bit. A root or a
    quotient of float32 is the one of float64, rounded: 53 bits are 2 * 24 + 2 and more,
    so that rounding twice does no harm.
    """
    if jax.default_backend() == "cpu":
        return jnp.sqrt(x)
    return to_float32(jnp.sqrt(x.astype(jnp.float64)))


class RoundedToFloat32(JaxOp):
    """float64 -> float32, even where float64 is what it becomes again."""

    def apply(self, x: jax.Array) -> jax.Array:
        return to_float32(x)

    def result(self, *types: Any, **none: Any) -> Type:
        return types[0][0], "float32"


class RoundHalfAwayFromZero(ElementwiseOp):
    """float32 -> nearest integer, halves away from zero."""

    def apply(self, x: jax.Array) -> jax.Array:
        return lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO)


class SmallFloat(ElementwiseOp):
    """float32 -> nearest value of a float format with up to 5 exponent bits, as float32.

    Ties to even, subnormals as they are. Not a pair of casts, which XLA may delete;
    reduce_precision alone would flush the subnormals.

    Parameters
    ----------
    mantissa_bits
        Without the leading one.
    lowest_exponent
        Of the normal numbers.
    largest
        Where the format saturates; None: what is beyond binary16 becomes infinite.
    """

    __props__ = ("mantissa_bits", "lowest_exponent", "largest")

    def __init__(
        self, mantissa_bits: int, lowest_exponent: int, largest: float | None = None
    ) -> None:
        self.mantissa_bits = mantissa_bits
        self.lowest_exponent = lowest_exponent
        self.largest = largest

    def apply(self, x: jax.Array) -> jax.Array:
        if self.largest is not None:
            x = jnp.clip(x, np.float32(-self.largest), np.float32(self.largest))
        per_one = np.float32(2.0 ** (self.mantissa_bits - self.lowest_exponent))
        steps = lax.round(x * per_one, lax.RoundingMethod.TO_NEAREST_EVEN)
        subnormal = steps * np.float32(1 / per_one)
        normal = np.float32(2.0**self.lowest_exponent)
        rounded = lax.reduce_precision(x, 5, self.mantissa_bits)
        return jnp.where(jnp.abs(x) < normal, subnormal, rounded)


@jax.jit
def _same(x: jax.Array) -> jax.Array:
    return x


def materialise(x: jax.Array) -> jax.Array:
    """x, computed once, in memory.

    XLA's CPU code would compute it again in everything that uses it,
    optimization_barrier or not. It leaves a call that must not be inlined alone, and
    gives it its argument in memory; that costs nothing else.
    """
    if jax.default_backend() != "cpu":
        return x
    with set_xla_metadata(inlineable="false"):
        return _same(x)


class Materialised(ElementwiseOp):
    """The tensor itself, computed once, in memory."""

    def apply(self, x: jax.Array) -> jax.Array:
        return materialise(x)


class PowerOfTwo(JaxOp):
    """int32 n -> 2^n, exact, float32.

    n is cut to -126..126, where both 2^n and 2^-n are normal numbers.
    """

    def apply(self, n: jax.Array) -> jax.Array:
        return lax.bitcast_convert_type((jnp.clip(n, -126, 126) + 127) << 23, jnp.float32)


class RoundedProduct(ElementwiseOp):
    """float32 tensor x scalar, rounded before anything is added to it.

    So it never becomes part of a fused multiply-add.
    """

    def apply(self, x: jax.Array, scalar: jax.Array) -> jax.Array:
        return _flip_bits(x * scalar, _zero_unless_nan(scalar))


class RoundedQuotient(ElementwiseOp):
    """x / divisor in the precision of x, correctly rounded.

    The divisor is broadcast to x. XLA would multiply by the reciprocal of a divisor that
    is constant, or the same for many elements of x. On a GPU it is a quotient of
    float64 (see `root`).
    """

    def apply(self, x: jax.Array, divisor: jax.Array) -> jax.Array:
        divisor = jnp.asarray(divisor, x.dtype)  # constants come as Python numbers
        divisor = jnp.broadcast_to(divisor, x.shape)
        if x.dtype == jnp.float64 or jax.default_backend() == "cpu":
            return x / _flip_bits(divisor, _zero_unless_nan(x))
        return to_float32(self.apply(x.astype(jnp.float64), divisor.astype(jnp.float64)))


class PairwiseSum(JaxOp):
    """Sum over the last axis, which is left with length 1, in pairs of pairs.

    Rounding errors stay small.
    """

    def apply(self, x: jax.Array) -> jax.Array:
        while x.shape[-1] > 1:
            if x.shape[-1] % 2:
                x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)])
            x = x[..., 0::2] + x[..., 1::2]
        return x


def pad_axis(x: jax.Array, value: float, axis: int, before: int, after: int) -> jax.Array:
    """x with so much of a value before and after it along one axis."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, after, 0)
    return lax.pad(x, np.float32(value), edges)


rounded_to_float32 = RoundedToFloat32()
round_half_away_from_zero = RoundHalfAwayFromZero()
half_precision = SmallFloat(10, -14)
materialised = Materialised()
power_of_two = PowerOfTwo()
rounded_product = RoundedProduct()
rounded_quotient = RoundedQuotient()
pairwise_sum = PairwiseSum()


def shared(value: np.ndarray, name: str) -> TensorSharedVariable:
    """A shared variable whose shape is part of its type, as the Ops here need it."""
    return pytensor.shared(value, name=name, shape=value.shape)
