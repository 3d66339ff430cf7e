"""The generated sample."""

import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import uuid
from pathlib import Path

import numpy as np

from datasets.digits import _coloured, _grey

GENERATOR = 1  # raised whenever the same seed is to give other files


def idx_bytes(array):
    """An idx file of a uint8 array: magic number 0x0800 + dimensions, sizes, then the bytes, big-endian."""
    return struct.pack(f">{1 + array.ndim}i", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def gz_bytes(content):
    """`content` gzipped, with neither time nor name in its header, so that every run gives the same."""
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0, compresslevel=6) as file:
        file.write(content)
    return out.getvalue()


def pickle_bytes(value):
    """A protocol-2 pickle of dict, list, bytes, small int and uint8 arrays, in the words that Python 2 wrote.

    Written by hand, as Python 3 spells bytes and NumPy's names differently from the official batches.
    """

    def dump(value):
        if isinstance(value, dict):
            return b"}(" + b"".join(dump(key) + dump(item) for key, item in value.items()) + b"u"
        if isinstance(value, list):
            return b"](" + b"".join(map(dump, value)) + b"e"
        if isinstance(value, bytes):
            return (
                b"U" + struct.pack("<B", len(value))
                if len(value) < 256
                else b"T" + struct.pack("<i", len(value))
            ) + value
        if isinstance(value, int):
            return (
                b"K" + struct.pack("<B", value)
                if 0 <= value < 256
                else b"J" + struct.pack("<i", value)
            )
        dtype = (
            b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + dump(-1) * 2 + dump(0) + b"tb"
        )
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        shape = b"(" + b"".join(map(dump, value.shape)) + b"t"
        return empty + b"(K\x01" + shape + dtype + b"\x89" + dump(value.tobytes()) + b"tb"

    return b"\x80\x02" + dump(value) + b"."


def mat_bytes(images, digits):
    """A MATLAB 5 file of uint8 (n, 3, 32, 32): X (32, 32, 3, n), y (n, 1) with 10 for the digit 0."""
    import scipy.io

    out, labels = io.BytesIO(), np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
    scipy.io.savemat(out, {"X": images.transpose(2, 3, 1, 0), "y": labels})
    # the text at the beginning has the time in it
    return b"MATLAB 5.0 MAT-file, generated digits".ljust(116) + out.getvalue()[116:]


def _mnist(rng):
    files = {}
    for name, n in (("train", 2500), ("t10k", 500)):
        images, digits = _grey(n, rng)
        files[f"{name}-images-idx3-ubyte.gz"] = idx_bytes(images)
        files[f"{name}-labels-idx1-ubyte.gz"] = idx_bytes(digits.astype(np.uint8))
    # the sums of the unpacked files too, for when somebody unpacks or recompresses them
    sums = {name.removesuffix(".gz"): _md5(content) for name, content in files.items()}
    files = {name: gz_bytes(content) for name, content in files.items()}
    return files, {"split": {"train": 2000, "valid": 500, "test": 500}, "files": sums}


def _cifar10(rng):
    files = {}
    names = [(f"data_batch_{k}", f"training batch {k} of 5") for k in range(1, 6)]
    for name, title in [*names, ("test_batch", "testing batch 1 of 1")]:
        images, digits = _coloured(200, rng)
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


def _svhn(rng):
    rows, per_class = {"train": 600, "test": 200, "extra": 600}, {"train": 10, "extra": 5}
    files = {f"{name}_32x32.mat": mat_bytes(*_coloured(n, rng)) for name, n in rows.items()}
    valid = 10 * sum(per_class.values())
    split = {"train": rows["train"] + rows["extra"] - valid, "valid": valid, "test": rows["test"]}
    return files, {"split": split, "valid_per_class": per_class, "files": {}}


SETS = {
    "mnist": ("mnist", _mnist),
    "cifar10": ("cifar10/cifar-10-batches-py", _cifar10),
    "svhn": ("SVHN/format2", _svhn),
}


def ensure_sample(folder, tasks=tuple(SETS), seed=None):
    """Make the sample sets that are not there yet, each atomically.

    Parameters
    ----------
    folder : path, the data folder (PYLEARN2_DATA_PATH)
    tasks : names out of "mnist", "cifar10", "svhn"
    seed : 0..2**32-1; None is 0 for what is made, and content with what is there

    Raises
    ------
    ValueError : one line; a folder has other files in it (official, or of another seed), or a bad argument.
    OSError : a folder cannot be written.
    """
    if seed is not None and not 0 <= seed < 2**32:
        raise ValueError(f"the seed is {seed}: give 0..{2**32 - 1}")
    unknown = set(tasks) - set(SETS)
    if unknown:
        raise ValueError(
            f"no sample is called {', '.join(sorted(unknown))}: there are {', '.join(SETS)}"
        )
    todo = [
        task for task in SETS if task in tasks and not _is_there(Path(folder) / SETS[task][0], seed)
    ]
    for task in todo:
        _make(Path(folder) / SETS[task][0], SETS[task][1], task, seed or 0)


def _is_there(target, seed):
    """Whether `target` has a sample with all its files; ValueError if it has anything else."""
    present = sorted(os.listdir(target)) if target.is_dir() else []
    if not present:
        return False
    try:
        manifest = json.loads((target / "manifest.json").read_bytes())
        ours, found, files = manifest["sample"] is True, manifest["seed"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise ValueError(
            f"{target} has other files in it ({present[0]}): give another folder for the sample"
        )
    if seed is not None and found != seed:
        raise ValueError(
            f"{target} has the sample of seed {found!r}: delete it or give another folder"
        )
    stems = {name.removesuffix(".gz") for name in files}
    gone = stems - {name.removesuffix(".gz") for name in present}
    if gone:
        raise ValueError(
            f"{target} lacks {min(gone)} of the sample: delete the folder and make it again"
        )
    return True


def _make(target, build, task, seed):
    """Write one set into a temporary folder beside `target`, then rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    files, manifest = build(np.random.RandomState([seed, [*SETS].index(task)]))
    manifest["files"] |= {name: _md5(content) for name, content in files.items()}
    manifest = {"sample": True, "generator": GENERATOR, "seed": seed, **manifest}
    files["manifest.json"] = (json.dumps(manifest, indent=1) + "\n").encode()
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


def _md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
