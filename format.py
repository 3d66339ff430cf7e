"""Number formats, and the signals stored in them (sections 3 and 4 of the paper).

The letters are the paper's: NOB is the number of bits without the sign (bit-width),
NOIB the number of integer bits (the position of the radix point, or range). Bit-widths
and ranges are symbolic, so one compiled program serves them all.

    FLP   float32, the identity
    HFLP  IEEE binary16: half precision, arithmetic in float32
    FXP   fixed point, ranges fixed:
          clip(round(x 2^(NOB-NOIB)), -(2^NOB - 1), 2^NOB - 1) / 2^(NOB-NOIB)
    DFXP  dynamic fixed point: the same, the ranges follow the overflow rates

Headings of docs/published_program.md are named where they say more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytensor.tensor as pt
from pytensor.tensor.sharedvar import TensorSharedVariable as Shared
from pytensor.tensor.variable import TensorVariable as Tensor

from xla import ops
from xla.statistics import partial_counts, total_counts

RANGE_LIMIT = 100  # NOIB stays within +-100


def largest_integer(nob: Tensor) -> Tensor:
    """2^NOB - 1, rounded to float32 (NOB 31 gives 2^31)."""
    return ops.power_of_two(nob) - np.float32(1)


def quantize(x: Tensor, nob: Tensor, noib: Tensor) -> Tensor:
    """The fixed point value nearest to x, halves away from zero, within +-2^NOIB.

    NaN stays NaN. The scale stops at 2^126 so that no scale is infinite: with NOB 31 a
    range below -95 acts as -95.

    Parameters
    ----------
    x
        float32.
    nob, noib
        int32 scalars.
    """
    top = largest_integer(nob)
    steps = ops.round_half_away_from_zero(x * ops.power_of_two(nob - noib))
    return pt.clip(steps, -top, top) * ops.power_of_two(noib - nob)


def overflow_thresholds(nob: Tensor, noib: Tensor) -> Tensor:
    """The largest values of a format at NOIB and at NOIB-1.

    int32 (n,), int32 (n,) -> float32 (n, 2).
    """
    noibs = pt.stack([noib, noib - 1], axis=1)
    largest = largest_integer(nob)[:, None] * ops.power_of_two(noibs - nob[:, None])
    return ops.materialised(largest)


def overflow_rates(counts: Tensor, shapes: Sequence[tuple[int, ...]]) -> Tensor:
    """Overflow rates of n tensors, float64 (n, 2) ("Formats").

    Each count is divided by each dimension in turn, first dimension first, and rounded
    to float32 each time: the last bit decides ties. In float64 because XLA replaces a
    division by a constant by a multiplication with its reciprocal; for a float32 over
    an integer below 2^27, that product, rounded to float32, is the rounded quotient.

    Parameters
    ----------
    counts
        int32 (n, 2): how many elements of each are at or beyond its two thresholds.
    shapes
        The shapes of the n tensors.
    """
    rates = counts.astype("float64")
    for k in range(max(map(len, shapes))):
        sides = [[shape[k] if k < len(shape) else 1] for shape in shapes]
        rates = ops.rounded_to_float32(rates / np.array(sides, "float64")).astype("float64")
    return rates


def next_range(noib: Tensor, overflow: Tensor, overflow_1: Tensor, max_overflow: Tensor) -> Tensor:
    """The range after an update, from the mean overflow rates at NOIB and at NOIB-1.

    One more integer bit if too much overflowed; one fewer if that would not overflow too
    much; never beyond +-100. Elementwise.
    """
    step = pt.switch(overflow > max_overflow, 1, pt.switch(overflow_1 > max_overflow, 0, -1))
    return pt.clip(noib + step.astype("int32"), -RANGE_LIMIT, RANGE_LIMIT).astype("int32")


class FLP:
    """float32 everywhere."""

    has_ranges = False
    follows_overflow = False

    def significant_bits(self, nob: int) -> int:
        """Those of a propagated signal."""
        return 24

    def quantize(self, x: Tensor, nob: Tensor, noib: Tensor) -> Tensor:
        """The value stored for x."""
        return x


class SmallFloat(FLP):
    """Every stored value is a float of fewer bits: of half precision in HFLP."""

    def __init__(self, nearest: ops.SmallFloat) -> None:
        self.nearest = nearest

    def significant_bits(self, nob: int) -> int:
        return self.nearest.mantissa_bits + 1

    def quantize(self, x: Tensor, nob: Tensor, noib: Tensor) -> Tensor:
        return self.nearest(x)


class FXP(FLP):
    """Fixed point: every signal has one range throughout."""

    has_ranges = True

    def significant_bits(self, nob: int) -> int:
        return nob

    def quantize(self, x: Tensor, nob: Tensor, noib: Tensor) -> Tensor:
        return quantize(x, nob, noib)


class DFXP(FXP):
    """Dynamic fixed point: every signal's range follows its overflow rates."""

    follows_overflow = True


FORMATS: dict[str, FLP] = {
    "FLP": FLP(),
    "HFLP": SmallFloat(ops.half_precision),
    "FXP": FXP(),
    "DFXP": DFXP(),
}

# The ten signals of a layer, in the order of ranges and overflow rates wherever they
# are listed.
SIGNALS = ("z", "dEdz", "y", "dEdy", "w", "b", "dEdw", "dEdb", "update_w", "update_b")
PARAMETERS = ("w", "b")  # stored at up bits, everything else at prop bits


@dataclass(eq=False)
class Signal:
    """One quantity of a layer in one batch: its bit-width, its range, its overflow.

    Parameters
    ----------
    noib, nob
        int32 scalars: the range, and the bit-width it is computed with.
    stored_nob
        The bit-width it is stored with from batch to batch; that of parameters differs.
    thresholds
        Its row of `overflow_thresholds`, float32 (2,), for DFXP.
    """

    format: FLP
    noib: Tensor
    nob: Tensor
    stored_nob: Tensor
    thresholds: Tensor | None = None
    counts: Tensor | None = None  # what `observe` has counted
    shape: tuple[int, ...] = ()

    def quantize(self, x: Tensor) -> Tensor:
        """x as the propagations see it."""
        return ops.materialised(self.format.quantize(x, self.nob, self.noib))

    def store(self, x: Tensor) -> Tensor:
        """x as it is stored from batch to batch."""
        return ops.materialised(self.format.quantize(x, self.stored_nob, self.noib))

    def observe(self, v: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """Count v's overflows at NOIB and NOIB-1 ("Overflow statistics"); returns v.

        Parameters
        ----------
        shape
            That of v in the published program, where it differs.
        """
        if self.thresholds is not None:
            self.counts = partial_counts(pt.abs(v), self.thresholds)
            self.shape = shape or v.type.shape
        return v


Signals = dict[str, Signal]


class Ranges:
    """The ranges of a layer's ten signals and their overflow accumulators.

    Attributes
    ----------
    ranges
        int32 (10,).
    overflow
        float64 (2, 10): the sums of the rates at NOIB and NOIB-1 since the last update.
    epoch_overflow
        float64 (10,): the sum of the rates at NOIB since whoever reads it last zeroed
        it.
    """

    def __init__(self, name: str, number_format: FLP, initial_range: int) -> None:
        n = len(SIGNALS)
        self.format = number_format
        self.ranges = ops.shared(np.full(n, initial_range, "int32"), f"{name}/ranges")
        self.overflow = ops.shared(np.zeros((2, n)), f"{name}/overflow")
        self.epoch_overflow = ops.shared(np.zeros(n), f"{name}/epoch_overflow")

    @property
    def state(self) -> list[Shared]:
        """The shared variables."""
        return [self.ranges, self.overflow, self.epoch_overflow]

    def signals(self, prop_bits: Tensor, up_bits: Tensor) -> Signals:
        """This batch's signals by name."""
        stored = [up_bits if name in PARAMETERS else prop_bits for name in SIGNALS]
        thresholds = None
        if self.format.follows_overflow:
            thresholds = overflow_thresholds(pt.stack(stored), self.ranges)
        signals = {}
        for i, name in enumerate(SIGNALS):
            row = None if thresholds is None else thresholds[i]
            signals[name] = Signal(self.format, self.ranges[i], prop_bits, stored[i], row)
        return signals

    def updates(
        self, signals: Signals, update_due: Tensor, frequency: Tensor, max_overflow: Tensor
    ) -> dict[Shared, Tensor]:
        """The shared variables' new values after a batch; ranges move if it is time.

        Parameters
        ----------
        update_due
            bool scalar.
        frequency
            int32 scalar: batches between two updates.
        max_overflow
            float64 scalar: a rate.
        """
        if not self.format.follows_overflow:
            return {}
        observed = [signals[name] for name in SIGNALS]
        counts = total_counts(*(s.counts for s in observed))
        rates = overflow_rates(counts, [s.shape for s in observed]).T
        overflow = self.overflow + rates
        mean = ops.rounded_quotient(overflow, frequency.astype("float64"))
        moved = next_range(self.ranges, mean[0], mean[1], max_overflow)
        return {
            self.epoch_overflow: self.epoch_overflow + rates[0],
            self.ranges: pt.switch(update_due, moved, self.ranges),
            self.overflow: pt.switch(update_due, pt.zeros_like(overflow), overflow),
        }
