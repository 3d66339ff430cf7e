"""Cores of this machine for the processes of a sweep, each its own."""

import contextlib
import os
import tempfile
from pathlib import Path

from locks import Lock

_cores: list[Lock] = []  # which ones this process has


def take_cores(count: int) -> bool:
    """Confine this process to cores that no other worker has; whether that could be.

    Two XLA programs on the same ones slow each other badly.
    """
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return False
    free = sorted(os.sched_getaffinity(0))
    if _cores or count >= len(free):
        return True
    taken = {}
    with contextlib.suppress(OSError):  # no locks can be made
        for core in free:
            name = f"deep-learning-storage-{os.getuid()}-core{core}"
            lock = Lock(Path(tempfile.gettempdir()) / name)
            if not lock.acquire():
                continue
            taken[core] = lock
            if len(taken) == count:
                os.sched_setaffinity(0, taken)
                _cores.extend(taken.values())  # held until the process ends
                return True
    for lock in taken.values():
        lock.release()
    return False
