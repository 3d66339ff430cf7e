"""Whether config.json and metrics.jsonl are what they were: see records.sums."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import FileError, RunError
from files import load_npz, parsed, read_bytes
from records.checkpoints import read_facts
from records.metrics import MOST_BYTES, Record
from records.sums import MetricsSum, Sums, first_difference, fits

DAMAGE = (OSError, FileError, LookupError, ValueError, TypeError, AttributeError, RecursionError)


def check(folder: Path, config: Mapping[str, Any], records: bool = True) -> None:
    """RunError if config.json, or metrics.jsonl, has changed, as far as can be told.

    final.npz tells; without it the newest checkpoint does, but for records after it. Damaged
    ones, and those of old, tell nothing.

    Parameters
    ----------
    records
        Whether metrics.jsonl is looked at, too.
    """
    final = folder / "final.npz"
    checkpoint = folder / "checkpoint.npz"
    for path in (final, checkpoint):
        try:
            sums, recorded = _told(path)
            if sums is None:
                continue
            check_config(sums, config, path)
            metrics = folder / "metrics.jsonl"
            same = not records or records_fit(sums, metrics, more=path == checkpoint)
        except DAMAGE:
            continue
        if same:
            return
        if not path.exists():  # somebody goes on with the run
            continue
        recorded = recorded or _records(checkpoint)
        remedy = "the run's command makes it anew" if recorded else "put the one of then back"
        what = first_difference(whole_lines(metrics), recorded)
        raise RunError(
            f"{metrics} has changed since {path.name} was written{f' ({what})' if what else ''}: "
            f"it is not what was measured; {remedy}"
        )


def check_config(sums: Sums, config: Mapping[str, Any], path: Path) -> None:
    """RunError unless the configuration beside `path`, which holds the sums, is that of then."""
    if not fits(sums, config):
        raise RunError(
            f"{path.with_name('config.json')} has changed since {path.name} was written: what it "
            "says is not what was trained; put the one of then back, or give another folder with "
            "--out"
        )


def records_fit(sums: Sums, metrics: Path, more: bool = False) -> bool:
    """Whether metrics.jsonl has the lines of the sums, and no others, unless there may be more."""
    content = read_bytes(metrics, MOST_BYTES) if metrics.exists() else b""
    lines = content.splitlines(keepends=True)
    found = MetricsSum()
    found.add(*(lines[: sums["lines"]] if more else lines))
    return found.so_far() == {name: sums[name] for name in ("metrics", "lines")}


def sums_of(final: Mapping[str, Any]) -> Sums | None:
    """Those among the arrays of final.npz, if it has any."""
    return parsed(final["sums"].item()) if "sums" in final else None


def _told(path: Path) -> tuple[Sums | None, list[Record]]:
    """The sums in final.npz or in a checkpoint, and the records there."""
    if path.name == "final.npz":
        return sums_of(load_npz(path)), []
    facts = read_facts(path)[1]
    return facts.get("sums"), facts["records"]


def _records(checkpoint: Path) -> list[Record]:
    try:
        return read_facts(checkpoint)[1]["records"]
    except DAMAGE:
        return []


def whole_lines(metrics: Path) -> list[bytes]:
    """The lines of metrics.jsonl as they are, but for a last one cut short; none without it."""
    try:
        lines = read_bytes(metrics, MOST_BYTES).splitlines(keepends=True)
    except OSError:
        return []
    return [text for text in lines if text.endswith(b"\n")]
