"""SVHN: the official .mat files, after the paper's split, GCN and LCN.

The .mat files are in data folder/SVHN/format2 or another of the places. `preprocess` makes
three HDF5 files of them, in $SVHN_LOCAL_PATH/h5 (python -m utilities.svhn_preprocessing),
which `load` opens and which are read in pieces, when asked for. Those of the sample are in
data folder/SVHN/h5 and made on first use. Source: docs/published_program.md, "Data".

The HDF5 files of a set of somebody's own are made on first use as well, in a folder
preprocessed-KEY of $SVHN_LOCAL_PATH, or of the set's own folder. It may lack
extra_32x32.mat, and its parts are cut out of all its training images in one random order.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.contrast import (
    global_contrast_normalize,
    local_contrast_normalize,
)
from datasets.hdf5 import N_FEATURES, HDF5Part, write_hdf5
from datasets.mat import count, read_mat, sum_of
from datasets.own import OwnSet
from datasets.parts import CLASSES, Dataset, Floats, Labels, Pixels, check_finite, one_hot
from datasets.progress import blocks, image_bar, report
from datasets.source import paths
from datasets.svhn_source import SVHNSource
from datasets.svhn_split import Rows, test_rows
from errors import DataError, NotOurs
from locks import locked

GCN_SCALE = 1.0
BLOCK = 5000  # images read, normalised and written at a time
FILES = {
    "train": "splitted_train_32x32.h5",
    "valid": "valid_32x32.h5",
    "test": "test_32x32.h5",
}


SUMS = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}
OFFICIAL = SVHNSource(
    data_set="SVHN",
    folder=Path("SVHN", "format2"),
    names=tuple(SUMS),
    sums=SUMS,
    split={"train": 598_388, "valid": 6_000, "test": 26_032},
    mirrors=("http://ufldl.stanford.edu/housenumbers/",),
    per_class={"train": 400, "extra": 200},
    places=paths("SVHN", "svhn/format2", "svhn", "format2", ""),  # the last is torchvision's
)


def load(folder: Path, sample: bool = False) -> Dataset:
    """SVHN, or its sample, from its three HDF5 files.

    Raises
    ------
    DataError
        A file is missing, damaged, not finished, or does not belong to the others.
    """
    source = OFFICIAL.under(folder, sample)
    if sample:
        return _made_and_opened(source)
    return _open(source, source.local_folder())


def load_own(own: OwnSet) -> Dataset:
    """A set of somebody's own in .mat files of this form, from its folder.

    Raises
    ------
    DataError
        A file is missing, or of another form; the set is too small, or there is no room.
    """
    source = own_source(own)
    source.say_where()
    return _made_and_opened(source, report)


def own_source(own: OwnSet) -> SVHNSource:
    """Its files, with their sums, and the split."""
    source = OFFICIAL.of_own(own)
    train, test, extra = source.names
    source.fetch(source.missing([train, test]))
    names = (train, test) if source.missing([extra]) else (train, test, extra)
    sums = {name: sum_of(source.folder / name) for name in names}
    counts = {name: count(source.folder / name) for name in names}
    split = own.split(source.split, counts[train] + counts.get(extra, 0), counts[test])
    return replace(source, names=names, sums=sums, split=split)


def ignore(line: str) -> None:
    """Say nothing."""


def _made_and_opened(source: SVHNSource, say: Callable[[str], object] = ignore) -> Dataset:
    """The data set from its HDF5 files, which are made if they are not there, or damaged."""
    local = source.local_folder()
    with contextlib.suppress(DataError):
        return _open(source, local)
    preprocess(source, local, say=say)
    return _open(source, local)


def _open(source: SVHNSource, local: Path) -> Dataset:
    remedy = "run python -m utilities.svhn_preprocessing"
    if source.sample:
        remedy += " --sample --data DIR"
    if source.own:
        remedy = "start again, they are made on first use"
    parts = {
        part: HDF5Part(local / "h5" / name, source.split[part], remedy)
        for part, name in FILES.items()
    }
    first = parts["train"]
    if first.identity not in (source.identity("all"), source.identity("first")):
        what = f"the {source.name}" if source.sample or source.own else "the official files"
        raise DataError(f"{first.path} is not made of {what} by this version: {remedy}")
    for part in parts.values():
        if part.identity != first.identity:
            raise DataError(
                f"{part.path} is made of other files or with other options than "
                f"{first.path.name}: {remedy}"
            )
    return Dataset(source.name, identity=first.identity, **parts)


def preprocess(
    source: SVHNSource,
    local: Path,
    channels: str = "all",
    say: Callable[[str], object] = ignore,
) -> None:
    """Split, GCN and LCN: from the .mat files, downloaded if missing, to local/h5.

    Each file is written under another name, and moved when it is finished and on the
    disk. A file that is there, whole and of the same inputs and options stays. The
    pixels are in memory as uint8 (splitted_train mixes all rows of train and extra);
    what is made of them exists in blocks of 5,000 images. Same inputs, same bytes.

    Parameters
    ----------
    channels
        As for local_contrast_normalize.
    say
        Called with a line for each file.

    Raises
    ------
    DataError
        An input is missing or damaged, the disk is too full or cannot be written.
    NotOurs
        A file in the place of one of them is of another form, or cannot be read.
    """
    folder = local / "h5"
    making = _Making(source, folder, channels, say)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            todo = [part for part in FILES if not making.is_finished(part)]
            for name in FILES.values():  # left by an interrupted process
                (folder / f".{name}.partial").unlink(missing_ok=True)
            if todo:
                making.make(todo)
    except OSError as error:
        raise DataError(
            f"cannot write {folder} ({error.strerror or error}): give a folder that can be "
            "written and has room (SVHN_LOCAL_PATH)"
        ) from error


@dataclass(frozen=True)
class _Making:
    """How the HDF5 files in a folder are made from a Source."""

    source: SVHNSource
    folder: Path
    channels: str
    say: Callable[[str], object]

    def is_finished(self, part: str) -> bool:
        """Whether the part is there, readable to its end and made from the same."""
        path = self.folder / FILES[part]
        n = self.source.split[part]
        if not path.exists():
            return False
        try:
            with image_bar(n, f"checking {path.name}") as bar:
                there = HDF5Part(path, n, "made again")
                if there.identity != self.source.identity(self.channels):
                    self.say(f"{path}: made from other files or with other options; made again")
                    return False
                for rows in blocks(n, BLOCK):
                    there.read(rows.start, rows.stop)
                    bar.update(rows.stop - rows.start)
        except NotOurs:
            raise
        except DataError as error:
            self.say(str(error))
            return False
        self.say(f"{path}: {n:,} images, kept")
        return True

    def make(self, todo: Sequence[str]) -> None:
        """Make these parts."""
        self._check_space(todo)
        others = [part for part in ("valid", "train") if part in todo]
        self.source.say_where()
        files = ["test"] * ("test" in todo) + ["train", "extra"] * bool(others)
        files = [name for name in files if f"{name}_32x32.mat" in self.source.names]
        self.source.fetch(self.source.missing([f"{name}_32x32.mat" for name in files]))
        if "test" in todo:
            x, labels = self._read("test")
            self._write("test", [x], labels, test_rows(len(x)))
            del x
        if others:
            x, labels = self._read("train")
            more, more_labels = self._read("extra") if "extra" in files else (x[:0], labels[:0])
            rows = self.source.rows(labels, more_labels)
            for part in others:
                self._write(part, [x, more], np.concatenate([labels, more_labels]), rows[part])

    def _check_space(self, todo: Sequence[str]) -> None:
        free = shutil.disk_usage(self.folder).free
        size = sum(self.source.split[part] for part in todo) * (N_FEATURES + CLASSES) * 4
        if free < size:
            raise DataError(
                f"{self.folder} has {free / 1e9:.2f} GB free, SVHN needs up to {size / 1e9:.2f} "
                "GB: make room or give another folder (SVHN_LOCAL_PATH)"
            )

    def _read(self, name: str) -> tuple[Pixels, Labels]:
        file = f"{name}_32x32.mat"
        return read_mat(self.source.folder / file, self.source.sums[file])

    def _write(self, part: str, arrays: Sequence[Pixels], labels: Labels, rows: Rows) -> None:
        """The file of a part: `rows` of the arrays, counted through all of them."""
        announced = self.source.split[part]
        if len(rows) != announced:
            raise DataError(
                f"{self.source.folder}: {part} would have {len(rows)} images, but {announced} are "
                "announced: give a folder with the files that are announced"
            )
        path = self.folder / FILES[part]
        started = time.monotonic()
        normalised = _normalised(arrays, labels, rows, self.channels)
        write_hdf5(path, normalised, len(rows), self.source.identity(self.channels))
        megabytes = path.stat().st_size / 1e6
        seconds = time.monotonic() - started
        self.say(f"{path}: {len(rows):,} images, {megabytes:,.1f} MB, {seconds:.1f} s")


def _normalised(
    arrays: Sequence[Pixels], labels: Labels, rows: Rows, channels: str
) -> Iterator[tuple[Floats, Floats]]:
    """Blocks of `rows` of the arrays, which are never joined: x and one-hot y."""
    starts = np.cumsum([0, *map(len, arrays)])
    for block in blocks(len(rows), BLOCK):
        wanted = rows[block]
        pixels = np.empty((len(wanted), N_FEATURES), np.uint8)
        for array, start in zip(arrays, starts, strict=False):
            here = (wanted >= start) & (wanted < start + len(array))
            pixels[here] = array[wanted[here] - start]
        x = local_contrast_normalize(global_contrast_normalize(pixels, GCN_SCALE), channels)
        check_finite("SVHN", x)
        yield x, one_hot(labels[wanted] - 1)  # the digit 0 has the label 10; class = label - 1
