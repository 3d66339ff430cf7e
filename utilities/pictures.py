"""What all pictures have in common: matplotlib, files, colours, lines, labels at their ends."""

import io
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from ending import importing
from files import write_named
from settings import FORMAT_ARGUMENTS

# Of a format everywhere: distinct in grey as well, by lightness, dash and marker.
COLOURS = (
    *("#000000", "#009e73", "#e08a00", "#0060b0", "#b03060", "#7a5195"),
    *("#4aa3df", "#7f6a00", "#6e6e6e", "#c04a00", "#c060a0"),
)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (4, 1.5, 1, 1.5)), "-", (0, (1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
PALEST = 0.5  # share of white in the colour of the last of several runs of a format
FONT_SIZE = 9  # points; a README shows a picture of 8 inches at its full width
WIDTH = 8.0  # inches
FEW_DECADES = 200  # an axis that spans less has numbers between its decades


@dataclass(frozen=True)
class Style:
    """How a line is drawn; `text` is the colour of its name, never pale."""

    colour: Any
    dash: Any
    marker: str
    text: str = "#000000"


def styles(formats: Sequence[str]) -> list[Style]:
    """Of lines of these formats: one colour a format, paler with each further line of it."""
    known = list(FORMAT_ARGUMENTS)
    result = []
    for i, name in enumerate(formats):
        before = formats[:i].count(name)
        white = PALEST * before / max(1, formats.count(name) - 1)
        kind = known.index(name)
        result.append(
            Style(
                mixed(COLOURS[kind % len(COLOURS)], white),
                DASHES[(kind + before) % len(DASHES)],
                MARKERS[(kind + before) % len(MARKERS)],
                COLOURS[kind % len(COLOURS)],
            )
        )
    return result


def mixed(colour: str, white: float) -> tuple[float, ...]:
    """A colour, "#rrggbb", with so much white in it, as three numbers from 0 to 1."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return tuple(part + white * (1 - part) for part in parts)


# ---------------------------------------------------------------------------- matplotlib


def load_matplotlib() -> Any:
    """matplotlib, drawing into files, whatever a notebook has put into the environment.

    MissingPackage if there is none.
    """
    os.environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells where its fonts are kept
    with importing():
        import matplotlib

        matplotlib.use("agg")
    return matplotlib


def pyplot() -> Any:
    """matplotlib.pyplot, set up so that the same picture is the same file.

    Names of folders are text: a $ in them begins no formula. Nothing of a matplotlibrc counts, as
    that of the current folder, which may have come with the runs.
    """
    load_matplotlib()
    with importing():
        import matplotlib.pyplot as plt

    plt.rcdefaults()
    plt.rcParams |= {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": FONT_SIZE,
        "font.size": FONT_SIZE,
        "legend.frameon": False,
        "svg.hashsalt": "figures",
        "text.parse_math": False,
    }
    return plt


def save(figure: Any, *paths: Path) -> None:
    """Write a figure, each file whole or not at all, and be done with it."""
    contents = [compact(figure, path.suffix) for path in paths]
    pyplot().close(figure)
    for path, content in zip(paths, contents, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_named(path, partial(write_all, content))


def write_all(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def compact(figure: Any, suffix: str) -> bytes:
    """As `rendered`, a PNG with 256 colours at most: a third of the size."""
    content = rendered(figure, suffix)
    if suffix != ".png":
        return content
    with importing():
        from PIL import Image
    small = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").quantize(256).save(small, "png", optimize=True)
    return small.getvalue()


def rendered(figure: Any, suffix: str) -> bytes:
    """A picture file of a figure; the same figure is the same file."""
    matplotlib = load_matplotlib()
    kind = suffix[1:]
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "figures"}), warnings.catch_warnings():
        # A letter that no font has, in the name of a folder, is drawn as a box.
        warnings.filterwarnings("ignore", r"Glyph \d+ ")
        figure.savefig(content, format=kind, dpi=150, metadata=undated.get(kind))
    return content.getvalue()


# ------------------------------------------------------------------------- lines and axes


def plot(axes: Any, x: np.ndarray, y: np.ndarray, **how: Any) -> Any:
    """A line with gaps where y is NaN; points that have no neighbour get a marker."""
    there = np.concatenate([[False], np.isfinite(y), [False]])
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    marker = {"marker": ".", "markevery": list(np.flatnonzero(alone))} if alone.any() else {}
    return axes.plot(x, y, **(marker | how))[0]


def whole_numbers(axis: Any, most: int = 9) -> None:
    """An axis without halves of epochs, or of bits, and at most so many parts."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def logarithmic(axes: Any) -> None:
    """A logarithmic y axis with plain numbers, also between those of decades if it has few."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    within_one = high < 10 * low
    axes.yaxis.set_minor_locator(LogLocator(subs=(1.5, 2, 3, 5, 7) if within_one else (2, 5)))
    many = high > FEW_DECADES * low
    axes.yaxis.set_minor_formatter(NullFormatter() if many else FormatStrFormatter("%g"))


@dataclass(frozen=True)
class End:
    """Where a line ends, in its axes' numbers, and what is to be read there."""

    x: float
    y: float
    text: str
    colour: Any


def label_ends(axes: Any, ends: Sequence[End], height: float, margin: bool = True) -> None:
    """Write what lines are to the right of their ends, as far apart as letters are high.

    Nothing that changes the limits of the axes may follow.

    Parameters
    ----------
    height
        Of the axes, in inches.
    margin
        Whether all stand in the margin, and not where a line ends.
    """
    axes.get_xlim(), axes.get_ylim()  # matplotlib finds them when they are asked for
    to_axes = axes.transData + axes.transAxes.inverted()
    places = np.array([to_axes.transform((end.x, end.y)) for end in ends]).reshape(-1, 2)
    heights = spread(places[:, 1].clip(0, 1), 1.25 * FONT_SIZE / 72 / height)
    for end, x, y in zip(ends, places[:, 0], heights, strict=True):
        axes.annotate(
            end.text,
            (end.x, end.y),
            (1.03 if margin else x + 0.02, y),
            textcoords="axes fraction",
            color=end.colour,
            va="center",
            annotation_clip=False,
            bbox=None if margin else {"color": "white", "pad": 0.5},
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": end.colour,
                "linewidth": 0.4,
                "shrinkA": 1,
                "shrinkB": 2,
            },
        )


def spread(places: np.ndarray, gap: float) -> np.ndarray:
    """Places moved as little as needed to be at least a gap apart, in their order."""
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    free = places[order] - steps
    up = np.maximum.accumulate(free)
    down = np.minimum.accumulate(free[::-1])[::-1]
    result = np.empty(len(places))
    result[order] = (up + down) / 2 + steps
    return result
