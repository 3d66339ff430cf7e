"""SVHN."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.array_cache import _lock
from datasets.contrast import (
    PREPROCESSING_VERSION,
    _blocks,
    global_contrast_normalize,
    local_contrast_normalize,
)
from datasets.hdf5 import HDF5Part, _write_hdf5
from datasets.mat import read_svhn_mat
from datasets.parts import Dataset, check_finite, one_hot
from datasets.progress import _bar
from datasets.source import _fetch, _manifest, _missing_sample, _remedy
from errors import DataError

SVHN_MIRRORS = ("http://ufldl.stanford.edu/housenumbers/",)
SVHN_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}
SVHN_SPLIT = {"train": 598_388, "valid": 6_000, "test": 26_032}
SVHN_VALID_PER_CLASS = {"train": 400, "extra": 200}
SVHN_PARTS = {
    "train": "splitted_train_32x32.h5",
    "valid": "valid_32x32.h5",
    "test": "test_32x32.h5",
}
GCN_SCALE = {"CIFAR10": 55.0, "SVHN": 1.0}
SPLIT_SEED = 322
BLOCK = 5000  # images read, normalised and written at a time


def load_svhn(folder, sample=False):
    """SVHN after split, GCN and LCN (SPEC section 12), read from its three HDF5 files in pieces, when asked for.

    Parameters
    ----------
    folder : path of the data folder
    sample : read the generated sample in folder/SVHN, whose HDF5 files are made on first use. Otherwise the files are
        those in $SVHN_LOCAL_PATH/h5, and only python -m utilities.svhn_preprocessing makes them.

    Raises
    ------
    DataError : a file is missing, damaged, not finished, or does not belong to the others.
    """
    source = svhn_sources(folder, sample)
    local = Path(folder) / "SVHN" if sample else os.environ.get("SVHN_LOCAL_PATH")
    if not local:
        raise DataError(
            "SVHN_LOCAL_PATH is not set: set it to a folder with 8 GB of room and run python -m "
            "utilities.svhn_preprocessing, or use --sample for a small generated set"
        )
    try:
        return _open_svhn(source, local)
    except DataError:
        if not sample:
            raise
    preprocess_svhn(folder, local, sample=True)
    return _open_svhn(source, local)


def _open_svhn(source, local):
    remedy = "run python -m utilities.svhn_preprocessing" + (
        " --sample --data DIR" if source.sample else ""
    )
    parts = {
        part: HDF5Part(Path(local) / "h5" / name, source.split[part], remedy)
        for part, name in SVHN_PARTS.items()
    }
    identity = parts["train"].identity
    if identity not in (source.identity("all"), source.identity("first")):
        what = "this sample" if source.sample else "the official files"
        raise DataError(f"{parts['train'].path} is not made of {what} by this version: {remedy}")
    for part in parts.values():
        if part.identity != identity:
            raise DataError(
                f"{part.path} is made of other files or with other options than "
                f"{parts['train'].path.name}: {remedy}"
            )
    return Dataset("SVHN sample" if source.sample else "SVHN", identity=identity, **parts)


@dataclass(frozen=True)
class SVHNSources:
    """The .mat files of SVHN or of its sample.

    folder : where they are; sums : file name -> MD5; split : part -> number of images
    per_class : file -> how many images of each class valid takes from it
    """

    folder: Path
    sums: dict
    split: dict
    per_class: dict
    sample: bool

    def identity(self, channels):
        """What the HDF5 files are made from (str -> str); channels: those that LCN normalises, "all" or "first"."""
        return {
            **{name: self.sums[name] for name in SVHN_MD5},
            "sample": "yes" if self.sample else "no",
            "valid_per_class": f"{self.per_class['train']} of train, {self.per_class['extra']} of extra",
            "lcn_channels": channels,
            "preprocessing": str(PREPROCESSING_VERSION),
        }


def svhn_sources(folder, sample=False):
    """The SVHNSources in folder/SVHN/format2; DataError if the sample is asked for and not there, or the reverse."""
    folder = Path(folder) / "SVHN" / "format2"
    manifest = _manifest(folder, sample)
    if not sample:
        return SVHNSources(folder, SVHN_MD5, SVHN_SPLIT, SVHN_VALID_PER_CLASS, False)
    per_class = manifest.get("valid_per_class", SVHN_VALID_PER_CLASS)
    if (
        not isinstance(per_class, dict)
        or set(per_class) != set(SVHN_VALID_PER_CLASS)
        or set(SVHN_MD5) - set(manifest["files"])
        or not all(type(n) is int and n >= 0 for n in per_class.values())
    ):
        raise DataError(f"{folder / 'manifest.json'} is damaged: {_remedy(sample)}")
    return SVHNSources(folder, manifest["files"], manifest["split"], per_class, True)


def fetch_svhn(source, names):
    """Download the missing ones of "train", "test", "extra" into source.folder; DataError if that fails."""
    missing = [
        f"{name}_32x32.mat"
        for name in names
        if not os.path.exists(source.folder / f"{name}_32x32.mat")
    ]
    if missing and source.sample:
        raise _missing_sample(source.folder, missing)
    if missing:
        _fetch("SVHN", missing, source.folder, SVHN_MIRRORS, SVHN_MD5)


def preprocess_svhn(folder, local, sample=False, channels="all", say=lambda line: None):
    """Split, GCN and LCN of SVHN: from the .mat files to local/h5 (SPEC section 12).

    Each file is written under another name, and moved when it is finished and on the disk. A file that is there, whole
    and of the same inputs and options is kept. The pixels stay in memory as uint8 (splitted_train mixes all rows of
    train and extra); what is made of them exists in blocks of 5,000 images. Same inputs, same bytes.

    Parameters
    ----------
    folder : the data folder; missing official files are downloaded to folder/SVHN/format2
    local : the folder in which h5/ is made (SVHN_LOCAL_PATH)
    sample : take the generated sample in `folder`, with the split sizes of its manifest
    channels : as for local_contrast_normalize
    say : called with a line for each file

    Raises
    ------
    DataError : an input is missing or damaged, the disk is too full or cannot be written.
    """
    source, target = svhn_sources(folder, sample), Path(local) / "h5"
    identity = source.identity(channels)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _lock(target / ".lock"):
            todo = [
                part for part in SVHN_PARTS if not _is_finished(part, target, source, identity, say)
            ]
            for left in target.glob(".*.partial"):  # by an interrupted process
                left.unlink()
            if todo:
                _check_space(target, sum(source.split[part] for part in todo) * (3072 + 10) * 4)
                _make_svhn(todo, source, target, identity, channels, say)
    except OSError as error:
        raise DataError(
            f"cannot write {target} ({error.strerror or error}): give a folder that can be written and has "
            "room"
        ) from error


def _is_finished(part, target, source, identity, say):
    """Whether local/h5 has this part, readable to its last byte and made from the same."""
    path = target / SVHN_PARTS[part]
    if not path.exists():
        return False
    try:
        with _bar(source.split[part], f"checking {path.name}") as bar:
            there = HDF5Part(path, source.split[part], "made again")
            if there.identity != identity:
                say(f"{path}: made from other files or with other options; made again")
                return False
            for rows in _blocks(len(there), BLOCK):
                there.read(rows.start, rows.stop)
                bar.update(rows.stop - rows.start)
    except DataError as error:
        say(str(error))
        return False
    say(f"{path}: {len(there):,} images, kept")
    return True


def _check_space(folder, size):
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DataError(
            f"{folder} has {free / 1e9:.2f} GB free, SVHN needs up to {size / 1e9:.2f} GB: make room or "
            "give another folder (SVHN_LOCAL_PATH)"
        )


def _make_svhn(todo, source, target, identity, channels, say):
    mats = ["test"] * ("test" in todo) + ["train", "extra"] * bool({"train", "valid"} & set(todo))
    fetch_svhn(source, mats)

    def write(part, arrays, labels, rows):
        if len(rows) != source.split[part]:
            raise DataError(
                f"{source.folder}: {part} would have {len(rows)} images, but {source.split[part]} are "
                "announced: delete the folder and get the files again"
            )
        started, path = time.monotonic(), target / SVHN_PARTS[part]
        _write_hdf5(path, _normalised(arrays, labels, rows, channels), len(rows), identity)
        say(
            f"{path}: {len(rows):,} images, {path.stat().st_size / 1e6:,.1f} MB, {time.monotonic() - started:.1f} s"
        )

    def read(name):
        return read_svhn_mat(source.folder / f"{name}_32x32.mat", source.sums[f"{name}_32x32.mat"])

    if "test" in todo:
        x, labels = read("test")
        write("test", [x], labels, _shuffled(len(x), np.random.RandomState(SPLIT_SEED)))
        del x
    if set(todo) - {"test"}:
        (x, labels), (more, more_labels) = read("train"), read("extra")
        rows = split_svhn(labels, more_labels, source.per_class)
        for part in ("valid", "train"):
            if part in todo:
                write(part, [x, more], np.concatenate([labels, more_labels]), rows[part])


def _normalised(arrays, labels, rows, channels):
    """Blocks (x float32 (n, 3072), y one-hot (n, 10)) of `rows` of the uint8 arrays, which are not joined for that."""
    starts = np.cumsum([0, *map(len, arrays)])
    for block in _blocks(len(rows), BLOCK):
        wanted = rows[block]
        pixels = np.empty((len(wanted), 3072), np.uint8)
        for array, start in zip(arrays, starts, strict=False):
            here = (wanted >= start) & (wanted < start + len(array))
            pixels[here] = array[wanted[here] - start]
        x = local_contrast_normalize(global_contrast_normalize(pixels, GCN_SCALE["SVHN"]), channels)
        check_finite("SVHN", x)
        yield x, one_hot(labels[wanted] - 1)  # the digit 0 has the label 10; class = label - 1


def split_svhn(train_labels, extra_labels, per_class):
    """Which images are in splitted_train and in valid, and in which order.

    Parameters
    ----------
    train_labels, extra_labels : int (n,), 1..10
    per_class : {"train": images of each class that valid takes from train, "extra": those from extra}

    Returns
    -------
    {"train": int64 rows of train followed by extra, "valid": the same}: a partition of them all. "train" is
    splitted_train.

    Raises
    ------
    DataError : a class has fewer images than valid takes.

    Source: SPEC section 12; the taken rows stand in the order of taking before they are shuffled.
    """
    rows = {}
    for part in ("train", "valid"):
        rng, taken, start = np.random.RandomState(SPLIT_SEED), [], 0
        for name, labels in (("train", train_labels), ("extra", extra_labels)):
            for label in range(1, 11):
                indices = np.flatnonzero(labels == label)
                if len(indices) < per_class[name]:
                    raise DataError(
                        f"SVHN: {name} has {len(indices)} images with label {label}, valid takes "
                        f"{per_class[name]}: give the whole files"
                    )
                rng.shuffle(indices)
                taken.append(start + indices[: per_class[name]])
            start += len(labels)
        rows[part] = np.concatenate(taken)
        if part == "train":
            rows[part] = np.setdiff1d(np.arange(start), rows[part], assume_unique=True)
        rows[part] = rows[part][_shuffled(len(rows[part]), rng)]
    return rows


def _shuffled(n, rng):
    order = np.arange(n)
    rng.shuffle(order)
    return order
