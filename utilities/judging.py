"""Judging a replay by what float32 sums in another order may change, and by nothing else.

Both the recorded and the computed values of a batch must lie within the bounds that
follow from the state before it, as far as that is recorded. Each operation is judged once
more from the operands it had: the computed ones of the program that shows all of them, the
recorded ones where the trace holds what passed through a batch. A training program that
sums in another order than the one that shows its operands is judged from the whole state
before the batch.
"""

import numpy as np

from files import Arrays
from model import Network
from utilities.bounds import Interval
from utilities.bounds_layers import next_range
from utilities.replay_bounds import Bounds, Named, Step
from utilities.trace import NOT_STORED, STATE, Report, Trace, Values

# Of accumulators, as recorded: float64 sums of up to a hundred rates.
ACCUMULATED = 1e-6


class Judge:
    """Judges the batches of a trace in turn, each from what is recorded after the last."""

    def __init__(self, trace: Trace, report: Report, network: Network, initial: Arrays) -> None:
        self.trace = trace
        self.report = report
        self.bounds = Bounds(trace, network, initial)
        self.overflow = np.zeros((2, *self.bounds.ranges.shape))

    @np.errstate(all="ignore")  # a network may have become infinite
    def batch(
        self,
        batch: int,
        examples: tuple[np.ndarray, np.ndarray],
        masks: list[np.ndarray],
        states: tuple[Arrays, Arrays, Arrays],
        passed: Values,
    ) -> None:
        """One batch.

        Parameters
        ----------
        examples
            x and t.
        masks
            (B, layer inputs), one a layer.
        states
            The computed state before the batch, after it, and after it without its range update.
        passed
            What passed through, and the state after it, of the program that shows both.
        """
        trace = self.trace
        before, after, counted = states
        computed = {(k, name): after[f"layer{k}/{name}"] for k in trace.layers for name in STATE}
        recorded = trace.recorded(f"after{batch:02d}")
        inside = trace.recorded(f"inter{batch:02d}")
        step = self.bounds.step(*examples, masks)
        for (k, name), values in (recorded | inside).items():
            self.report.seen.add((k, name))
            label = f"batch {batch} layer {k} {name}"
            mine = (passed | computed)[k, name]
            self.report.judge(label, step.bounds(k, name), mine, values, name not in NOT_STORED)
        self._ranges(batch, step, after, counted)
        known = self.bounds.known_state(before)
        self._alone(f"batch {batch}, computed", examples, masks, known, passed)
        if any(not np.array_equal(a, passed[key], equal_nan=True) for key, a in computed.items()):
            self._alone(f"batch {batch}, trained", examples, masks, known, computed)
        if inside:
            known = self.bounds.state
            self._alone(f"batch {batch}, recorded", examples, masks, known, recorded | inside)
        self.bounds.go_on(step, recorded, trace["ranges_after"][batch])

    def _alone(
        self,
        label: str,
        examples: tuple[np.ndarray, np.ndarray],
        masks: list[np.ndarray],
        state: list[Named],
        values: Values,
    ) -> None:
        """Each operation of a batch, judged from the operands it had."""
        step = self.bounds.step(*examples, masks, state, values)
        for (k, name), one in values.items():
            bounds = step.bounds(k, name).sampled(one)
            stored = name not in NOT_STORED
            self.report.hold(f"{label}, layer {k} {name} alone", bounds, one.ravel(), stored)

    def _ranges(self, batch: int, step: Step, after: Arrays, counted: Arrays) -> None:
        """Accumulators, and the ranges that follow from them."""
        trace = self.trace
        sums = step.rates.each(lambda v: self.overflow + v)
        ours = np.stack([counted[f"layer{k}/overflow"] for k in trace.layers], axis=1)
        recorded = np.stack([trace["overflow"][batch], trace["overflow_1"][batch]])
        near = Interval(sums.lo - ACCUMULATED, sums.hi + ACCUMULATED)
        self.report.judge(f"batch {batch} accumulators", near, ours, recorded, stored=False)
        ranges = self.bounds.ranges
        frequency = int(trace["range_update_called_with"][batch])
        limit = trace.meta["max_overflow"]
        moved = sums.each(
            lambda v: next_range(ranges, v / frequency, limit) if frequency else 1.0 * ranges
        )
        ours = np.stack([after[f"layer{k}/ranges"] for k in trace.layers])
        self.report.judge(f"batch {batch} ranges", moved, ours, trace["ranges_after"][batch])
        self.overflow = recorded * (not frequency)

    @np.errstate(all="ignore")
    def test(self, x: np.ndarray, t: np.ndarray, outputs: list[np.ndarray]) -> None:
        """The test-time pass: the outputs of all layers, flat, and the errors."""
        trace = self.trace
        bounds = self.bounds.test(x)
        recorded = trace.recorded("test") | {(len(outputs) - 1, "y"): trace["test/y"]}
        for (k, _), values in recorded.items():
            self.report.judge(f"test layer {k} y", bounds[k], outputs[k], values)
        right = np.array([t.argmax(axis=1) == np.argmax(outputs[-1], axis=1)])
        errors = (~right).reshape(2, -1).sum(axis=1)
        self.report.judge("test errors", errors_of(bounds[-1], t), errors, trace["test/errors"])


def errors_of(y: Interval, t: np.ndarray) -> Interval:
    """The smallest and the largest number of errors in each half of a test set."""
    wrong = (y.lo.argmax(axis=1) != t.argmax(axis=1)).reshape(2, -1)
    highest = np.where(t == 0, y.hi, -np.inf).max(axis=1)
    lowest = np.where(t == 0, y.lo, -np.inf).max(axis=1)
    mine = y.each(lambda v: np.where(t == 0, -np.inf, v).max(axis=1))
    unsure = ~y.known.all(axis=1)
    surely = np.where(unsure, mine.hi < lowest, wrong.ravel()).reshape(2, -1)
    perhaps = np.where(unsure, ~(mine.lo > highest), wrong.ravel()).reshape(2, -1)
    return Interval(1.0 * surely.sum(axis=1), 1.0 * perhaps.sum(axis=1))
