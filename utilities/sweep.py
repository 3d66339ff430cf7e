"""Train many runs: every word of the command line may be a list (9,10,11) or a range (5:12, both ends included).

    python -m utilities.sweep PI_MNIST FLP,DFXP 5 6:12 11 100 0.0001 2 --epochs 10 --seeds 3

Each run gets the folder that main.py would have given it, under --out. Runs that are finished are skipped, others resumed, so
that the same command goes on after an interruption. runs/summary.csv has a line for each. Runs of one task and format are
trained by one compiled program, on a GPU several at a time (--together).
"""

import argparse
import contextlib
import csv
import io
import itertools
import os
import re
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import datasets
import terminal
from errors import (
    DataError,
    DeviceFailed,
    Diverged,
    ProgramError,
    RunError,
    RunInUse,
    SettingsError,
    Stopped,
)
from files import write_atomically
from records.folder import RunFolder
from records.watcher import Watcher
from settings import EPOCHS, FORMAT_ARGUMENTS, NUMBERS, SEED, STREAMS, Settings, known
from tasks import TASKS

GPU_TOGETHER = 8  # runs at a time, unless asked otherwise; a CPU does one after the other, which is faster there
MOST_RUNS = 100_000
ENDED = ("finished", "diverged", "failed")


# ------------------------------------------------------------------------------------------------------- what to train


def expand(text):
    """The words that a list or range stands for: "5:7,9" -> 5, 6, 7, 9; SettingsError if neither."""
    words = []
    for part in text.strip().split(","):
        if ":" not in part:
            words.append(part)
            continue
        if not re.fullmatch(r"[+-]?\d{1,9}:[+-]?\d{1,9}(:\d{1,9})?", part):
            raise SettingsError(f"{part!r} is no range of whole numbers, such as 5:12 or 5:13:2")
        low, high, step = (*map(int, part.split(":")), 1)[:3]
        if not (0 < step and low <= high < low + step * MOST_RUNS):
            raise SettingsError(f"the range {part!r} has no number, or too many")
        words += map(str, range(low, high + 1, step))
    if "" in words:
        raise SettingsError(f"{text!r} has an empty word")
    return words


def product(words, seeds=1, **options):
    """The Settings of all combinations of `words`, one for each seed, each once."""
    tasks, formats, *numbers = map(expand, words)
    settings = []
    for task, number_format, seed in itertools.product(tasks, formats, range(SEED, SEED + seeds)):
        known(number_format, FORMAT_ARGUMENTS, "FORMAT")
        needed = numbers[: FORMAT_ARGUMENTS[number_format].needs]
        for combination in itertools.product(*needed):
            settings.append(Settings.parse(task, number_format, combination, seed=seed, **options))
            if len(settings) > MOST_RUNS:
                raise SettingsError(f"these are more than {MOST_RUNS} runs")
    return list(dict.fromkeys(settings))


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


# --------------------------------------------------------------------------------------------- several as one program


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


class Table:
    """What the user sees: on a terminal a table that is drawn anew, elsewhere a line when a run begins or ends."""

    def __init__(self, sweep, out):
        self.sweep, self.out, self.live, self.lines = sweep, out, out.isatty(), 0
        self._lock, self._shown = threading.Lock(), 0.0

    def change(self, job, status, why=""):
        job.status, job.why = status, why
        if not self.live or status != "running":
            self.say(self.line(job) + (f": {why}" if why else ""))
        self.show(at_once=True)

    def say(self, text):
        with (
            self._lock,
            contextlib.suppress(BrokenPipeError),
        ):  # training goes on when nobody reads any more
            self._erase()
            print(text, file=self.out, flush=True)

    def line(self, job):
        words = [f"{job.folder.name:<48} {job.status:<11}"]
        if job.record:
            r = job.record
            of = f" of {job.last_epoch}" if job.last_epoch is not None else ""
            words.append(
                f"epoch {r['epoch']}{of}, test error {r['best_test_error']:.2f} % "
                f"(validation {r['best_validation_error']:.2f} %)"
            )
        return " ".join(words)

    def show(self, at_once=False):
        if not self.live or not at_once and time.monotonic() - self._shown < 0.5:
            return
        jobs = self.sweep.jobs
        lines = [self.line(job) for job in jobs if job.status == "running"]
        counts = [
            f"{sum(job.status == s for job in jobs)} {s}"
            for s in dict.fromkeys(job.status for job in jobs)
        ]
        lines.append(f"{len(jobs)} runs: {', '.join(counts)}{self.time_left()}")
        width = shutil.get_terminal_size().columns - 1
        with self._lock:
            self._erase()
            print("\n".join(line[:width] for line in lines), file=self.out, flush=True)
            self.lines, self._shown = len(lines), time.monotonic()

    def time_left(self):
        """As long as the epochs that are left take at the speed of those that were trained, if there is one."""
        left, known = (
            0.0,
            [j for j in self.sweep.jobs if j.record.get("epoch") and j.status == "running"],
        )
        if not known:
            return ""
        together = len(known)
        speed = {j.settings.task: j.record["seconds"] / together for j in known}
        usual = max(speed.values())
        for job in self.sweep.jobs:
            if job.status in ("waiting", "running"):
                last = job.last_epoch or known[0].last_epoch
                left += max(0, last - job.record.get("epoch", 0)) * speed.get(
                    job.settings.task, usual
                )
        return f", about {left / 60:.0f} min left"

    def _erase(self):
        if self.lines:
            print(f"\x1b[{self.lines}A\x1b[J", end="", file=self.out)
            self.lines = 0


# --------------------------------------------------------------------------------------------------------- the program


def add_options(parser):
    """What sweep and reproduce have in common."""
    parser.add_argument(
        "--seeds",
        type=terminal.whole(1, 1000),
        default=1,
        metavar="N",
        help=f"N runs of each, with the seeds {SEED}, {SEED + 1}, ... (default 1)",
    )
    parser.add_argument(
        "--out",
        type=terminal.folder,
        default=Path("runs"),
        metavar="DIR",
        help="where the run folders are, and summary.csv (default: runs)",
    )
    terminal.add_data_options(parser)
    terminal.add_device_options(parser)
    parser.add_argument(
        "--together",
        type=count_or_auto,
        default=None,
        metavar="N",
        help=f"runs that one program trains at a time (default auto: {GPU_TOGETHER} on a GPU, 1 on a CPU)",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="hand the runs to a Ray cluster; without ADDRESS one is started here (requirements-ray.txt). "
        "All its machines must see --out and the data under the same names",
    )
    parser.add_argument(
        "--cpus",
        type=terminal.whole(1, 4096),
        default=1,
        metavar="N",
        help="with --ray: processor cores for a run (default 1)",
    )
    parser.add_argument(
        "--gpus",
        type=fraction,
        default=0,
        metavar="F",
        help="with --ray: GPUs for a run, also a part of one, such as 0.25 (default 0)",
    )


def count_or_auto(text):
    return None if text == "auto" else terminal.whole(1, 1000)(text)


def fraction(text):
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 64:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of GPUs, such as 0.25 or 1")


def execute(name, settings, a, stop_after=None):
    """Train `settings` as the options `a` of program `name` say; (exit status, Sweep)."""
    options = Options(a.out, a.data, a.sample, stop_after, a.device, a.deterministic)
    sweep = Sweep(settings, options, a.together)

    def end(number, frame):
        if sweep.ending:
            os._exit(128 + number)
        sweep.ending = number
        sweep.table.say(f"{name}: ending after the segments in flight")

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        sweep.check()
        if a.ray is None:
            sweep.train()
        else:
            from utilities.cluster import train_on_ray

            train_on_ray(sweep, a.ray, a.cpus, a.gpus)
        sweep.write_summary()
    except ProgramError as error:
        terminal.say(name, error)
        return error.status, sweep
    except OSError as error:
        terminal.say(name, f"{error}; the same command goes on")
        return 1, sweep
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    done = sum(job.status == "finished" for job in sweep.jobs)
    sweep.table.say(f"{done} of {len(sweep.jobs)} runs finished; {sweep.summary_path}")
    if sweep.ending:
        terminal.say(name, "interrupted; the same command goes on")
        return 128 + sweep.ending, sweep
    return (0 if done == len(sweep.jobs) else 1), sweep


def main(arguments=None):
    parser = terminal.Parser("python -m utilities.sweep", __doc__)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="TASK FORMAT ...",
        help="as in main.py, each a word, a list or a range",
    )
    parser.add_argument("--epochs", type=terminal.number(EPOCHS), metavar="N", help="as in main.py")
    parser.add_argument(
        "--stop-after", type=terminal.whole(0, 10**6), metavar="K", help="as in main.py"
    )
    parser.add_argument("--streams", choices=STREAMS, default=STREAMS[0], help="as in main.py")
    add_options(parser)
    words = sys.argv[1:] if arguments is None else arguments
    # "-5:5" would be taken for an option; a word with a blank is not.
    a = parser.parse_intermixed_args([f" {w}" if re.match(r"-\d", w) else w for w in words])
    if not 2 <= len(a.words) <= 2 + len(NUMBERS):
        parser.error(
            f"TASK, FORMAT and at most {len(NUMBERS)} words more are needed, not {len(a.words)} words"
        )
    try:
        settings = product(a.words, a.seeds, epochs=a.epochs, streams=a.streams)
    except SettingsError as error:
        parser.error(error)
    status, _ = execute("sweep", settings, a, a.stop_after)
    return status


if __name__ == "__main__":
    sys.exit(main())
