"""What the programs have in common at the terminal: arguments, one-line errors, signals, bars."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from errors import SettingsError, Stopped
from settings import Number


class Parser(argparse.ArgumentParser):
    """Refuses with one line and status 2, without the usage; takes no abbreviations."""

    def __init__(self, prog: str, description: str | None, **options: object) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,  # type: ignore[arg-type]
        )

    @property
    def name(self) -> str:
        """What the program's lines on stderr begin with."""
        return self.prog.removeprefix("python -m utilities.")

    def error(self, message: object) -> NoReturn:
        line = " ".join(str(message).splitlines())
        self.exit(2, f"{self.name}: {line}\n")


def number(of: Number) -> Callable[[str], int | float]:
    """An argument type: a number of the settings."""

    def convert(text: str) -> int | float:
        try:
            return of.parse(text)
        except SettingsError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def whole(low: int, high: int) -> Callable[[str], int | float]:
    """An argument type: a whole number from low to high."""
    return number(Number("", "", low, high, ""))


def folder(text: str) -> Path:
    """An argument type: the path of a folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """--data and --sample."""
    parser.add_argument(
        "--data",
        type=folder,
        metavar="DIR",
        help="folder of the data sets (default: $PYLEARN2_DATA_PATH, else data/)",
    )
    parser.add_argument(
        "--sample",
        action="store_true",
        help="take a small generated sample instead, made on first use (default folder: "
        "data/sample)",
    )


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """--device and --deterministic."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="where to compute (default auto: a GPU if there is one)",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="the same bits in every run on a GPU as well, at some cost in speed; a CPU needs no "
        "asking",
    )


def data_folder(data: Path | None, sample: bool) -> Path:
    """The data folder that --data, --sample and the environment name."""
    if data:
        return data
    return Path("data/sample") if sample else Path(os.environ.get("PYLEARN2_DATA_PATH") or "data")


def say(name: str, message: object) -> None:
    """One line on stderr."""
    print(f"{name}: {' '.join(str(message).splitlines())}", file=sys.stderr)


class Signals:
    """SIGINT and SIGTERM end the run after the segment in flight; a second one ends it at once.

    Not as exceptions in the middle of training: some of JAX's callbacks swallow those.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.patient = True
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, self._note)

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + signal_number)
        self.received = signal_number
        if not self.patient:
            raise Stopped

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it, the first one ends the run at once, too."""
        self.check()
        self.patient = False
        try:
            yield
        finally:
            self.patient = True

    def check(self) -> None:
        """Stopped, if one has come."""
        if self.received:
            raise Stopped


class Bar:
    """A bar on stderr when that is a terminal: epoch, batches, images a second, time left."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._batch_size = 0

    def open(self, total: int, done: int, batch_size: int) -> None:
        """Show it, with `done` of `total` batches of `batch_size` images."""
        self._batch_size = batch_size
        if sys.stderr.isatty() and done < total:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, unit="batch", leave=False, dynamic_ncols=True
            )

    def advance(self, batches: int, epoch: int) -> None:
        """So many batches more; `epoch` is the one that is being trained."""
        if self._bar is not None:
            self._bar.update(batches)
            speed = (self._bar.format_dict["rate"] or 0) * self._batch_size
            self._bar.set_description(f"epoch {epoch}", refresh=False)
            self._bar.set_postfix_str(f"{speed:,.0f} images/s", refresh=False)

    def clear(self) -> None:
        """Make room for something that is printed."""
        if self._bar is not None:
            self._bar.clear()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
