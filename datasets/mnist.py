"""MNIST: four idx files, compressed or not, in data folder/mnist or another of the places.

Features are pixel/255 in float32, in file order; the last rows of the training files
are valid. `load_own` reads a set of somebody's own in files of the same form and names.
Source: docs/published_program.md, "Data".
"""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.manifest import MOST_EXAMPLES
from datasets.own import OwnSet, marked
from datasets.parts import CLASSES, ArrayPart, Dataset, Labels, Pixels
from datasets.reading import unreadable
from datasets.source import Source, paths
from errors import DataError
from files import file_md5, md5, plain

IMAGE = (28, 28)
GZIP = b"\x1f\x8b"  # what a compressed file begins with, whatever its name


def spellings(name: str) -> Sequence[str]:
    """The names that an idx file may have: as published, as on Kaggle, in a folder of its own."""
    dotted = name.replace("-idx", ".idx")
    return f"{name}.gz", name, f"{dotted}.gz", dotted, f"{name}/{name}", f"{name}/{dotted}"


OFFICIAL = Source(
    data_set="MNIST",
    folder=Path("mnist"),
    names=(  # images and labels of train and valid, images and labels of test
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ),
    sums={  # of the published .gz files and of what they decompress to
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    split={"train": 50_000, "valid": 10_000, "test": 10_000},
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    # torchvision's; whatever is called MNIST; and --data names one of these folders itself
    places=paths("MNIST/raw", "mnist/MNIST/raw", "MNIST", "mnist/raw", "raw", ""),
    ways=spellings,
)


def load(folder: Path, sample: bool = False) -> Dataset:
    """MNIST, or its sample, from a data folder.

    Raises
    ------
    DataError
        A file is missing and cannot be had, or is not the file it should be.
    """
    source = OFFICIAL.under(folder, sample)
    source.say_where()
    return read(source)


def load_own(own: OwnSet) -> Dataset:
    """A set of somebody's own, such as Fashion-MNIST, from its folder.

    Raises
    ------
    DataError
        A file is missing, or of another form; or the set is too small.
    """
    source = OFFICIAL.of_own(own)
    source.say_where()
    return read(source)


def read(source: Source) -> Dataset:
    """The data set in the idx files of a Source; missing ones are downloaded.

    Raises
    ------
    DataError
        As by `load`.
    """
    source.fetch(source.missing(source.names), suffix=".gz")
    arrays: dict[str, Any] = {}
    identity = {}
    for name, shape in zip(source.names, (IMAGE, (), IMAGE, ()), strict=True):
        path, content = _content(source, name)
        arrays[name] = parse_idx(path, content, shape)
        identity[name] = md5(content)
    images, labels, test_images, test_labels = (arrays[name] for name in source.names)
    n = _count(source, source.names[:2], images, labels)
    tests = _count(source, source.names[2:], test_images, test_labels)
    split = source.split
    if source.own:
        split = source.own.split(split, n, tests)
        identity |= marked(split)
    else:
        _check_sizes(source, source.names[0], n, ("train", "valid"))
        _check_sizes(source, source.names[2], tests, ("test",))
    return Dataset(
        source.name,
        train=_part(images[: split["train"]], labels[: split["train"]]),
        valid=_part(images[n - split["valid"] :], labels[n - split["valid"] :]),
        test=_part(test_images, test_labels),
        identity=identity,
    )


def _part(images: Pixels, labels: Labels) -> ArrayPart:
    return ArrayPart(images.astype(np.float32) / np.float32(255), labels)


def _count(source: Source, files: Sequence[str], images: Pixels, labels: Labels) -> int:
    """How many examples two files have; DataError unless images and labels are as many."""
    if len(images) != len(labels):
        raise source.wrong(
            f"{source.folder}: {files[0]} has {len(images)} images but {files[1]} has "
            f"{len(labels)} labels"
        )
    return len(images)


def _check_sizes(source: Source, file: str, found: int, parts: Sequence[str]) -> None:
    """DataError unless the images of a file are as many as the parts that it holds."""
    announced = sum(source.split[part] for part in parts)
    if found != announced:
        raise source.wrong(
            f"{source.folder}: {file} has {found} images, not the {announced} of "
            f"{' + '.join(parts)}"
        )


def _content(source: Source, name: str) -> tuple[Path, bytes]:
    """(path, uncompressed content) of a file with the right sum, in the order of its names.

    Twice as much as all parts need together is the most that is read or unpacked.
    """
    wrong = None
    examples = MOST_EXAMPLES if source.own else 2 * sum(source.split.values())
    most = math.prod(IMAGE) * examples
    for path in source.there(name):
        try:
            known = file_md5(path) == source.sums.get(path.name)
            content = _unpacked(path, most)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            wrong = wrong or f"{path} is truncated or corrupted ({error})"
            continue
        except OSError as error:
            raise unreadable(path, error) from error
        # the content's sum, too: somebody else may have compressed it
        if source.own or known or md5(content) == source.sums.get(name):
            return path, content
        wrong = wrong or f"{path} {_what_it_is(source, name, path, content)}"
    raise source.wrong(str(wrong))


def _unpacked(path: Path, most: int) -> bytes:
    """The content, or one byte more than `most` of it if there is more."""
    with open(path, "rb", opener=plain) as file:
        packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        with gzip.open(file) if packed else file as content:
            return content.read(most + 1)


def _what_it_is(source: Source, name: str, path: Path, content: bytes) -> str:
    """What to say of a file that is another one than its name says."""
    for other in source.names:
        if source.sums.get(other) == md5(content):
            return f"has the content of {other}"
    if source.sample:
        return "is not the sample file (its MD5 differs)"
    try:
        parse_idx(path, content, IMAGE if "images" in name else ())
    except DataError:
        return "is not the official file (its MD5 differs), but truncated, corrupted or another"
    return f"is not the official file (its MD5 differs), but {source.of_another_set()}"


def parse_idx(path: Path, content: bytes, shape: tuple[int, ...]) -> Pixels | Labels:
    """What an idx file of bytes holds.

    Parameters
    ----------
    path
        Its name in messages.
    shape
        That of an image; () if the file has labels.

    Returns
    -------
    uint8 (n, features), or labels uint8 (n,)

    Raises
    ------
    DataError
        It is no such file, or has labels other than 0..9.
    """
    magic = 0x0800 + 1 + len(shape)
    header = 8 + 4 * len(shape)
    if len(content) < header or struct.unpack(">i", content[:4])[0] != magic:
        raise DataError(
            f"{path} does not begin like an idx file (magic number {magic}): give one that does"
        )
    n, *dims = struct.unpack(f">{1 + len(shape)}i", content[4:header])
    if tuple(dims) != shape or len(content) != header + n * int(np.prod(shape)):
        raise DataError(
            f"{path} announces {n} items of {tuple(dims)} but has {len(content) - header} bytes "
            f"for items of {shape}: give a file of these"
        )
    array = np.frombuffer(content, np.uint8, offset=header)
    if not shape and n and array.max() >= CLASSES:
        raise DataError(
            f"{path} has the label {array.max()}: give a set with labels 0..{CLASSES - 1}"
        )
    return array.reshape(n, math.prod(shape)) if shape else array
