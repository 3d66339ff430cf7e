"""Where the time of a compiled program goes, on a CPU: kernel by kernel, as XLA records it."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.profiler import ProfileData

# An instruction of a compiled program's text: its name, its type, the rest of the line.
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) (.*)$", re.MULTILINE)
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")
_PATH = re.compile(r'op_name="([^"]*)"')


class Kernel(NamedTuple):
    """An instruction of a compiled program, by its result."""

    shape: tuple[int, ...]  # of a tuple, that of its first element
    path: str  # the scopes it was traced in, and the operation; "" if XLA has added it


class Event(NamedTuple):
    """A kernel as it ran, in nanoseconds."""

    start: float
    end: float
    name: str


def kernels(text: str) -> dict[str, Kernel]:
    """The instructions of a program by name, from its text as XLA prints it."""
    found = {}
    for name, kind, rest in _INSTRUCTION.findall(text):
        shape = _SHAPE.search(kind)
        sides = shape[1].split(",") if shape and shape[1] else []
        path = _PATH.search(rest)
        found[name] = Kernel(tuple(map(int, sides)), path[1] if path else "")
    return found


def seconds(call: Callable[[], Any], names: Collection[str]) -> dict[str, float]:
    """How long each of these kernels runs in what a call computes, without those within it."""
    total: defaultdict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        for path in Path(folder).rglob("*.xplane.pb"):
            profile = ProfileData.from_file(str(path))
            for plane in profile.planes:
                for line in plane.lines:  # a thread
                    events = (
                        Event(e.start_ns, e.start_ns + e.duration_ns, e.name)
                        for e in line.events
                        if e.name in names
                    )
                    for name, elapsed in own_times(events).items():
                        total[name] += elapsed / 1e9
    return dict(total)


def own_times(events: Iterable[Event]) -> dict[str, float]:
    """The time of each name, without that of the events within its own."""
    total: defaultdict[str, float] = defaultdict(float)
    within: list[Event] = []
    for event in sorted(events, key=lambda e: (e.start, -e.end)):
        while within and within[-1].end <= event.start:
            within.pop()
        if within:
            total[within[-1].name] -= event.end - event.start
        total[event.name] += event.end - event.start
        within.append(event)
    return dict(total)
