"""The signals that ask a program to end."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, Self

from errors import Stopped

# Ctrl-C, kill, a terminal that is closed, the warnings of batch systems (the last: of ulimit -t).
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
INSISTING = (signal.SIGINT, signal.SIGTERM)  # of others, two may come for one reason


def heard() -> list[signal.Signals]:
    """The signals that are listened to: what nohup ignores stays ignored.

    None by a thread, as of a notebook or a server: only a process's first one can.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    ignored = [n for n in SIGNALS if signal.getsignal(n) == signal.SIG_IGN and n not in INSISTING]
    return [number for number in SIGNALS if number not in ignored]


def end_at_once(number: int, frame: FrameType | None = None) -> NoReturn:
    """End the process without clearing up: XLA's threads cannot be stopped, and may crash."""
    os._exit(128 + number)


class Signals:
    """Within it the first signal is noted; a second Ctrl-C or SIGTERM ends the process at once.

    Not as exceptions in the middle of training: some of JAX's callbacks swallow those.

    Parameters
    ----------
    told
        Called with the first one, if it is only noted.
    """

    def __init__(self, told: Callable[[int], object] | None = None) -> None:
        self.received: int | None = None
        self.patient = True
        self._told = told
        self._insisted = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in heard():
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._insisted += number in INSISTING
        if self._insisted > 1:
            end_at_once(number)
        if self.received:
            return
        self.received = number
        if not self.patient:
            raise Stopped(number)
        if self._told:
            self._told(number)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it the first one raises Stopped where the program is."""
        self.check()
        self.patient = False
        try:
            yield
        finally:
            self.patient = True

    def check(self) -> None:
        """Stopped, if one has come."""
        if self.received:
            raise Stopped(self.received)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Within it signals wait, and to threads and processes that are started none will ever come.

    To threads of XLA's none must: it may overwrite what they compute with, and glibc then ends
    the process ("corrupted size vs. prev_size"). The system chooses one of them if it is they
    that are at work (SIGXCPU), or if a signal is still waiting for the first thread.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
