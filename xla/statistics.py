"""Sums that decide: biases' gradients, column norms, counts of overflows.

As in docs/published_program.md, "Training pass" to "Overflow statistics". A training
step adds up every weight and every signal, so norms and counts are plain additions of
blocks, which XLA's CPU code fuses with what makes their input, vectorizes and spreads
over cores; its own reductions of long axes first write their whole input to memory.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from xla.ops import JaxOp, materialise, root, to_float32

SUMS_DEPEND_ON_CORES = jax.__version_info__ < (0, 11)


def _itself(a: jax.Array) -> jax.Array:
    return a


def _sum_blocks(
    a: jax.Array,
    stages: int,
    most: int,
    enough: int = 1,
    of: Callable[[jax.Array], jax.Array] = _itself,
) -> jax.Array:
    """Sum of `of(a)` over axis 0 in stages, each adding up equal blocks of rows.

    As far as the number of rows divides.

    Parameters
    ----------
    stages, most
        So many stages at most, of so many blocks at most.
    enough
        It ends where so many rows are left, or fewer.
    of
        Elementwise, and computed block by block: XLA writes to memory what is taken apart.
    """
    for stage in range(stages):
        if len(a) <= enough:
            break
        blocks = max(k for k in range(1, most + 1) if len(a) % k == 0)
        a = (materialise(a) if stage else a).reshape(blocks, len(a) // blocks, *a.shape[1:])
        a = functools.reduce(lax.add, map(of, lax.split(a, (1,) * blocks)))[0]
        of = _itself
    return of(a)


class ChannelSum(JaxOp):
    """Sums over all axes but the channels, axis 1: a float32 for each.

    With more than one core JAX 0.10 splits a long sum of float32, which is another
    order and gives other last bits. Here it adds up parts that it never splits, and the
    parts are added as it would add them: on any number of cores the sum is what it was
    on two. JAX 0.11 has one order.
    """

    ELEMENTS = 32768  # of a part of (B, features): what JAX 0.10 gives to one core
    ROWS = 4  # of images

    def apply(self, x: jax.Array) -> jax.Array:
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        rows = self.ROWS if x.ndim == 4 else max(1, self.ELEMENTS // x.shape[1])
        if not SUMS_DEPEND_ON_CORES or jax.default_backend() != "cpu":
            return jnp.sum(x, axis=axes)
        parts = [jnp.sum(x[i : i + rows], axis=axes) for i in range(0, len(x), rows)]
        fours = [functools.reduce(lax.add, parts[i : i + 4]) for i in range(0, len(parts), 4)]
        return functools.reduce(lax.add, fours)


class ColumnNorm(JaxOp):
    """Euclidean norms over axis 0, float32.

    Squares are summed in float64, the sum is rounded to float32, and so is its root.
    """

    def apply(self, W: jax.Array) -> jax.Array:
        squares = _sum_blocks(
            W, stages=2, most=32, of=lambda rows: jnp.square(rows.astype(jnp.float64))
        )
        return root(to_float32(jnp.sum(materialise(squares), axis=0)))


class PartialCounts(JaxOp):
    """How many elements are at least each threshold, for TotalCounts to add up.

    float32, float32 (2,) -> int32 (n, 1024), n small: each the first count of some
    elements times 2^16, plus the second. Of what is large on a GPU int64 (1, 1), times
    2^32: to see images as one row means there to rearrange them in memory, twice.
    """

    LARGE = 2**20  # elements; of fewer, two kernels more would cost more than they save

    def apply(self, v: jax.Array, thresholds: jax.Array) -> jax.Array:
        if jax.default_backend() != "cpu" and v.size >= self.LARGE:
            wide = (v >= thresholds[0]).astype(jnp.int64) * 2**32
            return jnp.sum(wide + (v >= thresholds[1])).reshape(1, 1)
        first = (v >= thresholds[0]).astype(jnp.int32) * 2**16
        both = first + (v >= thresholds[1]).astype(jnp.int32)
        most = 8 if v.size < 2**22 else 16  # three stages of 16 count to 4,096
        both = _sum_blocks(both.ravel(), stages=3, most=most, enough=1024)
        return materialise(jnp.pad(both, (0, -len(both) % 1024)).reshape(-1, 1024))


class TotalCounts(JaxOp):
    """n arrays of PartialCounts -> the counts, int32 (n, 2).

    All at once, which is less code to compile.
    """

    def apply(self, *parts: jax.Array) -> jax.Array:
        large = [k for k, part in enumerate(parts) if part.dtype == jnp.int64]
        small = [k for k in range(len(parts)) if k not in large]
        sums = [parts[k][0] for k in large]
        if small:
            both = materialise(jnp.concatenate([parts[k] for k in small]))
            wide = (both >> 16).astype(jnp.int64) * 2**32 + (both & 0xFFFF)
            sums = [materialise(jnp.sum(wide, axis=1)), *sums]
        owners = np.repeat([*small, *large], [len(parts[k]) for k in (*small, *large)])
        belongs = owners == np.arange(len(parts))[:, None]
        total = jnp.sum(jnp.where(belongs, jnp.concatenate(sums), 0), axis=1)
        return jnp.stack([total >> 32, total & 0xFFFFFFFF], axis=1).astype(jnp.int32)


channel_sum = ChannelSum()
column_norm = ColumnNorm()
partial_counts = PartialCounts()
total_counts = TotalCounts()
