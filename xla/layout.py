"""How images lie in memory: as published, and as the convolutions here compute."""

import numpy as np


def images(v, shape):
    """(B, maps * rows * columns), as published -> (rows, maps, columns, B), as convolutional layers compute (see `ops`)."""
    return v.reshape((v.type.shape[0], *shape)).transpose(2, 1, 3, 0)


def batch_first(v):
    """(rows, maps, columns, B) -> (B, maps, rows, columns); (B, features) stays."""
    return v.transpose(3, 1, 0, 2) if v.type.ndim == 4 else v


def flat(v):
    """(rows, maps, columns, B) -> (B, maps * rows * columns); (B, features) stays."""
    v = batch_first(v)
    return v.reshape((v.type.shape[0], int(np.prod(v.type.shape[1:]))))


def published_shape(v):
    """The shape that v has in the published program, whose order decides last bits of overflow rates."""
    return batch_first(v).type.shape
