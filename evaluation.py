"""The test-time pass over the parts of a data set ("Test-time pass")."""

from collections.abc import Generator
from typing import Any

import numpy as np

from compilation import TestProgram
from datasets import Dataset
from steps import Whole


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
    piece
        Batches of a piece.
    on_device : dict
        Where the parts are kept on the device; it may be shared.
    """

    def __init__(
        self,
        program: TestProgram,
        data: Dataset,
        prop_bits: int,
        piece: int,
        on_device: dict[str, Any],
    ) -> None:
        self.program = program
        self.data = data
        self.prop_bits = np.int32(prop_bits)
        self.piece = piece
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
