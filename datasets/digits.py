"""Drawn digits: strokes under a random affine map and warp, with blur and noise.

Errors on them say that a program works, nothing about the published results.
"""

from itertools import pairwise

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from datasets.parts import Floats, Labels, Pixels

Doubles = NDArray[np.float64]
Points = list[tuple[float, float]]


def _arc(
    cx: float, cy: float, rx: float, ry: float, start: float, stop: float, n: int = 10
) -> Points:
    """Points of an elliptic arc, degrees clockwise from the right (y points down)."""
    t = np.radians(np.linspace(start, stop, n + 1))
    return [*zip(cx + rx * np.cos(t), cy + ry * np.sin(t), strict=True)]


# digit -> its ways of writing it; each a list of polylines in the unit square
GLYPHS: dict[int, list[list[Points]]] = {
    0: [[_arc(0.5, 0.5, 0.27, 0.42, 0, 360, 14)]],
    1: [[[(0.5, 0.08), (0.5, 0.92)]], [[(0.33, 0.27), (0.53, 0.08), (0.53, 0.92)]]],
    2: [[[*_arc(0.49, 0.31, 0.26, 0.23, 185, 395), (0.22, 0.92), (0.8, 0.92)]]],
    3: [[_arc(0.46, 0.29, 0.25, 0.21, 205, 440), _arc(0.46, 0.71, 0.29, 0.22, 275, 515)]],
    4: [
        [[(0.58, 0.08), (0.2, 0.62), (0.82, 0.62)], [(0.62, 0.38), (0.62, 0.94)]],
        [[(0.28, 0.08), (0.24, 0.5), (0.72, 0.5)], [(0.72, 0.08), (0.7, 0.94)]],
    ],
    5: [[[(0.76, 0.08), (0.32, 0.08), (0.29, 0.46), *_arc(0.46, 0.67, 0.29, 0.25, 235, 505)]]],
    6: [[[(0.66, 0.07), (0.4, 0.28), (0.27, 0.52), *_arc(0.5, 0.69, 0.24, 0.23, 190, 540)]]],
    7: [
        [[(0.2, 0.1), (0.8, 0.1), (0.42, 0.93)]],
        [[(0.2, 0.1), (0.8, 0.1), (0.42, 0.93)], [(0.36, 0.52), (0.74, 0.52)]],
    ],
    8: [[_arc(0.5, 0.29, 0.2, 0.2, 0, 360), _arc(0.5, 0.71, 0.25, 0.22, 0, 360)]],
    9: [[[*_arc(0.49, 0.32, 0.24, 0.23, 0, 350), (0.73, 0.35), (0.66, 0.93)]]],
}


def draw(digits: Labels, size: int, rng: RandomState) -> Floats:
    """Draw digits.

    Parameters
    ----------
    digits
        0..9 (n,).
    size
        Pixels per side.

    Returns
    -------
    float32 (n, size, size)
        Ink, 0..1, without noise.
    """
    owners, glyphs = _glyphs()
    ways = [np.flatnonzero(owners == digit) for digit in range(10)]
    which = np.array([ways[digit][rng.randint(len(ways[digit]))] for digit in digits])
    hand = _Hand(len(digits), size, rng)
    ink = np.empty((len(digits), size, size), np.float32)
    for way, glyph in enumerate(glyphs):
        some = np.flatnonzero(which == way)
        x, y = hand.move(glyph, some)
        for first in range(0, len(some), 64):  # 64 images at a time stay in the cache
            part = slice(first, first + 64)
            distance = _distance(x[part].astype(np.float32), y[part].astype(np.float32), size)
            ink[some[part]] = hand.ink(distance, some[part])
    return ink


def _glyphs() -> tuple[Labels, list[Doubles]]:
    """All ways of writing: the digit of each, its segments (segments, 2 ends, 2)."""
    ways = [(digit, way) for digit, some in GLYPHS.items() for way in some]
    digits = np.array([digit for digit, _ in ways])
    segments = [np.array([pair for line in way for pair in pairwise(line)]) for _, way in ways]
    return digits, segments


class _Hand:
    """How each digit is written: random numbers (n, 1, 1), drawn in this order."""

    def __init__(self, n: int, size: int, rng: RandomState) -> None:
        def uniform(low: float, high: float) -> Doubles:
            return rng.uniform(low, high, n)[:, None, None]

        self.phase = uniform(0, 2 * np.pi)
        self.sway = uniform(-0.06, 0.06)
        self.angle = uniform(-0.2, 0.2)
        self.slant = uniform(-0.25, 0.25)
        self.width = 0.74 * size * uniform(0.62, 1.1)
        self.height = 0.74 * size * uniform(0.8, 1.05)
        self.across = size * uniform(0.44, 0.56)
        self.down = size * uniform(0.44, 0.56)
        self.thickness = size * uniform(0.028, 0.062)
        self.blur = uniform(0.8, 1.6)

    def move(self, glyph: Doubles, some: Labels) -> tuple[Doubles, Doubles]:
        """A glyph as some images have it: x, y in pixels (images, segments, ends)."""
        x0, y0 = glyph.transpose(2, 0, 1)[:, None] - 0.5  # (1, segments, ends)
        x = x0 + self.sway[some] * np.sin(5 * y0 + self.phase[some])
        y = y0 + self.sway[some] * np.sin(5 * x0 + self.phase[some])
        x = self.width[some] * x - self.slant[some] * self.height[some] * y
        y = self.height[some] * y
        cos = np.cos(self.angle[some])
        sin = np.sin(self.angle[some])
        return cos * x - sin * y + self.across[some], sin * x + cos * y + self.down[some]

    def ink(self, distance: Floats, some: Labels) -> Doubles:
        """Ink 0..1 at a distance (images, size, size) from the strokes."""
        return np.clip((self.thickness[some] - distance) / self.blur[some] + 0.5, 0, 1)


def _distance(x: Floats, y: Floats, size: int) -> Floats:
    """Each pixel's distance to the nearest segment of x, y (n, segments, 2 ends)."""
    columns = (np.arange(size, dtype=np.float32) + np.float32(0.5))[None, None, :]
    rows = columns.transpose(0, 2, 1)
    nearest = np.full((len(x), size, size), np.inf, np.float32)
    for segment in range(x.shape[1]):
        x0, x1 = x[:, segment, :, None, None].swapaxes(0, 1)
        y0, y1 = y[:, segment, :, None, None].swapaxes(0, 1)
        dx = x1 - x0
        dy = y1 - y0
        squared = dx * dx + dy * dy
        along = (columns - x0) * (dx / squared) + (rows - y0) * (dy / squared)
        np.maximum(along, 0, out=along)
        np.minimum(along, 1, out=along)
        across = columns - x0 - along * dx
        down = rows - y0 - along * dy
        np.minimum(nearest, across * across + down * down, out=nearest)
    return np.sqrt(nearest)


def grey(n: int, rng: RandomState) -> tuple[Pixels, Labels]:
    """Light ink on black, noise where it is above a limit: (n, 28, 28), and digits."""
    digits = _balanced(n, rng)
    ink = draw(digits, 28, rng) * rng.uniform(0.7, 1, (n, 1, 1))
    ink = ink + rng.normal(0, 0.1, ink.shape)
    return (np.clip(np.where(ink > 0.12, ink, 0), 0, 1) * 255).astype(np.uint8), digits


def coloured(n: int, rng: RandomState) -> tuple[Pixels, Labels]:
    """A light colour on a shaded darker one, with noise: (n, 3, 32, 32), and digits."""
    digits = _balanced(n, rng)
    ink = draw(digits, 32, rng)[:, None]
    paper = rng.uniform(0.1, 0.5, (n, 3, 1, 1))
    # always lighter: there are few examples to learn from
    colour = paper + rng.uniform(0.2, 0.5, (n, 3, 1, 1))
    ramp = np.linspace(-1, 1, 32)
    shade = rng.uniform(-0.12, 0.12, (n, 1, 1, 1)) * ramp
    shade = shade + rng.uniform(-0.12, 0.12, (n, 1, 1, 1)) * ramp[:, None]
    image = paper + ink * (colour - paper) + shade + rng.normal(0, 0.05, (n, 3, 32, 32))
    return (np.clip(image, 0, 1) * 255).astype(np.uint8), digits


def _balanced(n: int, rng: RandomState) -> Labels:
    """int (n,): every digit equally often, in random order."""
    return rng.permutation(np.arange(n) % 10)
