"""Trains many runs, those that share a program several at a time."""

import csv
import io
import signal
import sys
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path

import datasets
import terminal
from errors import DataError, DeviceFailed, Diverged, RunError, RunInUse, Stopped
from files import write_atomically
from records.folder import RunFolder
from records.watcher import Watcher
from settings import NUMBERS, Settings
from tasks import TASKS
from utilities.sweep_table import Table

GPU_TOGETHER = 8  # runs at a time, unless asked otherwise; a CPU does one after the other, which is faster there

ENDED = ("finished", "diverged", "failed")


@dataclass(frozen=True)
class Options:
    """What runs of a sweep have in common, but for their settings; as in main.py."""

    out: Path = Path("runs")
    data: Path | None = None
    sample: bool = False
    stop_after: int | None = None
    device: str = "auto"
    deterministic: bool = False

    def command(self, settings):
        """The command that trains the same run alone."""
        words = settings.command()
        words += ["--stop-after", str(self.stop_after)] if self.stop_after is not None else []
        return words + [f"--{name}" for name in ("sample", "deterministic") if getattr(self, name)]


@dataclass
class Job:
    """One run of a sweep, and how far it is. status: waiting, running, one of ENDED, in use, interrupted."""

    settings: Settings
    folder: Path
    status: str = "waiting"
    record: dict = field(default_factory=dict)  # of the last epoch
    last_epoch: int | None = None
    why: str = ""
    opened: RunFolder | None = None  # while it is locked

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder)


class Team:
    """Trainers, each followed in a thread of its own, whose next segments are trained by one call of their program.

    A segment waits until all members that are still in the team have one to train.
    """

    def __init__(self, trainers):
        self._program, self._changed = trainers[0].training, threading.Condition()
        self._members, self._waiting, self._done = set(trainers), {}, {}
        for trainer in trainers:
            trainer.training = lambda *arguments, trainer=trainer: self._train(trainer, arguments)

    def _train(self, trainer, arguments):
        with self._changed:
            self._waiting[trainer] = arguments
            self._go_on()
            self._changed.wait_for(lambda: trainer in self._done)
            result = self._done.pop(trainer)
        if isinstance(result, BaseException):
            raise result
        return result

    def leave(self, trainer):
        """It has no more segments to train."""
        with self._changed:
            trainer.training = self._program
            self._members.discard(trainer)
            self._go_on()

    def _go_on(self):
        if not self._waiting or len(self._waiting) < len(self._members):
            return
        calls, self._waiting, groups = self._waiting, {}, {}
        for trainer, call in calls.items():
            _, constants, x, _, rows, *_ = call
            groups.setdefault((id(x), len(rows), self._program.narrow(constants)), []).append(
                trainer
            )
        for group in groups.values():
            try:
                states = self._program.together([calls[trainer] for trainer in group])
            except Exception as error:  # every member must hear of it
                states = [error] * len(group)
            self._done |= dict(zip(group, states, strict=True))
        self._changed.notify_all()


class JobWatcher(Watcher):
    """Tells the table; ends the run when the sweep is to end."""

    def __init__(self, job, sweep):
        self.job, self.sweep = job, sweep

    def trained(self, batches):
        if self.sweep.ending:
            raise Stopped

    def note(self, text):
        self.sweep.table.say(text)


class Sweep:
    """Trains jobs, in groups that share a program.

    Parameters
    ----------
    settings : list of Settings
    options : Options
    together : int or None
        How many runs at a time; None: what suits the device.
    """

    def __init__(self, settings, options, together=None, out=None):
        self.options, self.together, self.ending, self._data = (
            options,
            together,
            None,
            {},
        )  # task -> its data
        self.jobs = [Job(s, options.out / s.folder_name(options.sample)) for s in settings]
        self.table = Table(self, out or sys.stdout)

    @property
    def summary_path(self):
        return self.options.out / "summary.csv"

    def check(self):
        """Mark what is finished; RunError if a folder cannot be used."""
        if self.options.out.exists() and not self.options.out.is_dir():
            raise RunError(f"{self.options.out} is a file; give a folder with --out")
        for job in self.jobs:
            if job.run.exists:
                job.run.check_settings(job.settings)
                if record := job.run.finished(self.options.stop_after):
                    job.status, job.record = "finished", record

    def unfinished(self):
        """The jobs that are not; those without data are marked. DataError if there is none with data."""
        jobs = [job for job in self.jobs if job.status not in ENDED]
        tasks, errors = dict.fromkeys(job.settings.task for job in jobs), {}
        folder = terminal.data_folder(self.options.data, self.options.sample)
        for task in tasks:
            try:
                self._data[task] = datasets.load(TASKS[task].data_set, folder, self.options.sample)
            except DataError as error:
                errors[task] = error
        if errors and len(errors) == len(tasks):
            raise next(iter(errors.values()))
        for job in jobs:
            if job.settings.task in errors:
                self.table.change(job, "failed", str(errors[job.settings.task]))
        self.write_summary()
        return [job for job in jobs if job.settings.task not in errors]

    def train(self):
        """Train all that is not finished."""
        groups = {}
        for job in self.unfinished():
            groups.setdefault(
                (job.settings.task, job.settings.format, job.settings.streams), []
            ).append(job)
        for jobs in groups.values():
            self._train_group(jobs)

    def _train_group(self, jobs):
        """Jobs of one task, format and source of masks."""
        data = self._data[jobs[0].settings.task]
        import compilation
        from trainer import Trainer

        compilation.select_device(self.options.device, self.options.deterministic)
        compilation.keep_programs()
        together = self.together or (GPU_TOGETHER if compilation.batching_pays() else 1)
        first, left = None, list(jobs)
        while left and not self.ending:
            members = []
            while left and len(members) < together:
                job = left.pop(0)
                if self._open(job, data):
                    trainer = Trainer(job.settings, data, like=first)
                    first = first or trainer
                    members.append((job, trainer))
            # Chunks of a data set that is read in pieces differ from run to run.
            teams = (
                [[m] for m in members]
                if members and members[0][1].task.chunk_batches
                else [members]
            )
            for team in teams if members else ():
                self._train_team(team)

    def _open(self, job, data):
        """Lock the job's folder, and make it a run folder; whether it can be trained."""
        import compilation

        run = job.opened = job.run
        try:
            if run.exists:
                run.check_data(data.identity)
            run.lock()
        except RunError as error:
            job.status, job.why = (
                ("in use" if isinstance(error, RunInUse) else "failed"),
                str(error),
            )
            self.table.say(error)
            return False
        if run.exists and (
            record := run.finished(self.options.stop_after)
        ):  # somebody else was faster
            job.status, job.record = "finished", record
            run.unlock()
            return False
        if not run.exists:
            run.start(
                self.options.command(job.settings),
                job.settings,
                data.identity,
                compilation.device_name(),
                sample=self.options.sample,
                deterministic=self.options.deterministic,
            )
        return True

    def _train_team(self, members):
        team = Team([trainer for _, trainer in members])
        threads = [
            threading.Thread(target=self._follow, args=(job, trainer, team))
            for job, trainer in members
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                try:
                    thread.join(0.5)  # so that signals are heard
                    self.table.show()
                except KeyboardInterrupt:  # from Ray, in a worker
                    self.ending = signal.SIGINT
        self.write_summary()

    def _follow(self, job, trainer, team):
        from records.follow import follow

        stop = self.options.stop_after
        job.last_epoch = trainer.epochs if stop is None else min(stop, trainer.epochs)
        self.table.change(job, "running")
        try:
            for record in follow(job.opened, trainer, job.last_epoch, JobWatcher(job, self)):
                job.record = record
                self.table.show()
            self.table.change(job, "finished")
        except Stopped:
            self.table.change(job, "interrupted")
        except Diverged as error:
            self.table.change(job, "diverged", str(error))
        except (RunError, DataError, OSError, DeviceFailed, MemoryError) as error:
            self.table.change(
                job, "failed", " ".join(str(error).split())[:300] or type(error).__name__
            )
        except BaseException as error:
            self.table.change(job, "failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            team.leave(trainer)
            job.opened.unlock()

    def write_summary(self):
        """summary.csv: a line for each run, in the order of the command line. No times: only what a run determines."""
        numbers = [number.name for number in NUMBERS]
        names = ["task", "format", *numbers, "epochs", "seed", "streams"]
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(
            [*names, "status", "epoch", "best_epoch", "validation_error", "test_error", "folder"]
        )
        for job in self.jobs:
            own, r = asdict(job.settings), job.record
            shown = {"task", "format", "seed", "streams", "epochs", *job.settings.numbers}
            errors = [
                round(r[k], 6) if r else "" for k in ("best_validation_error", "best_test_error")
            ]
            writer.writerow(
                [own[name] if name in shown else "" for name in names]
                + [
                    "unfinished"
                    if job.status in ("waiting", "running", "interrupted", "in use")
                    else job.status,
                    r.get("epoch", ""),
                    r.get("best_epoch", ""),
                    *errors,
                    job.folder.name,
                ]
            )
        self.options.out.mkdir(parents=True, exist_ok=True)
        write_atomically(self.summary_path, lambda file: file.write(text.getvalue().encode()))
