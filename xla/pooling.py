"""Max pooling and its gradient."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

from xla.ops import JaxOp, keep, pad_axis


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
                jnp.maximum,
                [pad_axis(v, -np.inf, axis, 0, windows - v.shape[axis]) for v in shifted],
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
                v = pad_axis(
                    v, outside, axis, most, -(-x.shape[axis] // self.stride) - v.shape[axis]
                )
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


def max_pool(x, size, stride):
    """Max pooling of (H, C, W, B) over size x size windows; its gradient goes whole to every tie."""
    return MaxPool(size, stride)(x)
