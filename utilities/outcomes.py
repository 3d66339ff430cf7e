"""Finished and unfinished runs, read from their folders."""

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from errors import RunError
from records.folder import RunFolder
from settings import Settings


@dataclass(frozen=True)
class Outcome:
    """A run: its settings, the epochs it is to have, and its records (at least one)."""

    folder: Path
    settings: Settings
    epochs: int
    records: list
    config: dict

    @property
    def last(self):
        return self.records[-1]

    @property
    def complete(self):
        return self.last["epoch"] >= self.epochs

    @property
    def error(self):
        """Test error at the lowest validation error, %."""
        return self.last["best_test_error"]

    @property
    def hours(self):
        return sum(r.get("seconds", 0) for r in self.records) / 3600


def collect(folders, sample=False):
    """(outcomes, remarks): the runs in folders, and those left out, with the reason. RunError if a folder has none.

    Runs on the generated sample are left out, unless `sample`: then only those are taken.
    """
    outcomes, remarks = [], []
    for folder in map(Path, folders):
        configs = sorted(folder.rglob("config.json")) if folder.is_dir() else []
        if not configs:
            raise RunError(f"{folder} holds no run folder (nothing there has a config.json)")
        for path in configs:
            try:
                run = RunFolder(path.parent)
                config, records = run.config(), run.records()
            except RunError as error:
                remarks.append(str(error))
                continue
            if not records:
                remarks.append(f"{path.parent} has no finished epoch")
            elif bool(config.get("sample")) != sample:
                remarks.append(
                    f"{path.parent} was trained on {'real data' if sample else 'the generated sample'}, left out"
                )
            else:
                outcomes.append(
                    Outcome(
                        path.parent,
                        Settings(**config["settings"]),
                        config["epochs"],
                        records,
                        config,
                    )
                )
    return outcomes, remarks


def by_settings(outcomes):
    """{settings without seed: outcomes of all seeds}."""
    groups = {}
    for outcome in outcomes:
        groups.setdefault(replace(outcome.settings, seed=0), []).append(outcome)
    return groups


def mean_and_deviation(values):
    """(mean, sample standard deviation); the latter 0 of a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
