"""What a run is: its task, its format, its numbers, each listed once. Imports nothing heavy.

Source: docs/published_program.md, "Command line" and "Published results". A further task needs an
entry in tasks.TASKS and in model.NETWORKS, a further format one in FORMAT_ARGUMENTS here and in
format.FORMATS.
"""

import itertools
import math
import re
from dataclasses import asdict, dataclass

from errors import SettingsError
from tasks import TASKS

SEED = 1234  # the published one
STREAMS = ("device", "published")


@dataclass(frozen=True)
class Number:
    """A number of the command line: its name there and in Settings, its limits, its help."""

    argument: str
    name: str
    low: float
    high: float
    help: str
    kind: type = int

    def parse(self, text: str) -> int | float:
        """The number that a word stands for; SettingsError if it is none within the limits."""
        try:
            value = rate(text) if self.kind is float else integer(text)
        except ValueError:
            value = math.nan
        if not self.low <= value <= self.high:
            raise SettingsError(f"{text!r} is not {self.describe()}")
        return value

    def describe(self) -> str:
        kind = "a rate" if self.kind is float else "a whole number"
        return f"{kind} from {self.low} to {self.high}"

    def fits(self, value: object) -> bool:
        """Whether a value of a configuration is within the limits, and of the right type."""
        kinds = (int, float) if self.kind is float else (int,)
        return type(value) in kinds and self.low <= value <= self.high  # type: ignore[operator]


def integer(text: str) -> int:
    """A whole number in plain digits; ValueError for anything else."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def rate(text: str) -> float:
    """A decimal number; ValueError for anything else."""
    if not re.fullmatch(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?", text):
        raise ValueError(f"{text!r} is no number")
    return float(text)


# The positional arguments after FORMAT, in their order; a format needs the first so many of them.
NUMBERS = (
    Number(
        "INITIAL_RANGE",
        "initial_range",
        -64,
        64,
        "number of integer bits (position of the radix point) of every signal",
    ),
    Number("PROP_BITS", "prop_bits", 1, 31, "bit-width of the propagations without the sign"),
    Number("UP_BITS", "up_bits", 1, 31, "bit-width of the stored parameters without the sign"),
    Number(
        "RANGE_UPDATE_FREQ",
        "range_update_frequency",
        1,
        10**9,
        "batches between two updates of the ranges",
    ),
    Number(
        "MAX_OVERFLOW",
        "max_overflow",
        0,
        1,
        "overflow rate above which a range grows; 0.0001 is 0.01 %",
        float,
    ),
    Number(
        "INIT_EPOCHS",
        "init_epochs",
        0,
        10**6,
        "epochs that find the first ranges (DFXP: 31 bits)",
    ),
)
# The numbers that are options.
EPOCHS = Number("N", "epochs", 1, 10**6, "epochs instead of the published number")
SEEDS = Number("S", "seed", 0, 2**32 - 1, "seed of all random streams")


@dataclass(frozen=True)
class FormatArguments:
    """What the command line must know of a format.

    Parameters
    ----------
    needs
        How many of NUMBERS it needs.
    published
        Those of the paper's table, or of the nearest format that it has.
    about
        What it is, in a few words.
    ignored
        Names of those among the first `needs` that it ignores: its bit-widths are its own.
    """

    needs: int
    published: tuple[int | float, ...]
    about: str
    ignored: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[Number, ...]:
        """Those of NUMBERS that decide something."""
        return tuple(n for n in NUMBERS[: self.needs] if n.name not in self.ignored)

    def needless(self, words: list[str]) -> list[str]:
        """Those of the words after FORMAT that are ignored; NONE need not be told."""
        pairs = itertools.zip_longest(words, NUMBERS)
        return [word for word, n in pairs if word not in (None, NONE) and n not in self.numbers]

    def taken(self, name: str) -> str:
        """An example of what the format of this name takes, where that is not plain."""
        if not self.ignored:
            return ""
        pairs = zip(NUMBERS, self.published, strict=True)
        words = " ".join(NONE if n.name in self.ignored else f"{value:g}" for n, value in pairs)
        ignored = " ".join(n.argument for n in NUMBERS if n.name in self.ignored)
        return f", such as {name} {words}; it ignores {ignored}"


NONE = "-"  # what a command line has in place of a number that is ignored
WIDTHS = ("prop_bits", "up_bits")
FIXED = (5, 19, 19)
DYNAMIC = (5, 9, 11, 100, 0.0001, 2)
FORMAT_ARGUMENTS = {
    "FLP": FormatArguments(0, (), "float32"),
    "HFLP": FormatArguments(0, (), "half precision"),
    "FXP": FormatArguments(3, FIXED, "fixed point"),
    "DFXP": FormatArguments(6, DYNAMIC, "dynamic fixed point"),
    "FXPR": FormatArguments(3, FIXED, "FXP, stored at random"),
    "DFXPR": FormatArguments(6, DYNAMIC, "DFXP, stored at random"),
    "BF16": FormatArguments(0, (), "bfloat16"),
    "E4M3": FormatArguments(0, (), "8-bit float"),
    "E5M2": FormatArguments(0, (), "8-bit float"),
    "E4M3S": FormatArguments(6, DYNAMIC, "E4M3, scaled", WIDTHS),
    "E5M2S": FormatArguments(6, DYNAMIC, "E5M2, scaled", WIDTHS),
}
PAPER = ("FLP", "HFLP", "FXP", "DFXP")  # those that the paper has


@dataclass(frozen=True)
class Settings:
    """Everything that determines the result of a run, but for the data.

    Names as on the command line. A format ignores the numbers that it does not need.

    Raises
    ------
    SettingsError
        The task or the format is unknown, or a number beyond its limits.
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
    seed: int = SEED
    streams: str = "device"

    def __post_init__(self) -> None:
        known(self.task, TASKS, "TASK")
        known(self.format, FORMAT_ARGUMENTS, "FORMAT")
        for number in (*NUMBERS, EPOCHS, SEEDS):
            value = getattr(self, number.name)
            if not (number.fits(value) or number is EPOCHS and value is None):
                raise SettingsError(f"{number.name} is {value!r}, not {number.describe()}")
        if self.streams not in STREAMS:
            raise SettingsError(f"streams is {self.streams!r}, not {' or '.join(STREAMS)}")

    @classmethod
    def parse(cls, task: str, format: str, numbers: list[str], **options: object) -> "Settings":
        """From words of the command line; those that the format does not need are left out."""
        known(task, TASKS, "TASK")
        known(format, FORMAT_ARGUMENTS, "FORMAT")
        arguments = FORMAT_ARGUMENTS[format]
        needed = NUMBERS[: arguments.needs]
        if missing := needed[len(numbers) :]:
            names = " ".join(n.argument for n in missing if n.name not in arguments.ignored)
            raise SettingsError(f"{format} needs {names} as well{arguments.taken(format)}")
        values = {}
        for number, text in zip(needed, numbers, strict=False):
            if number.name in arguments.ignored:
                continue
            try:
                values[number.name] = number.parse(text)
            except SettingsError as error:
                raise SettingsError(
                    f"{number.argument}: {error}{arguments.taken(format)}"
                ) from None
        return cls(task, format, **values, **options)  # type: ignore[arg-type]

    @classmethod
    def published(cls, task: str, format: str, **options: object) -> "Settings":
        """With the numbers of the paper's table, but for those among the options."""
        known(task, TASKS, "TASK")
        known(format, FORMAT_ARGUMENTS, "FORMAT")
        arguments = FORMAT_ARGUMENTS[format]
        numbers = zip(NUMBERS, arguments.published, strict=False)
        values = {n.name: value for n, value in numbers if n in arguments.numbers}
        return cls(task, format, **values | options)  # type: ignore[arg-type]

    @property
    def last_epoch(self) -> int:
        """How many epochs the run is to have."""
        return TASKS[self.task].epochs if self.epochs is None else self.epochs

    @property
    def numbers(self) -> dict[str, int | float]:
        """The numbers that the format needs, by name."""
        needed = FORMAT_ARGUMENTS[self.format].numbers
        return {number.name: getattr(self, number.name) for number in needed}

    def frequency_remark(self, batches: int) -> str | None:
        """What is odd when an epoch has so many batches: it is too short for an update."""
        every = self.numbers.get("range_update_frequency")
        if every is None or every <= batches:
            return None
        return (
            f"an epoch has {batches} batches, so with RANGE_UPDATE_FREQ {every} the ranges never "
            "move"
        )

    def words(self) -> list[str]:
        """Words that tell the run from others: the arguments that count, then other than usual."""
        words = [self.task, self.format]
        for value in self.numbers.values():
            words.append(f"{value:g}" if isinstance(value, float) else str(value))
        if self.epochs is not None:
            words.append(f"epochs{self.epochs}")
        if self.seed != SEED:
            words.append(f"seed{self.seed}")
        if self.streams != "device":
            words.append(self.streams)
        return words

    def folder_name(self, sample: bool = False, own: str = "") -> str:
        """The usual name of the run's folder; `own` is that of a set of somebody's own."""
        data = ["sample"] if sample else ["own", own] if own else []
        return "_".join([*self.words(), *data])

    def command(self, seed: bool = True) -> list[str]:
        """The command line of the run, from main.py on; without its seed if so told."""
        positions = NUMBERS[: FORMAT_ARGUMENTS[self.format].needs]
        numbers = [str(self.numbers.get(number.name, NONE)) for number in positions]
        words = ["main.py", self.task, self.format, *numbers]
        if self.epochs is not None:
            words += ["--epochs", str(self.epochs)]
        if seed and self.seed != SEED:
            words += ["--seed", str(self.seed)]
        if self.streams != "device":
            words += ["--streams", self.streams]
        return words

    def as_json(self) -> dict[str, object]:
        """As config.json and checkpoints have it; Settings(**this) is the same again."""
        return asdict(self)


def known(name: object, names: dict, what: str) -> None:
    """SettingsError unless `name` is among `names`."""
    if name not in names:
        raise SettingsError(f"{what} {name!r} is none of {', '.join(names)}")
