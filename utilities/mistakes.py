"""The mistakes of a network, as a tiled picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np

ACROSS = 8
MOST = 40  # mistakes that are shown


def draw(pictures: np.ndarray, captions: Sequence[str], title: str) -> Any:
    """A figure of pictures, each under its caption.

    Parameters
    ----------
    pictures
        Float (n, rows, columns, 1 or 3), 0..1.
    """
    from matplotlib.figure import Figure

    down = max(1, -(-len(pictures) // ACROSS))
    figure = Figure(figsize=(9.6, 1.5 * down + 0.5), layout="constrained")
    axes = figure.subplots(down, ACROSS, squeeze=False)
    figure.suptitle(title if len(pictures) else f"{title}: none", fontsize="medium")
    for place in axes.flat:
        place.set_axis_off()
    for place, picture, caption in zip(axes.flat, pictures, captions, strict=False):
        grey = picture.shape[2] == 1
        shown = picture[:, :, 0] if grey else picture
        place.imshow(shown, cmap="gray" if grey else None, vmin=0, vmax=1)
        place.set_title(caption, fontsize=7.5, pad=3)
    return figure


def captions(
    rows: np.ndarray, labels: np.ndarray, outputs: np.ndarray, names: Sequence[str]
) -> list[str]:
    """Above each mistake: class, what it was taken for, that output, its number."""
    return [
        f"{names[labels[row]]} → {names[outputs[row].argmax()]}\n{outputs[row].max():.3f}  #{row}"
        for row in rows
    ]
