"""What the programs have in common at the terminal: arguments, one-line errors."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ending import importing as importing
from ending import program as program
from ending import run as run
from ending import say as say
from errors import DataError, SettingsError, printable
from paths import expanded as expanded
from paths import no_folder
from settings import Number
from signals import Signals as Signals
from signals import held_back as held_back

DASHES = tuple("\u2010\u2011\u2012\u2013\u2014\u2015\u2212")  # hyphen to horizontal bar, and minus


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

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for word in sys.argv[1:] if args is None else args:
            if word[:1] in DASHES:  # a text that words were copied from has them
                self.error(f"{word!r} begins with a dash that is no hyphen: write - or --")
        return super().parse_known_args(args, namespace)

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file)  # argparse's own hides that it cannot

    def error(self, message: object) -> NoReturn:
        self.exit(2, f"{self.name}: {printable(message)}\n")


def number(of: Number) -> Callable[[str], int | float]:
    """An argument type: a number of the settings."""

    def convert(text: str) -> int | float:
        try:
            return of.parse(text.strip())  # utilities.sweep hides a minus behind a blank
        except SettingsError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def whole(low: int, high: int) -> Callable[[str], int | float]:
    """An argument type: a whole number from low to high."""
    return number(Number("", "", low, high, ""))


def path(text: str) -> Path:
    """An argument type: the path of a file or folder."""
    try:
        return expanded(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


folder = path  # where a folder is meant


def file(*suffixes: str) -> Callable[[str], Path]:
    """An argument type: the path of a file with one of some suffixes."""

    def convert(text: str) -> Path:
        result = path(text)
        if result.suffix not in suffixes:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no name of a file in {' or '.join(suffixes)}"
            )
        return result

    return convert


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


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    """--threads, for `use_threads`."""
    parser.add_argument(
        "--threads",
        type=whole(1, 4096),
        metavar="N",
        help="threads to compute with on a CPU (default: as many as there are cores that the "
        "program may use)",
    )


def use_threads(number: int | None) -> None:
    """Let XLA compute with so many threads on a CPU; before JAX starts it. None: as it likes."""
    if number is not None:
        os.environ["NPROC"] = str(number)


def existing_data_folder(data: Path | None, sample: bool) -> Path:
    """`data_folder`, which must be there if --data names it: nothing is made in one that is not.

    DataError if it is not.
    """
    if data and (what := no_folder(data)):
        raise DataError(f"{data} {what}; give the folder of the data with --data")
    return data_folder(data, sample)


def data_folder(data: Path | None, sample: bool) -> Path:
    """The data folder that --data, --sample and the environment name.

    SettingsError if PYLEARN2_DATA_PATH is no path.
    """
    if data or sample:
        return data or Path("data/sample")
    try:
        return expanded(os.environ.get("PYLEARN2_DATA_PATH") or "data")
    except SettingsError as error:
        raise SettingsError(f"PYLEARN2_DATA_PATH: {error}") from None
