"""Several runs at a time, each as if it were alone: their segments share a program."""

import contextlib
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

from errors import Stopped
from records.metrics import Record
from steps import Segment, Steps
from xla.device import device_failures
from xla.programs import TrainingProgram

Name = TypeVar("Name")
Event = Record | Exception | Stopped | None


def train_together(
    program: TrainingProgram, members: dict[Name, Steps]
) -> Iterator[tuple[Name, Event]]:
    """Train runs of one task, format and source of masks, on the same data.

    All of them go on to their next segment, or to their end, before those segments are
    trained.

    Parameters
    ----------
    program
        That of all of them.
    members
        The steps of each run, by something that names it.

    Yields
    ------
    (name, record) after each epoch of a run; when it ends (name, None), or (name, exception).
    """
    answers: dict[Name, Any] = dict.fromkeys(members)
    with contextlib.ExitStack() as stack:
        for steps in members.values():
            stack.enter_context(contextlib.closing(steps))
        while answers:
            segments: dict[Name, Segment] = {}
            for name, answer in answers.items():
                segment = yield from _advance(name, members[name], answer)
                if segment is not None:
                    segments[name] = segment
            answers = _train(program, segments)


def _advance(
    name: Name, steps: Steps, answer: Any
) -> Generator[tuple[Name, Event], None, Segment | None]:
    """Answer a run, and go on to its next segment; None at its end."""
    while True:
        try:
            failed = isinstance(answer, Exception)
            step = steps.throw(answer) if failed else steps.send(answer)
        except StopIteration:
            yield name, None
            return None
        except (Exception, Stopped) as error:
            yield name, error
            return None
        if isinstance(step, Segment):
            return step
        answer = None
        if isinstance(step, dict):
            yield name, step


def _train(program: TrainingProgram, segments: dict[Name, Segment]) -> dict[Name, Any]:
    """The state after each segment, or what kept it from being trained."""
    groups: dict[tuple, list[Name]] = {}
    for name, segment in segments.items():
        _, constants, x, _, rows, *_ = segment.arguments
        alike = id(x), len(rows), program.narrow(constants)
        groups.setdefault(alike, []).append(name)
    answers: dict[Name, Any] = {}
    states: list[Any]
    for group in groups.values():
        try:
            with device_failures():
                states = program.together([segments[name].arguments for name in group])
        except Exception as error:  # every one of them must hear of it
            states = [error] * len(group)
        answers |= zip(group, states, strict=True)
    return answers
