"""A set of somebody's own, in one of the three official forms: what --data-set names.

Its files may have any sums. They are part of the data's identity, and so are the mark of
an own set and the sizes of its parts: no run or network of it can be taken for one of the
official data, or of the sample.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from errors import DataError
from tasks import TASKS

MARK = {"set": "own"}  # in the identity
PLACES = tuple(map(Path, ("", "raw", "cifar-10-batches-py", "format2")))  # in its folder
LEAST = max(task.batch_size for task in TASKS.values())  # examples of an epoch of one batch


@dataclass(frozen=True)
class OwnSet:
    """Where it is, and how many of its training examples are in which part.

    Parameters
    ----------
    train, valid
        The first `train` and the last `valid` examples of the training files. None: valid
        gets as large a share as officially, train all others.
    """

    folder: Path
    train: int | None = None
    valid: int | None = None

    @property
    def name(self) -> str:
        """What the folder is called, in letters that a file name may have."""
        whole = Path(os.path.abspath(self.folder))
        parts = [part for part in whole.parts if part not in map(str, PLACES)]
        return re.sub("[^A-Za-z0-9.-]+", "-", parts[-1]).strip("-.") or "set"

    def split(self, official: Mapping[str, int], n: int, tests: int) -> dict[str, int]:
        """Part -> number of examples, of a set with n training and some test examples.

        Parameters
        ----------
        official
            The same of the official set.

        Raises
        ------
        DataError
            A part would be too small, or they are more than there are.
        """
        share = n * official["valid"] // (official["train"] + official["valid"])
        valid = share if self.valid is None else self.valid
        train = n - valid if self.train is None else self.train
        if train + valid > n or min(train, valid) < 1:
            raise DataError(
                f"{self.folder} has {n} training examples, which cannot be {train} to train on and "
                f"{valid} to validate: give a set that has as many, or other --train-examples and "
                "--valid-examples"
            )
        if train < LEAST or tests < 1:
            raise DataError(
                f"{self.folder} has {train} examples to train on and {tests} to test on: a batch "
                f"takes {LEAST}, and a test at least 1"
            )
        return {"train": train, "valid": valid, "test": tests}


def marked(split: Mapping[str, int]) -> dict[str, str]:
    """What the identity of an own set has beside its files."""
    return {**MARK, **{f"{part}_examples": str(split[part]) for part in ("train", "valid")}}


def is_own(identity: Mapping[str, str]) -> bool:
    """Whether data of this identity are a set of somebody's own."""
    return MARK.items() <= identity.items()


def sizes(identity: Mapping[str, str]) -> tuple[int, int]:
    """How many examples of an own set are train, and valid; ValueError if it does not say."""
    return int(identity.get("train_examples", "")), int(identity.get("valid_examples", ""))
