"""Train maxout networks with few bits for every stored number (arXiv 1412.7024).

    python main.py PI_MNIST FLP
    python main.py SVHN FXP 5 19 19
    python main.py CIFAR10 DFXP 5 9 11 100 0.0001 2

README.md explains formats and results.
"""

import os
import signal
import sys

if (
    __name__ == "__main__"
):  # while the rest is imported, Ctrl-C has nothing to lose and nothing to tell
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda received, frame: os._exit(128 + received))

import contextlib
import errno
import gc
from pathlib import Path

import datasets
import terminal
from errors import (
    DeviceFailed,
    Diverged,
    MissingPackage,
    ProgramError,
    RunError,
    SettingsError,
    Stopped,
)
from runs import machine
from runs.folder import RunFolder
from settings import EPOCHS, FORMAT_ARGUMENTS, NUMBERS, SEED, SEEDS, STREAMS, TASKS, Settings

EPILOG = """On real MNIST the published results are 1.05 % (PI_MNIST FLP), 1.10 % (HFLP), 1.39 % (FXP 5 19 19) and
1.28 % (DFXP 5 9 11 100 0.0001 2) test error. The same command again resumes an unfinished run, or prints the result of a
finished one."""


def parser():
    """The command line."""
    result = terminal.Parser("main.py", __doc__, epilog=EPILOG)
    result.add_argument("TASK", nargs="?", help=", ".join(TASKS))
    formats = ", ".join(f"{name} ({a.about})" for name, a in FORMAT_ARGUMENTS.items())
    needs = ", ".join(f"{name} {a.needs or 'none'}" for name, a in FORMAT_ARGUMENTS.items())
    result.add_argument(
        "FORMAT",
        nargs="?",
        help=f"{formats}. Of the following arguments it needs the first so many: {needs}; the "
        "others are ignored",
    )
    for k, number in enumerate(NUMBERS):
        users = ", ".join(name for name, a in FORMAT_ARGUMENTS.items() if a.needs > k)
        limits = f"{number.low}..{number.high}"
        text = f"{users}: {number.help} ({limits})".replace("%", "%%")
        result.add_argument(number.argument, nargs="?", help=text)
    result.add_argument(
        "--epochs",
        type=terminal.number(EPOCHS),
        metavar="N",
        help=f"train N {EPOCHS.help}; the schedules of learning rate and momentum scale with it",
    )
    result.add_argument(
        "--stop-after",
        type=terminal.whole(0, 10**6),
        metavar="K",
        help="stop after epoch K of an unchanged schedule",
    )
    result.add_argument(
        "--seed",
        type=terminal.number(SEEDS),
        metavar="S",
        help=f"{SEEDS.help} (default {SEED}, the published one)",
    )
    terminal.add_data_options(result)
    result.add_argument(
        "--out",
        type=terminal.folder,
        metavar="DIR",
        help="run folder (default: runs/ and a name made of the arguments)",
    )
    result.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, which must be there; TASK and what follows may be left out",
    )
    terminal.add_device_options(result)
    result.add_argument(
        "--streams",
        choices=STREAMS,
        help="where dropout masks come from: the device's generator (default), or the published NumPy "
        "streams, which follow the original program's trajectory",
    )
    return result


def parse(arguments):
    """Command line -> argparse.Namespace with `settings`, a Settings; None if the run has them."""
    command = parser()
    a = command.parse_intermixed_args(arguments)
    if a.resume and a.TASK is None:
        if a.out is None:
            command.error("--resume without TASK needs the run folder, --out DIR")
        chosen = [name for name in ("epochs", "seed", "streams") if getattr(a, name) is not None]
        if chosen:
            options = " and ".join(f"--{name}" for name in chosen)
            command.error(
                f"--resume without TASK takes everything from the run; leave {options} out"
            )
        a.settings = None
        return a
    if a.TASK is None or a.FORMAT is None:
        command.error("TASK and FORMAT are missing" if a.TASK is None else "FORMAT is missing")
    given = [getattr(a, n.argument) for n in NUMBERS if getattr(a, n.argument) is not None]
    seed = SEED if a.seed is None else a.seed
    try:
        a.settings = Settings.parse(
            a.TASK, a.FORMAT, given, epochs=a.epochs, seed=seed, streams=a.streams or STREAMS[0]
        )
    except SettingsError as error:
        command.error(error)
    if ignored := given[FORMAT_ARGUMENTS[a.FORMAT].needs :]:
        say(f"{a.FORMAT} ignores {' '.join(ignored)}")
    return a


def report(record):
    """What is printed after each epoch."""
    print(f"epoch {record['epoch']}:")
    print(f"  learning rate {record['LR']:g}")
    print(f"  momentum {record['M']:g}")
    print(f"  validation error {record['validation_error']:.2f} %")
    print(f"  test error {record['test_error']:.2f} %")
    print(f"  best epoch {record['best_epoch']}")
    print(f"  best validation error {record['best_validation_error']:.2f} %")
    print(f"  its test error {record['best_test_error']:.2f} %")
    for k, ranges in enumerate(record.get("ranges", [])):
        from format import SIGNALS

        words = [f"{name} {noib}" for name, noib in zip(SIGNALS, ranges, strict=True)]
        print(f"  ranges of layer {k}: {', '.join(words)}")
    sys.stdout.flush()


def print_result(run):
    record = run.records()[-1]
    epochs = run.config()["epochs"]
    print(
        f"test error {record['best_test_error']:.2f} % at the lowest validation error, "
        f"{record['best_validation_error']:.2f} % in epoch {record['best_epoch']}; trained "
        f"{record['epoch']} of {epochs} epochs; run folder {run.folder}",
        flush=True,
    )


def open_run(a):
    """The run folder; an existing one is checked against the arguments, or fills them in."""
    run = RunFolder(a.out or Path("runs") / a.settings.folder_name(a.sample))
    if a.resume and not run.exists:
        raise RunError(f"there is no run in {run.folder} to resume")
    if run.exists and a.settings:
        run.check_settings(a.settings)
    elif run.exists:
        config = run.config()
        a.settings = Settings(**config["settings"])
        a.sample = a.sample or bool(config.get("sample"))
        a.deterministic = a.deterministic or bool(config.get("deterministic"))
    return run


def train(a, arguments, run, signals):
    """Train to the end, or to --stop-after; the modules that take long to import come in here."""
    if run.exists:
        run.lock()  # before anything that takes long
    with signals.at_once():
        folder = terminal.data_folder(a.data, a.sample)
        data = datasets.load(TASKS[a.settings.task].data_set, folder, a.sample)
    if run.exists:
        run.check_data(data.identity)
    try:
        import compilation
        from runs.follow import follow
        from trainer import Trainer
    except ImportError as error:  # what it needs is not installed, or there is no memory to load it
        raise MissingPackage(f"{error}; install requirements.txt, with enough memory") from None

    compilation.select_device(a.device, a.deterministic)
    compilation.keep_programs()
    run.lock()
    trainer = Trainer(a.settings, data)
    if trainer.ranges_never_move:
        say(
            f"an epoch has {trainer.batches_per_epoch} batches, so with RANGE_UPDATE_FREQ "
            f"{a.settings.range_update_frequency} the ranges never move"
        )
    device = compilation.device_name()
    if not run.exists:
        options = {"sample": a.sample, "deterministic": a.deterministic}
        run.start(["main.py", *arguments], a.settings, data.identity, device, **options)
    elif differing := machine.difference(run.config(), machine.environment(device)):
        say(
            f"the run was started with other versions or on another device ({differing}); its "
            "last bits may differ"
        )
    last_epoch = trainer.epochs if a.stop_after is None else min(a.stop_after, trainer.epochs)
    with contextlib.closing(Progress(signals)) as progress:
        for record in follow(run, trainer, last_epoch, progress):
            progress.clear()
            report(record)


class Progress:
    """Shows how far the training is, and listens to signals: a runs.follow.Watcher."""

    def __init__(self, signals):
        self.signals = signals
        self.trainer = self.bar = None

    def note(self, text):
        say(text)

    def resumed(self, trainer, last_epoch):
        self.trainer = trainer
        self.bar = terminal.Bar(
            trainer.batches_until(last_epoch), trainer.batches_done, trainer.batch_size
        )

    def trained(self, batches):
        self.signals.check()
        self.bar.advance(batches, self.trainer.position.epoch + 1)

    def clear(self):
        """Make room for a report."""
        self.bar.clear()

    def close(self):
        if self.bar is not None:
            self.bar.close()


def main(arguments):
    a = parse(arguments)
    with contextlib.suppress(AttributeError):  # a folder's name may have what cannot be printed
        sys.stdout.reconfigure(errors="backslashreplace")
    # Imports and graphs are many objects and no garbage: a tenth of the time to the first batch.
    gc.set_threshold(100_000)
    signals = terminal.Signals()
    run = None
    try:
        run = open_run(a)
        if not (run.exists and run.finished(a.stop_after)):
            train(a, arguments, run, signals)
        print_result(run)
        return 0
    except (Diverged, DeviceFailed) as error:
        return fail(f"{error}; {kept(run)}", error.status)
    except ProgramError as error:
        return fail(error, error.status)
    except Stopped:
        return fail(f"interrupted; {kept(run)}", 128 + signals.received)
    except BrokenPipeError:  # nothing more can be printed, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return fail(f"nobody reads the output any more; {kept(run)}", 1)
    except OSError as error:
        return fail(*unwritable(error, run))
    finally:
        if run:
            run.unlock()


def unwritable(error, run):
    """(message, exit status) of a file that cannot be read or written."""
    what = error.strerror or str(error)
    what += f": {error.filename}" if error.filename else " (the output cannot be written)"
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{what}; make it a file that can be written, or give another folder with --out", 2
    return f"{what}; {kept(run)}", 1


def kept(run):
    """What there is of a run that ends early."""
    return run.what_is_kept() if run else "nothing was kept yet, the same command starts again"


def say(message):
    """One line for the user."""
    terminal.say("main.py", message)


def fail(message, status=2):
    say(message)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
