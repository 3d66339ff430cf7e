"""Rounding that is not to the nearest multiple of one step: to bfloat16, and at random.

The generator of random rounding is part of a run's state: a threefry key for the next
batch. From it follow a key for each time that a signal is stored, and the key of the
batch after. From a storing's key and an element's place alone follows what is drawn for
the element: it is the same wherever XLA computes it, however often, and on every device.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pytensor.tensor.sharedvar import TensorSharedVariable as Shared
from pytensor.tensor.variable import TensorVariable as Tensor

from xla.ops import ElementwiseOp, JaxOp, shared

NEVER = 2**32 - 1  # a batch of the masks' generator that no run reaches


class Bfloat16(ElementwiseOp):
    """float32 -> nearest bfloat16, as float32; ties to even, what is too large infinite.

    In integers: of subnormals, floats would make zero.
    """

    def apply(self, x: jax.Array) -> jax.Array:
        bits = lax.bitcast_convert_type(x, jnp.uint32)
        half = np.uint32(0x7FFF) + ((bits >> 16) & 1)
        nearest = (bits + half) & np.uint32(0xFFFF0000)
        return jnp.where(x != x, x, lax.bitcast_convert_type(nearest, jnp.float32))


def random_words(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """32 random bits for each place, from a key of two words.

    A hash of the place: threefry would take several times as long as all else that a
    layer does with its weights. Multipliers: C. Wellons, "Prospecting for hash
    functions", 2018 (lowbias32).
    """
    place = lax.iota(jnp.uint32, int(np.prod(shape))).reshape(shape)
    x = place ^ key[0]
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = x ^ key[1]
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


class RoundAtRandom(ElementwiseOp):
    """float32 -> a whole number beside it, the upper one as probably as the fraction is large.

    So the mean of what may come is the number itself, to 2^-24; whole numbers, NaN and
    infinity stay. The second input is a key, uint32 (2,).
    """

    def apply(self, x: jax.Array, key: jax.Array) -> jax.Array:
        below = jnp.floor(x)
        drawn = (random_words(key, x.shape) >> 8) + 1  # from 1: what is on the grid stays
        rounded = below + (drawn.astype(jnp.float32) * np.float32(2.0**-24) <= x - below)
        return jnp.where(jnp.isinf(x), x, rounded)


class Keys(JaxOp):
    """A key -> n others, uint32 (n, 2)."""

    __props__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n

    def apply(self, key: jax.Array) -> jax.Array:
        generator = jax.random.wrap_key_data(key, impl="threefry2x32")
        return jax.random.bits(generator, (self.n, 2), "uint32")


class Draws:
    """The generator of random rounding, and this batch's keys.

    Attributes
    ----------
    key
        The shared variable: this batch's key.
    keys
        uint32 (*shape, 2).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.key = shared(np.zeros(2, "uint32"), "rounding/key")
        n = int(np.prod(shape))
        made = Keys(n + 1)(self.key)
        self.keys = made[:n].reshape((*shape, 2))
        self._next = made[n]

    def updates(self) -> dict[Shared, Tensor]:
        """The next batch's key."""
        return {self.key: self._next}


def rounding_state(seed: int) -> dict[str, jax.Array]:
    """The generator's part of the state at the start."""
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), np.uint32(NEVER))
    return {"rounding/key": jax.random.key_data(key)}


bfloat16 = Bfloat16()
round_at_random = RoundAtRandom()
