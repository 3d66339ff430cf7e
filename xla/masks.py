"""Dropout masks drawn on the device, inside the training step.

Their generator is part of a run's state: a threefry key, and how many batches it has
served. A mask depends on the key, the batch and the layer, and on nothing else.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from xla.ops import materialise

State = dict[str, jax.Array]


def mask_state(seed: int) -> State:
    """The generator's part of the state at the start."""
    return {
        "masks/key": jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
        "masks/batches": jnp.zeros((), "uint32"),
    }


@jax.named_scope("masks")
def draw_masks(
    state: State, ps: Sequence[float], shapes: Sequence[tuple[int, int]]
) -> tuple[list[jax.Array], State]:
    """One batch's masks, and the state after them.

    Parameters
    ----------
    ps, shapes
        Of each layer: the probability to keep an input, and the shape of its mask.
    """
    key = jax.random.wrap_key_data(state["masks/key"], impl="threefry2x32")
    key = jax.random.fold_in(key, state["masks/batches"])
    keys = jax.vmap(lambda k: jax.random.fold_in(key, k))(jnp.arange(len(shapes)))
    masks = [
        materialise(dropout_mask(key, p, shape))
        for key, p, shape in zip(keys, ps, shapes, strict=True)
    ]
    return masks, state | {"masks/batches": state["masks/batches"] + np.uint32(1)}


def dropout_mask(key: jax.Array, p: float, shape: tuple[int, ...]) -> jax.Array:
    """Bernoulli(p) zeros and ones, float32.

    One random bit an element for p = 1/2, else 16.
    """
    if p != 0.5:
        drawn = jax.random.bits(key, shape, "uint16")
        return (drawn < np.uint16(round(p * 2**16))).astype("float32")
    size = int(np.prod(shape))
    words = jax.random.bits(key, (-(-size // 32), 1), "uint32")
    bits = (words >> jnp.arange(32, dtype="uint32")) & 1
    return bits.ravel()[:size].reshape(shape).astype("float32")
