"""The first layer's filters of a run, as tiles."""

from pathlib import Path
from typing import Any

import numpy as np

from errors import RunError
from files import load_npz
from records.folder import RunFolder
from utilities.outcomes import Outcome
from utilities.pictures import pyplot

PICTURE_SIDE = 28  # of what a dense first layer sees
MOST = 400  # tiles
USUAL = 60
SCALES = ("one", "each")
PIXELS = 780  # across, about
LEVELS = 32  # shades; more are not seen, and make large files
BEYOND = 0.005  # share of the weights that are white or black on one scale for all


def first_filters(folder: Path) -> np.ndarray:
    """First-layer weights at the best epoch, float64 (filters, channels, rows, columns).

    RunError if they are not there, or no pictures.
    """
    path = RunFolder(folder).best_path
    W = load_npz(path).get("layer0/W")
    if W is None or not is_first_layer(W):
        raise RunError(f"{path} does not hold the filters of a first layer")
    if W.ndim == 2:
        W = W.T.reshape(-1, 1, PICTURE_SIDE, PICTURE_SIDE)
    return W.astype("float64")


def is_first_layer(W: np.ndarray) -> bool:
    """Whether weights can be drawn as pictures."""
    if W.dtype.kind != "f" or not W.size or not np.isfinite(W).all():
        return False
    return W.ndim == 4 and W.shape[1] in (1, 3) or W.ndim == 2 and len(W) == PICTURE_SIDE**2


def white_from(W: np.ndarray) -> float:
    """The weight that is white on one scale for all: few are larger."""
    return float(np.quantile(np.abs(W), 1 - BEYOND))


def tile(W: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Filters (filters, channels, rows, columns) as one picture, float64 (rows, columns, 3).

    Grey is 0, white and black what is at least as large as `largest`; None: each filter's own
    largest weight.
    """
    filters = W.transpose(0, 2, 3, 1).astype("float64")
    most = np.abs(filters).max(axis=(1, 2, 3), keepdims=True) if largest is None else largest
    filters = (0.5 + filters / (2 * np.maximum(most, 1e-12))).clip(0, 1)
    filters = np.round(filters * LEVELS) / LEVELS
    count, rows, columns, _ = filters.shape
    across = int(np.ceil(np.sqrt(1.5 * count)))
    down = -(-count // across)
    picture = np.ones((down * (rows + 1) - 1, across * (columns + 1) - 1, 3))
    for i, image in enumerate(filters):
        top = i // across * (rows + 1)
        left = i % across * (columns + 1)
        picture[top : top + rows, left : left + columns] = image
    return picture


def filters(outcome: Outcome, count: int = USUAL, scale: str = "one") -> Any:
    """The first so many filters of the first layer, in colour if they see colours."""
    W = first_filters(outcome.folder)
    shown = W[:count]
    largest = white_from(shown) if scale == "one" else None
    picture = tile(shown, largest)
    rows, columns, _ = picture.shape
    width = max(1, PIXELS // columns) * columns / 150  # a whole number of pixels for a weight
    height = width * rows / columns
    plt = pyplot()
    figure = plt.figure(figsize=(width + 0.2, height + 0.5))
    place = (0.1 / (width + 0.2), 0.1 / (height + 0.5))
    size = (width / (width + 0.2), height / (height + 0.5))
    axes = figure.add_axes((*place, *size))
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    how = "each on its own scale"
    if largest is not None:
        how = f"white from {largest:.2g}, black from {-largest:.2g} on"
    number = f"the first {len(shown)} of {len(W)}" if len(shown) < len(W) else f"all {len(W)}"
    axes.set_title(f"{outcome.label}\n{number} filters; grey 0, {how}", loc="left")
    return figure
