"""The test pass in integers, in NumPy alone.

An integer stands for integer * 2^exponent. Sums are int64, or Python's integers where those are
too narrow; halves are rounded away from zero; what is too large becomes the largest integer.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

ROOM = 62  # bits of int64 that sums may take


@dataclass(frozen=True)
class Grid:
    """The numbers integer * 2^exponent that a signal can have, with `bits` bits and a sign."""

    bits: int
    exponent: int

    @property
    def largest(self) -> int:
        """The largest integer; the smallest is its negative.

        The program has 2^bits - 1 as a float32, which from 25 bits on is 2^bits.
        """
        return 2**self.bits - (self.bits <= 24)

    def nearest(self, v: np.ndarray, exponent: int) -> np.ndarray:
        """Integers that stand for v * 2^exponent -> the nearest of this grid."""
        shift = exponent - self.exponent
        sizes: Any = abs(v)
        if int(sizes.max(initial=0)).bit_length() + abs(shift) > ROOM:
            sizes = sizes.astype(object)
        if shift >= 0:
            sizes = sizes << shift
        else:
            sizes = (sizes + (1 << (-shift - 1))) >> -shift
        return (np.sign(v) * np.minimum(sizes, self.largest)).astype("int64")

    def nearest_to(self, v: np.ndarray) -> np.ndarray:
        """Floats -> the nearest integers of this grid."""
        steps = np.asarray(v, "float64") * 2.0**-self.exponent
        whole = np.trunc(steps)
        whole += np.copysign(abs(steps - whole) >= 0.5, steps)
        return np.clip(whole, -self.largest, self.largest).astype("int64")


@dataclass(frozen=True)
class Layer:
    """A layer's integers, and its test pass.

    Parameters
    ----------
    name, kind
        layer0, ...; DenseMaxout, ConvMaxout or Softmax.
    W, b
        int64, as the propagations see them. W is (inputs, units * pieces), or (channels,
        input maps, rows, columns) of a convolutional layer.
    below, w_grid, b_grid, z_grid, y_grid
        What the integers of the input, of W, b, z and y stand for; below is None where the
        input is data.
    scale
        W and b are multiplied by 2^scale.
    input_shape
        Without the batch axis.
    pieces, pad, pool, stride
        Adjacent channels that share an output; zeros around the input; the side of the pooling
        windows and their distance.
    """

    name: str
    kind: str
    W: np.ndarray
    b: np.ndarray
    below: Grid | None
    w_grid: Grid
    b_grid: Grid
    z_grid: Grid
    y_grid: Grid
    scale: int
    input_shape: tuple[int, ...]
    pieces: int = 1
    pad: int = 0
    pool: int = 1
    stride: int = 1

    @property
    def sum_exponent(self) -> int:
        """What the sums of products and bias stand for."""
        return self.b_grid.exponent - self._shifts()[1] + self.scale

    @property
    def largest_sum(self) -> int:
        """No such sum can be larger, whatever the input."""
        products, biases = self._shifts()
        weights = abs(self.W).sum(axis=0 if self.W.ndim == 2 else (1, 2, 3))
        return max(
            (int(w) * self._below.largest << products) + (abs(int(b)) << biases)
            for w, b in zip(weights, self.b, strict=True)
        )

    def z(self, below: np.ndarray) -> np.ndarray:
        """Integers of the layer below (n, inputs) -> of z, before the maximum over pieces."""
        products, biases = self._shifts()
        kind: Any = "int64" if self.largest_sum.bit_length() <= ROOM else object
        sums = self._linear(below.astype(kind), self.W.astype(kind)) << products
        sums = sums + self._by_channel(self.b.astype(kind) << biases)
        return self.z_grid.nearest(sums, self.sum_exponent)

    def y(self, z: np.ndarray) -> np.ndarray:
        """Integers of z -> of the layer's output (n, outputs); the softmax itself is in floats."""
        if self.kind == "Softmax":
            e = np.exp((z - z.max(axis=1, keepdims=True)) * 2.0**self.z_grid.exponent)
            e = e.astype("float32").astype("float64")
            return self.y_grid.nearest_to((e / e.sum(axis=1, keepdims=True)).astype("float32"))
        units = z.reshape(len(z), -1, self.pieces, *z.shape[2:]).max(axis=2)
        return self.y_grid.nearest(units.reshape(len(z), -1), self.z_grid.exponent)

    def first_z(self, x: np.ndarray) -> np.ndarray:
        """Data (n, inputs) -> integers of z, by sums in float64."""
        sums = self._linear(x.astype("float64"), self.W * 2.0**self.w_grid.exponent)
        sums = sums + self._by_channel(self.b * 2.0**self.b_grid.exponent)
        return self.z_grid.nearest_to(sums * 2.0**self.scale)

    def first(self, x: np.ndarray) -> np.ndarray:
        """Data (n, inputs) -> integers of the layer's output."""
        return self.y(self.first_z(x))

    @property
    def _below(self) -> Grid:
        if self.below is None:
            raise ValueError(f"the input of {self.name} is data: use first_z")
        return self.below

    def _shifts(self) -> tuple[int, int]:
        """By how much products and biases are shifted to the left, to have the same exponent."""
        products = self._below.exponent + self.w_grid.exponent
        finer = min(products, self.b_grid.exponent)
        return products - finer, self.b_grid.exponent - finer

    def _by_channel(self, b: np.ndarray) -> np.ndarray:
        return b[:, None, None] if self.kind == "ConvMaxout" else b

    def _linear(self, x: np.ndarray, W: np.ndarray) -> np.ndarray:
        """The products' sums; of a convolutional layer their maxima over the pooling windows."""
        if self.kind != "ConvMaxout":
            return x @ W
        edges = (self.pad, self.pad)
        images = np.pad(x.reshape(-1, *self.input_shape), [(0, 0), (0, 0), edges, edges])
        return max_pool(correlate(images, W), self.pool, self.stride)


def correlate(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    """(n, C, H, W) with (O, C, R, S) -> (n, O, H - R + 1, W - S + 1), stride 1."""
    n, maps = x.shape[:2]
    channels, _, R, S = W.shape
    rows, columns = x.shape[2] - R + 1, x.shape[3] - S + 1
    total: Any = 0
    for r in range(R):
        for s in range(S):
            under = x[:, :, r : r + rows, s : s + columns].reshape(n, maps, rows * columns)
            total = total + W[:, :, r, s] @ under
    return total.reshape(n, channels, rows, columns)


def max_pool(x: np.ndarray, pool: int, stride: int) -> np.ndarray:
    """Maxima over windows of the last two axes, cut at the border."""
    rows, columns = (-(-(n - pool) // stride) + 1 for n in x.shape[2:])
    maxima = np.empty((*x.shape[:2], rows, columns), x.dtype)
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            maxima[:, :, i, j] = x[:, :, top : top + pool, left : left + pool].max(axis=(2, 3))
    return maxima
