"""Write generated digits in the official file formats of MNIST, CIFAR-10 and SVHN (SPEC section 12).

    python -m utilities.sample_data DIR [--seed 0]

DIR then serves as PYLEARN2_DATA_PATH with --sample, where the real data cannot be had:

    DIR/mnist/                        2,000 train + 500 valid + 500 test grey digits, 28 x 28
    DIR/cifar10/cifar-10-batches-py/  900 train + 100 valid + 200 test coloured digits, 32 x 32
    DIR/SVHN/format2/                 600 train, 600 extra (valid: 10 and 5 per class of them), 200 test

Each folder has a manifest.json with the MD5 sums and split sizes. Same seed, same content. A folder that is
not empty is never written into. The digits are strokes under a random affine map and warp, with random
thickness, blur and noise: errors on them say that a program works, nothing about the published results.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import sys
import uuid
from itertools import pairwise
from pathlib import Path

import numpy as np

GENERATOR = 1  # raised whenever the same seed is to give other files


# --------------------------------------------------------------------------------------------- strokes


def _arc(cx, cy, rx, ry, start, stop, n=10):
    """Points of an elliptic arc, degrees clockwise from the right (y points down)."""
    t = np.radians(np.linspace(start, stop, n + 1))
    return [*zip(cx + rx * np.cos(t), cy + ry * np.sin(t), strict=True)]


# digit -> its ways of writing it; each a list of polylines in the unit square
GLYPHS = {
    0: [[_arc(0.5, 0.5, 0.27, 0.42, 0, 360, 14)]],
    1: [[[(0.5, 0.08), (0.5, 0.92)]], [[(0.33, 0.27), (0.53, 0.08), (0.53, 0.92)]]],
    2: [[[*_arc(0.49, 0.31, 0.26, 0.23, 185, 395), (0.22, 0.92), (0.8, 0.92)]]],
    3: [[_arc(0.46, 0.29, 0.25, 0.21, 205, 440), _arc(0.46, 0.71, 0.29, 0.22, 275, 515)]],
    4: [
        [[(0.58, 0.08), (0.2, 0.62), (0.82, 0.62)], [(0.62, 0.38), (0.62, 0.94)]],
        [[(0.28, 0.08), (0.24, 0.5), (0.72, 0.5)], [(0.72, 0.08), (0.7, 0.94)]],
    ],
    5: [[[(0.76, 0.08), (0.32, 0.08), (0.29, 0.46), *_arc(0.46, 0.67, 0.29, 0.25, 235, 505)]]],
    6: [[[(0.66, 0.07), (0.4, 0.28), (0.27, 0.52), *_arc(0.5, 0.69, 0.24, 0.23, 190, 540)]]],
    7: [
        [[(0.2, 0.1), (0.8, 0.1), (0.42, 0.93)]],
        [[(0.2, 0.1), (0.8, 0.1), (0.42, 0.93)], [(0.36, 0.52), (0.74, 0.52)]],
    ],
    8: [[_arc(0.5, 0.29, 0.2, 0.2, 0, 360), _arc(0.5, 0.71, 0.25, 0.22, 0, 360)]],
    9: [[[*_arc(0.49, 0.32, 0.24, 0.23, 0, 350), (0.73, 0.35), (0.66, 0.93)]]],
}


def _glyphs():
    """All ways of writing: their digits (ways,), and the segments of each, float64 (segments, 2 ends, 2)."""
    ways = [(digit, way) for digit, some in GLYPHS.items() for way in some]
    return np.array([digit for digit, _ in ways]), [
        np.array([pair for line in way for pair in pairwise(line)]) for _, way in ways
    ]


def draw(digits, size, rng):
    """Draw digits.

    Parameters
    ----------
    digits : int (n,), 0..9
    size : pixels per side
    rng : numpy.random.RandomState

    Returns
    -------
    float32 (n, size, size): ink, 0..1, without noise.
    """
    owners, glyphs = _glyphs()
    ways = [np.flatnonzero(owners == digit) for digit in range(10)]
    which = np.array([ways[digit][rng.randint(len(ways[digit]))] for digit in digits])

    def uniform(low, high):
        return rng.uniform(low, high, len(digits))[:, None, None]

    phase, sway = uniform(0, 2 * np.pi), uniform(-0.06, 0.06)
    angle, slant = uniform(-0.2, 0.2), uniform(-0.25, 0.25)
    width, height = 0.74 * size * uniform(0.62, 1.1), 0.74 * size * uniform(0.8, 1.05)
    across, down = size * uniform(0.44, 0.56), size * uniform(0.44, 0.56)
    thickness, blur = size * uniform(0.028, 0.062), uniform(0.8, 1.6)

    ink = np.empty((len(digits), size, size), np.float32)
    for way, glyph in enumerate(glyphs):
        some = np.flatnonzero(which == way)
        x, y = (
            glyph.transpose(2, 0, 1)[:, None] - 0.5
        )  # (1, segments, ends); below (images, segments, ends)
        x, y = (
            x + sway[some] * np.sin(5 * y + phase[some]),
            y + sway[some] * np.sin(5 * x + phase[some]),
        )
        x, y = width[some] * x - slant[some] * height[some] * y, height[some] * y
        cos, sin = np.cos(angle[some]), np.sin(angle[some])
        x, y = cos * x - sin * y + across[some], sin * x + cos * y + down[some]
        for first in range(0, len(some), 64):  # 64 images at a time stay in the cache
            part = slice(first, first + 64)
            distance = _distance(x[part].astype(np.float32), y[part].astype(np.float32), size)
            ink[some[part]] = np.clip(
                (thickness[some[part]] - distance) / blur[some[part]] + 0.5, 0, 1
            )
    return ink


def _distance(x, y, size):
    """float32 (n, size, size): each pixel's distance to the nearest segment; x, y (n, segments, 2 ends)."""
    columns = (np.arange(size, dtype=np.float32) + np.float32(0.5))[None, None, :]
    rows = columns.transpose(0, 2, 1)
    nearest = np.full((len(x), size, size), np.inf, np.float32)
    for segment in range(x.shape[1]):
        (x0, x1), (y0, y1) = (end[:, segment, :, None, None].swapaxes(0, 1) for end in (x, y))
        dx, dy = x1 - x0, y1 - y0
        squared = dx * dx + dy * dy
        along = (columns - x0) * (dx / squared) + (rows - y0) * (dy / squared)
        np.maximum(along, 0, out=along)
        np.minimum(along, 1, out=along)
        across, down = columns - x0 - along * dx, rows - y0 - along * dy
        np.minimum(nearest, across * across + down * down, out=nearest)
    return np.sqrt(nearest)


def _balanced(n, rng):
    """int (n,): every digit equally often, in random order."""
    return rng.permutation(np.arange(n) % 10)


def _grey(n, rng):
    """uint8 (n, 28, 28) and digits: light ink on black, noise where it exceeds a threshold, as in a scan."""
    digits = _balanced(n, rng)
    ink = draw(digits, 28, rng) * rng.uniform(0.7, 1, (n, 1, 1))
    ink = ink + rng.normal(0, 0.1, ink.shape)
    return np.uint8(np.clip(np.where(ink > 0.12, ink, 0), 0, 1) * 255), digits


def _coloured(n, rng):
    """uint8 (n, 3, 32, 32) and digits: a light colour on a shaded darker one, with noise."""
    digits = _balanced(n, rng)
    ink = draw(digits, 32, rng)[:, None]
    paper = rng.uniform(0.1, 0.5, (n, 3, 1, 1))
    colour = paper + rng.uniform(
        0.2, 0.5, (n, 3, 1, 1)
    )  # always lighter: there are few examples to learn from
    ramp = np.linspace(-1, 1, 32)
    shade = (
        rng.uniform(-0.12, 0.12, (n, 1, 1, 1)) * ramp
        + rng.uniform(-0.12, 0.12, (n, 1, 1, 1)) * ramp[:, None]
    )
    image = paper + ink * (colour - paper) + shade + rng.normal(0, 0.05, (n, 3, 32, 32))
    return np.uint8(np.clip(image, 0, 1) * 255), digits


# --------------------------------------------------------------------------------------------- formats


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


# ------------------------------------------------------------------------------------------------ sets


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


class _Parser(argparse.ArgumentParser):
    def error(self, message):  # one line, without the usage
        self.exit(2, f"sample_data: {message}\n")


def main(arguments=None):
    parser = _Parser(
        prog="python -m utilities.sample_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "dir", metavar="DIR", type=Path, help="the data folder to make or to complete"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed draws other digits (default 0)"
    )
    options = parser.parse_args(arguments)
    try:
        ensure_sample(options.dir, seed=options.seed)
    except OSError as error:
        parser.error(f"cannot write {options.dir} ({error.strerror or error}): give another folder")
    except ValueError as error:
        parser.error(" ".join(str(error).splitlines()))
    print(f"the generated sample of mnist, cifar10 and SVHN is in {options.dir}")


if __name__ == "__main__":
    sys.exit(main())
