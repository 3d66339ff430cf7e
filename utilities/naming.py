"""What runs are called beside each other: by what tells them apart."""

from collections.abc import Sequence
from pathlib import Path

from settings import NUMBERS, Settings

# What settings are called in pictures.
WORDS = {
    "initial_range": "range",
    "prop_bits": "propagation bits",
    "up_bits": "update bits",
    "range_update_frequency": "update every",
    "max_overflow": "overflow",
    "init_epochs": "init epochs",
}
# What else two runs of a format can differ in.
OTHERS = ("last_epoch", "seed", "streams")


def counted(number: object, what: str) -> str:
    """1 run, 2 runs."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def task_name(task: str) -> str:
    return task.replace("_", " ")


def names(settings: Sequence[Settings], leave_out: str = "") -> list[str]:
    """What tells each from the others: task, format, numbers; its format if nothing does.

    Numbers count where those of the same format differ in them.

    Parameters
    ----------
    leave_out
        A number that is not to be named: that of the axis.
    """
    result = []
    for own in settings:
        alike = [other for other in settings if other.format == own.format]
        words = []
        if len({other.task for other in settings}) > 1:
            words.append(task_name(own.task))
        if len({other.format for other in settings}) > 1:
            words.append(own.format)
        for name in (*(number.name for number in NUMBERS), *OTHERS):
            if name != leave_out and len({getattr(other, name) for other in alike}) > 1:
                words.append(in_words(name, getattr(own, name)))
        result.append(", ".join(words) or own.format)
    return result


def with_folders(own: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Names, those that are the same with their folders."""
    return [
        f"{name} in {folder}" if own.count(name) > 1 else name
        for name, folder in zip(own, folders, strict=True)
    ]


def in_words(name: str, value: object) -> str:
    """A setting in words."""
    if name == "last_epoch":
        return f"{value} epochs"
    return f"{WORDS.get(name, name)} {f'{value:g}' if isinstance(value, float) else value}"
