"""Single operations as the benchmark times them: compiled, alone or in a loop."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from xla.device import to_device, wait
from xla.ops import JaxOp, materialise


def matrix_products(operands: Sequence[Sequence[np.ndarray]]) -> Callable[[], Any]:
    """A function that multiplies all pairs on the device, in full precision, and waits.

    Parameters
    ----------
    operands
        (a, b, ...) for each product.
    """
    pairs = to_device([pair[:2] for pair in operands])
    program = jax.jit(lambda pairs: [jnp.matmul(a, b, precision="highest") for a, b in pairs])
    return lambda: wait(program(pairs))


def repeated(op: JaxOp, operands: Sequence[np.ndarray], times: int) -> Callable[[], Any]:
    """A function that computes an Op so many times, in a loop, and waits."""

    @jax.jit
    def program(first: jax.Array, *others: jax.Array) -> jax.Array:
        def turn(_: jax.Array, total: jax.Array) -> jax.Array:  # each needs the one before
            return total + materialise(op.apply(first + 0 * total, *others)).ravel()[0]

        return lax.fori_loop(0, times, turn, np.float32(0))

    arrays = to_device(operands)
    return lambda: wait(program(*arrays))
