"""Number formats (SPEC section 2; sections 3 and 4 of the paper) and the signals stored in them.

Letters as in the paper: NOB is the number of bits without the sign (bit-width), NOIB the number of integer bits (the
position of the radix point, or range). Bit-widths and ranges are symbolic, so one compiled program serves them all.

    FLP   float32, the identity
    HFLP  IEEE binary16: half precision, arithmetic in float32
    FXP   fixed point: clip(round(x 2^(NOB-NOIB)), -(2^NOB - 1), 2^NOB - 1) / 2^(NOB-NOIB), ranges fixed
    DFXP  dynamic fixed point: the same, the ranges follow the overflow rates
"""

import numpy as np
import pytensor.tensor as pt

from xla import ops
from xla.statistics import partial_counts, total_counts

RANGE_LIMIT = 100  # NOIB stays within +-100


def largest_integer(nob):
    """2^NOB - 1, rounded to float32 (NOB 31 gives 2^31)."""
    return ops.power_of_two(nob) - np.float32(1)


def quantize(x, nob, noib):
    """Fixed point value nearest to x, halves away from zero, saturating at the symmetric ends of the grid.

    x is a float32 tensor; nob and noib are int32 scalars. NaN stays NaN. The scale stops at 2^126 so that no scale is
    infinite: with NOB 31 a range below -95 acts as -95.
    """
    top = largest_integer(nob)
    steps = ops.round_half_away_from_zero(x * ops.power_of_two(nob - noib))
    return pt.clip(steps, -top, top) * ops.power_of_two(noib - nob)


def overflow_thresholds(nob, noib):
    """The largest values of a format at NOIB and at NOIB-1: int32 (n,), int32 (n,) -> float32 (n, 2)."""
    noibs = pt.stack([noib, noib - 1], axis=1)
    return ops.stored(largest_integer(nob)[:, None] * ops.power_of_two(noibs - nob[:, None]))


def overflow_rates(counts, shapes):
    """Overflow rates of n tensors, float64 (n, 2).

    counts : int32 (n, 2)
        How many elements of each are at or beyond its two thresholds.
    shapes : n tuples
        The shapes of the tensors. Each count is divided by each dimension in turn, first dimension first, and rounded to
        float32 each time: the last bit decides ties. In float64 because XLA replaces a division by a constant by a
        multiplication with its reciprocal; for a float32 over an integer below 2^27, that product, rounded to float32,
        is the rounded quotient.
    """
    rates = counts.astype("float64")
    for k in range(max(map(len, shapes))):
        dimension = np.array([[shape[k] if k < len(shape) else 1] for shape in shapes], "float64")
        rates = (rates / dimension).astype("float32").astype("float64")
    return rates


def next_range(noib, overflow, overflow_1, max_overflow):
    """The range after an update (elementwise), from the mean overflow rates at NOIB and at NOIB-1.

    One more integer bit if too much overflowed; one fewer if that would not overflow too much; never beyond +-100.
    """
    step = pt.switch(overflow > max_overflow, 1, pt.switch(overflow_1 > max_overflow, 0, -1))
    return pt.clip(noib + step.astype("int32"), -RANGE_LIMIT, RANGE_LIMIT).astype("int32")


class FLP:
    """float32 everywhere."""

    has_ranges = follows_overflow = False

    def significant_bits(self, nob):
        """Of a propagated signal."""
        return 24

    def quantize(self, x, nob, noib):
        return x


class HFLP(FLP):
    """Every stored value is a half-precision float."""

    def significant_bits(self, nob):
        return 11

    def quantize(self, x, nob, noib):
        return ops.half_precision(x)


class FXP(FLP):
    """Fixed point: every signal keeps its range."""

    has_ranges = True

    def significant_bits(self, nob):
        return nob

    def quantize(self, x, nob, noib):
        return quantize(x, nob, noib)


class DFXP(FXP):
    """Dynamic fixed point: every signal's range follows its overflow rates."""

    follows_overflow = True


FORMATS = {"FLP": FLP(), "HFLP": HFLP(), "FXP": FXP(), "DFXP": DFXP()}

# The ten signals of a layer, in the order in which ranges and overflow rates are kept and printed.
SIGNALS = ("z", "dEdz", "y", "dEdy", "w", "b", "dEdw", "dEdb", "update_w", "update_b")


class Signal:
    """One stored quantity of a layer: its bit-width, its range and, in DFXP, how much of it overflowed in this batch.

    Parameters
    ----------
    number_format : FLP, HFLP, FXP or DFXP
    noib, nob : int32 scalar variables
        The range, and the bit-width it is computed with.
    stored_nob : int32 scalar variable
        The bit-width it is stored with, where that differs: parameters are used at prop bits and stored at up bits.
    thresholds : float32 (2,) variable
        Its row of `overflow_thresholds`, for DFXP.
    """

    def __init__(self, number_format, noib, nob, stored_nob, thresholds=None):
        self.format, self.noib, self.nob, self.stored_nob = number_format, noib, nob, stored_nob
        self.thresholds = thresholds
        self.counts = self.shape = None

    def quantize(self, x):
        """x as the propagations see it."""
        return ops.stored(self.format.quantize(x, self.nob, self.noib))

    def observe(self, v, shape=None):
        """Count v's overflows at NOIB and NOIB-1 (SPEC section 6); returns v.

        shape : the shape of v in the published program, where that differs.
        """
        if self.thresholds is not None:
            self.counts = partial_counts(pt.abs(v), self.thresholds)
            self.shape = shape or v.type.shape
        return v

    def store(self, x):
        """x as it is kept from batch to batch."""
        return ops.stored(self.format.quantize(x, self.stored_nob, self.noib))


class Ranges:
    """The ranges of a layer's ten signals and their overflow accumulators, kept in shared variables.

    `ranges` int32 (10,); `overflow` float64 (2, 10): the sums of the rates at NOIB and NOIB-1 since the last update;
    `epoch_overflow` float64 (10,): the sum of the rates at NOIB since whoever reads it last set it to zero.
    """

    def __init__(self, name, number_format, initial_range):
        self.format = number_format
        self.ranges = ops.shared(np.full(len(SIGNALS), initial_range, "int32"), f"{name}/ranges")
        self.overflow = ops.shared(np.zeros((2, len(SIGNALS))), f"{name}/overflow")
        self.epoch_overflow = ops.shared(np.zeros(len(SIGNALS)), f"{name}/epoch_overflow")

    def signals(self, prop_bits, up_bits):
        """This batch's signals by name; w and b are stored at up_bits, everything else at prop_bits."""
        thresholds = [None] * len(SIGNALS)
        if self.format.follows_overflow:
            nobs = pt.stack([up_bits if name in ("w", "b") else prop_bits for name in SIGNALS])
            thresholds = overflow_thresholds(nobs, self.ranges)
        return {
            name: Signal(
                self.format,
                self.ranges[i],
                prop_bits,
                up_bits if name in ("w", "b") else prop_bits,
                thresholds[i],
            )
            for i, name in enumerate(SIGNALS)
        }

    def updates(self, signals, update_due, frequency, max_overflow):
        """New values of the shared variables after a batch: accumulate, and move the ranges when an update is due.

        update_due : bool scalar; frequency : int32 scalar, batches an update; max_overflow : float64 scalar, a rate.
        """
        if not self.format.follows_overflow:
            return {}
        observed = [signals[name] for name in SIGNALS]
        rates = overflow_rates(
            total_counts(*(s.counts for s in observed)), [s.shape for s in observed]
        ).T
        overflow = self.overflow + rates
        mean = ops.rounded_quotient(overflow, frequency.astype("float64"))
        moved = next_range(self.ranges, mean[0], mean[1], max_overflow)
        return {
            self.epoch_overflow: self.epoch_overflow + rates[0],
            self.ranges: pt.switch(update_due, moved, self.ranges),
            self.overflow: pt.switch(update_due, pt.zeros_like(overflow), overflow),
        }
