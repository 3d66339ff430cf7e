"""Where a run stands, and all that the rest of it depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from files import Arrays

BEST = ("best_epoch", "best_validation_error", "best_test_error")


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Parameters
    ----------
    epoch
        The last that is finished; -1 before the untrained network's, which is epoch 0.
    init_epochs
        Of the range initialisation, those that are finished; None outside of it.
    batches
        Trained of the pass over the training set that has begun; None if none has.
    """

    epoch: int = -1
    init_epochs: int | None = None
    batches: int | None = None

    @property
    def initialising(self) -> bool:
        """Whether this is within the range initialisation."""
        return self.init_epochs is not None

    def words(self, batches_per_epoch: int) -> str:
        """How far the run is, for the user."""
        if self.batches:
            number = self.epoch + 1 if self.init_epochs is None else self.init_epochs + 1
            where = f"epoch {number}" + (" of the range initialisation" * self.initialising)
            return f"after {self.batches} of {batches_per_epoch} batches of {where}"
        if self.init_epochs:
            return f"after epoch {self.init_epochs} of the range initialisation"
        return "at the beginning" if self.epoch < 0 else f"after epoch {self.epoch}"

    def as_json(self) -> dict[str, int | None]:
        """As a checkpoint has it."""
        return {"epoch": self.epoch, "initialised": self.init_epochs, "batches": self.batches}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any], limits: "Position") -> "Position":
        """From a checkpoint; ValueError if it is beyond the limits, KeyError if it is none."""
        here = cls(facts["epoch"], facts["initialised"], facts["batches"])
        for name, low in (("epoch", -1), ("init_epochs", 0), ("batches", 0)):
            value = getattr(here, name)
            if value is None and name != "epoch":
                continue
            if type(value) is not int or not low <= value <= getattr(limits, name):
                raise ValueError(f"{name} is {value}")
        return here


class OtherNetwork(ValueError):
    """Arrays that are whole, but those of another network."""


class Snapshot(NamedTuple):
    """All that the rest of a run depends on: arrays by name, and what JSON can say.

    Parameters
    ----------
    facts
        The position, the best epoch with its errors, and the seconds that the epoch has taken.
    """

    arrays: Arrays
    facts: dict[str, Any]


def check_network(arrays: Mapping[str, np.ndarray], like: Mapping[str, Any]) -> None:
    """OtherNetwork if layers are missing or of other shapes; KeyError if a part of one is missing.

    `like` has the arrays of all layers by name.
    """
    layers = {name.split("/")[0] for name in arrays}
    for name in like:
        if name.split("/")[0] not in layers:
            raise OtherNetwork(f"it has no {name}")
        arrays[name]  # one alone was lost: its name is damaged
    for name, right in like.items():
        if wrong := _other_kind(name, arrays[name], right):
            raise OtherNetwork(wrong)


def _other_kind(name: str, there: np.ndarray, right: Any) -> str:
    if there.shape == right.shape and there.dtype == right.dtype:
        return ""
    return f"{name} is {there.dtype} {there.shape}, not {right.dtype} {right.shape}"


def check_arrays(arrays: Mapping[str, np.ndarray], like: Mapping[str, Any]) -> None:
    """ValueError unless there is an array of the right kind, with usable values, for each name.

    NaN and infinity are of no use, nor is a range beyond its limit. But a loss is NaN where a
    part of its epoch was trained before losses were counted. KeyError if one is missing.
    """
    from format import RANGE_LIMIT  # whoever has built a network has loaded it

    for name, right in like.items():
        values = arrays[name]
        if wrong := _other_kind(name, values, right):
            raise ValueError(wrong)
        if name.endswith("/ranges"):
            if (np.abs(values.astype("int64")) > RANGE_LIMIT).any():
                raise ValueError(f"{name} is beyond {RANGE_LIMIT}")
        elif values.dtype.kind == "f" and name != "training/loss":
            if not np.isfinite(values).all():
                raise ValueError(f"{name} has NaN or infinite values")


def check_best(best: dict[str, Any] | None, epochs: int) -> None:
    """ValueError unless this is what is known of a best epoch, or None."""
    if best is None:
        return
    epoch, *errors = (best[name] for name in BEST)
    known = type(epoch) is int and 0 <= epoch <= epochs
    if not known or not all(type(e) in (int, float) and 0 <= e <= 100 for e in errors):
        raise ValueError("the best epoch is damaged")
