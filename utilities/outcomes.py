"""Runs that are to be shown, read from their folders."""

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets import cifar10, mnist, svhn
from errors import RunError, printable
from records import extension
from records.folder import RunFolder
from records.metrics import Record
from settings import FORMAT_ARGUMENTS, Settings
from tasks import TASKS
from utilities.naming import counted

Baselines = dict[tuple, list[float]]


@dataclass(frozen=True)
class Outcome:
    """A run: its settings, the epochs it is to have, and its records (at least one).

    `data` is what it was trained on, "" for the official data.
    """

    folder: Path
    settings: Settings
    epochs: int
    records: list[Record]
    config: dict[str, Any]
    data: str = ""

    @property
    def label(self) -> str:
        """What tells it from others, and the paper's from those on other data."""
        return " ".join([*self.settings.words(), *([f"({self.data})"] if self.data else [])])

    @property
    def last(self) -> Record:
        return self.records[-1]

    @property
    def complete(self) -> bool:
        return self.last["epoch"] >= self.epochs

    @property
    def has_papers_numbers(self) -> bool:
        """Whether its numbers are those of the paper's table, however many its epochs are."""
        own = tuple(self.settings.numbers.values())
        return own == FORMAT_ARGUMENTS[self.settings.format].published

    @property
    def error(self) -> float:
        """Test error at the lowest validation error, %."""
        return self.last["best_test_error"]

    @property
    def ranges_stood_still(self) -> bool:
        """Whether ranges that should follow the overflow rates never have: too short epochs."""
        ranges = [record["ranges"] for record in self.records if "ranges" in record]
        return len(ranges) > 1 and all(one == ranges[0] for one in ranges)

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
            words.append(counted(machine["cores"], "core"))
            if machine.get("threads", machine["cores"]) != machine["cores"]:
                words[-1] += f" ({machine['threads']} threads)"
        if isinstance(machine.get("memory_gib"), (int, float)):
            words.append(f"{machine['memory_gib']:.0f} GiB")
        return ", ".join(words if device.startswith("cpu") else [device, *words])


def collect(
    folders: Iterable[Path | str], sample: bool | None = False
) -> tuple[list[Outcome], list[str]]:
    """The runs in folders; and remarks on those left out, with the reason.

    A run that is there twice is taken once. Runs on the generated sample are left out, unless
    `sample`: then only those are taken. With None all are. The epochs beyond a schedule are
    left out: they are none of the settings'.

    Raises
    ------
    RunError
        A folder holds no run.
    """
    outcomes = []
    remarks = []
    known: dict[str, Path] = {}
    for folder in map(Path, folders):
        configs = sorted(folder.rglob("config.json")) if folder.is_dir() else []
        if not configs:
            raise RunError(f"{folder} holds no run folder (nothing there has a config.json)")
        for path in configs:
            try:
                outcome = read(path.parent, sample)
                run = json.dumps([outcome.config, outcome.records], sort_keys=True)
                if run in known:
                    raise RunError(f"{path.parent} is the same run as {known[run]}")
                known[run] = path.parent
                outcomes.append(outcome)
                remarks += beyond(outcome)
            except RunError as error:
                remarks.append(fact(error))
    return told_apart(outcomes), remarks


def fact(error: RunError) -> str:
    """What is wrong with a run folder, without the advice to somebody who wants to train in it."""
    return error.fact


def nothing(what: str, remarks: Sequence[str]) -> RunError:
    """The error if there is nothing: the reason; if there are several, they are printed."""
    if len(remarks) < 2:
        return RunError(f"nothing {what}: {''.join(remarks)}")
    print("\n".join(remarks))
    return RunError(f"nothing {what}, for the {len(remarks)} reasons above")


def data_name(config: Mapping[str, Any]) -> str:
    """What a run was trained on, by its config.json; "" for the official data."""
    if config.get("sample"):
        return "generated sample"
    sums: dict[str, str] = {}
    for data_set in (mnist, cifar10, svhn):
        sums |= data_set.OFFICIAL.sums
    others = [name for name, md5 in config["data"].items() if md5 != sums.get(name, md5)]
    named = printable(config["own_set"], 100) if "own_set" in config else ""
    return f"own data {named}".strip() if others or named else ""


def told_apart(outcomes: list[Outcome]) -> list[Outcome]:
    """Those of different data of one name with the first digits of a sum behind it."""
    kinds: dict[tuple[str, str], set[str]] = {}
    sums = [_sum(outcome.config["data"]) for outcome in outcomes]
    keys = [(TASKS[o.settings.task].data_set, o.data) for o in outcomes]
    for key, known in zip(keys, sums, strict=True):
        kinds.setdefault(key, set()).add(known)
    return [
        outcome
        if len(kinds[key]) == 1
        else replace(outcome, data=f"{outcome.data or 'data'} {known}")
        for outcome, key, known in zip(outcomes, keys, sums, strict=True)
    ]


def _sum(identity: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(identity.items())).encode()).hexdigest()[:8]


def run_in(folder: Path) -> Outcome:
    """The run of a run folder; RunError if there is none, or none with a finished epoch."""
    if not (folder / "config.json").exists():
        raise RunError(f"{folder} is not a run folder")
    try:
        return read(folder, None)
    except RunError as error:
        raise RunError(fact(error)) from None


def read(folder: Path, sample: bool | None) -> Outcome:
    """A run with records that is, or is not, on the sample; else RunError."""
    run = RunFolder(folder)
    config = run.config()
    run.check_sums()
    records = run.records()
    if not records:
        raise RunError(f"{folder} has no finished epoch")
    if sample is not None and bool(config.get("sample")) != sample:
        trained_on = "real data" if sample else "the generated sample"
        raise RunError(f"{folder} was trained on {trained_on}")
    settings = Settings(**config["settings"])
    records = [record for record in records if record["epoch"] <= config["epochs"]]
    return Outcome(folder, settings, config["epochs"], records, config, data_name(config))


def values(records: Iterable[Record], what: str) -> np.ndarray:
    """A number of each record, float64; NaN where there is none."""
    found = (record.get(what) for record in records)
    numbers = [v if isinstance(v, (int, float)) else math.nan for v in found]
    result = np.array(numbers, "float64")
    return np.where(np.isfinite(result), result, math.nan)


def beyond(outcome: Outcome) -> list[str]:
    """A remark on the epochs of a run that are not in its outcome, if there are any."""
    last = RunFolder(outcome.folder).records()[-1]
    if last["epoch"] <= outcome.epochs:
        return []
    return [
        f"{outcome.folder} was extended to {extension.words(outcome.config)} epochs, those after "
        f"{outcome.epochs} (test error {last['best_test_error']:.2f} %) are left out"
    ]


def by_settings(outcomes: Iterable[Outcome]) -> dict[Settings, list[Outcome]]:
    """Outcomes of all seeds, by their settings with seed 0."""
    groups: dict[Settings, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(replace(outcome.settings, seed=0), []).append(outcome)
    return groups


def baseline(settings: Settings) -> tuple:
    """What a run and the FLP runs that it is compared with have in common."""
    return settings.task, settings.last_epoch, settings.streams


def baselines_of(outcomes: Iterable[Outcome]) -> Baselines:
    """The test errors of complete FLP runs, those that differ by their seeds together."""
    groups = by_settings(outcome for outcome in outcomes if outcome.complete)
    return {
        baseline(settings): errors_of_seeds(group)
        for settings, group in groups.items()
        if settings.format == "FLP"
    }


def errors_of_seeds(outcomes: Iterable[Outcome]) -> list[float]:
    """A test error in % a seed, of runs that differ by it alone: the mean of its runs."""
    errors: dict[int, list[float]] = {}
    for outcome in outcomes:
        errors.setdefault(outcome.settings.seed, []).append(outcome.error)
    return [statistics.mean(own) for own in errors.values()]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter 0 of a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
