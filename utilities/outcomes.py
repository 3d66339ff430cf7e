"""Runs that are to be shown, read from their folders."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from errors import RunError
from records.folder import RunFolder
from records.metrics import Record
from settings import Settings


@dataclass(frozen=True)
class Outcome:
    """A run: its settings, the epochs it is to have, and its records (at least one)."""

    folder: Path
    settings: Settings
    epochs: int
    records: list[Record]
    config: dict[str, Any]

    @property
    def last(self) -> Record:
        return self.records[-1]

    @property
    def complete(self) -> bool:
        return self.last["epoch"] >= self.epochs

    @property
    def error(self) -> float:
        """Test error at the lowest validation error, %."""
        return self.last["best_test_error"]

    @property
    def hours(self) -> float:
        return sum(record.get("seconds", 0) for record in self.records) / 3600

    @property
    def device(self) -> str:
        """What it was trained on: a processor, if it is named, or a GPU with it."""
        device = str(self.config.get("device", "?"))
        machine = self.config.get("machine")
        if not isinstance(machine, dict) or "processor" not in machine:
            return device  # older runs
        words = [str(machine["processor"])]
        if "cores" in machine:
            words.append(f"{machine['cores']} cores")
        if isinstance(machine.get("memory_gib"), (int, float)):
            words.append(f"{machine['memory_gib']:.0f} GiB")
        return ", ".join(words if device.startswith("cpu") else [device, *words])


def collect(folders: Iterable[Path | str], sample: bool = False) -> tuple[list[Outcome], list[str]]:
    """The runs in folders; and remarks on those left out, with the reason.

    Runs on the generated sample are left out, unless `sample`: then only those are
    taken.

    Raises
    ------
    RunError
        A folder holds no run.
    """
    outcomes = []
    remarks = []
    for folder in map(Path, folders):
        configs = sorted(folder.rglob("config.json")) if folder.is_dir() else []
        if not configs:
            raise RunError(f"{folder} holds no run folder (nothing there has a config.json)")
        for path in configs:
            try:
                outcomes.append(read(path.parent, sample))
            except RunError as error:
                remarks.append(str(error))
    return outcomes, remarks


def read(folder: Path, sample: bool) -> Outcome:
    """A run with records that is, or is not, on the sample; else RunError."""
    run = RunFolder(folder)
    config = run.config()
    run.check_sums()
    records = run.records()
    if not records:
        raise RunError(f"{folder} has no finished epoch")
    if bool(config.get("sample")) != sample:
        trained_on = "real data" if sample else "the generated sample"
        raise RunError(f"{folder} was trained on {trained_on}, left out")
    return Outcome(folder, Settings(**config["settings"]), config["epochs"], records, config)


def by_settings(outcomes: Iterable[Outcome]) -> dict[Settings, list[Outcome]]:
    """Outcomes of all seeds, by their settings with seed 0."""
    groups: dict[Settings, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(replace(outcome.settings, seed=0), []).append(outcome)
    return groups


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter 0 of a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
