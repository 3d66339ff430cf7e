"""The generated sample: drawn digits in the formats of MNIST, CIFAR-10 and SVHN.

    mnist/                        grey, 28 x 28: 2,000 train, 500 valid, 500 test
    cifar10/cifar-10-batches-py/  coloured, 32 x 32: 900 train, 100 valid, 200 test
    SVHN/format2/                 coloured, 32 x 32: 600 train, 600 extra (10 and 5 per
                                  class of them are valid), 200 test

Each folder has a manifest.json with the MD5 sums and split sizes. Same seed, same
content.
"""

import gzip
import io
import json
import os
import shutil
import struct
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import RandomState

from datasets import cifar10, mnist, svhn
from datasets.digits import coloured, grey
from datasets.manifest import MANIFEST
from datasets.parts import Labels, Pixels
from errors import DataError, TooLittleRoom
from files import md5, read_bytes
from paths import USERS, reason

GENERATOR = 1  # raised whenever the same seed is to give other files

# File name -> content, and what the manifest says beyond what all manifests say.
Made = tuple[dict[str, bytes], dict[str, Any]]


# ------------------------------------------------------------------------------ formats


def idx_bytes(array: Pixels) -> bytes:
    """An idx file: magic number 0x0800 + dimensions, sizes, bytes, big-endian."""
    return struct.pack(f">{1 + array.ndim}i", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def gz_bytes(content: bytes) -> bytes:
    """`content` gzipped, with neither time nor name in its header."""
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0, compresslevel=6) as file:
        file.write(content)
    return out.getvalue()


def pickle_bytes(value: object) -> bytes:
    """A protocol-2 pickle of dict, list, bytes, small int and uint8 arrays.

    Written by hand, in the words of Python 2: Python 3 spells bytes and NumPy's names
    differently from the official batches.
    """
    return b"\x80\x02" + _pickled(value) + b"."


def _pickled(value: Any) -> bytes:
    if isinstance(value, dict):
        items = (_pickled(key) + _pickled(item) for key, item in value.items())
        return b"}(" + b"".join(items) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_pickled, value)) + b"e"
    if isinstance(value, bytes):
        short = len(value) < 256
        size = struct.pack("<B" if short else "<i", len(value))
        return (b"U" if short else b"T") + size + value
    if isinstance(value, int):
        short = 0 <= value < 256
        return (b"K" if short else b"J") + struct.pack("<B" if short else "<i", value)
    return _pickled_array(value)


def _pickled_array(value: Pixels) -> bytes:
    state = _pickled(-1) * 2 + _pickled(0)
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + state + b"tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    shape = b"(" + b"".join(map(_pickled, value.shape)) + b"t"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + _pickled(value.tobytes()) + b"tb"


def mat_bytes(images: Pixels, digits: Labels) -> bytes:
    """A MATLAB 5 file: X (32, 32, 3, n), y (n, 1) with 10 for the digit 0."""
    import scipy.io

    out = io.BytesIO()
    labels = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
    scipy.io.savemat(out, {"X": images.transpose(2, 3, 1, 0), "y": labels})
    # the text at the beginning has the time in it
    return b"MATLAB 5.0 MAT-file, generated digits".ljust(116) + out.getvalue()[116:]


# --------------------------------------------------------------------------------- sets


def _mnist(rng: RandomState) -> Made:
    contents = {}
    for name, n in (("train", 2500), ("t10k", 500)):
        images, digits = grey(n, rng)
        contents[f"{name}-images-idx3-ubyte"] = idx_bytes(images)
        contents[f"{name}-labels-idx1-ubyte"] = idx_bytes(digits.astype(np.uint8))
    # the sums of the unpacked files too, for when somebody unpacks or recompresses them
    sums = {name: md5(content) for name, content in contents.items()}
    files = {f"{name}.gz": gz_bytes(content) for name, content in contents.items()}
    return files, {"split": {"train": 2000, "valid": 500, "test": 500}, "files": sums}


def _cifar10(rng: RandomState) -> Made:
    files = {}
    titles = {f"data_batch_{k}": f"training batch {k} of 5" for k in range(1, 6)}
    for name, title in {**titles, "test_batch": "testing batch 1 of 1"}.items():
        images, digits = coloured(200, rng)
        files[name] = pickle_bytes(
            {
                b"batch_label": title.encode(),
                b"labels": digits.tolist(),
                b"data": images.reshape(-1, 3072),
                b"filenames": [
                    b"digit%d_s_%06d.png" % (digit, k) for k, digit in enumerate(digits)
                ],
            }
        )
    return files, {"split": {"train": 900, "valid": 100, "test": 200}, "files": {}}


def _svhn(rng: RandomState) -> Made:
    rows = {"train": 600, "test": 200, "extra": 600}
    per_class = {"train": 10, "extra": 5}
    files = {f"{name}_32x32.mat": mat_bytes(*coloured(n, rng)) for name, n in rows.items()}
    valid = 10 * sum(per_class.values())
    split = {"train": rows["train"] + rows["extra"] - valid, "valid": valid, "test": rows["test"]}
    return files, {"split": split, "valid_per_class": per_class, "files": {}}


# Name -> place in a data folder, and what makes the files; the order is in the seeds.
SETS: dict[str, tuple[Path, Callable[[RandomState], Made]]] = {
    "mnist": (mnist.OFFICIAL.folder, _mnist),
    "cifar10": (cifar10.OFFICIAL.folder, _cifar10),
    "svhn": (svhn.OFFICIAL.folder, _svhn),
}


def ensure_sample(
    folder: Path, data_sets: Collection[str] = tuple(SETS), seed: int | None = None
) -> None:
    """Make the sample of the data sets that are not there yet, each atomically.

    Parameters
    ----------
    folder
        The data folder (PYLEARN2_DATA_PATH).
    data_sets
        Names in SETS.
    seed
        0..2**32-1; None is 0 for what is made, and content with what is there.

    Raises
    ------
    DataError
        A folder has other files in it (official, or of another seed), or cannot be
        written; or a bad argument.
    TooLittleRoom
    """
    if seed is not None and not 0 <= seed < 2**32:
        raise DataError(f"the seed is {seed}: give 0..{2**32 - 1}")
    unknown = set(data_sets) - set(SETS)
    if unknown:
        raise DataError(
            f"no sample is called {', '.join(sorted(unknown))}: there are {', '.join(SETS)}"
        )
    try:
        todo = [
            name
            for name, (place, _) in SETS.items()
            if name in data_sets and not _is_there(folder / place, seed)
        ]
        for name in todo:
            _make(folder, name, seed or 0)
    except OSError as error:
        raise _unmade(folder, error) from error


def _unmade(folder: Path, error: OSError) -> DataError | TooLittleRoom:
    """What keeps a sample from being made: the folder, or the machine."""
    if error.errno not in USERS:
        return TooLittleRoom(f"{reason(error)}: {folder} cannot have the sample; make room for it")
    return DataError(
        f"it cannot be made in {folder} ({reason(error)}): make that writable, or give another "
        "folder for it (--data)"
    )


def _is_there(target: Path, seed: int | None) -> bool:
    """Whether a sample with all its files is there; DataError if anything else is."""
    present = sorted(os.listdir(target)) if target.is_dir() else []
    if not present:
        return False
    try:
        manifest = json.loads(read_bytes(target / MANIFEST, 1 << 20))
        ours = manifest["sample"] is True
        found = manifest["seed"]
        stems = {name.removesuffix(".gz") for name in manifest["files"].keys()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        ours = False
    if not ours:
        raise DataError(
            f"{target} has other files in it ({present[0]}): give another folder for the sample"
        )
    if seed is not None and found != seed:
        raise DataError(f"{target} has the sample of seed {found!r}: give another folder")
    gone = stems - {name.removesuffix(".gz") for name in present}
    if gone:
        raise DataError(f"{target} lacks {min(gone)} of the sample: make it in another folder")
    return True


def _make(folder: Path, name: str, seed: int) -> None:
    """Write one set into a temporary folder beside its place, then rename it."""
    place, build = SETS[name]
    target = folder / place
    target.parent.mkdir(parents=True, exist_ok=True)
    files, more = build(RandomState([seed, [*SETS].index(name)]))
    more["files"] |= {name: md5(content) for name, content in files.items()}
    manifest = {"sample": True, "generator": GENERATOR, "seed": seed, **more}
    files[MANIFEST] = (json.dumps(manifest, indent=1) + "\n").encode()
    temporary = target.parent / f".{target.name}-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        if target.is_dir():
            target.rmdir()  # empty, or somebody else was faster
        temporary.rename(target)
    except OSError:
        if not _is_there(target, seed):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
