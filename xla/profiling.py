"""Where the time of a compiled program goes, on a CPU: kernel by kernel, as XLA records it."""

import math
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.profiler import ProfileData

# An instruction of a compiled program's text: its name, its type, the rest of the line.
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) (.*)$", re.MULTILINE)
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")
_CONTAINERS = ("while(", "call(", "conditional(")
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
    """The instructions of a program by name, from its text as XLA prints it; no loops and calls."""
    found = {}
    for name, kind, rest in _INSTRUCTION.findall(text):
        if rest.startswith(_CONTAINERS):
            continue
        shape = _SHAPE.search(kind)
        sides = shape[1].split(",") if shape and shape[1] else []
        path = _PATH.search(rest)
        found[name] = Kernel(tuple(map(int, sides)), path[1] if path else "")
    return found


def seconds(call: Callable[[], Any], names: Collection[str]) -> dict[str, float]:
    """How long each of these kernels runs in what a call computes: see `shares`."""
    threads = []
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        for path in Path(folder).rglob("*.xplane.pb"):
            profile = ProfileData.from_file(str(path))
            threads += [
                [
                    Event(e.start_ns, e.start_ns + e.duration_ns, e.name)
                    for e in line.events
                    if e.name in names
                ]
                for plane in profile.planes
                for line in plane.lines
            ]
    return {name: spent / 1e9 for name, spent in shares(threads).items()}


def shares(threads: Iterable[Iterable[Event]]) -> dict[str, float]:
    """The time of each name, shared equally where several threads run something.

    All together take as long as there was anything that ran. Where a thread's event lies
    within another, only the inner one runs.
    """
    changes = []
    for thread in threads:
        for start, end, name in innermost(thread):
            changes += [(start, 1, name), (end, -1, name)]
    total: defaultdict[str, float] = defaultdict(float)
    running: Counter[str] = Counter()
    since = 0.0
    for time, change, name in sorted(changes):
        for other in running:
            total[other] += (time - since) * running[other] / running.total()
        running[name] += change
        if not running[name]:
            del running[name]
        since = time
    return dict(total)


def innermost(events: Iterable[Event]) -> Iterator[Event]:
    """A thread's events, without what lies within others of them."""
    within: list[Event] = []  # each begins where the last that ended within it did
    for event in sorted(events, key=lambda e: (e.start, -e.end)):
        yield from _ended(within, event.start)
        if within and within[-1].start < event.start:
            yield within[-1]._replace(end=event.start)
        within.append(event)
    yield from _ended(within, math.inf)


def _ended(within: list[Event], now: float) -> Iterator[Event]:
    """What is left of those that have ended by now."""
    while within and within[-1].end <= now:
        event = within.pop()
        if event.start < event.end:
            yield event
        if within:
            within[-1] = within[-1]._replace(start=event.end)
