"""What utilities.evaluate prints of the predictions of a network."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import terminal
from datasets.own import is_own
from errors import printable_path
from records.networks import SavedNetwork
from tasks import TASKS
from utilities import confusion

if TYPE_CHECKING:  # it takes long to import
    from utilities.predictions import Predictions

LAST_BITS = 0.5  # percent: no more examples change their class with them
NAME = "evaluate"  # what lines on stderr begin with


def report(network: SavedNetwork, part: str, predictions: "Predictions") -> bool:
    """Print what was found; whether the error is the recorded one, or none is."""
    print(f"{printable_path(network.path)}: {words(network)}")
    recorded = {"test": network.test_error, "valid": network.validation_error}.get(part)
    line, same = comparison(predictions.error, recorded, len(predictions.labels))
    print(f"{part} error {line}")
    print(confusion.table(matrix_of(predictions), names_of(network)), flush=True)
    counted = int((predictions.classes != predictions.labels).sum())
    if counted != predictions.wrong:
        terminal.say(
            NAME,
            f"the outputs, which another compiled program gives, have {counted} wrong examples: "
            "last bits differ",
        )
    if not same:
        terminal.say(NAME, f"the error is not the recorded one; {reason(predictions, recorded)}")
    return same


def reason(predictions: "Predictions", recorded: float | None) -> str:
    """What can have made another error of the recorded one."""
    if recorded is None or abs(predictions.error - recorded) <= LAST_BITS:
        return "on another device, or with other versions, last bits can differ"
    return "that is more than last bits do: the numbers in the file, or the code, are others"


def comparison(error: float, recorded: float | None, examples: int) -> tuple[str, bool]:
    """The error in words, and whether nothing speaks against it."""
    wrong = round(error * examples / 100)
    found = f"{error:.2f} % ({wrong:,} of {examples:,} examples)"
    if recorded is None:
        return f"{found}; it was not recorded, there is nothing to compare it with", True
    if error == recorded:
        return f"{found}, in every digit the recorded one", True
    difference = f"{error - recorded:+g} %, {wrong - recorded * examples / 100:+g} examples"
    return f"{found}, but {recorded!r} % was recorded: it differs by {difference}", False


def words(network: SavedNetwork) -> str:
    """What tells it from other networks."""
    data = "sample" if network.sample else "own data" * is_own(network.data)
    data = f"({data} {network.own_set}".strip() + ")" if data else ""
    run = [*network.settings.words(), *([data] if data else [])]
    which = f"epoch {network.epoch}" if network.epoch else "untrained"
    if network.extended:
        which += f" of {network.settings.last_epoch} + {network.extended}"
    return f"{' '.join(run)}, {which}"


def names_of(network: SavedNetwork) -> Sequence[str]:
    """What the classes of its task are called."""
    unnamed = network.sample or is_own(network.data)
    return confusion.class_names(TASKS[network.settings.task].data_set, unnamed)


def matrix_of(predictions: "Predictions") -> np.ndarray:
    """The confusion matrix."""
    classes = predictions.outputs.shape[1]
    return confusion.confusion_matrix(predictions.labels, predictions.classes, classes)
