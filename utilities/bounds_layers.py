"""The linear maps and activations of layers, in intervals (see `bounds`)."""

from collections.abc import Iterator

import numpy as np

from format import RANGE_LIMIT
from layer import Layer
from layers import ConvMaxout, DenseMaxout, Softmax
from utilities.bounds import UNIT, Interval, Sums, rounded, shares, softmax


def add(a: Interval, b: Interval) -> Interval:
    """The sum of two float32 numbers."""
    return Interval(rounded(a.lo + b.lo), rounded(a.hi + b.hi))


def in_pieces(layer: ConvMaxout | DenseMaxout, v: np.ndarray) -> np.ndarray:
    """(B, channels, ...) -> (B, units, pieces, ...)."""
    return v.reshape(len(v), -1, layer.pieces, *v.shape[2:])


def activation(layer: Layer, u: Interval) -> Interval:
    """y, flat, before its quantizer."""
    if isinstance(layer, Softmax):
        return softmax(u)
    assert isinstance(layer, ConvMaxout | DenseMaxout)
    return u.each(lambda v: in_pieces(layer, v).max(axis=2).reshape(len(v), -1))


def patches(layer: ConvMaxout, x: np.ndarray) -> np.ndarray:
    """What each output pixel sees: flat (B, inputs) -> (B * pixels, maps * size * size)."""
    x = np.pad(x.reshape(-1, *layer.input_shape), [(0, 0), (0, 0), *[(layer.pad, layer.pad)] * 2])
    seen = np.lib.stride_tricks.sliding_window_view(x, (layer.size, layer.size), axis=(2, 3))
    return seen.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * layer.size**2)


def put_back(layer: ConvMaxout, v: np.ndarray) -> np.ndarray:
    """The transpose of `patches`: every pixel's sum of what saw it."""
    maps, *sides = layer.input_shape
    rows, columns = (n + 2 * layer.pad - layer.size + 1 for n in sides)
    v = v.reshape(-1, rows, columns, maps, layer.size, layer.size).transpose(0, 3, 4, 5, 1, 2)
    x = np.zeros((len(v), maps, *(n + 2 * layer.pad for n in sides)))
    for i in range(layer.size):
        for j in range(layer.size):
            x[:, :, i : i + rows, j : j + columns] += v[:, :, i, j]
    inner = [slice(layer.pad, layer.pad + n) for n in sides]
    return x[:, :, inner[0], inner[1]].reshape(len(v), -1)


def correlation(layer: ConvMaxout, x: Interval, W: Interval) -> Interval:
    """Flat (B, inputs) and (channels, maps, size, size) -> (B, channels, rows, columns)."""
    seen = x.each(lambda v: patches(layer, v))
    sums = Sums.of_products(seen, W.each(lambda v: v.reshape(len(v), -1).T))
    rows, columns = (n + 2 * layer.pad - layer.size + 1 for n in layer.input_shape[1:])

    def arranged(v: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(v.reshape(-1, rows, columns, v.shape[1]).transpose(0, 3, 1, 2))

    return sums.interval().each(arranged)


def gradients(layer: Layer, x: Interval, W: Interval, dz: Interval) -> tuple[Sums, Sums]:
    """Those of W, and of x, flat."""
    if not isinstance(layer, ConvMaxout):
        turned = x.each(np.transpose), W.each(np.transpose)
        return Sums.of_products(turned[0], dz), Sums.of_products(dz, turned[1])
    flat = dz.each(lambda v: v.transpose(0, 2, 3, 1).reshape(-1, v.shape[1]))
    dW = Sums.of_products(flat.each(np.transpose), x.each(lambda v: patches(layer, v)))
    below = Sums.of_products(flat, W.each(lambda v: v.reshape(len(v), -1)))
    return dW.each(lambda v: v.reshape(W.lo.shape)), below.each(lambda v: put_back(layer, v))


def routed(layer: ConvMaxout | DenseMaxout, u: Interval, g: Interval) -> Interval:
    """The gradient of u from that of its maxima over pieces."""
    du = shares(
        u.each(lambda v: in_pieces(layer, v)),
        g.each(lambda v: v.reshape(len(v), -1, 1, *u.lo.shape[2:])),
        axis=2,
    )
    return du.each(lambda v: v.reshape(u.lo.shape))


def windows(layer: ConvMaxout, shape: tuple[int, ...]) -> Iterator[tuple[int, int, tuple]]:
    """(row, column, pixels) of each pooling window of (B, channels, rows, columns)."""
    sides = [-(-(n - layer.pool) // layer.stride) + 1 for n in shape[2:]]
    for i in range(sides[0]):
        for j in range(sides[1]):
            rows, columns = (slice(k * layer.stride, k * layer.stride + layer.pool) for k in (i, j))
            yield i, j, (slice(None), slice(None), rows, columns)


def max_pool(layer: ConvMaxout, v: np.ndarray) -> np.ndarray:
    """(B, channels, rows, columns) -> (B, channels, fewer, fewer)."""
    found = {(i, j): v[pixels].max(axis=(2, 3)) for i, j, pixels in windows(layer, v.shape)}
    rows, columns = (1 + max(ij[axis] for ij in found) for axis in (0, 1))
    pooled = np.stack([found[i, j] for i in range(rows) for j in range(columns)], axis=-1)
    return pooled.reshape(*v.shape[:2], rows, columns)


def unpooled(layer: ConvMaxout, z: Interval, du: Interval) -> Interval:
    """The gradient of z from that of its pooled maxima."""
    parts = [np.zeros(z.lo.shape) for _ in range(4)]
    for i, j, pixels in windows(layer, z.lo.shape):
        lo, hi = z.lo[pixels], z.hi[pixels]
        flat = (*lo.shape[:2], -1)
        seen = Interval(lo.reshape(flat), hi.reshape(flat))
        gradient = Interval(du.lo[:, :, i, j, None], du.hi[:, :, i, j, None], du.step)
        sums = Sums.of(shares(seen, gradient, axis=2))
        for part, new in zip(parts, sums.parts, strict=True):
            part[pixels] += new.reshape(lo.shape)
    return Sums(du.step, *parts).interval()


def shrunk(W: Interval, max_col_norm: float) -> Interval:
    """W times the smaller of its norms over axis 0 and the largest allowed, over its norms."""
    squares = Interval(np.square(W.smallest).sum(axis=0), np.square(W.largest).sum(axis=0))
    # Added up in float64; the recorded program rounded each of them to float32 before.
    exact = W.step > 0 and np.all(np.square(W.largest) <= 2.0**24 * W.step**2)
    error = 0.0 if exact else UNIT + 2.0**-52 * len(W.lo)
    norm = Interval(rounded(squares.lo * (1 - error)), rounded(squares.hi * (1 + error)))
    norm = norm.rising(np.sqrt)

    def factor(n: np.ndarray) -> np.ndarray:
        most = float(np.float32(max_col_norm))
        return rounded(np.minimum(n, most) / rounded(n + float(np.float32(1e-7))))

    peak = np.clip(float(np.float32(max_col_norm)), norm.lo, norm.hi)
    some = np.stack([factor(norm.lo), factor(norm.hi), factor(peak)])
    unsure = np.where(norm.known, 0, 2.0**-22)  # its roundings rise and fall
    lo = some.min(axis=0) * (1 - unsure)
    hi = some.max(axis=0) * (1 + unsure)
    smallest = np.where(W.lo < 0, hi, lo) * W.lo
    largest = np.where(W.hi < 0, lo, hi) * W.hi
    return Interval(rounded(smallest), rounded(largest))


def overflow_rates(a: Interval, nob: int, noib: int) -> tuple[float, float]:
    """The smallest and the largest overflow rate of a tensor in its published shape."""
    limit = float(np.float32(2.0**nob - 1)) * 2.0 ** float(np.clip(noib - nob, -126, 126))
    rates = []
    for magnitude in (a.smallest, a.largest):
        rate = np.float32(np.count_nonzero(magnitude >= limit))
        for n in a.lo.shape:
            rate = np.float32(rate / np.float32(n))
        rates.append(float(rate))
    return rates[0], rates[1]


def next_range(noib: np.ndarray, overflow: np.ndarray, max_overflow: float) -> np.ndarray:
    """The ranges after an update; overflow (2, ...): mean rates at noib and at one bit less."""
    step = np.where(overflow[0] > max_overflow, 1, np.where(overflow[1] > max_overflow, 0, -1))
    return np.clip(noib + step, -RANGE_LIMIT, RANGE_LIMIT)
