"""The paper's figures, from run folders."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from settings import NUMBERS, Settings
from tasks import TASKS
from utilities.outcomes import Outcome, by_settings, collect, mean_and_deviation
from utilities.pictures import STYLES, label_decades, pyplot, save


@dataclass(frozen=True)
class Figure:
    """What a figure of the paper is drawn against.

    Parameters
    ----------
    swept
        The setting in which the points of a line differ.
    axis
        Its name in the figure.
    common
        What every run in it has.
    percent
        Whether the axis is in percent.
    """

    swept: str
    axis: str
    common: dict[str, tuple]
    percent: bool = False

    def takes(self, settings: Settings) -> bool:
        """Whether a run belongs into it."""
        return all(getattr(settings, name) in values for name, values in self.common.items())


FIGURES = {
    "fig1": Figure(
        "initial_range",
        "radix point position (integer bits)",
        {"format": ("FXP",), "prop_bits": (31,), "up_bits": (31,)},
    ),
    "fig2": Figure(
        "prop_bits",
        "bit-width of the propagations, without sign",
        {"format": ("FXP", "DFXP"), "up_bits": (31,)},
    ),
    "fig3": Figure(
        "up_bits",
        "bit-width of the parameter updates, without sign",
        {"format": ("FXP", "DFXP"), "prop_bits": (31,)},
    ),
    "fig4": Figure(
        "max_overflow",
        "maximum overflow rate (%)",
        {"format": ("DFXP",)},
        percent=True,
    ),
}
# What settings are called in the labels of lines.
WORDS = {
    "initial_range": "range",
    "prop_bits": "propagation bits",
    "up_bits": "update bits",
    "range_update_frequency": "update every",
    "max_overflow": "overflow",
    "init_epochs": "init epochs",
}
LOGARITHMIC = 5  # times the error of FLP, beyond which an axis is


@dataclass(frozen=True)
class Point:
    """A point of a line: mean test error over that of FLP, deviation over the seeds."""

    x: float
    mean: float
    deviation: float
    runs: int


Lines = dict[Settings, list[Point]]


def lines_of(figure: Figure, outcomes: Iterable[Outcome]) -> tuple[Lines, list[str]]:
    """The lines of a figure, by what their runs share; and tasks that lack FLP runs.

    The error of FLP is that of runs trained as long on the same task.
    """
    groups = by_settings(outcome for outcome in outcomes if outcome.complete)
    baselines = {
        (s.task, s.epochs, s.streams): statistics.mean(outcome.error for outcome in group)
        for s, group in groups.items()
        if s.format == "FLP"
    }
    lines: Lines = {}
    without = set()
    for settings, group in groups.items():
        if not figure.takes(settings):
            continue
        baseline = baselines.get((settings.task, settings.epochs, settings.streams))
        if baseline is None:
            without.add(settings.task)
            continue
        mean, deviation = mean_and_deviation([outcome.error / baseline for outcome in group])
        point = Point(getattr(settings, figure.swept), mean, deviation, len(group))
        own: dict[str, Any] = {figure.swept: 1}  # a value that every number may have
        lines.setdefault(replace(settings, **own), []).append(point)
    whole = {
        rest: sorted(points, key=lambda point: point.x)
        for rest, points in lines.items()
        if len(points) > 1
    }
    return whole, sorted(without)


def draw(
    folders: Iterable[Path], out: Path, sample: bool = False, names: Iterable[str] = FIGURES
) -> tuple[list[Path], list[str]]:
    """The figures that there are runs for, out/fig1.png, .svg, ...; and remarks."""
    outcomes, remarks = collect(folders, sample)
    remarks += [
        f"{o.folder} was stopped after epoch {o.last['epoch']} of {o.epochs}, left out"
        for o in outcomes
        if not o.complete
    ]
    paths = []
    for name in names:
        figure = FIGURES[name]
        data = {o.data for o in outcomes if o.complete and figure.takes(o.settings)}
        if len(data) > 1:
            remarks.append(f"{name}: its runs are on different data; draw those of each apart")
            continue
        shown = [o for o in outcomes if o.data in data]
        lines, without = lines_of(figure, shown)
        remarks += [f"{name}: no FLP run of {task}, as long, to compare with" for task in without]
        if not lines:
            remarks.append(
                f"{name}: there are not two runs to draw against the {FIGURES[name].axis}"
            )
            continue
        files = [out / f"{name}{suffix}" for suffix in (".png", ".svg")]
        draw_one(figure, lines, files, title(figure, shown))
        paths += files
    return paths, remarks


def title(figure: Figure, outcomes: Iterable[Outcome]) -> str:
    """In what the runs of a figure are not those of the paper; "" if in nothing."""
    runs = [o for o in outcomes if o.complete and figure.takes(o.settings)]
    parts = [f"{data}, not the paper's data" for data in sorted({o.data for o in runs} - {""})]
    for task, epochs in sorted({(o.settings.task, o.epochs) for o in runs}):
        if epochs != TASKS[task].epochs:
            name = task.replace("_", " ")
            parts.append(f"{name}: {epochs} epochs instead of {TASKS[task].epochs}")
    if still := sum(o.ranges_stood_still for o in runs):
        following = sum(o.settings.format == "DFXP" for o in runs)
        parts.append(f"too short epochs: ranges never moved in {still} of {following} DFXP runs")
    return "\n".join(parts)


def draw_one(figure: Figure, lines: Lines, files: list[Path], heading: str = "") -> None:
    """One figure, into several files."""
    plt = pyplot()
    canvas, axes = plt.subplots(figsize=(6.0, 4.0), layout="constrained")
    scale = 100 if figure.percent else 1
    for i, (rest, points) in enumerate(lines.items()):
        colour, line, marker = STYLES[i % len(STYLES)]
        deviation = [point.deviation for point in points]
        axes.errorbar(
            [scale * point.x for point in points],
            [point.mean for point in points],
            deviation if any(deviation) else None,
            color=colour,
            linestyle=line,
            marker=marker,
            markersize=4,
            capsize=2,
            label=line_label(rest, figure, lines),
        )
    axes.axhline(1, color="0.6", linewidth=0.8)
    axes.set(xlabel=figure.axis, ylabel="test error / test error of FLP")
    every = [point for points in lines.values() for point in points]
    # Beside the errors of a network that learns nothing the rest would be a flat line.
    if max(point.mean for point in every) > LOGARITHMIC:
        axes.set_yscale("log")
        label_decades(plt, axes.yaxis)
    if figure.percent:
        smallest = min((point.x for point in every if point.x), default=1e-6)
        axes.set_xscale("symlog", linthresh=scale * smallest)
    else:
        axes.xaxis.set_major_locator(plt.matplotlib.ticker.MaxNLocator(integer=True))
    axes.set_title(heading, fontsize="small")
    axes.legend()
    save(plt, canvas, *files)


def line_label(rest: Settings, figure: Figure, lines: Iterable[Settings]) -> str:
    """What tells a line from others: task, format, and numbers that differ."""
    words = [rest.format]
    if len({other.task for other in lines}) > 1:
        words = [rest.task.replace("_", " "), rest.format]
    alike = [other for other in lines if other.format == rest.format]
    for name in (*(number.name for number in NUMBERS), "epochs", "streams"):
        if name != figure.swept and len({getattr(other, name) for other in alike}) > 1:
            words.append(f"{WORDS.get(name, name)} {getattr(rest, name)}")
    return ", ".join(words)
