"""Small charts for a page of many runs, as SVG by hand: a tenth of the bytes of matplotlib's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utilities.pictures import spread
from utilities.report_html import Html, join, tag

# In the units of the drawing, about pixels.
WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 72, 20, 30
LETTER = 11  # height
MOST_POINTS = 200  # of a line


@dataclass(frozen=True)
class Series:
    """A line: values against epochs, with gaps where they are NaN.

    Parameters
    ----------
    pale
        Whether it stands behind the others, thin, and without a name.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    dash: str | None = None
    pale: bool = False


@dataclass(frozen=True)
class Scale:
    """Where the values from low to high are drawn."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if self.logarithmic:
            share = np.log(values / self.low) / math.log(self.high / self.low)
        else:
            share = (values - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> np.ndarray:
        from matplotlib.ticker import LogLocator, MaxNLocator

        if self.logarithmic:
            few = self.high < 200 * self.low
            locator = LogLocator(subs=(1, 2, 5) if few else (1,))
            places = np.asarray(locator.tick_values(self.low, self.high))
        else:
            whole = self.high - self.low >= 1
            places = np.asarray(MaxNLocator(most, integer=whole).tick_values(self.low, self.high))
        inside: np.ndarray = places[(places >= self.low) & (places <= self.high)]
        return inside[:: -(-len(inside) // most)] if len(inside) else inside


def chart(
    title: str,
    series: Sequence[Series],
    limits: tuple[float, float],
    logarithmic: bool = False,
    limit: tuple[float, str] | None = None,
) -> Html:
    """Lines against the epoch, their names at their ends.

    Parameters
    ----------
    limits
        Of the values; what is beyond is drawn at the edge.
    limit
        A value to be marked, and its name.
    """
    ends = [s.x[-1] for s in series if len(s.x)]
    first = min((s.x[0] for s in series if len(s.x)), default=0.0)
    x = Scale(first, max([*ends, first + 1]), LEFT, WIDTH - RIGHT)
    y = Scale(*limits, HEIGHT - BOTTOM, TOP, logarithmic)
    parts = [tag("text", title, x=LEFT, y=12, class_="title"), frame(x, y)]
    if limit is not None and limits[0] <= limit[0] <= limits[1]:
        parts.append(mark(*limit, y))
    parts += [line(s, x, y) for s in series]
    parts.append(end_names([s for s in series if not s.pale], y))
    return tag(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title, class_="chart"
    )


def frame(x: Scale, y: Scale) -> Html:
    """Axes with their numbers."""
    parts = [
        tag("path", d=f"M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}", stroke="#333"),
        tag("text", "epoch", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 3, text_anchor="middle"),
    ]
    for value in x.ticks(5):
        place = short(float(x(value)))
        parts.append(tag("path", d=f"M{place} {HEIGHT - BOTTOM}v4", stroke="#333"))
        at = {"x": place, "y": HEIGHT - BOTTOM + 14}
        parts.append(tag("text", f"{value:g}", **at, text_anchor="middle"))
    for value in y.ticks(7):
        place = short(float(y(value)))
        parts.append(tag("path", d=f"M{LEFT} {place}H{WIDTH - RIGHT}", stroke="#e6e6e6"))
        parts.append(tag("text", f"{value:g}", x=LEFT - 4, y=place, dy=3.5, text_anchor="end"))
    return join(parts)


def mark(value: float, name: str, y: Scale) -> Html:
    """A line at a value, and what it is."""
    place = short(float(y(np.array(value))))
    path = tag("path", d=f"M{LEFT} {place}H{WIDTH - RIGHT}", stroke="#777")
    return join((path, tag("text", name, x=LEFT + 4, y=place, dy=-3)))


def line(series: Series, x: Scale, y: Scale) -> Html:
    """A line, in parts where it has gaps; a circle for a value without neighbours."""
    step = 1 if series.pale else -(-len(series.x) // MOST_POINTS)
    shown = np.unique(np.r_[np.arange(0, len(series.x), step), max(len(series.x) - 1, 0)])
    shown = shown[: len(series.x)]
    low, high = sorted((y.start, y.end))
    across = x(series.x[shown])
    up = y(series.y[shown].clip(y.low, None)).clip(low, high)
    there = np.isfinite(up)
    parts = np.split(np.arange(len(up)), np.flatnonzero(np.diff(there)) + 1)
    paths = []
    dots = []
    for part in parts:
        points = " ".join(f"{short(across[i])} {short(up[i])}" for i in part if there[i])
        if len(part) == 1 and points:
            place = {"cx": short(across[part[0]]), "cy": short(up[part[0]])}
            dots.append(tag("circle", **place, r=2, fill=series.colour))
        elif points:
            paths.append(f"M{points}")
    width, opacity = (0.7, 0.3) if series.pale else (1.5, None)
    path = tag(
        "path",
        d="".join(paths),
        stroke=series.colour,
        stroke_width=width,
        stroke_opacity=opacity,
        stroke_dasharray=series.dash,
    )
    return join([*([path] if paths else []), *dots])


def end_names(series: Sequence[Series], y: Scale) -> Html:
    """The names of lines at their last values, as far apart as letters are high."""
    known = [(s, s.y[np.isfinite(s.y)]) for s in series]
    known = [(s, values) for s, values in known if len(values)]
    last = np.array([values[-1] for _, values in known]).clip(y.low, y.high)
    places = spread(y(last), LETTER)
    return join(
        tag("text", s.name, x=WIDTH - RIGHT + 5, y=short(place), dy=3.5, style=f"fill:{s.colour}")
        for (s, _), place in zip(known, places, strict=True)
    )


def short(value: float) -> str:
    """A coordinate to a tenth."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
