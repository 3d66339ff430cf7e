"""Cross-correlation and its gradients by XLA's own convolution."""

import jax
import jax.numpy as jnp
from jax import lax

from xla.products import precision


def correlate(x: jax.Array, W: jax.Array, pad: int, tf32: bool) -> jax.Array:
    """(H, C, W, B), (O, C, R, S) -> (H', O, W', B)."""
    return convolve(x, W, (pad, pad), ("HCWN", "OIHW", "HCWN"), tf32)


def input_gradient(dz: jax.Array, W: jax.Array, pad: int, tf32: bool) -> jax.Array:
    """(H', O, W', B), (O, C, R, S) -> (H, C, W, B)."""
    _, _, R, S = W.shape
    pads = (R - 1 - pad, S - 1 - pad)
    return convolve(dz, jnp.flip(W, (2, 3)), pads, ("HCWN", "IOHW", "HCWN"), tf32)


def filter_gradient(x: jax.Array, dz: jax.Array, pad: int, tf32: bool) -> jax.Array:
    """(H, C, W, B), (H', O, W', B) -> (O, C, R, S)."""
    return convolve(x, dz, (pad, pad), ("HNWC", "HOWI", "CNHW"), tf32)


def convolve(
    x: jax.Array,
    W: jax.Array,
    pads: tuple[int, int],
    dimensions: tuple[str, str, str],
    tf32: bool,
) -> jax.Array:
    """XLA's convolution, stride 1.

    Parameters
    ----------
    pads
        Zeros above and below, left and right.
    dimensions
        What each axis is: of x, of W and of the result, as in lax.conv_general_dilated.
    """
    return lax.conv_general_dilated(
        x,
        W,
        (1, 1),
        [(n, n) for n in pads],
        dimension_numbers=dimensions,
        precision=precision(tf32),
    )
