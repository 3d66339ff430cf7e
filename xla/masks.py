"""Dropout masks drawn on the device."""

import jax
import jax.numpy as jnp
import numpy as np


def dropout_mask(key, p, shape):
    """Bernoulli(p) float32 zeros and ones from a JAX key: one random bit an element for p = 1/2, else 16."""
    if p == 0.5:
        size = int(np.prod(shape))
        words = jax.random.bits(key, (-(-size // 32), 1), "uint32")
        return (
            ((words >> jnp.arange(32, dtype="uint32")) & 1)
            .ravel()[:size]
            .reshape(shape)
            .astype("float32")
        )
    return (jax.random.bits(key, shape, "uint16") < np.uint16(round(p * 2**16))).astype("float32")


def mask_state(seed):
    """The state of the device's mask generator: a key, and how many batches it has served."""
    return {
        "masks/key": jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
        "masks/batches": jnp.zeros((), "uint32"),
    }
