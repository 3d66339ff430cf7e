"""Intervals: what an entry may be, whatever the order in which float32 sums were added up.

An operation that is no sum is rounded in one way and never falls where its operand
rises: its result lies between the results at the ends of its operand's interval. A sum
of products may be added up in any order. Each product and each partial sum is rounded
once, by at most u = 2^-24 of it. A partial sum is the sum of some of the products: it
is at most M, the larger of the sum of the positive and that of the negative ones. So n
products, of magnitudes that sum to S, err by E <= u S + (n - 1) u (M + E). Where all
partial sums are multiples of a step, and S at most 2^24 steps, nothing is rounded.

Values are float32 numbers in float64 arrays; NaN where nothing is known.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from utilities.trace import sample_indices, sample_of

UNIT = 2.0**-24
SMALLEST = 2.0**-126  # a processor may replace smaller numbers by zero
Function = Callable[[np.ndarray], np.ndarray]


def rounded(a: np.ndarray) -> np.ndarray:
    """The nearest float32 numbers; of sums, products and quotients of two, as float32 has them."""
    return a.astype("float32").astype("float64")


@dataclass(frozen=True)
class Interval:
    """The smallest and the largest value of each entry.

    Parameters
    ----------
    lo, hi
        float64, of one shape.
    step
        A power of two of which every possible value is a multiple; 0 if there is none known.
    """

    lo: np.ndarray
    hi: np.ndarray
    step: float = 0.0

    @property
    def known(self) -> np.ndarray:
        """Where there is one value only."""
        return self.lo == self.hi

    @property
    def middle(self) -> np.ndarray:
        return (self.lo + self.hi) / 2

    @property
    def radius(self) -> np.ndarray:
        return np.where(self.known, 0, self.hi - self.middle)

    @property
    def largest(self) -> np.ndarray:
        """The largest magnitude."""
        return np.maximum(np.abs(self.lo), np.abs(self.hi))

    @property
    def smallest(self) -> np.ndarray:
        """The smallest magnitude."""
        return np.maximum(0, np.maximum(self.lo, -self.hi))

    def each(self, function: Function) -> "Interval":
        """A function that never falls and keeps multiples of the step (a reshape, a maximum)."""
        return Interval(function(self.lo), function(self.hi), self.step)

    def rising(self, function: Function) -> "Interval":
        """A function that never falls, rounded to float32."""
        return Interval(rounded(function(self.lo)), rounded(function(self.hi)))

    def times(self, factor: float) -> "Interval":
        """A positive multiple, rounded to float32."""
        return self.rising(lambda v: v * factor)

    def given(self, values: np.ndarray) -> "Interval":
        """The same, but for the entries whose values are known: all, or those of a sample."""
        where: Any = slice(None) if values.size == self.lo.size else sample_indices(self.lo.size)
        lo, hi = self.lo.copy(), self.hi.copy()
        lo.flat[where] = hi.flat[where] = values.ravel()
        return Interval(lo, hi, self.step)

    def sampled(self, recorded: np.ndarray) -> "Interval":
        """Of the entries that a recorded sample holds, flat."""
        return self.each(lambda v: sample_of(v, recorded))

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Where a value is possible; it is where nothing is known."""
        values = values.astype("float64")
        outside = (values < self.lo) | (values > self.hi)
        return ~outside & (~np.isnan(values) | np.isnan(self.lo) | np.isnan(self.hi))


def exactly(values: np.ndarray) -> Interval:
    """Known float32 values."""
    a = values.astype("float64")
    return Interval(a, a.copy(), lowest_bit(values))


def lowest_bit(values: np.ndarray) -> float:
    """The largest power of two of which all float32 values are multiples; 0 if some are none."""
    some = values[values != 0].astype("float64")
    if not some.size or not np.isfinite(some).all():
        return 0.0 if some.size else 1.0
    fraction, exponent = np.frexp(some)
    digits = np.abs(fraction * 2.0**24).astype("int64")
    lowest = (exponent - 24) + np.log2(digits & -digits)
    return float(2.0 ** lowest.min())


@dataclass(frozen=True)
class Sums:
    """Sums that float32 may form in any order.

    Parameters
    ----------
    step
        As of an Interval.
    value, radius
        Of the interval of the exact sum, float64.
    magnitude
        The sum of the magnitudes of what is added up.
    count
        How much of it is not zero.
    """

    step: float
    value: np.ndarray
    radius: np.ndarray
    magnitude: np.ndarray
    count: np.ndarray

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All of its arrays."""
        return self.value, self.radius, self.magnitude, self.count

    @staticmethod
    def of_products(a: Interval, b: Interval) -> "Sums":
        """The matrix product a b."""
        radius = a.radius @ b.largest + np.abs(a.middle) @ b.radius
        count = (a.largest != 0).astype("float64") @ (b.largest != 0).astype("float64")
        magnitude = a.largest @ b.largest
        return Sums(a.step * b.step, a.middle @ b.middle, radius, magnitude, count)

    @staticmethod
    def of(a: Interval) -> "Sums":
        """Each entry, to be added to others."""
        count = (a.largest != 0).astype("float64")
        return Sums(a.step, a.middle, a.radius, a.largest, count)

    def each(self, function: Function) -> "Sums":
        """A rearrangement, or sums over some axes."""
        return Sums(self.step, *map(function, self.parts))

    def plus(self, a: Interval) -> "Sums":
        """One summand more, which may be the first or the last."""
        pairs = zip(self.parts, Sums.of(a).parts, strict=True)
        return Sums(min(self.step, a.step), *(one + other for one, other in pairs))

    def interval(self) -> Interval:
        """What float32 may make of them."""
        partial = (self.magnitude + np.abs(self.value) + self.radius) / 2
        error = self.magnitude + np.maximum(self.count - 1, 0) * partial
        error = UNIT * error / (1 - UNIT * self.count)
        # That of the float64 numbers here, and what may be taken for zero.
        error = error + self.count * (2.0**-52 * self.magnitude + SMALLEST)
        exact = self.magnitude <= 2.0**24 * self.step if self.step >= SMALLEST else False
        error = np.where(exact, 0, error)
        half = self.radius + error
        interval = Interval(rounded(self.value - half), rounded(self.value + half))
        return replace(interval, step=self.step) if np.all(exact) else interval


def fixed_point(a: Interval, nob: int, noib: int) -> Interval:
    """The fixed point value nearest to a float32, halves away from zero."""
    top = float(np.float32(2.0**nob - 1))
    step = 2.0 ** float(np.clip(noib - nob, -126, 126))

    def nearest(v: np.ndarray) -> np.ndarray:
        steps = v * 2.0 ** float(np.clip(nob - noib, -126, 126))
        whole = np.trunc(steps)
        whole += np.copysign(np.abs(steps - whole) >= 0.5, steps)
        return np.clip(whole, -top, top) * step

    return Interval(nearest(a.lo), nearest(a.hi), step)


def half_precision(a: Interval) -> Interval:
    """The binary16 number nearest to a float32."""

    def nearest(v: np.ndarray) -> np.ndarray:
        return v.astype("float32").astype("float16").astype("float64")

    return Interval(nearest(a.lo), nearest(a.hi), 2.0**-24)


def softmax(z: Interval) -> Interval:
    """Exponentials of z - max, rounded, over their sum along axis 1; in float64, rounded.

    Where max is not known, rounding z - max changes an exponential by |z - max| u at most,
    and its own rounding by u, here as well as there.
    """
    top = z.hi.max(axis=1, keepdims=True)
    open_ = ~z.known.all(axis=1, keepdims=True)
    error = 2.0**-50 + open_ * 2 * UNIT * (1 + top - z.lo.min(axis=1, keepdims=True))
    lo = rounded(np.exp(rounded(z.lo - top)) * (1 - error))
    hi = rounded(np.exp(rounded(z.hi - top)) * (1 + error))

    def part(mine: np.ndarray, others: np.ndarray) -> np.ndarray:
        return mine / (mine + others.sum(axis=1, keepdims=True) - others)

    y = part(lo, hi) * (1 - 2.0**-50), part(hi, lo) * (1 + 2.0**-50)
    tiny = 4 * SMALLEST
    return Interval(
        rounded(np.where(y[0] < tiny, 0, y[0])), rounded(np.where(y[1] < tiny, tiny, y[1]))
    )


def shares(u: Interval, g: Interval, axis: int) -> Interval:
    """What the entries of u along an axis get of the gradient g of their maximum: all or nothing.

    A tie gives all to each. g has length 1 along the axis.
    """
    surely = u.lo >= others(u.hi, axis)
    hardly = u.hi < others(u.lo, axis)
    lo = np.where(surely, g.lo, np.where(hardly, 0, np.minimum(g.lo, 0)))
    hi = np.where(surely, g.hi, np.where(hardly, 0, np.maximum(g.hi, 0)))
    return Interval(lo, hi, g.step)


def others(v: np.ndarray, axis: int) -> np.ndarray:
    """For each entry the largest of the others along an axis, -inf if there are none."""
    if v.shape[axis] == 1:
        return np.full(v.shape, -np.inf)
    second, first = np.split(np.take(np.sort(v, axis), (-2, -1), axis), 2, axis)
    return np.where(v == first, second, first)
