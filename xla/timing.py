"""Single operations in loops, for the benchmark."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from xla import ops
from xla.device import to_device, wait


def matrix_products(operands):
    """A function that multiplies all pairs (a, b, ...) on the device, in full precision, and waits."""
    operands = to_device([pair[:2] for pair in operands])
    program = jax.jit(lambda pairs: [jnp.matmul(a, b, precision="highest") for a, b in pairs])
    return lambda: wait(program(operands))


def repeated(op, operands, times):
    """A function that computes an Op of `ops` on float32 arrays so many times, in a loop as training does, and waits."""

    @jax.jit
    def program(first, *others):
        return lax.fori_loop(
            0,
            times,
            lambda _, total: total + ops.keep(op.apply(first + 0 * total, *others)).ravel()[0],
            np.float32(0),
        )  # each turn needs the one before

    operands = to_device(operands)
    return lambda: wait(program(*operands))
