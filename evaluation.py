"""What is measured of a network: errors, by the test-time pass, norms and overflow rates."""

from collections.abc import Generator
from typing import Any

import numpy as np

from datasets import Dataset
from model import Network
from records.metrics import Record, norm
from steps import Whole
from xla.device import to_host
from xla.programs import TestProgram

SEGMENTS = 3  # training costs about three times as much


class Evaluation:
    """Counts errors, in pieces, so that signals are heard in between.

    Parameters
    ----------
    program
        The compiled test-time pass.
    data
        Its parts "valid" and "test" are evaluated.
    prop_bits
        Bit-width of the propagations.
    segment
        Batches of a segment of training; a piece has as many as take about as long.
    on_device : dict
        Where the parts are kept on the device; it may be shared.
    """

    def __init__(
        self,
        program: TestProgram,
        data: Dataset,
        prop_bits: int,
        segment: int,
        on_device: dict[str, Any],
    ) -> None:
        self.program = program
        self.data = data
        self.prop_bits = np.int32(prop_bits)
        self.piece = SEGMENTS * segment
        self._on_device = on_device

    def pieces(self, state: dict[str, Any], part: str) -> Generator[Whole, None, float]:
        """The error on a part, in percent of all its examples; a Whole before each piece."""
        examples = getattr(self.data, part)
        if part not in self._on_device:
            self._on_device[part] = self.program.arrange(*examples.read(0, len(examples)))
        x, classes = self._on_device[part]
        wrong = 0
        for first in range(0, len(x), self.piece):
            yield Whole(0)
            last = first + self.piece
            wrong += self.program(state, self.prop_bits, x, classes, first, last)
        return 100.0 * wrong / len(examples)


def measures(network: Network, state: dict[str, Any], batches: int, batch_size: int) -> Record:
    """What training has shown of an epoch, norms of the parameters; of DFXP ranges and overflow.

    `batches` are those of the epoch, 0 if nothing has been trained in it. The training error, in
    %, and the mean loss, in nats, are those under dropout, batch by batch; None where a part of
    the epoch was trained before they were counted.
    """
    examples = batches * batch_size
    errors, loss = to_host([state["training/errors"], state["training/loss"]])
    counted = examples > 0 and not np.isnan(loss)
    W, b, ranges, overflow = (
        to_host([state[f"{layer.name}/{what}"] for layer in network.layers])
        for what in ("W", "b", "ranges", "epoch_overflow")
    )
    record: Record = {}
    if examples:
        record["training_error"] = 100.0 * int(errors) / examples if counted else None
        record["training_loss"] = float(loss) / examples if counted else None
    record |= {"W_l2": [norm(v) for v in W], "b_l2": [norm(v) for v in b]}
    if network.format.follows_overflow:
        record["ranges"] = [v.tolist() for v in ranges]
        if batches:
            record["overflow_rates"] = [(v / batches).tolist() for v in overflow]
    return record
