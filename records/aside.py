"""What a run that starts over leaves in its folder: it gets another name, nothing is lost."""

import contextlib
import os
from pathlib import Path

from files import read_bytes
from records.metrics import MOST_BYTES

NAMES = ("metrics.jsonl", "best.npz", "final.npz")


def put_aside(folder: Path) -> list[str]:
    """Give what no checkpoint goes on from names that nothing has; the new names.

    metrics.jsonl becomes metrics.previous.jsonl, or metrics.previous2.jsonl, ... A run that had
    not come to the end of its first epoch leaves nothing of worth.
    """
    with contextlib.suppress(OSError):
        if read_bytes(folder / "metrics.jsonl", MOST_BYTES).count(b"\n") == 1:
            return []
    aside = []
    for name in NAMES:
        path = folder / name
        if path.is_file() and path.stat().st_size:
            free = _free(path)
            os.replace(path, free)
            aside.append(free.name)
    return aside


def _free(path: Path) -> Path:
    """A name for a file to be put aside."""
    number = 1
    while True:
        free = path.with_name(f"{path.stem}.previous{'' if number == 1 else number}{path.suffix}")
        if not os.path.lexists(free):
            return free
        number += 1
