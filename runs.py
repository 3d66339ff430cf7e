"""Run folders: the record of a run, its checkpoint, and the lock that keeps two processes apart.

    config.json      command, settings, data (file sums), versions, device, git revision
    metrics.jsonl    one line an epoch, as `trainer.Trainer.run` yields them
    checkpoint.npz   all that the rest of the run depends on; the one before is checkpoint.previous.npz
    best.npz         parameters at the lowest validation error (layer0/W, layer0/b, ...)
    final.npz        parameters after the last epoch; its presence says that the run is finished

Every file is written under a temporary name and moved into place, so none is ever seen half-written. Arrays are kept with
their CRC-32 sums (the .npz format is uncompressed zip), which are checked when they are read.
"""

import contextlib
import json
import os
import platform
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np

from errors import FileError, RunError, RunInUse, Stopped
from files import Lock, load_npz, write_atomically, write_json, write_npz
from settings import Settings

CHECKPOINT_SECONDS = 30
PACKAGES = ("numpy", "scipy", "pytensor", "jax", "jaxlib")


class Watcher:
    """What `Run.follow` tells: each method may be overridden."""

    def resumed(self, trainer, last_epoch):
        """`trainer` stands where training goes on."""

    def trained(self, batches):
        """As many batches more; may raise Stopped."""

    def note(self, text):
        """One line for the user."""


def environment(device):
    """Versions, device and git revision: what a result may depend on besides its settings."""
    here = Path(__file__).parent
    try:
        revision = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        revision = None
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "device": device,
        "git_revision": revision,
    }


class Run:
    """A run folder, opened and locked.

    Parameters
    ----------
    folder : Path
        Made if missing, by the first thing written.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.config_path, self.metrics_path = (
            self.folder / "config.json",
            self.folder / "metrics.jsonl",
        )
        self.checkpoint_path, self.final_path = (
            self.folder / "checkpoint.npz",
            self.folder / "final.npz",
        )
        self.previous_path, self.best_path = (
            self.folder / "checkpoint.previous.npz",
            self.folder / "best.npz",
        )
        self._lock = Lock(self.folder / ".lock")
        self._writing = self.last_record = None
        self.kept = None  # where the last checkpoint is, in words
        try:
            strangers = (
                []
                if self.config_path.exists() or not self.folder.exists()
                else [p.name for p in self.folder.iterdir() if not p.name.startswith(".")]
            )
        except OSError as error:
            raise RunError(
                f"{self.folder} cannot be a run folder ({error.strerror}); give another with --out"
            ) from None
        if strangers:
            raise RunError(
                f"{self.folder} is not a run folder ({strangers[0]} is in the way); give another with --out"
            )

    @property
    def exists(self):
        return self.config_path.exists()

    def config(self):
        """The configuration of an existing run."""
        try:
            config = json.loads(self.config_path.read_text())
            settings = Settings(**config["settings"])
            if not all(
                isinstance(word, str) for word in (*config["data"], *config["data"].values())
            ):
                raise ValueError("data are not file names and sums")
            if type(config["epochs"]) is not int or settings.epochs not in (None, config["epochs"]):
                raise ValueError(f"epochs is {config['epochs']}")
            return config
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{self.config_path} cannot be read ({type(error).__name__}: {error}); remove the folder or "
                "give another with --out"
            ) from None

    def check(self, settings):
        """Refuse to go on with a run of other settings."""
        there, here = self.config()["settings"], json.loads(json.dumps(settings.as_json()))
        differences = [
            f"{k} {there.get(k)} there, {here.get(k)} here"
            for k in sorted(there | here)
            if there.get(k) != here.get(k)
        ]
        if differences:
            raise RunError(
                f"{self.folder} holds another run ({'; '.join(differences)}); give another folder with --out"
            )

    def check_data(self, identity):
        """Refuse to go on with other data."""
        there = self.config()["data"]
        if differing := [
            name for name in sorted(there | identity) if there.get(name) != identity.get(name)
        ]:
            raise RunError(
                f"{self.folder} was trained on other data ({', '.join(differing)}); use that data or give "
                "another folder with --out"
            )

    def lock(self):
        """Keep other processes out until this one ends, however it ends."""
        if self._lock.held:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = self._lock.acquire()
        except OSError as error:
            raise RunError(
                f"{self.folder} cannot be a run folder ({error.strerror}); give another with --out"
            ) from None
        if not free:
            raise RunInUse(
                f"{self.folder} is in use by another process; wait for it or give another folder with "
                "--out"
            )

    def unlock(self):
        """Let others in, if `lock` has kept them out."""
        self._lock.release()

    def what_is_kept(self):
        """What an interrupted run has, and how it goes on."""
        if self.kept is not None:
            return f"the same command resumes {self.kept}"
        if self.checkpoint_path.exists():
            return "the last checkpoint is as it was, the same command resumes from it"
        return "nothing was kept yet, the same command starts again"

    def start(self, command, settings, identity, device, **options):
        """Write config.json of a new run; `identity` is that of the data."""
        write_json(
            self.config_path,
            {
                "command": command,
                "settings": settings.as_json(),
                "epochs": settings.last_epoch,
                "data": identity,
                **options,
                "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                **environment(device),
            },
        )

    def compare_environment(self, device):
        """What differs from where an existing run was started, in words; "" if nothing does."""
        there, here = self.config(), environment(device)
        there, here = (
            {**c["versions"], "device": c["device"]}
            for c in (
                {"versions": {}, "device": None}
                | {k: v for k, v in there.items() if k == "device" or type(v) is dict},
                here,
            )
        )
        return ", ".join(
            f"{name} {there.get(name)} then, {here[name]} now"
            for name in here
            if here[name] != there.get(name)
        )

    def records(self):
        """The lines of metrics.jsonl, but for a last one cut short; RunError if another is damaged."""
        try:
            lines = (
                self.metrics_path.read_text().split("\n")[:-1] if self.metrics_path.exists() else []
            )
            return check_records([json.loads(line) for line in lines])
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"{self.metrics_path} is damaged ({error})") from None

    def finished(self, stop_after=None):
        """The last record of a run that has got to its last epoch, or to `stop_after`; else None."""
        epochs = self.config()["epochs"]
        target = epochs if stop_after is None else min(stop_after, epochs)
        try:
            records = self.records() if self.final_path.exists() else []
            if not records or records[-1]["epoch"] < target:
                return None
            for path, epoch in (
                (self.final_path, records[-1]["epoch"]),
                (self.best_path, records[-1]["best_epoch"]),
            ):
                if load_npz(path)["epoch"] != epoch:
                    return None
        except (RunError, FileError, KeyError):
            return None  # `follow` writes them anew, from the checkpoint
        return records[-1]

    def follow(self, trainer, last_epoch, watcher=None):
        """Train to `last_epoch`, from the last checkpoint if there is one; yields each epoch's record once it is written.

        metrics.jsonl always has each epoch once, whatever happened to it: the checkpoint has the records so far. When
        `watcher` raises Stopped, a checkpoint is written first. The last record is then in `last_record`.
        """
        watcher = watcher or Watcher()

        def after_segment(batches):
            watcher.trained(batches)
            first = self.kept is None and self._writing is None and (batches or self._records)
            if first or time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
                self.checkpoint(trainer)

        with self.open(trainer, watcher.note, after_segment):
            if trainer.batches_done > trainer.batches_until(
                last_epoch
            ):  # it has gone on since then
                self.last_record = self._records[-1]
                return
            self.final_path.unlink(missing_ok=True)
            watcher.resumed(trainer, last_epoch)
            try:
                for record in trainer.run(last_epoch):
                    self.add(record)
                    after_segment(0)
                    yield record
            except Stopped:
                self.checkpoint(trainer)
                raise
            self.checkpoint(trainer)
            self._wait()
            self._save("final.npz", trainer.parameters() | {"epoch": np.array(trainer.epoch)})
        self.last_record = self._records[-1]

    @contextlib.contextmanager
    def open(self, trainer, note, progress):
        """Put `trainer` where the last good checkpoint is, and be ready for `add` and `checkpoint`."""
        config = self.config()
        self._identity = {
            "settings": config["settings"],
            "data": config["data"],
        }  # that of its checkpoints
        if config["epochs"] != trainer.epochs:
            raise RunError(
                f"{self.config_path} says {config['epochs']} epochs, not {trainer.epochs}; give another folder "
                "with --out"
            )
        self._records = self._load(trainer, note)
        lines = "".join(json.dumps(r) + "\n" for r in self._records)
        write_atomically(self.metrics_path, lambda file: file.write(lines.encode()))
        self._saved, self._best_epoch, before = time.monotonic(), None, trainer.progress
        trainer.progress = progress
        with (
            ThreadPoolExecutor(1, "checkpoint") as self._writer,
            open(self.metrics_path, "a") as self._metrics,
        ):
            try:
                yield
            finally:
                trainer.progress = before
                self._wait()

    def add(self, record):
        """Write the record of an epoch."""
        self._records.append(record)
        try:
            self._metrics.write(json.dumps(record) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.metrics_path)) from error

    def checkpoint(self, trainer):
        """Copy what the rest of the run depends on; it is written while training goes on. One at a time."""
        self._wait()
        arrays, facts = trainer.snapshot()
        facts |= {"records": list(self._records), **self._identity}
        self._writing = self._writer.submit(self._write, arrays, facts, trainer.position())
        self._saved = time.monotonic()

    def _wait(self):
        """Until the checkpoint in flight, if any, is written; raises what kept it from being written."""
        writing, self._writing = self._writing, None
        if writing:
            self.kept = writing.result()

    def _write(self, arrays, facts, position):
        self._save(
            "checkpoint.npz",
            arrays | {"facts": np.array(json.dumps(facts).encode())},
            self.previous_path,
        )
        best_epoch = facts["best"] and facts["best"]["best_epoch"]
        if best_epoch != self._best_epoch:
            best = {
                name.removeprefix("best/"): a
                for name, a in arrays.items()
                if name.startswith("best/")
            }
            self._save("best.npz", best | {"epoch": np.array(best_epoch)})
            self._best_epoch = best_epoch
        return position

    def _load(self, trainer, note):
        """Restore the newest good checkpoint and return its records; a damaged one is reported and replaced."""
        wrong, damaged = [], []
        for path in (self.checkpoint_path, self.previous_path):
            try:
                open(path, "rb").close()
            except FileNotFoundError:
                wrong.append(f"{path} is missing")
                continue
            arrays = facts = None
            try:
                arrays = load_npz(path)
                facts = json.loads(arrays.pop("facts").item())
                differing = [name for name, value in self._identity.items() if facts[name] != value]
                if not differing:
                    records = check_records(facts["records"])
                    if [r["epoch"] for r in records] != list(range(facts["epoch"] + 1)):
                        raise ValueError("it does not have the record of each epoch")
                    trainer.restore(arrays, facts)
            except (
                FileError,
                KeyError,
                ValueError,
                TypeError,
                AttributeError,
                RecursionError,
            ) as error:
                what = (
                    error
                    if isinstance(error, (FileError, ValueError))
                    else f"{type(error).__name__}: {error}"
                )
                wrong.append(f"{path} is damaged ({what})")
                damaged.append(wrong[-1])
                continue
            if differing:
                raise RunError(
                    f"{path} is that of a run of other {' and '.join(differing)}; remove it, or give another "
                    "folder with --out"
                )
            self.kept = trainer.position()
            if wrong:
                os.replace(path, self.checkpoint_path)
                note(f"{wrong[0]}; going on from the one before, {self.kept}")
            return records
        if damaged:
            raise RunError(f"{' and '.join(damaged)}; remove what is damaged to start the run over")
        if self.metrics_path.is_file() and self.metrics_path.stat().st_size:
            old = self.metrics_path.with_name("metrics.previous.jsonl")
            if not old.exists():
                os.replace(self.metrics_path, old)
            note(
                f"{self.folder} has records, but no checkpoint: the run starts over, {old.name} keeps them"
            )
        return []

    def _save(self, name, arrays, keep=None):
        write_npz(self.folder / name, arrays, keep)


def check_records(records):
    """Records of epochs, as they are; ValueError, TypeError or AttributeError if they are anything else."""
    for r in records:
        errors = [
            r.get(name)
            for name in (
                "validation_error",
                "test_error",
                "best_validation_error",
                "best_test_error",
            )
        ]
        epochs = [r.get(name) for name in ("epoch", "best_epoch")]
        if any(type(e) is not int for e in epochs) or not all(
            type(e) in (int, float) and 0 <= e <= 100 for e in errors
        ):
            raise ValueError("a line is no record of an epoch")
    return records
