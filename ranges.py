"""The signals of a layer: how each is stored in a batch, and how its range moves.

Headings of docs/published_program.md are named where they say more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytensor.tensor as pt
from pytensor.tensor.sharedvar import TensorSharedVariable as Shared
from pytensor.tensor.variable import TensorVariable as Tensor

from format import FLP, PARAMETERS, RANGE_LIMIT, SIGNALS, Rounding
from xla import ops
from xla.rounding import round_at_random
from xla.statistics import partial_counts, total_counts

STORED = 2  # times that a signal is stored in a batch, at most


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
        The largest values at NOIB and at NOIB-1, float32 (2,), if the range follows.
    keys
        One for each time that it is stored in this batch, uint32 (2,), if that is random.
    """

    format: FLP
    noib: Tensor
    nob: Tensor
    stored_nob: Tensor
    thresholds: Tensor | None = None
    keys: Iterator[Tensor] | None = None
    counts: Tensor | None = None  # what `observe` has counted
    shape: tuple[int, ...] = ()

    def quantize(self, x: Tensor) -> Tensor:
        """x as the propagations see it."""
        return ops.materialised(self.format.quantize(x, self.nob, self.noib))

    def store(self, x: Tensor) -> Tensor:
        """x as it is stored from batch to batch, each time by another draw if at random."""
        rounding: list[Rounding] = []
        if self.keys is not None:
            key = next(self.keys)
            rounding = [lambda steps: round_at_random(steps, key)]
        return ops.materialised(self.format.quantize(x, self.stored_nob, self.noib, *rounding))

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
    keys
        Those of this batch, uint32 (10, STORED, 2), if the format is random.
    """

    keys: Tensor | None = None

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
            noibs = pt.stack([self.ranges, self.ranges - 1], axis=1)
            largest = self.format.largest(pt.stack(stored), noibs)
            thresholds = ops.materialised(largest)
        signals = {}
        for i, name in enumerate(SIGNALS):
            row = None if thresholds is None else thresholds[i]
            keys = None if self.keys is None else iter([self.keys[i, k] for k in range(STORED)])
            signals[name] = Signal(self.format, self.ranges[i], prop_bits, stored[i], row, keys)
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
