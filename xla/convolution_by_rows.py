r"""Cross-correlation and its gradients as matrix products of rows of images.

Images lie as (H, C, W, B): rows, maps, columns, batch. A block of R neighbouring rows,
cut to some columns, is then the operand of a matrix product almost as it stands:

        W columns (of B numbers)
      +---------------+ \
      |   #########   |  |          R * C rows, one for each row and map of the block;
    R |   #########   |  > C maps   W' * B columns
      |   #########   |  |
      +---------------+ /
          s ... s + W' - 1, the columns under tap s

Tap s of a filter is its column s, an (R, C) matrix; all filters there: (O, R * C).

    output row h        =   sum of taps s of   filters[s]     (O, R*C)
    (O, W' * B)                                @ block[h] at s (R*C, W'*B)

    filters' gradient   =   sum of rows h of   block[h] at s  (R*C, W'*B)
    at tap s (R*C, O)                          @ gradient[h]^T (W'*B, O)

    input gradient,     =   sum of taps s of   column s of flipped filters (S*C, R*O)
    row h (C, W * B)                           @ block of gradient rows    (R*O, W'*B)
                                               moved by s columns ("folded")

Where there are few maps, R * C is too short an inner dimension. Then the images are
unfolded: the S columns under a filter become S * C maps, and there is one tap.

Rows and columns of the padding are zero and are left out. At the upper and lower edge a
block therefore has fewer rows: `_blocks` sorts the output rows by how many. Each length
is one piece of code, in a loop, which is what keeps compilation short.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from xla.ops import pad_axis
from xla.products import multiply

FEW_MAPS = 8


def correlate(x: jax.Array, W: jax.Array, pad: int, tf32: bool) -> jax.Array:
    """(H, C, W, B), (O, C, R, S) -> (H', O, W', B)."""
    n_out, C, R, S = W.shape
    rows = len(x) + 2 * pad - R + 1
    side = pad
    if C <= FEW_MAPS:
        x = _unfold(x, S, pad)
        W = W.transpose(0, 3, 1, 2).reshape(n_out, S * C, R, 1)
        side = 0
    filters = W.transpose(3, 0, 2, 1)
    width = x.shape[2] + 2 * side - len(filters) + 1
    row = functools.partial(_output_row, filters=filters, pad=side, width=width, tf32=tf32)
    return _map_rows(row, x, rows, -pad, R)


def _output_row(
    block: jax.Array, first: jax.Array, filters: jax.Array, pad: int, width: int, tf32: bool
) -> jax.Array:
    """(O, W', B) from a block of rows.

    Parameters
    ----------
    filters
        (S, O, R, C), of which the block meets the rows from `first` on.
    """
    filters = lax.dynamic_slice_in_dim(filters, first, len(block), axis=2)
    taps, n_out, _, _ = filters.shape
    batch = block.shape[3]
    total = jnp.zeros((n_out, width, batch), block.dtype)
    for s, columns, outputs in _taps(taps, pad, block.shape[2], width):
        product = multiply(filters[s].reshape(n_out, -1), _matrix(block[:, :, columns]), tf32)
        product = product.reshape(n_out, -1, batch)
        total += pad_axis(product, 0, 1, outputs.start, width - outputs.stop)
    return total


def input_gradient(dz: jax.Array, W: jax.Array, pad: int, tf32: bool) -> jax.Array:
    """(H', O, W', B), (O, C, R, S) -> (H, C, W, B)."""
    n_out, C, R, S = W.shape
    filters = jnp.flip(W, (2, 3)).transpose(2, 3, 1, 0).reshape(R, S * C, n_out)
    row = functools.partial(_input_row, filters=filters, taps=S, pad=S - 1 - pad, tf32=tf32)
    return _map_rows(row, dz, len(dz) + R - 1 - 2 * pad, pad - R + 1, R)


def _input_row(
    block: jax.Array, first: jax.Array, filters: jax.Array, taps: int, pad: int, tf32: bool
) -> jax.Array:
    """(C, W, B) from a block of rows of the gradient.

    Parameters
    ----------
    filters
        (R, S * C, O), flipped, of which the block meets the rows from `first` on.
    """
    _, columns, n_out = filters.shape
    filters = lax.dynamic_slice_in_dim(filters, first, len(block))
    filters = filters.transpose(1, 0, 2).reshape(columns, -1)
    product = multiply(filters, _matrix(block), tf32)
    return _fold(product.reshape(taps, columns // taps, *block.shape[2:]), pad)


def filter_gradient(x: jax.Array, dz: jax.Array, pad: int, tf32: bool) -> jax.Array:
    """(H, C, W, B), (H', O, W', B) -> (O, C, R, S)."""
    H, C, W, _ = x.shape
    height, n_out, width, _ = dz.shape
    R = H + 2 * pad - height + 1
    S = W + 2 * pad - width + 1
    taps = S
    side = pad
    if C <= FEW_MAPS:
        x = _unfold(x, S, pad)
        taps = 1
        side = 0
    totals = [jnp.zeros((R, x.shape[1], n_out), x.dtype)] * taps
    for length, rows in _blocks(height, -pad, R, H).items():
        add = functools.partial(_add_row, x=x, dz=dz, above=pad, pad=side, length=length, tf32=tf32)
        totals = _for_rows(rows, add, totals)
    return jnp.stack(totals, axis=1).reshape(R, S, C, n_out).transpose(3, 2, 0, 1)


def _for_rows(rows: np.ndarray, turn: Callable, carried: Any) -> Any:
    """carried = turn(h, carried) for each h of rows: one above and one below, or neighbours."""
    step = np.int32(rows[1] - rows[0] if len(rows) > 1 else 1)
    return lax.fori_loop(
        np.int32(0),
        np.int32(len(rows)),
        lambda i, carried: turn(rows[0] + i * step, carried),
        carried,
    )


def _add_row(
    h: jax.Array,
    totals: list[jax.Array],
    x: jax.Array,
    dz: jax.Array,
    above: int,
    pad: int,
    length: int,
    tf32: bool,
) -> list[jax.Array]:
    """totals, an (R, C, O) for each tap, with what output row h adds to them."""
    block, first = _block(x, h - above, length)
    gradient = lax.dynamic_index_in_dim(dz, h, keepdims=False)
    n_out, width, _ = gradient.shape
    totals = list(totals)
    for s, columns, outputs in _taps(len(totals), pad, x.shape[2], width):
        pixels = _matrix(block[:, :, columns])
        gradients = gradient[:, outputs].reshape(n_out, -1).T
        product = multiply(pixels, gradients, tf32).reshape(length, -1, n_out)
        product = product + lax.dynamic_slice_in_dim(totals[s], first, length)
        totals[s] = lax.dynamic_update_slice_in_dim(totals[s], product, first, axis=0)
    return totals


def _overlap(start: int, size: int, n: int) -> tuple[slice, slice]:
    """Which of rows start .. start + size - 1 are among rows 0..n-1.

    Counted from row 0 on, and from `start` on.
    """
    low = max(0, start)
    high = min(n, start + size)
    return slice(low, high), slice(low - start, high - start)


def _blocks(count: int, offset: int, size: int, n: int) -> dict[int, np.ndarray]:
    """Output rows 0..count-1 by how many rows their blocks have.

    The block of h has rows h + offset .. h + offset + size - 1 as far as they are among
    rows 0..n-1.
    """
    blocks: dict[int, list[int]] = {}
    for h in range(count):
        rows, _ = _overlap(h + offset, size, n)
        blocks.setdefault(rows.stop - rows.start, []).append(h)
    return {length: np.array(found, "int32") for length, found in blocks.items()}


def _block(x: jax.Array, start: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """The first `length` rows of x from `start` on, and how many x lacks before."""
    first = jnp.maximum(start, 0)
    return lax.dynamic_slice_in_dim(x, first, length), first - start


def _map_rows(row: Callable, x: jax.Array, count: int, offset: int, size: int) -> jax.Array:
    """row(*block of x), blocks as `_blocks` has them, for h = 0..count-1, stacked."""

    def put(h: jax.Array, result: jax.Array, length: int) -> jax.Array:
        found = row(*_block(x, h + offset, length))
        return lax.dynamic_update_index_in_dim(result, found, h, axis=0)

    one = jax.eval_shape(lambda x: row(*_block(x, jnp.int32(0), 1)), x)
    result = jnp.zeros((count, *one.shape), one.dtype)
    for length, rows in _blocks(count, offset, size, len(x)).items():
        result = _for_rows(rows, functools.partial(put, length=length), result)
    return result


def _taps(taps: int, pad: int, n: int, n_out: int) -> Iterator[tuple[int, slice, slice]]:
    """Each tap that lies on any column: its number, these columns, their outputs."""
    for s in range(taps):
        columns, outputs = _overlap(s - pad, n_out, n)
        if columns.start < columns.stop:
            yield s, columns, outputs


def _matrix(block: jax.Array) -> jax.Array:
    """(rows, maps, columns, batch) -> (rows * maps, columns * batch)."""
    return block.reshape(block.shape[0] * block.shape[1], -1)


def _unfold(x: jax.Array, S: int, pad: int) -> jax.Array:
    """The S columns under a filter as maps: (H, C, W, B) -> (H, S * C, W', B)."""
    x = jnp.pad(x, [(0, 0), (0, 0), (pad, pad), (0, 0)])
    return jnp.concatenate([x[:, :, s : s + x.shape[2] - S + 1] for s in range(S)], axis=1)


def _fold(taps: jax.Array, pad: int) -> jax.Array:
    """Sums of column w + s - pad of each tap s: (S, C, W', B) -> (C, W, B)."""
    S, _, W, _ = taps.shape
    taps = jnp.pad(taps, [(0, 0), (0, 0), (pad, pad), (0, 0)])
    return functools.reduce(jnp.add, [taps[s, :, s : s + W + 2 * pad - S + 1] for s in range(S)])
