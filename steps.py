"""A run as steps that somebody else drives: several runs can then share a program."""

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from records.metrics import Record
from xla.device import device_failures


@dataclass(frozen=True)
class Segment:
    """Batches to be trained: what TrainingProgram is called with; its answer is to be sent back."""

    arguments: tuple


@dataclass(frozen=True)
class Whole:
    """The state is whole: so many batches have been trained since the last time."""

    batches: int


Steps = Generator[Segment | Whole | Record, Any, None]


def driven(steps: Steps, program: Callable[..., Any]) -> Iterator[Record]:
    """The records among steps, while `program` trains their segments."""
    answer = None
    with contextlib.closing(steps):
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(step, Segment):
                with device_failures():
                    answer = program(*step.arguments)
            elif isinstance(step, dict):
                yield step


def result(pieces: Generator[Whole, None, float]) -> float:
    """What a generator returns at its end."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value
