"""Max pooling of images (H, C, W, B), and its gradient.

There are ceil((n - size) / stride) + 1 windows a side, cut to the pixels there are.
Every pixel equal to its window's maximum gets all of that window's gradient; the
gradients of overlapping windows add up. Neither gathers nor scatters: both shift and
compare whole images.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable

from xla.ops import JaxOp, Variables, materialise, pad_axis

ROWS = 0
COLUMNS = 2


class PoolingOp(JaxOp):
    """One of the two below.

    Parameters
    ----------
    size, stride
        The side of the windows, and their distance.
    """

    __props__ = ("size", "stride")

    def __init__(self, size: int, stride: int) -> None:
        self.size = size
        self.stride = stride


class MaxUnpool(PoolingOp):
    """The gradient of MaxPool.

    x (H, C, W, B), pooled and gradient (h, C, w, B) -> (H, C, W, B).
    """

    def apply(self, x: jax.Array, pooled: jax.Array, gradient: jax.Array) -> jax.Array:
        maxima = self._windows(pooled, np.nan, x)
        gradients = self._windows(gradient, 0, x)
        total = jnp.zeros((), x.dtype)
        for k in range(self.overlap + 1):
            for m in range(self.overlap + 1):
                inside = self._inside(k, x.shape[ROWS])[:, None, None, None]
                inside = inside & self._inside(m, x.shape[COLUMNS])[:, None]
                equal = (x == maxima[k][m]) & inside
                total = total + jnp.where(equal, gradients[k][m], np.float32(0))
        return total

    @property
    def overlap(self) -> int:
        """How many windows further back a pixel may still lie in."""
        return (self.size - 1) // self.stride

    def _inside(self, k: int, n: int) -> jax.Array:
        """Which of n pixels lie in the window that begins k strides before their own.

        Pixel i lies in the windows i // stride - k with i % stride + k * stride < size.
        """
        return jnp.arange(n) % self.stride + k * self.stride < self.size

    def _windows(self, v: jax.Array, outside: float, x: jax.Array) -> list[list[jax.Array]]:
        """[k][m]: for each pixel of x, v of the window k further up and m further left.

        `outside` where there is no such window.
        """
        for axis in (ROWS, COLUMNS):
            after = -(-x.shape[axis] // self.stride) - v.shape[axis]
            v = pad_axis(v, outside, axis, self.overlap, after)
        v = materialise(v)  # bounds are checked once, not for every pixel
        back = range(self.overlap, -1, -1)
        rows = [self._repeat(v, ROWS, start, x.shape[ROWS]) for start in back]
        return [[self._repeat(r, COLUMNS, start, x.shape[COLUMNS]) for start in back] for r in rows]

    def _repeat(self, v: jax.Array, axis: int, start: int, length: int) -> jax.Array:
        """v from `start` on, each entry `stride` times, `length` in all."""
        v = lax.slice_in_dim(v, start, start + -(-length // self.stride), axis=axis)
        return lax.slice_in_dim(jnp.repeat(v, self.stride, axis), 0, length, axis=axis)


class MaxPool(PoolingOp):
    """Max pooling: (H, C, W, B) -> (h, C, w, B)."""

    def apply(self, x: jax.Array) -> jax.Array:
        for axis in (ROWS, COLUMNS):
            windows = -(-(x.shape[axis] - self.size) // self.stride) + 1
            shifted = [self._pixels(x, axis, a, windows) for a in range(self.size)]
            # Beyond the border nothing is larger than what there is.
            whole = [pad_axis(v, -np.inf, axis, 0, windows - v.shape[axis]) for v in shifted]
            x = materialise(functools.reduce(jnp.maximum, whole))
        return x

    def _pixels(self, x: jax.Array, axis: int, a: int, windows: int) -> jax.Array:
        """Pixel a of every window that has so many."""
        stop = min(x.shape[axis], a + (windows - 1) * self.stride + 1)
        return lax.slice_in_dim(x, a, stop, self.stride, axis)

    def pullback(
        self, inputs: Variables, outputs: Variables, cotangents: Variables
    ) -> list[Variable]:
        return [MaxUnpool(self.size, self.stride)(inputs[0], outputs[0], cotangents[0])]


def max_pool(x: TensorVariable, size: int, stride: int) -> TensorVariable:
    """Max pooling over size x size windows; its gradient goes whole to every tie."""
    return MaxPool(size, stride)(x)
