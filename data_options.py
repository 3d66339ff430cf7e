"""--data-set, a set of somebody's own, and what goes with it; which kind of data a run has."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import datasets
import terminal
from datasets import Dataset, OwnSet
from datasets.manifest import MOST_EXAMPLES
from datasets.own import is_own, sizes
from errors import DataError, RunError

SIZES = {"train_examples": "first", "valid_examples": "last"}


class Chosen(Protocol):
    """What options say of the data: a namespace of arguments, or the options of a sweep."""

    @property
    def data(self) -> Path | None: ...
    @property
    def sample(self) -> bool: ...
    @property
    def own(self) -> OwnSet | None: ...


def add_own_set(parser: argparse.ArgumentParser) -> None:
    """--data-set."""
    parser.add_argument(
        "--data-set",
        type=terminal.folder,
        metavar="DIR",
        help="a set of your own instead: MNIST's, CIFAR-10's or SVHN's files in form, of any "
        "content, 10 classes; its errors say nothing about the paper's",
    )


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """How many of its examples are for what."""
    for name, which in SIZES.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=terminal.whole(1, MOST_EXAMPLES),
            metavar="N",
            help=f"with --data-set: the {which} N of its training examples are "
            f"{'trained on' if which == 'first' else 'valid'}",
        )


def own_set(parser: terminal.Parser, a: argparse.Namespace) -> OwnSet | None:
    """The own set that arguments name, if any; the parser ends the program if they do not fit."""
    given = [f"--{name.replace('_', '-')}" for name in SIZES if getattr(a, name, None) is not None]
    if a.data_set is None:
        if given:
            parser.error(f"{given[0]} is for a set of your own; name its folder with --data-set")
        return None
    if a.sample or a.data:
        other = "--sample" if a.sample else "--data"
        parser.error(f"--data-set is another set than {other}; leave one of them out")
    return OwnSet(a.data_set, *(getattr(a, name, None) for name in SIZES))


def load_chosen(data_set: str, chosen: Chosen) -> Dataset:
    """The data set that options say; DataError if it cannot be had."""
    if chosen.own:
        return datasets.load_own(data_set, chosen.own)
    folder = terminal.data_folder(chosen.data, chosen.sample)
    return datasets.load(data_set, folder, chosen.sample)


def kind(identity: Mapping[str, str], sample: bool) -> str:
    """Which of three kinds data are; no two of them are ever taken for each other."""
    if is_own(identity):
        return "a set of somebody's own (--data-set)"
    return "the generated sample (--sample)" if sample else "the official data"


def check_kind(folder: Path, config: Mapping[str, Any], chosen: Chosen) -> None:
    """RunError if a run, by its config.json, is on data of another kind than is asked for."""
    there = kind(config["data"], bool(config.get("sample")))
    here = kind({"set": "own"} if chosen.own else {}, chosen.sample)
    if there != here:
        raise RunError(
            f"{folder} was trained on {there}, not on {here}; give that, or another folder with "
            "--out"
        )


def completed(own: OwnSet | None, identity: Mapping[str, str], where: Path) -> OwnSet | None:
    """An own set with the sizes of a run or network, by the identity of its data.

    Raises
    ------
    DataError
        One of the two is no own set.
    """
    if is_own(identity) and own is None:
        raise DataError(
            f"{where} was trained on a set of somebody's own; name its folder with --data-set"
        )
    if own is None:
        return None
    if not is_own(identity):
        raise DataError(f"{where} was not trained on a set of your own; leave --data-set out")
    try:
        train, valid = sizes(identity)
    except ValueError:
        raise DataError(f"{where} does not say how large the parts of its data are") from None
    return replace(own, train=train, valid=valid)
