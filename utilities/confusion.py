"""Which classes a network takes for which: as a table, and as a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np

DIGITS = tuple("0123456789")
NAMES = {
    "mnist": DIGITS,
    "cifar10": (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    "svhn": tuple("1234567890"),  # the class of the digit 0 is the last
}


def class_names(data_set: str, others: bool) -> Sequence[str]:
    """What the classes are, in their order; those of a sample, or of an own set, are digits."""
    return DIGITS if others and data_set == "cifar10" else NAMES[data_set]


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often a class (row) was taken for another (column), int (classes, classes)."""
    pairs = np.bincount(labels * classes + predicted, minlength=classes**2)
    return pairs.reshape(classes, classes)


def table(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Examples and errors of each class, and what its examples were taken for."""
    short = max(map(len, names)) == 1
    rows = list(names) if short else [f"{k} {name}" for k, name in enumerate(names)]
    heads = list(names) if short else [str(k) for k in range(len(names))]
    first = max(len("class"), *map(len, rows))
    width = max(3, len(str(matrix.max()))) + 1
    columns = "".join(f"{head:>{width}}" for head in heads)
    lines = [f"{'class':<{first}} examples  wrong    error   taken for{columns}"]
    for k, name in enumerate(rows):
        examples = int(matrix[k].sum())
        wrong = examples - int(matrix[k, k])
        error = f"{100 * wrong / examples:.2f} %" if examples else "-"
        counts = "".join(f"{count or '.':>{width}}" for count in matrix[k].tolist())
        lines.append(f"{name:<{first}} {examples:>8} {wrong:>6} {error:>8}{'':12}{counts}")
    return "\n".join(lines)


def draw(matrix: np.ndarray, names: Sequence[str], title: str) -> Any:
    """The matrix as a figure: darker where more of a class's examples are."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    shares = 100 * matrix / matrix.sum(axis=1, keepdims=True).clip(1)
    figure = Figure(figsize=(6.8, 6.0), layout="constrained")
    axes = figure.subplots()
    # A good network's mistakes are few: on a linear scale they would all be white.
    scale = PowerNorm(0.4, vmin=0, vmax=100)
    image = axes.imshow(shares, cmap="Blues", norm=scale)
    for row, column in np.argwhere(matrix).tolist():
        axes.text(
            column,
            row,
            str(matrix[row, column]),
            ha="center",
            va="center",
            fontsize="small",
            color="white" if scale(shares[row, column]) > 0.55 else "black",
        )
    axes.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 1 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="taken for", ylabel="class")
    axes.set_title(title, fontsize="medium")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="% of the class's examples")
    bar.set_ticks([0, 1, 5, 20, 50, 100], labels=["0", "1", "5", "20", "50", "100"])
    bar.outline.set_visible(False)
    return figure
