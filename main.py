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
):  # while the rest is imported, Ctrl-C has nothing to keep and nothing to tell
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os._exit(128 + number))

import argparse
import contextlib
import errno
import gc
import math
import re
from pathlib import Path

from datasets import DataError, load
from runs import LIMITS, NEEDED, Run, RunError, Settings, Stopped, Watcher, describe

TASKS = ("PI_MNIST", "MNIST", "CIFAR10", "SVHN")
EPILOG = """On real MNIST the published results are 1.05 % (PI_MNIST FLP), 1.10 % (HFLP), 1.39 % (FXP 5 19 19) and
1.28 % (DFXP 5 9 11 100 0.0001 2) test error. The same command again resumes an unfinished run, or prints the result of a
finished one."""


def integer(low, high):
    def convert(text):
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return convert


def rate(text):
    try:
        value = float(text) if re.fullmatch(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?", text) else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate from 0 to 1")
    return value


def folder(text):
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text)


# What the arguments after FORMAT are: name in runs.Settings, help.
NUMBERS = {
    "INITIAL_RANGE": (
        "initial_range",
        "FXP, DFXP: number of integer bits (position of the radix point) of every signal, -64..64",
    ),
    "PROP_BITS": ("prop_bits", "FXP, DFXP: bit-width of the propagations without the sign, 1..31"),
    "UP_BITS": ("up_bits", "FXP, DFXP: bit-width of the stored parameters without the sign, 1..31"),
    "RANGE_UPDATE_FREQ": (
        "range_update_frequency",
        "DFXP: batches between two updates of the ranges",
    ),
    "MAX_OVERFLOW": (
        "max_overflow",
        "DFXP: overflow rate above which a range grows; 0.0001 is 0.01 %%",
    ),
    "INIT_EPOCHS": ("init_epochs", "DFXP: epochs with 31 bits that find the first ranges, >= 0"),
}


def number(key, text):
    """The value of a setting, ArgumentTypeError if it has none."""
    return rate(text) if key == "max_overflow" else integer(*LIMITS[key])(text)


def settings_of(task, number_format, numbers, **options):
    """The keyword arguments of runs.Settings from words of the command line; those a format does not need are left out.

    ArgumentTypeError says what is wrong.
    """
    if task not in TASKS:
        raise argparse.ArgumentTypeError(f"TASK {task!r} is none of {', '.join(TASKS)}")
    if number_format not in NEEDED:
        raise argparse.ArgumentTypeError(f"FORMAT {number_format!r} is none of {', '.join(NEEDED)}")
    needed = list(NUMBERS)[: NEEDED[number_format]]
    if len(numbers) < len(needed):
        raise argparse.ArgumentTypeError(
            f"{number_format} needs {' '.join(needed[len(numbers) :])} as well"
        )
    settings = {"task": task, "format": number_format, **options}
    for name, text in zip(needed, numbers, strict=False):
        key, _ = NUMBERS[name]
        try:
            settings[key] = number(key, text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{name}: {error}") from None
    return settings


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise SystemExit(fail(f"{message} (python main.py -h explains the arguments)"))


def fail(message, status=2):
    print(f"main.py: {' '.join(str(message).splitlines())}", file=sys.stderr)
    return status


def parse(arguments):
    """Command line -> argparse.Namespace with `settings`, the keyword arguments of trainer.Settings."""
    parser = Parser(
        prog="main.py",
        description=__doc__,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("TASK", nargs="?", help=", ".join(TASKS))
    parser.add_argument(
        "FORMAT",
        nargs="?",
        help="FLP (float32), HFLP (half precision), FXP (fixed point) or DFXP "
        "(dynamic fixed point); FLP and HFLP need no more arguments, FXP three, DFXP six; those beyond "
        "are ignored",
    )
    for name, (_, text) in NUMBERS.items():
        parser.add_argument(name, nargs="?", help=text)
    parser.add_argument(
        "--epochs",
        type=integer(*LIMITS["epochs"]),
        metavar="N",
        help="train N epochs instead of the published number; the schedules of learning rate and "
        "momentum scale with it",
    )
    parser.add_argument(
        "--stop-after",
        type=integer(0, 10**6),
        metavar="K",
        help="stop after epoch K of an unchanged schedule",
    )
    parser.add_argument(
        "--seed",
        type=integer(*LIMITS["seed"]),
        metavar="S",
        help="seed of all random streams (default 1234, the published one)",
    )
    parser.add_argument(
        "--data",
        type=folder,
        metavar="DIR",
        help="folder of the data sets (default: $PYLEARN2_DATA_PATH, else data/)",
    )
    parser.add_argument(
        "--sample",
        action="store_true",
        help="train on a small generated sample, made on first use (default folder data/sample)",
    )
    parser.add_argument(
        "--out",
        type=folder,
        metavar="DIR",
        help="run folder (default: runs/ and a name made of the arguments)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, which must be there; TASK and what follows may be left out",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="where to compute (default auto: a GPU if there is one)",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="the same bits in every run on a GPU as well, at some cost in speed; a CPU needs no asking",
    )
    parser.add_argument(
        "--streams",
        choices=("device", "published"),
        help="where dropout masks come from: the device's generator (default), or the published NumPy "
        "streams, which follow the original program's trajectory",
    )
    a = parser.parse_intermixed_args(arguments)
    if a.resume and a.TASK is None:
        if a.out is None:
            parser.error("--resume without TASK needs the run folder, --out DIR")
        if given := [
            f"--{name}" for name in ("epochs", "seed", "streams") if getattr(a, name) is not None
        ]:
            parser.error(
                f"--resume without TASK takes everything from the run; leave {' and '.join(given)} out"
            )
        a.settings = None
        return a
    if a.TASK is None or a.FORMAT is None:
        parser.error("TASK and FORMAT are missing" if a.TASK is None else "FORMAT is missing")
    given = [getattr(a, name) for name in NUMBERS if getattr(a, name) is not None]
    try:
        a.settings = settings_of(
            a.TASK,
            a.FORMAT,
            given,
            epochs=a.epochs,
            seed=1234 if a.seed is None else a.seed,
            streams=a.streams or "device",
        )
    except argparse.ArgumentTypeError as error:
        parser.error(error)
    if ignored := given[NEEDED[a.FORMAT] :]:
        print(f"main.py: {a.FORMAT} ignores {' '.join(ignored)}", file=sys.stderr)
    return a


def run_name(settings, sample):
    """The usual name of a run's folder."""
    return "_".join(describe(settings) + (["sample"] if sample else []))


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


class Signals:
    """SIGINT and SIGTERM end the run after the segment in flight; a second one ends it at once.

    Not as exceptions in the middle of training: some of JAX's callbacks swallow those.
    """

    def __init__(self):
        self.received, self.patient = None, True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number, frame):
        if self.received:
            os._exit(128 + number)
        self.received = number
        if not self.patient:
            raise Stopped

    @contextlib.contextmanager
    def at_once(self):
        """Within it, the first one ends the run at once, too."""
        self.check()
        self.patient = False
        try:
            yield
        finally:
            self.patient = True

    def check(self):
        if self.received:
            raise Stopped


class Progress(Watcher):
    """A bar on stderr when that is a terminal: epoch, batches, images a second, time left; and an ear for signals."""

    def __init__(self, signals):
        self.bar, self.signals = None, signals

    def note(self, text):
        print(f"main.py: {text}", file=sys.stderr)

    def resumed(self, trainer, last_epoch):
        if sys.stderr.isatty() and trainer.epoch < last_epoch:
            from tqdm import tqdm

            self.bar = tqdm(
                total=trainer.batches_until(last_epoch),
                initial=trainer.batches_done,
                unit="batch",
                leave=False,
                dynamic_ncols=True,
            )
            self.trainer = trainer

    def trained(self, batches):
        self.signals.check()
        if self.bar is not None:
            self.bar.update(batches)
            speed = (self.bar.format_dict["rate"] or 0) * self.trainer.batch_size
            self.bar.set_description(f"epoch {self.trainer.epoch + 1}", refresh=False)
            self.bar.set_postfix_str(f"{speed:,.0f} images/s", refresh=False)

    def clear(self):
        """Make room for a report."""
        if self.bar is not None:
            self.bar.clear()

    def close(self):
        if self.bar is not None:
            self.bar.close()


def data_folder(a):
    if a.data:
        return a.data
    return Path("data/sample") if a.sample else Path(os.environ.get("PYLEARN2_DATA_PATH") or "data")


def load_data(task, a):
    """The data set, from the folder that the options and the environment name; the sample is made on first use."""
    folder = data_folder(a)
    if a.sample:
        from utilities.sample_data import ensure_sample

        try:
            ensure_sample(folder, ["mnist" if task == "PI_MNIST" else task.lower()])
        except (ValueError, OSError) as error:
            raise DataError(f"no sample: {error}") from None
    return load(task, folder, a.sample)


def train(a, arguments, run, signals):
    """Train to the end, or to --stop-after; the modules that take long to import come in here."""
    if run.exists:
        run.lock()  # before anything that takes long
    with signals.at_once():
        data = load_data(a.settings["task"], a)
    if run.exists:
        run.check_data(data.identity)
    try:
        import compilation
    except ImportError as error:  # what it needs is not installed, or there is no memory to load it
        return fail(f"{error}; install requirements.txt, with enough memory", 1)

    compilation.select_device(a.device, a.deterministic)
    compilation.keep_programs()
    run.lock()
    from trainer import Diverged, Trainer

    progress = Progress(signals)
    settings = Settings(**a.settings)
    trainer = Trainer(settings, data)
    if settings.format == "DFXP" and settings.range_update_frequency > trainer.batches_per_epoch:
        print(
            f"main.py: an epoch has {trainer.batches_per_epoch} batches, so with RANGE_UPDATE_FREQ "
            f"{settings.range_update_frequency} the ranges never move",
            file=sys.stderr,
        )
    device = compilation.device_name()
    if not run.exists:
        run.start(
            ["main.py", *arguments],
            settings,
            trainer.epochs,
            data.identity,
            device,
            sample=a.sample,
            deterministic=a.deterministic,
        )
    elif differing := run.compare_environment(device):
        progress.note(
            f"the run was started with other versions or on another device ({differing}); its last bits may differ"
        )
    last_epoch = trainer.epochs if a.stop_after is None else min(a.stop_after, trainer.epochs)
    try:
        for record in run.follow(trainer, last_epoch, progress):
            progress.clear()
            report(record, sys.stdout)
    except Diverged as error:
        kept = (
            "nothing is kept, there was no checkpoint yet"
            if run.kept is None
            else f"the state {run.kept} is kept in {run.folder}"
        )
        return fail(f"{error}; {kept}", 1)
    except (compilation.DeviceError, MemoryError) as error:
        return fail(
            f"the device cannot go on ({' '.join(str(error).split())[:200] or type(error).__name__}); the last "
            "checkpoint is as it was, the same command resumes from it",
            1,
        )
    finally:
        progress.close()
    print_result(run.last_record, run)
    return 0


def main(arguments):
    a = parse(arguments)
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # a folder's name may have what cannot be printed
    gc.set_threshold(
        100_000
    )  # imports and graphs are many objects and no garbage: a tenth of the time to the first batch
    signals, run = Signals(), None
    try:
        run = Run(a.out or Path("runs") / run_name(Settings(**a.settings), a.sample))
        if a.resume and not run.exists:
            return fail(f"there is no run in {run.folder} to resume")
        if run.exists and a.settings:
            run.check(Settings(**a.settings))
        elif run.exists:
            config = run.config()
            if config["settings"]["task"] not in TASKS:
                return fail(
                    f"{run.config_path} names the task {config['settings']['task']!r}; there are {', '.join(TASKS)}"
                )
            a.settings, a.sample = config["settings"], a.sample or bool(config.get("sample"))
            a.deterministic = a.deterministic or bool(config.get("deterministic"))
        if run.exists and (record := run.finished(a.stop_after)):
            print_result(record, run)
            return 0
        return train(a, arguments, run, signals)
    except (RunError, DataError) as error:
        return fail(error)
    except Stopped:
        kept = (
            "nothing was kept yet, the same command starts again"
            if run is None or run.kept is None
            else f"the same command resumes {run.kept}"
        )
        return fail(f"interrupted; {kept}", 128 + signals.received)
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # nothing more can be printed, not even at exit
        return fail(
            "nobody reads the output any more; the same command resumes from the last checkpoint", 1
        )
    except OSError as error:
        what = (
            f"{error.strerror or error}: {error.filename}"
            if error.filename
            else f"the output cannot be written ({error})"
        )
        if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS):
            return fail(
                f"{what}; make it a file that can be written, or give another folder with --out"
            )
        kept = (
            "nothing was kept yet, the same command starts again"
            if run is None or not run.checkpoint_path.exists()
            else "the last checkpoint is as it was, the same command resumes from it"
        )
        return fail(f"{what}; {kept}", 1)
    finally:
        if run:
            run.unlock()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
