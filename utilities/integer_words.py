"""Numbers of a format as integers, and integers as words of bits."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .integer_layers import Grid

DIGITS = np.frombuffer(b"0123456789abcdef", "uint8")
BLOCK = 2**16  # words at a time; a multiple of 8, so that each block fills whole bytes


@dataclass(frozen=True)
class Words:
    """A tensor of integers, or of binary16 patterns.

    Parameters
    ----------
    integers
        In the smallest type that holds such words.
    bits
        Of a word; of an integer's word with the sign.
    radix
        bits, range and exponent of the integers, as manifest.json has them; empty for patterns.
    """

    integers: np.ndarray
    bits: int
    radix: dict[str, int] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        return Grid(self.radix["bits"], self.radix["exponent"])

    def entry(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """What manifest.json says of them."""
        return {**self.radix, "word_bits": self.bits, "shape": list(shape)}


def _words(integers: np.ndarray, bits: int, noib: int) -> Words:
    """Words of `bits` bits and a sign; one bit more where 2^bits is among them (see Grid)."""
    largest = int(abs(integers).max(initial=0))
    word_bits = max(bits, largest.bit_length()) + 1
    size = next(size for size in (8, 16, 32, 64) if word_bits <= size)
    return Words(integers.astype(f"int{size}"), word_bits, radix(bits, noib))


def radix(bits: int, noib: int) -> dict[str, int]:
    """Of the fixed point numbers with `bits` bits, `noib` of them before the radix point.

    The scale of the program's quantizer stops at 2^126.
    """
    return {"bits": bits, "range": noib, "exponent": max(noib - bits, -126)}


def fixed_point(values: np.ndarray, bits: int, noib: int, drift: int = 0) -> Words:
    """Numbers that are on a grid already, as integers.

    Parameters
    ----------
    drift
        By how much the range may have moved since the numbers were stored.

    Raises
    ------
    ValueError
        They are on no such grid.
    """
    for moved in sorted(range(-drift, drift + 1), key=lambda n: (abs(n), -n)):
        said = radix(bits, noib + moved)
        grid = Grid(bits, said["exponent"])
        steps = values.astype("float64") * 2.0**-grid.exponent
        if (steps == np.rint(steps)).all() and (abs(steps) <= grid.largest).all():
            return _words(steps.astype("int64"), bits, noib + moved)
    raise ValueError(f"they are no numbers of {bits} bits with the range {noib}")


def rounded(words: Words, bits: int, noib: int) -> Words:
    """The nearest words of another grid."""
    grid = Grid(bits, radix(bits, noib)["exponent"])
    nearest = grid.nearest(words.integers.astype("int64"), words.grid.exponent)
    return _words(nearest, bits, noib)


def half_precision(values: np.ndarray) -> Words:
    """binary16 numbers, as patterns; ValueError if they are others."""
    with np.errstate(over="ignore"):
        half = values.astype("float16")
    if not np.array_equal(half.astype("float32"), values):
        raise ValueError("they are no half-precision floats")
    return Words(half.view("uint16"), 16)


def _blocks(integers: np.ndarray, bits: int) -> Iterator[np.ndarray]:
    """The words as unsigned numbers, block by block, int64 (n, 1)."""
    flat = integers.reshape(-1, 1)
    for k in range(0, len(flat), BLOCK):
        yield flat[k : k + BLOCK].astype("int64") & (2**bits - 1)


def pack(words: Words) -> bytes:
    """Words one after the other, two's complement, the least significant bit first."""
    places = np.arange(words.bits)
    blocks = _blocks(words.integers, words.bits)
    bits = (((block >> places) & 1).astype("uint8") for block in blocks)
    return b"".join(np.packbits(block, bitorder="little").tobytes() for block in bits)


def hexadecimal(words: Words) -> bytes:
    """A word a line, in hexadecimal digits."""
    places = 4 * np.arange(-(-words.bits // 4))[::-1]
    lines = []
    for block in _blocks(words.integers, words.bits):
        digits = DIGITS[(block >> places) & 15]
        ends = np.full((len(block), 1), ord("\n"), "uint8")
        lines.append(np.hstack([digits, ends]).tobytes())
    return b"".join(lines)
