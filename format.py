"""Number formats, and the names of what is stored in them (sections 3 and 4 of the paper).

The letters are the paper's: NOB is the number of bits without the sign (bit-width),
NOIB the number of integer bits (the position of the radix point, or range). Bit-widths
and ranges are symbolic, so one compiled program serves them all.

    FLP   float32, the identity
    HFLP  IEEE binary16: half precision, arithmetic in float32
    FXP   fixed point, ranges fixed:
          clip(round(x 2^(NOB-NOIB)), -(2^NOB - 1), 2^NOB - 1) / 2^(NOB-NOIB)
    DFXP  dynamic fixed point: the same, the ranges follow the overflow rates

The others are not the paper's; docs/formats.md has them all. Headings of
docs/published_program.md are named where they say more.
"""

import math
from collections.abc import Callable

import numpy as np
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable as Tensor

from xla import ops
from xla.rounding import bfloat16

RANGE_LIMIT = 100  # NOIB stays within +-100
Rounding = Callable[[Tensor], Tensor]  # float32 -> whole numbers
NEAREST: Rounding = ops.round_half_away_from_zero


def largest_integer(nob: Tensor) -> Tensor:
    """2^NOB - 1, rounded to float32 (NOB 31 gives 2^31)."""
    return ops.power_of_two(nob) - np.float32(1)


def quantize(x: Tensor, nob: Tensor, noib: Tensor, rounding: Rounding = NEAREST) -> Tensor:
    """The fixed point value nearest to x, halves away from zero, within +-2^NOIB.

    NaN stays NaN. The scale stops at 2^126 so that no scale is infinite: with NOB 31 a
    range below -95 acts as -95.

    Parameters
    ----------
    x
        float32.
    nob, noib
        int32 scalars.
    rounding
        Instead of that to the nearest.
    """
    top = largest_integer(nob)
    steps = rounding(x * ops.power_of_two(nob - noib))
    return pt.clip(steps, -top, top) * ops.power_of_two(noib - nob)


class FLP:
    """float32 everywhere."""

    has_ranges = False
    follows_overflow = False
    random = False  # whether what is stored from batch to batch is rounded at random

    def significant_bits(self, nob: int) -> int:
        """Those of a propagated signal."""
        return 24

    def quantize(self, x: Tensor, nob: Tensor, noib: Tensor, *rounding: Rounding) -> Tensor:
        """The value stored for x; a `rounding` other than usual comes where it is `random`."""
        return x

    def largest(self, nob: Tensor, noib: Tensor) -> Tensor:
        """The largest values: what is there or beyond has overflowed.

        int32 (n,), int32 (n, m) -> float32 (n, m). Only of formats that follow the overflow.
        """
        raise NotImplementedError(f"{type(self).__name__}.largest")


class BF16(FLP):
    """bfloat16: the upper half of a float32."""

    def significant_bits(self, nob: int) -> int:
        return 8

    def quantize(self, x: Tensor, nob: Tensor, noib: Tensor, *rounding: Rounding) -> Tensor:
        return bfloat16(x)


class SmallFloat(FLP):
    """Every stored value is a float of fewer bits: of half precision in HFLP."""

    def __init__(self, nearest: ops.SmallFloat) -> None:
        self.nearest = nearest

    def significant_bits(self, nob: int) -> int:
        return self.nearest.mantissa_bits + 1

    def quantize(self, x: Tensor, nob: Tensor, noib: Tensor, *rounding: Rounding) -> Tensor:
        return self.nearest(x)


class ScaledFloat(SmallFloat):
    """The same times a power of two that follows the overflow rate.

    All values are below 2^NOIB, as those of fixed point are.
    """

    has_ranges = True
    follows_overflow = True

    def __init__(self, nearest: ops.SmallFloat, top: float) -> None:
        super().__init__(nearest)
        self.top = top  # the largest value, unscaled
        self.integer_bits = math.frexp(top)[1]

    def quantize(self, x: Tensor, nob: Tensor, noib: Tensor, *rounding: Rounding) -> Tensor:
        n = noib - self.integer_bits
        return self.nearest(x * ops.power_of_two(-n)) * ops.power_of_two(n)

    def largest(self, nob: Tensor, noib: Tensor) -> Tensor:
        return np.float32(self.top) * ops.power_of_two(noib - self.integer_bits)


class FXP(FLP):
    """Fixed point: every signal has one range throughout."""

    has_ranges = True

    def significant_bits(self, nob: int) -> int:
        return nob

    def quantize(self, x: Tensor, nob: Tensor, noib: Tensor, *rounding: Rounding) -> Tensor:
        return quantize(x, nob, noib, *rounding)

    def largest(self, nob: Tensor, noib: Tensor) -> Tensor:
        return largest_integer(nob)[:, None] * ops.power_of_two(noib - nob[:, None])


class DFXP(FXP):
    """Dynamic fixed point: every signal's range follows its overflow rates."""

    follows_overflow = True


class FXPR(FXP):
    """Fixed point that rounds parameters and updates at random where they are stored."""

    random = True


class DFXPR(DFXP):
    """Dynamic fixed point that does."""

    random = True


E4M3_TOP = 448.0
E5M2_TOP = 57344.0
E4M3 = ops.SmallFloat(3, -6, E4M3_TOP)
E5M2 = ops.SmallFloat(2, -14, E5M2_TOP)
FORMATS: dict[str, FLP] = {
    "FLP": FLP(),
    "HFLP": SmallFloat(ops.half_precision),
    "FXP": FXP(),
    "DFXP": DFXP(),
    "FXPR": FXPR(),
    "DFXPR": DFXPR(),
    "BF16": BF16(),
    "E4M3": SmallFloat(E4M3),
    "E5M2": SmallFloat(E5M2),
    "E4M3S": ScaledFloat(E4M3, E4M3_TOP),
    "E5M2S": ScaledFloat(E5M2, E5M2_TOP),
}

# The ten signals of a layer, in the order of ranges and overflow rates wherever they
# are listed.
SIGNALS = ("z", "dEdz", "y", "dEdy", "w", "b", "dEdw", "dEdb", "update_w", "update_b")
PARAMETERS = ("w", "b")  # stored at up bits, everything else at prop bits
