"""Drawn digits."""

from itertools import pairwise

import numpy as np


def _arc(cx, cy, rx, ry, start, stop, n=10):
    """Points of an elliptic arc, degrees clockwise from the right (y points down)."""
    t = np.radians(np.linspace(start, stop, n + 1))
    return [*zip(cx + rx * np.cos(t), cy + ry * np.sin(t), strict=True)]


# digit -> its ways of writing it; each a list of polylines in the unit square
GLYPHS = {
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


def _glyphs():
    """All ways of writing: their digits (ways,), and the segments of each, float64 (segments, 2 ends, 2)."""
    ways = [(digit, way) for digit, some in GLYPHS.items() for way in some]
    return np.array([digit for digit, _ in ways]), [
        np.array([pair for line in way for pair in pairwise(line)]) for _, way in ways
    ]


def draw(digits, size, rng):
    """Draw digits.

    Parameters
    ----------
    digits : int (n,), 0..9
    size : pixels per side
    rng : numpy.random.RandomState

    Returns
    -------
    float32 (n, size, size): ink, 0..1, without noise.
    """
    owners, glyphs = _glyphs()
    ways = [np.flatnonzero(owners == digit) for digit in range(10)]
    which = np.array([ways[digit][rng.randint(len(ways[digit]))] for digit in digits])

    def uniform(low, high):
        return rng.uniform(low, high, len(digits))[:, None, None]

    phase, sway = uniform(0, 2 * np.pi), uniform(-0.06, 0.06)
    angle, slant = uniform(-0.2, 0.2), uniform(-0.25, 0.25)
    width, height = 0.74 * size * uniform(0.62, 1.1), 0.74 * size * uniform(0.8, 1.05)
    across, down = size * uniform(0.44, 0.56), size * uniform(0.44, 0.56)
    thickness, blur = size * uniform(0.028, 0.062), uniform(0.8, 1.6)

    ink = np.empty((len(digits), size, size), np.float32)
    for way, glyph in enumerate(glyphs):
        some = np.flatnonzero(which == way)
        x, y = (
            glyph.transpose(2, 0, 1)[:, None] - 0.5
        )  # (1, segments, ends); below (images, segments, ends)
        x, y = (
            x + sway[some] * np.sin(5 * y + phase[some]),
            y + sway[some] * np.sin(5 * x + phase[some]),
        )
        x, y = width[some] * x - slant[some] * height[some] * y, height[some] * y
        cos, sin = np.cos(angle[some]), np.sin(angle[some])
        x, y = cos * x - sin * y + across[some], sin * x + cos * y + down[some]
        for first in range(0, len(some), 64):  # 64 images at a time stay in the cache
            part = slice(first, first + 64)
            distance = _distance(x[part].astype(np.float32), y[part].astype(np.float32), size)
            ink[some[part]] = np.clip(
                (thickness[some[part]] - distance) / blur[some[part]] + 0.5, 0, 1
            )
    return ink


def _distance(x, y, size):
    """float32 (n, size, size): each pixel's distance to the nearest segment; x, y (n, segments, 2 ends)."""
    columns = (np.arange(size, dtype=np.float32) + np.float32(0.5))[None, None, :]
    rows = columns.transpose(0, 2, 1)
    nearest = np.full((len(x), size, size), np.inf, np.float32)
    for segment in range(x.shape[1]):
        (x0, x1), (y0, y1) = (end[:, segment, :, None, None].swapaxes(0, 1) for end in (x, y))
        dx, dy = x1 - x0, y1 - y0
        squared = dx * dx + dy * dy
        along = (columns - x0) * (dx / squared) + (rows - y0) * (dy / squared)
        np.maximum(along, 0, out=along)
        np.minimum(along, 1, out=along)
        across, down = columns - x0 - along * dx, rows - y0 - along * dy
        np.minimum(nearest, across * across + down * down, out=nearest)
    return np.sqrt(nearest)


def _balanced(n, rng):
    """int (n,): every digit equally often, in random order."""
    return rng.permutation(np.arange(n) % 10)


def _grey(n, rng):
    """uint8 (n, 28, 28) and digits: light ink on black, noise where it exceeds a threshold, as in a scan."""
    digits = _balanced(n, rng)
    ink = draw(digits, 28, rng) * rng.uniform(0.7, 1, (n, 1, 1))
    ink = ink + rng.normal(0, 0.1, ink.shape)
    return np.uint8(np.clip(np.where(ink > 0.12, ink, 0), 0, 1) * 255), digits


def _coloured(n, rng):
    """uint8 (n, 3, 32, 32) and digits: a light colour on a shaded darker one, with noise."""
    digits = _balanced(n, rng)
    ink = draw(digits, 32, rng)[:, None]
    paper = rng.uniform(0.1, 0.5, (n, 3, 1, 1))
    colour = paper + rng.uniform(
        0.2, 0.5, (n, 3, 1, 1)
    )  # always lighter: there are few examples to learn from
    ramp = np.linspace(-1, 1, 32)
    shade = (
        rng.uniform(-0.12, 0.12, (n, 1, 1, 1)) * ramp
        + rng.uniform(-0.12, 0.12, (n, 1, 1, 1)) * ramp[:, None]
    )
    image = paper + ink * (colour - paper) + shade + rng.normal(0, 0.05, (n, 3, 32, 32))
    return np.uint8(np.clip(image, 0, 1) * 255), digits
