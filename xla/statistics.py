"""Sums that the algorithm decides by: column norms and overflow counts."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

from xla.ops import JaxOp, keep


def _sum_blocks(a, stages, most, enough=1):
    """Sum over axis 0 in at most `stages` steps, each adding up to `most` equal blocks of rows, as far as they divide.

    Some rows are left: at most `enough`, if so many stages do it.

    Written as plain additions, which XLA's CPU code fuses with what makes `a`, vectorizes and spreads over cores; its own
    reductions of long axes first write their whole input to memory.
    """
    for stage in range(stages):
        if len(a) <= enough:
            break
        blocks = max(k for k in range(1, most + 1) if len(a) % k == 0)
        a = (keep(a) if stage else a).reshape(blocks, len(a) // blocks, *a.shape[1:])
        a = functools.reduce(lax.add, lax.split(a, (1,) * blocks))[0]
    return a


class ColumnNorm(JaxOp):
    """Euclidean norms over axis 0, float32: squares summed in float64, the sum rounded, the root in float32 (SPEC 5)."""

    def apply(self, W):
        squares = keep(_sum_blocks(jnp.square(W.astype(jnp.float64)), stages=2, most=32))
        return jnp.sqrt(jnp.sum(squares, axis=0).astype(jnp.float32))


class PartialCounts(JaxOp):
    """How many elements of a float32 tensor are at least thresholds[0] and thresholds[1], for TotalCounts to add up (SPEC 6).

    float32, float32 (2,) -> int32 (n, 1024), n small: each the first count of some elements times 2^16, plus the second.
    """

    def apply(self, v, thresholds):
        # Both counts in one pass: three stages count to 4,096 at most.
        both = (v >= thresholds[0]).astype(jnp.int32) * 2**16 + (v >= thresholds[1]).astype(
            jnp.int32
        )
        both = _sum_blocks(both.ravel(), stages=3, most=8 if v.size < 2**22 else 16, enough=1024)
        return keep(jnp.pad(both, (0, -len(both) % 1024)).reshape(-1, 1024))


class TotalCounts(JaxOp):
    """n arrays of PartialCounts -> the counts, int32 (n, 2) (SPEC 6): all at once, which is less code to compile."""

    def apply(self, *parts):
        both = keep(jnp.concatenate(parts))
        sums = keep(jnp.sum((both >> 16).astype(jnp.int64) * 2**32 + (both & 0xFFFF), axis=1))
        belongs = np.repeat(np.eye(len(parts), dtype=bool), [len(p) for p in parts], axis=1)
        sums = jnp.sum(jnp.where(belongs, sums, 0), axis=1)
        return jnp.stack([sums >> 32, sums & 0xFFFFFFFF], axis=1).astype(jnp.int32)


column_norm = ColumnNorm()
partial_counts = PartialCounts()
total_counts = TotalCounts()
