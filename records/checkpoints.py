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
from files import Arrays, load_npz, write_npz
from records import saved
from records.metrics import Record, check_records
from snapshots import BEST, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer import Trainer

DAMAGE = (FileError, LookupError, ValueError, TypeError, AttributeError, RecursionError)


class Checkpoints:
    """Written one at a time, by a thread, while training goes on.

    A checkpoint is an .npz file: the arrays of a Snapshot, and `facts`, JSON text with its facts,
    the records so far, and the identity of the run (its settings and data).

    Attributes
    ----------
    newest : str or None
        Where the newest one stands that this process has read or written, in words.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "checkpoint.npz"
        self.previous_path = folder / "checkpoint.previous.npz"
        self.best_path = folder / "best.npz"
        self.newest: str | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future | None = None
        self._saved = 0.0
        self._best_epoch: int | None = None

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
        self, snapshot: Snapshot, records: list[Record], said: dict[str, Any], words: str
    ) -> None:
        """Hand a snapshot to the writer.

        `said` is what records.saved.about gives, `words` say where the snapshot stands. Raises what
        kept the one before from being written.
        """
        assert self._writer is not None
        self.wait()
        facts = snapshot.facts | {"records": list(records)} | _identity(said)
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
        text = np.array(json.dumps(facts).encode())
        write_npz(self.path, arrays | {"facts": text}, self.previous_path)
        if facts["best"] and facts["best"]["best_epoch"] != self._best_epoch:
            best = {n.removeprefix("best/"): a for n, a in arrays.items() if n.startswith("best/")}
            epoch, *errors = (facts["best"][name] for name in BEST)
            saved.write(self.best_path, best, said, epoch, *errors)
            self._best_epoch = epoch
        return words

    def restore(
        self, trainer: "Trainer", said: dict[str, Any], note: "Callable[[str], None]"
    ) -> list[Record] | None:
        """Put the trainer where the newest good one is; its records, or None if there is none.

        One that is damaged is reported and the one before takes its place. RunError if none is
        good, or if one is that of another run.
        """
        wrong: list[str] = []
        damaged = False
        for path in (self.path, self.previous_path):
            if not path.exists():
                wrong.append(f"{path} is missing")
                continue
            try:
                records = _restore_from(path, trainer, _identity(said))
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


def _restore_from(path: Path, trainer: "Trainer", identity: dict[str, Any]) -> list[Record]:
    arrays = load_npz(path)
    facts = json.loads(arrays.pop("facts").item())
    differing = [name for name, value in identity.items() if facts[name] != value]
    if differing:
        raise RunError(
            f"{path} is that of a run of other {' and '.join(differing)}; remove it, or give "
            "another folder with --out"
        )
    records = check_records(facts["records"])
    if [record["epoch"] for record in records] != list(range(facts["epoch"] + 1)):
        raise ValueError("it does not have the record of each epoch")
    best = facts["best"]
    if best and "best/layer0/ranges" not in arrays:  # of the first form
        epoch = best["best_epoch"]
        then = records[epoch] if epoch else {"epoch": 0}  # it may have no record yet
        ranges = saved.ranges_then(trainer.settings, then, len(trainer.network.layers))
        arrays |= {f"best/{name}": value for name, value in ranges.items()}
    if "training/loss" not in arrays:  # nor were errors and losses counted
        begun = facts["batches"]
        arrays["training/errors"] = np.array(0)
        arrays["training/loss"] = np.array(np.nan if begun else 0.0)
    trainer.restore(Snapshot(arrays, facts))
    return records


def _identity(said: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint must have in common with its run."""
    return {"settings": said["settings"], "data": said["data"]}
