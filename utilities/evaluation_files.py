"""The files that utilities.evaluate writes of the predictions of a network."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, OwnSet
from errors import FileError
from files import write_named
from records.networks import SavedNetwork
from tasks import TASKS
from utilities import confusion, mistakes
from utilities.evaluation_report import matrix_of, names_of, words
from utilities.pictures import load_matplotlib, rendered, write_all

if TYPE_CHECKING:  # it takes long to import
    from utilities.predictions import Predictions

PICTURES = (".png", ".svg", ".pdf")


def check_writable(paths: Sequence[Path]) -> None:
    """Before anything takes long: can these files be written?

    Raises
    ------
    FileError
        One cannot be written, or would be twice.
    MissingPackage
        One is a picture, and there is no matplotlib.
    """
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise FileError(f"{paths[-1]} is to be written twice")
    for path in paths:
        if path.is_dir():
            raise FileError(f"{path} is a folder, it cannot be written")
        there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise FileError(f"{path} cannot be written: {there} is no folder that can be written")
    if any(path.suffix in PICTURES for path in paths):
        load_matplotlib()


@dataclass(frozen=True)
class Files:
    """What can be written of the predictions for a part.

    Parameters
    ----------
    folder
        Where the data are.
    own
        The set of somebody's own that they are, if they are one.
    """

    network: SavedNetwork
    data: Dataset
    folder: Path
    part: str
    predictions: "Predictions"
    own: OwnSet | None = None

    def write(
        self, table: Path | None, confusion_picture: Path | None, mistakes_picture: Path | None
    ) -> list[str]:
        """Write those that have a path; a line of each.

        None is written before all are made.
        """
        made: list[tuple[Path, bytes, str]] = []
        if table:
            made.append((table, self.csv(), ""))
        if confusion_picture:
            figure = self.confusion_figure()
            made.append((confusion_picture, rendered(figure, confusion_picture.suffix), ""))
        if mistakes_picture:
            figure, remark = self.mistakes_figure()
            made.append((mistakes_picture, rendered(figure, mistakes_picture.suffix), remark))
        for path, content, _ in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_named(path, partial(write_all, content))
        return [f"{path}{remark}" for path, _, remark in made]

    def csv(self) -> bytes:
        """A line for each example: its number, classes, outputs in every digit."""
        p = self.predictions
        outputs = [f"output{k}" for k in range(p.outputs.shape[1])]
        lines = [",".join(["example", "label", "prediction", *outputs])]
        rows = zip(p.labels.tolist(), p.classes.tolist(), p.outputs, strict=True)
        for k, (label, predicted, values) in enumerate(rows):
            lines.append(",".join([f"{k},{label},{predicted}", *map(str, values)]))
        return ("\n".join(lines) + "\n").encode()

    def title(self) -> str:
        """What a picture is of."""
        error = f"{self.part} error {self.predictions.error:.2f} %"
        return f"{words(self.network)}: {error}"

    def confusion_figure(self) -> Any:
        return confusion.draw(matrix_of(self.predictions), names_of(self.network), self.title())

    def mistakes_figure(self) -> tuple[Any, str]:
        """The most confident mistakes, and a remark on how they look."""
        from utilities.original_pixels import pixels

        p = self.predictions
        rows = p.mistakes[: mistakes.MOST]
        data_set = TASKS[self.network.settings.task].data_set
        sample = self.network.sample
        pictures, remark = pixels(
            data_set, self.data, self.part, rows, self.folder, sample, self.own
        )
        captions = mistakes.captions(rows, p.labels, p.outputs, names_of(self.network))
        title = (
            f"{self.title()}; the {len(rows)} most confident of {len(p.mistakes)} mistakes\n"
            "class → what it was taken for, that output, number of the example"
        )
        if remark:
            title += "; preprocessed inputs, scaled"
        return mistakes.draw(pictures, captions, title), f": {remark}" if remark else ""
