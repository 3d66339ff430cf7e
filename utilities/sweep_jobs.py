"""The runs of a sweep: what is to be trained, and how far each is."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bars import Pace
from data_options import SIZES, check_kind
from datasets import OwnSet
from errors import RunError
from files import plain, write_atomically
from records import extension
from records.folder import RunFolder
from records.metrics import Record
from settings import NUMBERS, Settings

ENDED = ("finished", "diverged", "failed")
IDENTITY = ("task", "format", *(number.name for number in NUMBERS), "epochs", "seed", "streams")
OUTCOME = ("status", "epoch", "best_epoch", "validation_error", "test_error", "folder")


@dataclass(frozen=True)
class Options:
    """What runs of a sweep have in common, but for their settings; as in main.py."""

    out: Path = Path("runs")
    data: Path | None = None
    sample: bool = False
    stop_after: int | None = None
    device: str = "auto"
    deterministic: bool = False
    accept_changed_code: bool = False
    own: OwnSet | None = None

    @property
    def summary_path(self) -> Path:
        return self.out / "summary.csv"

    def folder(self, settings: Settings) -> Path:
        """The folder of a run: as main.py would have named it, under `out`."""
        return self.out / settings.folder_name(self.sample, self.own.name if self.own else "")

    def last_epoch(self, settings: Settings) -> int:
        """Up to which epoch a run is trained."""
        if self.stop_after is None:
            return settings.last_epoch
        return min(self.stop_after, settings.last_epoch)

    def command(self, settings: Settings) -> list[str]:
        """The command that trains the same run alone."""
        words = settings.command()
        if self.stop_after is not None:
            words += ["--stop-after", str(self.stop_after)]
        if self.own:
            words += ["--data-set", str(self.own.folder)]
            given = zip(SIZES, (self.own.train, self.own.valid), strict=True)
            for name, size in given:
                words += [f"--{name.replace('_', '-')}", str(size)] if size else []
        return words + [f"--{name}" for name in ("sample", "deterministic") if getattr(self, name)]


@dataclass(eq=False)
class Job:
    """One run of a sweep, and how far it is.

    Parameters
    ----------
    status
        waiting, running, one of ENDED, in use, or interrupted.
    record
        Of the last epoch.
    why
        What is behind the status, for the user.
    batches
        Of an epoch, as far as is known.
    where, done, pace
        Of a run that this process trains: what it is at, its batches so far, how fast it is.
    """

    settings: Settings
    run: RunFolder
    last_epoch: int
    status: str = "waiting"
    record: Record = field(default_factory=dict)
    why: str = ""
    batches: int = 1
    where: str = ""
    done: int | None = None
    pace: Pace | None = None

    @property
    def batches_left(self) -> int:
        """How many are to be trained still."""
        first = int(self.settings.numbers.get("init_epochs", 0))
        done = self.done
        if done is None:
            done = (first + self.record["epoch"]) * self.batches if self.record else 0
        return max(0, (first + self.last_epoch) * self.batches - done)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.run.folder.name

    def check_finished(self, stop_after: int | None) -> bool:
        """Whether it is finished, which is noted."""
        record = self.run.finished(stop_after) if self.run.exists else None
        if record is None:
            return False
        self.status = "finished"
        self.record = record
        return True


def plan(settings: Iterable[Settings], options: Options) -> list[Job]:
    """A job for each run; those that are finished are marked.

    Raises
    ------
    RunError
        A folder cannot be used.
    """
    if options.out.exists() and not options.out.is_dir():
        raise RunError(f"{options.out} is a file; give a folder with --out")
    jobs = []
    for own in settings:
        job = Job(own, RunFolder(options.folder(own)), options.last_epoch(own))
        if job.run.exists:
            job.run.check_settings(own)
            check_kind(job.run.folder, job.run.config(), options)
            job.last_epoch = extension.last_epoch(job.run.config(), options.stop_after)
        job.check_finished(options.stop_after)
        jobs.append(job)
    return jobs


def write_summary(jobs: list[Job], options: Options) -> None:
    """summary.csv: a line for each run, in the order of the command line.

    It has no times, so that only the runs determine it.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [*IDENTITY, *OUTCOME])
    writer.writeheader()
    writer.writerows(map(summary_row, jobs))
    options.out.mkdir(parents=True, exist_ok=True)
    check_summary(options)
    content = text.getvalue().encode()
    write_atomically(options.summary_path, lambda file: file.write(content))


def check_summary(options: Options) -> None:
    """RunError if there is something else under the name of summary.csv."""
    path = options.summary_path
    try:
        with open(path, "rb", opener=plain) as file:
            head = file.readline(1000).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return
    if head and not head.startswith(",".join(IDENTITY[:3])):
        raise RunError(f"{path} is no summary of a sweep; move it away, or give another --out")


def summary_row(job: Job) -> dict[str, object]:
    """A line of summary.csv: settings that count, status, epochs and errors."""
    own = asdict(job.settings)
    needless = {number.name for number in NUMBERS} - set(job.settings.numbers)
    record = job.record
    row: dict[str, object] = {name: "" if name in needless else own[name] for name in IDENTITY}
    row["status"] = job.status if job.status in ENDED else "unfinished"
    row["epoch"] = record.get("epoch", "")
    row["best_epoch"] = record.get("best_epoch", "")
    for name in ("validation_error", "test_error"):
        row[name] = round(record[f"best_{name}"], 6) if record else ""
    row["folder"] = job.name
    return row
