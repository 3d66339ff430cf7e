"""Matrix products, and which of them may round their operands to TF32."""

import contextlib
from contextvars import ContextVar

import jax.numpy as jnp
from jax import lax

from xla.ops import JaxOp

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


def _product(a, b, precision=lax.Precision.HIGHEST):
    return jnp.matmul(a, b, precision=precision)


def product(x, W, on_grid):
    """Matrix product x W; on_grid: x is a propagated signal, as its gradient and W are, and not data."""
    return Product(on_grid)(x, W)
