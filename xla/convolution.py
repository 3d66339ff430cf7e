"""Cross-correlation of images and its gradients."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from xla.ops import JaxOp, pad_axis
from xla.products import _precision, _product

# Images are arrays of (rows, maps, columns, batch). Then R neighbouring rows of one column are the operand of a matrix
# product as they stand, and everything else runs along the batch.


FEW_MAPS = 8  # up to here matrix products would be short and the columns are unfolded


def _explicit_products():
    """On a CPU convolutions are written as matrix products, near its peak; XLA's own are slow, most of all in a loop."""
    return jax.default_backend() == "cpu"


class Correlation(JaxOp):
    """Cross-correlation, stride 1, `pad` (< R, S) zeros a side.

    (H, C, W, B), filters (O, C, R, S) -> (H + 2 pad - R + 1, O, W + 2 pad - S + 1, B).
    """

    __props__ = ("pad", "on_grid")

    def __init__(self, pad, on_grid):
        self.pad, self.on_grid = pad, on_grid

    def apply(self, x, W):
        if not _explicit_products():
            return _convolve(
                x, W, (self.pad, self.pad), ("HCWN", "OIHW", "HCWN"), _precision(self.on_grid)
            )
        pad, (n_out, C, R, S) = self.pad, W.shape
        if C <= FEW_MAPS:
            x, W, pad = _unfold(x, S, pad), W.transpose(0, 3, 1, 2).reshape(n_out, S * C, R, 1), 0
        by_taps, width = W.transpose(3, 0, 2, 1), x.shape[2] + 2 * pad - W.shape[3] + 1

        def row(image, tap):
            filters = lax.dynamic_slice_in_dim(by_taps, tap, len(image), axis=2)
            total = jnp.zeros((n_out, width, x.shape[3]), x.dtype)
            for s, columns, outputs in _taps(W.shape[3], pad, x.shape[2], width):
                product = _product(filters[s].reshape(n_out, -1), _matrix(image[:, :, columns]))
                total += pad_axis(
                    product.reshape(n_out, -1, x.shape[3]),
                    0,
                    1,
                    outputs.start,
                    width - outputs.stop,
                )
            return total

        return _map_rows(row, x, len(x) + 2 * self.pad - R + 1, -self.pad, R)

    def result(self, x, W):
        (H, _, width, B), (n_out, _, R, S) = x[0], W[0]
        return (H + 2 * self.pad - R + 1, n_out, width + 2 * self.pad - S + 1, B), x[1]

    def pullback(self, inputs, outputs, cotangents):
        x, W = inputs
        (dz,) = cotangents
        return [
            CorrelationInputGradient(self.pad)(dz, W),
            CorrelationFilterGradient(self.pad, self.on_grid)(x, dz),
        ]


class CorrelationInputGradient(JaxOp):
    """The gradient of Correlation(pad) in its input: (H', O, W', B), (O, C, R, S) -> (H, C, W, B)."""

    __props__ = ("pad",)

    def __init__(self, pad):
        self.pad = pad

    def apply(self, dz, W):
        n_out, C, R, S = W.shape
        flipped = jnp.flip(W, (2, 3))
        if not _explicit_products():
            pads = R - 1 - self.pad, S - 1 - self.pad
            return _convolve(dz, flipped, pads, ("HCWN", "IOHW", "HCWN"), _precision(True))
        height, _, width, B = dz.shape
        by_rows = flipped.transpose(2, 3, 1, 0).reshape(R, S * C, n_out)

        def row(gradient, tap):
            filters = (
                lax.dynamic_slice_in_dim(by_rows, tap, len(gradient))
                .transpose(1, 0, 2)
                .reshape(S * C, -1)
            )
            return _fold(
                _product(filters, _matrix(gradient)).reshape(S, C, width, B), S - 1 - self.pad
            )

        return _map_rows(row, dz, height + R - 1 - 2 * self.pad, self.pad - R + 1, R)

    def result(self, dz, W):
        (height, _, width, B), (_, C, R, S) = dz[0], W[0]
        return (height + R - 1 - 2 * self.pad, C, width + S - 1 - 2 * self.pad, B), dz[1]


class CorrelationFilterGradient(JaxOp):
    """The gradient of Correlation(pad) in its filters: (H, C, W, B), (H', O, W', B) -> (O, C, R, S)."""

    __props__ = ("pad", "on_grid")

    def __init__(self, pad, on_grid):
        self.pad, self.on_grid = pad, on_grid

    def apply(self, x, dz):
        if not _explicit_products():
            return _convolve(
                x, dz, (self.pad, self.pad), ("HNWC", "HOWI", "CNHW"), _precision(self.on_grid)
            )
        (H, C, W, _), (height, n_out, width, _) = x.shape, dz.shape
        R, S = H + 2 * self.pad - height + 1, W + 2 * self.pad - width + 1
        few = C <= FEW_MAPS
        if few:
            x = _unfold(x, S, self.pad)
        taps, pad = (1, 0) if few else (S, self.pad)
        maps = x.shape[1]

        def add_row(h, totals, length):
            (image, tap), gradient = (
                _block(x, h - self.pad, length),
                lax.dynamic_index_in_dim(dz, h, keepdims=False),
            )
            totals = list(totals)
            for s, columns, outputs in _taps(taps, pad, x.shape[2], width):
                product = _product(
                    _matrix(image[:, :, columns]), gradient[:, outputs].reshape(n_out, -1).T
                )
                product = product.reshape(length, maps, n_out) + lax.dynamic_slice_in_dim(
                    totals[s], tap, length
                )
                totals[s] = lax.dynamic_update_slice_in_dim(totals[s], product, tap, axis=0)
            return totals

        totals = [jnp.zeros((R, maps, n_out), x.dtype)] * taps
        for length, rows in _blocks(height, -self.pad, R, H).items():
            step = np.int32(
                rows[1] - rows[0] if len(rows) > 1 else 1
            )  # one above and one below, or neighbours
            totals = lax.fori_loop(
                np.int32(0),
                np.int32(len(rows)),
                lambda i, totals, length=length, rows=rows, step=step: add_row(
                    rows[0] + i * step, totals, length
                ),
                totals,
            )
        return jnp.stack(totals, axis=1).reshape(R, S, C, n_out).transpose(3, 2, 0, 1)

    def result(self, x, dz):
        (H, C, W, _), (height, n_out, width, _) = x[0], dz[0]
        return (n_out, C, H + 2 * self.pad - height + 1, W + 2 * self.pad - width + 1), x[1]


def _convolve(x, W, pads, dimensions, precision):
    return lax.conv_general_dilated(
        x, W, (1, 1), [(n, n) for n in pads], dimension_numbers=dimensions, precision=precision
    )


def _overlap(start, size, n):
    """Of `size` rows from `start` on, those that are among rows 0..n-1, and which of the `size` they are: two slices."""
    low, high = max(0, start), min(n, start + size)
    return slice(low, high), slice(low - start, high - start)


def _blocks(count, offset, size, n):
    """Of rows h + offset .. h + offset + size - 1, those among rows 0..n-1, for h = 0..count-1.

    A dict from how many they are to the h with so many. Blocks at the upper and the lower edge that have the same number of
    rows share a piece of code, in a loop, as those inside do: about half as much to compile.
    """
    blocks = {}
    for h in range(count):
        rows, _ = _overlap(h + offset, size, n)
        blocks.setdefault(rows.stop - rows.start, []).append(h)
    return {length: np.array(found, "int32") for length, found in blocks.items()}


def _block(x, start, length):
    """`length` rows of x, the first of those that exist from `start` on, and how many before it do not."""
    first = jnp.maximum(start, 0)
    return lax.dynamic_slice_in_dim(x, first, length), first - start


def _map_rows(row, x, count, offset, size):
    """row(*block of x), as `_blocks` has them, for h = 0..count-1, stacked."""
    results = [None] * count
    for length, outputs in _blocks(count, offset, size, len(x)).items():
        found = lax.map(
            lambda h, length=length: row(*_block(x, h + offset, length)), jnp.asarray(outputs)
        )
        cuts = [
            0,
            *np.flatnonzero(np.diff(outputs) > 1) + 1,
            len(outputs),
        ]  # neighbours stay together
        for a, b in itertools.pairwise(cuts):
            results[outputs[a]] = found[a:b]
    return jnp.concatenate([r for r in results if r is not None])


def _taps(taps, pad, n, n_out):
    """(tap, input columns under it, output columns they belong to) of each tap that has any: slices of 0..n-1, 0..n_out-1."""
    for s in range(taps):
        columns, outputs = _overlap(s - pad, n_out, n)
        if columns.start < columns.stop:
            yield s, columns, outputs


def _matrix(x):
    """(rows, maps, columns, batch) -> (rows * maps, columns * batch)."""
    return x.reshape(x.shape[0] * x.shape[1], -1)


def _unfold(x, S, pad):
    """The S columns under a filter as maps: (H, C, W, B) -> (H, S * C, W + 2 pad - S + 1, B)."""
    x = jnp.pad(x, [(0, 0), (0, 0), (pad, pad), (0, 0)])
    return jnp.concatenate([x[:, :, s : s + x.shape[2] - S + 1] for s in range(S)], axis=1)


def _fold(taps, pad):
    """Sum of column w + s - pad of each tap s, for every w: (S, C, W, B) -> (C, W + 2 pad - S + 1, B)."""
    S, _, W, _ = taps.shape
    taps = jnp.pad(taps, [(0, 0), (0, 0), (pad, pad), (0, 0)])
    return functools.reduce(jnp.add, [taps[s, :, s : s + W + 2 * pad - S + 1] for s in range(S)])


def correlate(x, W, pad, on_grid):
    """Cross-correlation of images x (H, C, W, B) with filters W (O, C, R, S), stride 1, `pad` zeros on each side.

    on_grid: as for `product`.
    """
    return Correlation(pad, on_grid)(x, W)
