"""The matrix products of a training step."""

from typing import Any

import numpy as np

from model import Network


def products(network: Network, batch_size: int) -> list[tuple[int, int, int]]:
    """(m, k, n) of every matrix product of a training step."""
    shapes: list[tuple[int, int, int]] = []
    for layer in network.layers:
        W = layer.W.get_value()
        if W.ndim == 4:
            rows, columns = output_sides(layer)
            m, k, n = len(W), W[0].size, rows * columns * batch_size
        else:
            m, k, n = W.shape[1], len(W), batch_size
        # The first input needs no gradient.
        shapes += products_of(m, k, n)[: 3 if shapes else 2]
    return shapes


def output_sides(layer: Any) -> tuple[int, int]:
    """Rows and columns of what a convolutional layer computes."""
    height, width = (
        n + 2 * layer.pad - layer.W.get_value().shape[2] + 1 for n in layer.input_shape[1:]
    )
    return height, width


def products_of(m: int, k: int, n: int) -> list[tuple[int, int, int]]:
    """(m, k, n) of a product and of its gradients in the left and the right factor."""
    return [(m, k, n), (m, n, k), (k, m, n)]


def random_factors(m: int, k: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The factors of a matrix product, and where it may be written to."""
    rng = np.random.default_rng(0)
    return rng.random((m, k), "float32"), rng.random((k, n), "float32"), np.zeros((m, n), "float32")
