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

import terminal
from datasets import load
from errors import (
    DeviceFailed,
    Diverged,
    MissingPackage,
    ProgramError,
    SettingsError,
    Stopped,
)
from runs import Run, Watcher
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
        terminal.say("main.py", f"{a.FORMAT} ignores {' '.join(ignored)}")
    return a


def report(record, out):
    """What is printed after each epoch."""
    lines = [
        f"epoch {record['epoch']}:",
        f"  learning rate {record['LR']:g}",
        f"  momentum {record['M']:g}",
        f"  validation error {record['validation_error']:.2f} %",
        f"  test error {record['test_error']:.2f} %",
        f"  best epoch {record['best_epoch']}",
        f"  best validation error {record['best_validation_error']:.2f} %",
        f"  its test error {record['best_test_error']:.2f} %",
    ]
    if "ranges" in record:
        from format import SIGNALS

        lines += [
            f"  ranges of layer {k}: "
            + ", ".join(f"{s} {r}" for s, r in zip(SIGNALS, ranges, strict=True))
            for k, ranges in enumerate(record["ranges"])
        ]
    print("\n".join(lines), file=out, flush=True)


def print_result(record, run):
    print(
        f"test error {record['best_test_error']:.2f} % at the lowest validation error, "
        f"{record['best_validation_error']:.2f} % in epoch {record['best_epoch']}; trained {record['epoch']} of "
        f"{run.config()['epochs']} epochs; run folder {run.folder}",
        flush=True,
    )


class Progress(Watcher):
    """Shows how far the training is, and listens to signals."""

    def __init__(self, signals):
        self.signals = signals
        self.trainer = self.bar = None

    def note(self, text):
        terminal.say("main.py", text)

    def resumed(self, trainer, last_epoch):
        self.trainer = trainer
        self.bar = terminal.Bar(
            trainer.batches_until(last_epoch), trainer.batches_done, trainer.batch_size
        )

    def trained(self, batches):
        self.signals.check()
        self.bar.advance(batches, self.trainer.epoch + 1)

    def clear(self):
        """Make room for a report."""
        self.bar.clear()

    def close(self):
        if self.bar is not None:
            self.bar.close()


def train(a, arguments, run, signals):
    """Train to the end, or to --stop-after; the modules that take long to import come in here."""
    if run.exists:
        run.lock()  # before anything that takes long
    with signals.at_once():
        folder = terminal.data_folder(a.data, a.sample)
        data = load(TASKS[a.settings.task].data_set, folder, a.sample)
    if run.exists:
        run.check_data(data.identity)
    try:
        from xla.device import device_name, select_device
        from xla.program_cache import cache_programs
    except ImportError as error:  # what it needs is not installed, or there is no memory to load it
        raise MissingPackage(f"{error}; install requirements.txt, with enough memory") from None

    select_device(a.device, a.deterministic)
    cache_programs()
    run.lock()
    from trainer import Trainer

    progress = Progress(signals)
    trainer = Trainer(a.settings, data)
    if trainer.ranges_never_move:
        progress.note(
            f"an epoch has {trainer.batches_per_epoch} batches, so with RANGE_UPDATE_FREQ "
            f"{a.settings.range_update_frequency} the ranges never move"
        )
    device = device_name()
    if not run.exists:
        options = {"sample": a.sample, "deterministic": a.deterministic}
        run.start(["main.py", *arguments], a.settings, data.identity, device, **options)
    elif differing := run.compare_environment(device):
        progress.note(
            f"the run was started with other versions or on another device ({differing}); "
            "its last bits may differ"
        )
    last_epoch = trainer.epochs if a.stop_after is None else min(a.stop_after, trainer.epochs)
    try:
        for record in run.follow(trainer, last_epoch, progress):
            progress.clear()
            report(record, sys.stdout)
    finally:
        progress.close()
    print_result(run.last_record, run)


def main(arguments):
    a = parse(arguments)
    with contextlib.suppress(AttributeError):  # a folder's name may have what cannot be printed
        sys.stdout.reconfigure(errors="backslashreplace")
    # Imports and graphs are many objects and no garbage: a tenth of the time to the first batch.
    gc.set_threshold(100_000)
    signals, run = terminal.Signals(), None
    try:
        run = Run(a.out or Path("runs") / a.settings.folder_name(a.sample))
        if a.resume and not run.exists:
            return fail(f"there is no run in {run.folder} to resume")
        if run.exists and a.settings:
            run.check(a.settings)
        elif run.exists:
            config = run.config()
            a.settings = Settings(**config["settings"])
            a.sample = a.sample or bool(config.get("sample"))
            a.deterministic = a.deterministic or bool(config.get("deterministic"))
        if run.exists and (record := run.finished(a.stop_after)):
            print_result(record, run)
        else:
            train(a, arguments, run, signals)
        return 0
    except (Diverged, DeviceFailed) as error:
        return fail(f"{error}; {run.what_is_kept()}", error.status)
    except ProgramError as error:
        return fail(error, error.status)
    except Stopped:
        return fail(f"interrupted; {run.what_is_kept()}", 128 + signals.received)
    except BrokenPipeError:  # nothing more can be printed, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return fail(f"nobody reads the output any more; {run.what_is_kept()}", 1)
    except OSError as error:
        where = f": {error.filename}" if error.filename else " (the output cannot be written)"
        what = f"{error.strerror or error}{where}"
        if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS):
            return fail(
                f"{what}; make it a file that can be written, or give another folder with --out"
            )
        return fail(f"{what}; {run.what_is_kept()}", 1)
    finally:
        if run:
            run.unlock()


def fail(message, status=2):
    terminal.say("main.py", message)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
