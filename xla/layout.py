"""How images lie in memory: as published, and as the convolutions here compute.

The published program has them as (B, maps, rows, columns), flattened where a layer
hands them on. Convolutions, pooling and what lies between them here are faster along
the batch: they have (rows, maps, columns, B). In both, axis 1 has the channels. What is
called batch first or flat below may also be the (B, features) of a dense layer, and
then stays as it is.
"""

import numpy as np
from pytensor.tensor.variable import TensorVariable as Tensor


def images(v: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, maps * rows * columns) -> (rows, maps, columns, B), unless it is that.

    Parameters
    ----------
    shape
        (maps, rows, columns).
    """
    if v.type.ndim == 4:
        return v
    return v.reshape((v.type.shape[0], *shape)).transpose(2, 1, 3, 0)


def batch_first(v: Tensor) -> Tensor:
    """(rows, maps, columns, B) -> (B, maps, rows, columns)."""
    return v.transpose(3, 1, 0, 2) if v.type.ndim == 4 else v


def flat(v: Tensor) -> Tensor:
    """(rows, maps, columns, B) -> (B, maps * rows * columns)."""
    v = batch_first(v)
    return v.reshape((v.type.shape[0], int(np.prod(v.type.shape[1:]))))


def published_shape(v: Tensor) -> tuple[int, ...]:
    """The shape of v as published: its order decides last bits of overflow rates."""
    return batch_first(v).type.shape
