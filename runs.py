"""Run folders: the record of a run, its checkpoint, and the lock that keeps two processes apart.

    config.json      command, settings, data (file sums), versions, device, git revision
    metrics.jsonl    one line an epoch, as `trainer.Trainer.run` yields them
    checkpoint.npz   all that the next epoch depends on
    best.npz         parameters at the lowest validation error (layer0/W, layer0/b, ..., ranges in FXP and DFXP)
    final.npz        parameters after the last epoch; its presence says that the run is finished

Every file is written under a temporary name and moved into place, so none is ever seen half-written.
"""

import fcntl
import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

CHECKPOINT_SECONDS = 30
PACKAGES = ("numpy", "scipy", "pytensor", "jax", "jaxlib")


@dataclass(frozen=True)
class Settings:
    """Everything that determines the result of a run, but for the data. Names as on the command line.

    FLP and HFLP ignore initial_range and both bit-widths; all but DFXP ignore the last three.
    """

    task: str
    format: str
    initial_range: int = 0
    prop_bits: int = 31
    up_bits: int = 31
    range_update_frequency: int = 1
    max_overflow: float = 0.0
    init_epochs: int = 0
    epochs: int | None = None  # None: as many as published
    seed: int = 1234
    streams: str = "device"


class RunError(Exception):
    """A run folder that cannot be used: one line that says what is wrong and what to do."""


NUMBERS = ("initial_range", "prop_bits", "up_bits", "range_update_frequency", "max_overflow", "init_epochs")
NEEDED = {"FLP": 0, "HFLP": 0, "FXP": 3, "DFXP": 6}  # how many of them a format needs


def describe(settings):
    """Words that tell a run from others: the positional arguments that count, then the options that are not default."""
    numbers = [getattr(settings, name) for name in NUMBERS[: NEEDED[settings.format]]]
    words = [settings.task, settings.format, *(f"{n:g}" if isinstance(n, float) else str(n) for n in numbers)]
    words += [f"epochs{settings.epochs}"] if settings.epochs is not None else []
    words += [f"seed{settings.seed}"] if settings.seed != 1234 else []
    return words + ([settings.streams] if settings.streams != "device" else [])


def environment(device):
    """Versions, device and git revision: what a result may depend on besides its settings."""
    here = Path(__file__).parent
    try:
        revision = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], cwd=here,
                                  capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        revision = None
    return {"versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "device": device, "git_revision": revision}


def write_atomically(path, write):
    """Let `write(file)` fill a file that then takes the place of `path`, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)  # it may be what fills the disk
        raise


def write_json(path, value):
    write_atomically(path, lambda file: file.write(json.dumps(value, indent=1).encode() + b"\n"))


class Run:
    """A run folder, opened and locked.

    Parameters
    ----------
    folder : Path
        Made if missing, by the first thing written.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.config_path, self.metrics_path = self.folder / "config.json", self.folder / "metrics.jsonl"
        self.checkpoint_path, self.final_path = self.folder / "checkpoint.npz", self.folder / "final.npz"
        self._lock = self.kept_epoch = self.last_record = None
        try:
            strangers = [] if self.config_path.exists() or not self.folder.exists() else \
                [p.name for p in self.folder.iterdir() if not p.name.startswith(".")]
        except OSError as error:
            raise RunError(f"{self.folder} cannot be a run folder ({error.strerror}); give another with --out") from None
        if strangers:
            raise RunError(f"{self.folder} is not a run folder ({strangers[0]} is in the way); give another with --out")

    @property
    def exists(self):
        return self.config_path.exists()

    def config(self):
        """The configuration of an existing run."""
        try:
            config = json.loads(self.config_path.read_text())
            describe(Settings(**config["settings"]))
            return config | {"data": dict(config["data"]), "epochs": int(config["epochs"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.config_path} cannot be read ({type(error).__name__}: {error}); remove the folder or "
                           "give another with --out") from None

    def check(self, settings):
        """Refuse to go on with a run of other settings."""
        there, here = self.config()["settings"], json.loads(json.dumps(asdict(settings)))
        differences = [f"{k} {there.get(k)} there, {here.get(k)} here" for k in sorted(there | here)
                       if there.get(k) != here.get(k)]
        if differences:
            raise RunError(f"{self.folder} holds another run ({'; '.join(differences)}); give another folder with --out")

    def check_data(self, identity):
        """Refuse to go on with other data."""
        there = self.config()["data"]
        if differing := [name for name in sorted(there | identity) if there.get(name) != identity.get(name)]:
            raise RunError(f"{self.folder} was trained on other data ({', '.join(differing)}); use that data or give "
                           "another folder with --out")

    def lock(self):
        """Keep other processes out until this one ends, however it ends."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.folder / ".lock", "w")
        except OSError as error:
            raise RunError(f"{self.folder} cannot be a run folder ({error.strerror}); give another with --out") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{self.folder} is in use by another process; wait for it or give another folder with "
                           "--out") from None

    def start(self, command, settings, epochs, identity, sample, device):
        """Write config.json of a new run: `epochs` is what settings.epochs comes to, `identity` that of the data."""
        write_json(self.config_path, {"command": command, "settings": asdict(settings), "epochs": epochs,
                                      "data": identity, "sample": sample, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                                      **environment(device)})

    def records(self):
        """The lines of metrics.jsonl, but for a last one cut short; RunError if another is damaged."""
        try:
            lines = self.metrics_path.read_text().split("\n")[:-1] if self.metrics_path.exists() else []
            records = [json.loads(line) for line in lines]
            if any(not {"epoch", "validation_error", "test_error", "best_epoch"} <= r.keys() for r in records):
                raise ValueError("a line is no record of an epoch")
        except (OSError, ValueError, AttributeError) as error:
            raise RunError(f"{self.metrics_path} is damaged ({error})") from None
        return records

    def finished(self, stop_after=None):
        """The last record of a run that has got to its last epoch, or to `stop_after`; else None."""
        epochs = self.config()["epochs"]
        target = epochs if stop_after is None else min(stop_after, epochs)
        try:
            records = self.records() if self.final_path.exists() else []
        except RunError:
            return None  # `follow` writes metrics.jsonl anew from the checkpoint
        return records[-1] if records and records[-1]["epoch"] >= target else None

    def follow(self, trainer, last_epoch, on_resume=lambda: None):
        """Train to `last_epoch`, from the checkpoint if there is one; yields each epoch's record once it is kept.

        on_resume is called once, when `trainer` stands where training goes on. The checkpoint has the records so far, so
        metrics.jsonl always has each epoch once, whatever happened to it. The last record is
        then in `last_record`.
        """
        records = []
        if self.checkpoint_path.exists():
            try:
                arrays = load_npz(self.checkpoint_path)
                facts = json.loads(arrays.pop("facts").item())
                records = facts.pop("records")
                trainer.restore(arrays, facts)
            except (RunError, KeyError, ValueError, TypeError) as error:
                raise RunError(f"{self.checkpoint_path} is damaged ({error}); remove it to start the run over") from None
            self.kept_epoch = trainer.epoch
        on_resume()
        self.final_path.unlink(missing_ok=True)
        lines = "".join(json.dumps(r) + "\n" for r in records)
        write_atomically(self.metrics_path, lambda file: file.write(lines.encode()))
        saved, best = time.monotonic(), None
        with open(self.metrics_path, "a") as metrics:
            for record in trainer.run(last_epoch):
                records.append(record)
                metrics.write(json.dumps(record) + "\n")
                metrics.flush()
                if record["best_epoch"] == record["epoch"]:
                    best = trainer.parameters()
                due = self.kept_epoch is None or time.monotonic() - saved >= CHECKPOINT_SECONDS
                if due or record["epoch"] == last_epoch:
                    # The best parameters first: a rerun from the older checkpoint would find them again.
                    if best is not None:
                        self._save("best.npz", best)
                    arrays, facts = trainer.snapshot()
                    facts["records"] = records
                    self._save("checkpoint.npz", arrays | {"facts": np.array(json.dumps(facts))})
                    saved, best, self.kept_epoch = time.monotonic(), None, record["epoch"]
                yield record
        self._save("final.npz", trainer.parameters())
        self.last_record = records[-1]

    def _save(self, name, arrays):
        write_atomically(self.folder / name, lambda file: np.savez(file, **arrays))


def load_npz(path):
    """The arrays of an .npz file (no pickles), or a RunError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # np.load raises whatever its zip, header or number parsers do
        raise RunError(f"{path} cannot be read ({type(error).__name__}: {error})") from None
