"""Train maxout networks with few bits for every stored number (arXiv 1412.7024).

    python main.py PI_MNIST FLP
    python main.py SVHN FXP 5 19 19
    python main.py CIFAR10 DFXP 5 9 11 100 0.0001 2

README.md explains formats and results.
"""

import sys
from pathlib import Path

if getattr(sys.flags, "safe_path", False):  # PYTHONSAFEPATH; Python 3.10 has no such flag
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import ending

if __name__ == "__main__":
    ending.watch()

import argparse
import contextlib
import gc
from collections.abc import Generator
from typing import Any

import terminal
from arguments import parse
from bars import Bar, where
from data_options import check_kind, completed, load_chosen
from errors import (
    DeviceFailed,
    Diverged,
    MissingPackage,
    ProgramError,
    RunError,
    SettingsError,
    Stopped,
)
from records import extension, machine
from records.folder import RunFolder
from records.metrics import Record
from records.watcher import Watcher
from reports import Report, print_result
from settings import Settings
from tasks import TASKS


def open_run(a: argparse.Namespace) -> RunFolder:
    """The run folder; an existing one is checked against the arguments, or fills them in."""
    own = a.own.name if a.own else ""
    run = RunFolder(a.out or Path("runs") / a.settings.folder_name(a.sample, own))
    if (a.resume or a.extend) and not run.exists:
        raise RunError(f"there is no run in {run.folder} to {'resume' if a.resume else 'extend'}")
    if run.exists and a.settings:
        run.check_settings(a.settings)
        check_kind(run.folder, run.config(), a)
    elif run.exists:
        config = run.config()
        a.own = completed(a.own, config["data"], run.folder)
        a.settings = Settings(**config["settings"])
        a.sample = a.sample or bool(config.get("sample"))
        check_kind(run.folder, config, a)
        a.deterministic = a.deterministic or bool(config.get("deterministic"))
    return run


def result_of(a: argparse.Namespace, run: RunFolder) -> Record | None:
    """The last record of a run that is finished, and not to be extended now."""
    if not run.exists or a.extend and extension.pending(run, a.extend):
        return None
    record = run.finished(a.stop_after)
    if not record:
        return None
    run.check_settings(a.settings)  # it may not have been there before
    if a.own:  # another set may have the same name
        run.check_data(load_chosen(TASKS[a.settings.task].data_set, a).identity)
    if words := run.changed_code():
        say(f"the code has changed since this was trained ({words})")
    if a.extend:
        say("it has these epochs already; --extend counts from the end of its schedule")
    return record


def train(
    a: argparse.Namespace, arguments: list[str], run: RunFolder, signals: terminal.Signals
) -> None:
    """Train to the end, or to --stop-after; the modules that take long to import come in here."""
    ending.check_address_space()
    terminal.use_threads(a.threads)
    known = a.resume or run.exists
    if known:
        run.lock()  # before anything that takes long
    with signals.at_once():
        data = load_chosen(TASKS[a.settings.task].data_set, a)
    if known:
        run.claim(a.settings, data.identity, resume=True)
    try:
        from records import follow
        from trainer import Trainer
        from xla.device import device_name, select_device
        from xla.program_cache import cache_programs, compilations
    except ImportError as error:  # what it needs is not installed, or there is no memory to load it
        raise MissingPackage(f"{error}; install requirements.txt, with enough memory") from None
    except ValueError as error:  # JAX's of a variable of the environment
        raise SettingsError(f"{error}; unset that variable") from None

    with terminal.held_back():
        select_device(a.device, a.deterministic, say)
    cache_programs()
    run.claim(a.settings, data.identity, resume=known)
    trainer = Trainer(a.settings, data)
    device = device_name()
    differing = machine.difference(run.config(), machine.environment(device)) if run.exists else ""
    options = {"sample": a.sample, "deterministic": a.deterministic}
    if a.own:
        options["own_set"] = a.own.name
    command = ["main.py", *arguments]
    follow.begin(run, trainer, command, device, a.accept_changed_code, a.extend, **options)
    remark(a, trainer, differing)
    last_epoch = extension.last_epoch(run.config(), a.stop_after)
    progress = Progress(signals, Report(a.report, a.ranges, last_epoch))
    with compilations(progress.bar.compiling):
        progress.show(follow.follow(run, trainer, last_epoch, progress))


def remark(a: argparse.Namespace, trainer: Any, differing: str) -> None:
    """Say what is odd; `differing` is what does between the machines of then and now."""
    if words := a.settings.frequency_remark(trainer.batches_per_epoch):
        say(words)
    if differing:
        say(
            f"the run was started with other versions or on another device ({differing}); its "
            "last bits may differ"
        )


class Progress(Watcher):
    """Shows how far the training is, and listens to signals."""

    def __init__(self, signals: terminal.Signals, report: Report) -> None:
        self.signals = signals
        self.report = report
        self.bar = Bar()
        self.trainer: Any = None
        self.last_epoch = 0

    def show(self, records: Generator[Record, None, None]) -> None:
        """Report each record when it comes, beside the bar.

        Whatever ends it, the checkpoint in flight is waited for here: what keeps that from being
        written is said, too.
        """
        with contextlib.closing(self.bar), contextlib.closing(records):
            for record in records:
                with self.bar.aside():
                    self.report(record)

    def note(self, text: str) -> None:
        with self.bar.aside():
            say(text)

    def resumed(self, trainer: Any, last_epoch: int) -> None:
        self.trainer = trainer
        self.last_epoch = last_epoch
        total, done = trainer.batches_until(last_epoch), trainer.batches_done
        if (done or trainer.position.epoch >= 0) and trainer.position.epoch < last_epoch:
            self.report.resuming(trainer.words())
        self.bar.open(total, done, trainer.batch_size, where(trainer, last_epoch))

    def trained(self, batches: int) -> None:
        self.signals.check()
        self.bar.advance(batches, where(self.trainer, self.last_epoch))


@terminal.program("main.py")
def main(arguments: list[str]) -> int:
    a = parse(arguments, __doc__)
    # Imports and graphs are many objects and no garbage: a tenth of the time to the first batch.
    gc.set_threshold(100_000)
    run = None
    with terminal.Signals() as signals:
        try:
            run = open_run(a)
            if not (record := result_of(a, run)):
                train(a, arguments, run, signals)
            print_result(run, record)
            return 0
        except Stopped:
            return fail(f"interrupted; {kept(run)}", 128 + (signals.received or 0))
        except Exception as error:
            return fail(*said_of(error, run))
        finally:
            if run:
                run.unlock()


def said_of(error: Exception, run: RunFolder | None) -> tuple[str, int]:
    """(message, exit status) of what has ended a run; raises a mistake in the program."""
    if (said := ending.failure(error)) is None:
        raise error
    what, status = said
    if isinstance(error, OSError) and status == 2:
        return f"{what}; make it a file that can be written, or give another folder with --out", 2
    if isinstance(error, ProgramError) and not isinstance(error, (Diverged, DeviceFailed)):
        return what, status
    return f"{what}; {kept(run)}", status


def kept(run: RunFolder | None) -> str:
    """What there is of a run that ends early."""
    if run is None:
        return "nothing was kept yet, the same command starts again"
    return run.checkpoints.what_is_kept()


def say(message: object) -> None:
    """One line for the user."""
    terminal.say("main.py", message)


def fail(message: object, status: int) -> int:
    say(message)
    return status


if __name__ == "__main__":
    terminal.run(main)
