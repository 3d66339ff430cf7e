"""How examples look: the pixels of the official files, where the network saw others.

MNIST is trained on its pixels. CIFAR10 is whitened and SVHN normalised before they are
trained on; their examples are looked up in the files that they were made of.
"""

from pathlib import Path

import numpy as np

from datasets import Dataset, OwnSet, cifar10, svhn
from datasets.mat import read_mat
from datasets.source import Source
from datasets.svhn_source import SVHNSource
from datasets.svhn_split import test_rows
from errors import DataError

SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "svhn": (3, 32, 32)}


def pixels(
    data_set: str,
    data: Dataset,
    part: str,
    rows: np.ndarray,
    folder: Path,
    sample: bool,
    own: OwnSet | None = None,
) -> tuple[np.ndarray, str | None]:
    """Pictures of some examples of a part, and what is to be said of them.

    Parameters
    ----------
    data
        As the network has it, read from `folder`.
    rows
        Which examples.
    own
        The set of somebody's own that the data are, if they are one.

    Returns
    -------
    pictures
        Float (examples, rows, columns, 1 or 3), 0..1.
    remark
        That these are not the official pixels, and why; None if they are.
    """
    examples = getattr(data, part)
    read = [examples.read(row, row + 1) for row in rows.tolist()]
    x = np.concatenate([x for x, _ in read]) if read else np.zeros((0, examples.n_features))
    labels = [int(t.argmax()) for _, t in read]
    if data_set == "mnist":
        return pictures(x, data_set), None
    find, module = {
        "cifar10": (cifar10_pixels, cifar10),
        "svhn": (svhn_pixels, svhn),
    }[data_set]
    try:
        source = module.own_source(own) if own else module.OFFICIAL.under(folder, sample)
        found, their_labels = find(source, part, len(data.valid), rows)
        if their_labels.tolist() != labels:
            raise DataError("the files have other labels")
        return pictures(found / 255, data_set), None
    except DataError as error:
        return pictures(stretched(x), data_set), f"not the official pixels ({error})"


def pictures(x: np.ndarray, data_set: str) -> np.ndarray:
    """(n, features) -> (n, rows, columns, channels)."""
    return x.reshape(-1, *SHAPES[data_set]).transpose(0, 2, 3, 1)


def stretched(x: np.ndarray) -> np.ndarray:
    """Each example scaled from its least and largest value to 0..1."""
    low = x.min(axis=1, keepdims=True)
    high = x.max(axis=1, keepdims=True)
    return (x - low) / np.maximum(high - low, 1e-12)


def cifar10_pixels(
    source: Source, part: str, n_valid: int, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Uint8 (n, 3072) and labels of some examples; valid are the last ones."""
    x, labels, test_x, test_labels, _ = cifar10.read(source)
    if part == "test":
        return test_x[rows], test_labels[rows]
    rows = rows + (len(x) - n_valid if part == "valid" else 0)
    return x[rows], labels[rows]


def svhn_pixels(
    source: SVHNSource, part: str, n_valid: int, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Uint8 (n, 3072) and classes of some examples, found again through the split."""
    names = ["test"] if part == "test" else ["train", "extra"]
    files = [f"{name}_32x32.mat" for name in names if f"{name}_32x32.mat" in source.names]
    read = [read_mat(source.folder / file, source.sums[file]) for file in files]
    labels = np.concatenate([labels for _, labels in read])
    if part == "test":
        order = test_rows(len(labels))
    else:
        more = read[1][1] if len(read) > 1 else labels[:0]
        order = source.rows(read[0][1], more)[part]
    images = [x for x, _ in read]
    starts = np.cumsum([0, *map(len, images)])
    wanted = order[rows]
    files_of = np.searchsorted(starts, wanted, side="right") - 1
    found = [images[k][row - starts[k]] for k, row in zip(files_of, wanted, strict=True)]
    return np.array(found, "uint8").reshape(-1, 3072), labels[wanted] - 1
