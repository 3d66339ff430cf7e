"""Matrix products, and which of them may run in TF32.

On recent GPUs a product of float32 matrices is fast where its operands may be rounded
to TF32 numbers, which have TF32_BITS significant bits; the sums stay float32. In a
format of at most so many bits every signal, weight and gradient is such a number
already, and nothing is lost. There `programs.TrainingProgram` builds its step with
tf32=True, and each layer multiplies its signals with tf32=True: all but a layer that
reads data, which are in no format. Every other product, those of the test-time pass
among them, is in full precision.
"""

import jax
import jax.numpy as jnp
from jax import lax
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable

from xla.ops import JaxOp, Type, Variables

TF32_BITS = 11


def precision(tf32: bool) -> lax.Precision:
    """The precision of a product whose operands are (or are not) all TF32 numbers."""
    return lax.Precision.DEFAULT if tf32 else lax.Precision.HIGHEST


def multiply(a: jax.Array, b: jax.Array, tf32: bool = False) -> jax.Array:
    """The matrix product of float32 arrays."""
    return jnp.matmul(a, b, precision=precision(tf32))


class Product(JaxOp):
    """Matrix product x W; it and its gradients may run in TF32 if so told."""

    __props__ = ("tf32",)

    def __init__(self, tf32: bool = False) -> None:
        self.tf32 = tf32

    def apply(self, x: jax.Array, W: jax.Array) -> jax.Array:
        return multiply(x, W, self.tf32)

    def result(self, x: Type, W: Type) -> Type:
        return (x[0][0], W[0][1]), x[1]

    def pullback(
        self, inputs: Variables, outputs: Variables, cotangents: Variables
    ) -> list[Variable]:
        x, W = inputs
        (dz,) = cotangents
        return [self(dz, W.T), self(x.T, dz)]


def product(x: TensorVariable, W: TensorVariable, tf32: bool = False) -> TensorVariable:
    """Matrix product x W."""
    return Product(tf32)(x, W)
