"""The picture of test errors against a number: lines, the spread over seeds, the paper's knees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from utilities.outcomes import mean_and_deviation
from utilities.pictures import (
    FONT_SIZE,
    WIDTH,
    End,
    label_ends,
    logarithmic,
    pyplot,
    styles,
    whole_numbers,
)

LOGARITHMIC = 3  # times the least error, beyond which an axis is
HEIGHT = 3.6  # inches
FEW = 3  # lines whose names find a place in the picture


@dataclass(frozen=True)
class Point:
    """A point of a line: the test errors of its seeds, in % or over that of FLP."""

    x: float
    errors: list[float]

    @property
    def mean(self) -> float:
        return mean_and_deviation(self.errors)[0]

    @property
    def deviation(self) -> float:
        """The sample standard deviation over the seeds, 0 of one."""
        return mean_and_deviation(self.errors)[1]


@dataclass(frozen=True)
class Line:
    """Runs of a format that differ in one number."""

    format: str
    name: str
    points: list[Point]


@dataclass(frozen=True)
class Knee:
    """Where the paper has a format as good as floats."""

    format: str
    at: float


def picture(
    lines: Sequence[Line],
    axis: str,
    heading: str,
    knees: Sequence[Knee] = (),
    percent: bool = False,
    spread: float | None = None,
) -> Any:
    """The figure.

    Parameters
    ----------
    percent
        Whether the axis is in percent, and logarithmic but for 0.
    spread
        The relative standard deviation of FLP's errors; None if they are not divided by those.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(0.8 * WIDTH, HEIGHT + 0.6), layout="constrained")
    ends = []
    for line, style in zip(lines, styles([line.format for line in lines]), strict=True):
        draw_line(axes, line, style)
        last = line.points[-1]
        ends.append(End(last.x, last.mean, line.name, style.text))
    set_scales(axes, lines, percent)
    if spread is not None:
        draw_floats(axes, spread)
    for knee in knees:
        draw_knee(axes, knee)
    axes.set_xlabel(axis)
    axes.set_ylabel("test error (%)" if spread is None else "test error / test error of FLP")
    axes.set_title("\n".join(filter(None, [heading, seeds(lines)])), loc="left")
    label_ends(axes, ends, HEIGHT, margin=len(ends) > FEW)
    return figure


def draw_line(axes: Any, line: Line, style: Any) -> None:
    """Means, bars of a standard deviation, and the errors of single seeds behind them."""
    x = [point.x for point in line.points]
    deviations = [point.deviation for point in line.points]
    axes.errorbar(
        x,
        [point.mean for point in line.points],
        deviations if any(deviations) else None,
        color=style.colour,
        linestyle=style.dash,
        marker=style.marker,
        markersize=4,
        capsize=2,
    )
    for point in line.points:
        if len(point.errors) > 1:
            n = len(point.errors)
            axes.plot([point.x] * n, point.errors, "_", color=style.colour, alpha=0.5)


def set_scales(axes: Any, lines: Sequence[Line], percent: bool) -> None:
    """Logarithms where the rest would else be a flat line; whole numbers below."""
    means = [point.mean for line in lines for point in line.points]
    # Beside the errors of a network that learns nothing the rest would be a flat line.
    if 0 < min(means) < max(means) / LOGARITHMIC:
        logarithmic(axes)
    xs = sorted({point.x for line in lines for point in line.points})
    if percent:
        axes.set_xscale("symlog", linthresh=next((x for x in xs if x), 1e-4))
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.set_xticks([], minor=True)
        axes.set_xlim(left=0 if xs[0] == 0 else None)
    else:
        whole_numbers(axes.xaxis)


def draw_floats(axes: Any, spread: float) -> None:
    """The error of FLP, and its standard deviation if it is known."""
    axes.axhline(1, color="0.45", linewidth=1, zorder=0)
    if spread:
        axes.axhspan(1 - spread, 1 + spread, color="0.9", zorder=-1)
    axes.annotate(
        "FLP",
        (0.0, 1),
        (3, 2),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color="0.3",
        fontsize=FONT_SIZE - 1,
    )


def draw_knee(axes: Any, knee: Knee) -> None:
    """A line where the paper has it."""
    (style,) = styles([knee.format])
    axes.axvline(knee.at, color=style.colour, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    axes.annotate(
        f"paper: {knee.at:g}",
        (knee.at, 1),
        (3, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        color=style.colour,
        fontsize=FONT_SIZE - 1,
    )


def seeds(lines: Sequence[Line]) -> str:
    """How many runs a point is the mean of."""
    counts = sorted({len(point.errors) for line in lines for point in line.points})
    if counts == [1]:
        return "one seed"
    words = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"means of {words} seeds; bars: standard deviation, ticks: single seeds"
