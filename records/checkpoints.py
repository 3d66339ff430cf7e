"""The checkpoints of a run folder: the newest, the one before, and the best parameters."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from errors import FileError, RunError
from files import Arrays, load_npz, parsed, write_npz
from records import code, saved
from records.metrics import Record, check_course, check_records
from records.sums import Sums, fits
from snapshots import BEST, OtherNetwork, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer import Trainer

DAMAGE = (FileError, LookupError, ValueError, TypeError, AttributeError, RecursionError)


class Checkpoints:
    """Written one at a time, by a thread, while training goes on.

    A checkpoint is an .npz file: the arrays of a Snapshot, and `facts`, JSON text with its facts,
    the records so far, what the run is (its settings, data and code), sums over its config.json and
    metrics.jsonl, and a `note` for the next record, if there is one to be made.

    Parameters
    ----------
    check
        Called before anything is written; it may refuse.

    Attributes
    ----------
    newest : str or None
        Where the newest one stands that this process has read or written, in words.
    note : str or None
        What the next record is to say: that the code has changed.
    """

    def __init__(self, folder: Path, check: "Callable[[], None]") -> None:
        self.check = check
        self.path = folder / "checkpoint.npz"
        self.previous_path = folder / "checkpoint.previous.npz"
        self.best_path = folder / "best.npz"
        self.newest: str | None = None
        self.note: str | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future | None = None
        self._saved = 0.0
        self._best_epoch: int | None = None

    def what_is_kept(self) -> str:
        """What an interrupted run has, and how it goes on."""
        if self.newest is not None:
            return f"the same command resumes {self.newest}"
        if self.path.exists() or self.previous_path.exists():
            return "the last checkpoint is as it was, the same command resumes from it"
        return "nothing was kept yet, the same command starts again"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Within it `save` can be called; at its end everything is written."""
        with ThreadPoolExecutor(1, "checkpoint") as self._writer:
            self._saved = time.monotonic()
            self._best_epoch = None
            try:
                yield
            finally:
                self.wait()

    def due(self, seconds: float) -> bool:
        """Whether there is none yet, or the last is so old."""
        none = self.newest is None and self._writing is None
        return none or time.monotonic() - self._saved >= seconds

    def save(
        self,
        snapshot: Snapshot,
        records: list[Record],
        said: dict[str, Any],
        sums: Sums,
        words: str,
    ) -> None:
        """Hand a snapshot to the writer.

        `said` is what records.saved.about gives, `sums` what records.sums says, `words` say where
        the snapshot stands. Raises what kept the one before from being written.
        """
        assert self._writer is not None
        self.wait()
        facts = snapshot.facts | {"records": list(records), "note": self.note, "sums": sums}
        facts |= _identity(said)
        self._writing = self._writer.submit(self._write, snapshot.arrays, facts, said, words)
        self._saved = time.monotonic()

    def wait(self) -> None:
        """Until the one in flight, if any, is written; raises what kept it from being."""
        writing = self._writing
        self._writing = None
        if writing:
            self.newest = writing.result()

    def _write(
        self, arrays: Arrays, facts: dict[str, Any], said: dict[str, Any], words: str
    ) -> str:
        self.check()
        try:
            self._write_files(arrays, facts, said)
        except FileNotFoundError:
            self.check()  # it may be that the folder was removed
            raise
        return words

    def _write_files(self, arrays: Arrays, facts: dict[str, Any], said: dict[str, Any]) -> None:
        text = np.array(json.dumps(facts).encode())
        write_npz(self.path, arrays | {"facts": text}, self.previous_path)
        if facts["best"] and facts["best"]["best_epoch"] != self._best_epoch:
            best = {n.removeprefix("best/"): a for n, a in arrays.items() if n.startswith("best/")}
            epoch, *errors = (facts["best"][name] for name in BEST)
            saved.write(self.best_path, best, said, epoch, *errors)
            self._best_epoch = epoch

    def restore(
        self, trainer: "Trainer", config: dict[str, Any], note: "Callable[[str], None]"
    ) -> list[Record] | None:
        """Put the trainer where the newest good one is; its records, or None if there is none.

        One that is damaged is reported and the one before takes its place. RunError if none is
        good, or if one is that of another run than `config` says, or of another network.
        """
        wrong: list[str] = []
        damaged = False
        for path in (self.path, self.previous_path):
            if not path.exists():
                wrong.append(f"{path} is missing")
                continue
            try:
                records, self.note = _restore_from(path, trainer, config)
            except OtherNetwork as error:
                raise RunError(
                    f"{path} is that of another network ({error}); go on with the program that "
                    "wrote it, or give another folder with --out"
                ) from None
            except DAMAGE as error:
                known = isinstance(error, (FileError, ValueError))
                what = error if known else f"{type(error).__name__}: {error}"
                wrong.append(f"{path} is damaged ({what})")
                damaged = True
                continue
            self.newest = trainer.words()
            if wrong:
                os.replace(path, self.path)
                note(f"{wrong[0]}; going on from the one before, {self.newest}")
            return records
        if damaged:
            bad = " and ".join(line for line in wrong if not line.endswith("is missing"))
            raise RunError(f"{bad}; remove what is damaged to start the run over")
        return None


def read_facts(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the facts of a checkpoint; one of DAMAGE if it is none."""
    arrays = load_npz(path)
    return arrays, parsed(arrays.pop("facts").item())


def _restore_from(
    path: Path, trainer: "Trainer", config: dict[str, Any]
) -> tuple[list[Record], str | None]:
    """The records, and the note that the next one is to have."""
    arrays, facts = read_facts(path)
    notes = [facts.get("note"), _check_run(path, facts, config)]
    note = "; ".join(filter(None, notes)) or None
    records = check_records(facts["records"])
    if [record["epoch"] for record in records] != list(range(facts["epoch"] + 1)):
        raise ValueError("it does not have the record of each epoch")
    check_course(records, facts["best"])
    _check_errors(records, trainer)
    _complete(arrays, facts, trainer)
    trainer.restore(Snapshot(arrays, facts))
    if facts.get("code") and note is None and not config.get("earlier_code"):
        _check_rates(records, trainer.schedule)
    return records, note


def _complete(arrays: Arrays, facts: dict[str, Any], trainer: "Trainer") -> None:
    """Add what checkpoints of the first form lack."""
    best = facts["best"]
    if best and "best/layer0/ranges" not in arrays:
        epoch = best["best_epoch"]
        # It may have no record yet.
        then = facts["records"][epoch] if epoch else {"epoch": 0}
        ranges = saved.ranges_then(trainer.settings, then, len(trainer.network.layers))
        arrays |= {f"best/{name}": value for name, value in ranges.items()}
    if "training/loss" not in arrays:  # nor were errors and losses counted
        begun = facts["batches"]
        arrays["training/errors"] = np.array(0)
        arrays["training/loss"] = np.array(np.nan if begun else 0.0)


def _check_errors(records: list[Record], trainer: "Trainer") -> None:
    """ValueError unless every error is one of so many examples."""
    parts = {"validation_error": trainer.data.valid, "test_error": trainer.data.test}
    for record in records:
        for name, part in parts.items():
            wrong = record[name] * len(part) / 100
            if abs(wrong - round(wrong)) > 1e-6:
                raise ValueError(f"{name} of epoch {record['epoch']} is {record[name]}")


def _check_rates(records: list[Record], schedule: list[tuple[float, float]]) -> None:
    """ValueError unless every epoch had the rates of the schedule."""
    for record in records:
        if (record["LR"], record["M"]) != schedule[max(record["epoch"], 1) - 1]:
            raise ValueError(f"the rates of epoch {record['epoch']} are none of its schedule")


def _check_run(path: Path, facts: dict[str, Any], config: dict[str, Any]) -> str | None:
    """RunError if this is the checkpoint of another run; what has changed in the code since."""
    differing = [name for name in ("settings", "data") if facts[name] != config[name]]
    if differing:
        raise RunError(
            f"{path} is that of a run of other {' and '.join(differing)} than config.json says "
            f"({_first_difference(facts, config, differing[0])}); put the right one of the two "
            "back, or give another folder with --out"
        )
    if "sums" in facts and not fits(facts["sums"], config):
        raise RunError(
            f"config.json has changed since {path} was written; put the one of then back, or give "
            "another folder with --out"
        )
    if "code" not in facts or "code" not in config:
        return None
    if facts["code"] == code.digest(config["code"]) and _same(facts, config["code"]):
        return None
    for earlier in config.get("earlier_code", []):
        known = "code" in earlier and facts["code"] == code.digest(earlier["code"])
        if known and _same(facts, earlier["code"]):
            return f"the code changed: {code.difference(earlier['code'], config['code'])}"
    raise RunError(
        f"{path} is that of a run of other code than config.json says; put the right one of the "
        "two back, or give another folder with --out"
    )


def _same(facts: dict[str, Any], other: code.Code) -> bool:
    """Whether the values that a checkpoint has are those of a code."""
    return facts["task"] == other["task"] and facts["layers"] == other["layers"]


def _first_difference(facts: dict[str, Any], config: dict[str, Any], what: str) -> str:
    there, here = facts[what], config[what]
    name = next(name for name in {**here, **there} if there.get(name) != here.get(name))
    return f"{name} {there.get(name)} there, {here.get(name)} in config.json"


def _identity(said: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint must have in common with its run."""
    names = ("settings", "data", "code", "task", "layers")
    return {name: said[name] for name in names if name in said}
