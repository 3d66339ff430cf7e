"""Test errors against a number in which runs differ; the paper's figures are cases of it."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from settings import NUMBERS, Settings
from tasks import TASKS
from utilities.naming import names, task_name
from utilities.outcomes import (
    Baselines,
    Outcome,
    baseline,
    baselines_of,
    by_settings,
    collect,
    errors_of_seeds,
    mean_and_deviation,
    nothing,
)
from utilities.pictures import save
from utilities.swept_pictures import Knee, Line, Point, picture


@dataclass(frozen=True)
class Figure:
    """Runs that are drawn against a number of theirs.

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
    knees
        Where the paper has each format as good as floats.
    """

    swept: str
    axis: str
    common: dict[str, tuple] = field(default_factory=dict)
    percent: bool = False
    knees: dict[str, int] = field(default_factory=dict)

    def takes(self, settings: Settings) -> bool:
        """Whether a run belongs into it."""
        return self.swept in settings.numbers and all(
            getattr(settings, name) in values for name, values in self.common.items()
        )

    def place(self, settings: Settings) -> float:
        """Where a run stands on the axis."""
        return getattr(settings, self.swept) * (100 if self.percent else 1)


AXES = {
    "initial_range": "radix point position (integer bits)",
    "prop_bits": "bit-width of the propagations, without sign",
    "up_bits": "bit-width of the parameter updates, without sign",
    "range_update_frequency": "batches between two updates of the ranges",
    "max_overflow": "maximum overflow rate (%)",
    "init_epochs": "epochs that find the first ranges",
}
# Any number, by its name on the command line.
SWEPT = {
    number.argument: Figure(number.name, AXES[number.name], percent=number.kind is float)
    for number in NUMBERS
}
FIGURES = {
    "fig1": Figure(
        "initial_range",
        AXES["initial_range"],
        {"format": ("FXP",), "prop_bits": (31,), "up_bits": (31,)},
        knees={"FXP": 5},
    ),
    "fig2": Figure(
        "prop_bits",
        AXES["prop_bits"],
        {"format": ("FXP", "DFXP"), "up_bits": (31,)},
        knees={"FXP": 19, "DFXP": 9},
    ),
    "fig3": Figure(
        "up_bits",
        AXES["up_bits"],
        {"format": ("FXP", "DFXP"), "prop_bits": (31,)},
        knees={"FXP": 19, "DFXP": 11},
    ),
    "fig4": Figure("max_overflow", AXES["max_overflow"], {"format": ("DFXP",)}, percent=True),
}
SUFFIXES = (".png", ".svg")


Lines = dict[Settings, list[Point]]


def lines_of(figure: Figure, outcomes: Iterable[Outcome], floats: Baselines | None) -> Lines:
    """The lines of a figure, by what their runs share: those of two points at least.

    Parameters
    ----------
    floats
        What errors are divided by; runs of another task or length are left out. None: by nothing.
    """
    lines: Lines = {}
    groups = by_settings(outcome for outcome in outcomes if outcome.complete)
    for settings, group in groups.items():
        if not figure.takes(settings) or floats is not None and baseline(settings) not in floats:
            continue
        by = 1.0 if floats is None else statistics.mean(floats[baseline(settings)])
        point = Point(figure.place(settings), [error / by for error in errors_of_seeds(group)])
        own: dict[str, Any] = {figure.swept: 1}  # a value that every number may have
        lines.setdefault(replace(settings, **own), []).append(point)
    return {
        rest: sorted(points, key=lambda point: point.x)
        for rest, points in lines.items()
        if len(points) > 1
    }


def without_floats(figure: Figure, outcomes: Iterable[Outcome], floats: Baselines) -> list[str]:
    """The tasks of runs in a figure that no FLP runs, as long, can be compared with."""
    runs = [o.settings for o in outcomes if o.complete and figure.takes(o.settings)]
    return sorted({settings.task for settings in runs if baseline(settings) not in floats})


def papers_own(lines: Lines, figure: Figure) -> Lines:
    """Of each format the lines whose other numbers are the paper's; all, if there are none."""

    def published(rest: Settings) -> bool:
        paper = Settings.published(rest.task, rest.format)
        others = set(rest.numbers) - {figure.swept, "prop_bits", "up_bits"}
        return all(getattr(rest, name) == getattr(paper, name) for name in others)

    known = {rest.format for rest in lines if published(rest)}
    return {
        rest: points
        for rest, points in lines.items()
        if rest.format not in known or published(rest)
    }


def spread(lines: Lines, floats: Baselines) -> float:
    """The largest relative standard deviation of FLP errors that lines are divided by."""
    spreads = [mean_and_deviation(floats[baseline(rest)]) for rest in lines]
    return max((deviation / mean for mean, deviation in spreads if mean), default=0.0)


def draw(
    folders: Iterable[Path], out: Path, sample: bool = False, items: Iterable[str] = FIGURES
) -> tuple[list[Path], list[str]]:
    """The figures that there are runs for, out/fig1.png, .svg, ...; and remarks."""
    outcomes, remarks = collect(folders, sample)
    remarks = left_out(outcomes, remarks)
    paths = []
    for name in items if outcomes else ():
        drawn, said = figure_of(FIGURES[name], outcomes)
        remarks += [f"{name}: {remark}" for remark in said]
        if drawn is not None:
            files = [out / f"{name}{suffix}" for suffix in SUFFIXES]
            save(drawn, *files)
            paths += files
    return paths, remarks


def draw_swept(figure: Figure, folders: Iterable[Path], out: Path, sample: bool) -> list[str]:
    """Runs against any number, in one file; remarks.

    Errors in % where there are no FLP runs for all. RunError if there is nothing to draw.
    """
    outcomes, remarks = collect(folders, sample)
    drawn, said = figure_of(figure, outcomes, always=True)
    remarks = [*said, *left_out(outcomes, remarks)]
    if drawn is None:
        raise nothing("to draw", remarks)
    save(drawn, out)
    return remarks


def left_out(outcomes: Iterable[Outcome], remarks: Iterable[str]) -> list[str]:
    """What is in no figure, a line each."""
    stopped = [
        f"{o.folder} was stopped after epoch {o.last['epoch']} of {o.epochs}"
        for o in outcomes
        if not o.complete
    ]
    return [f"left out: {remark}" for remark in (*remarks, *stopped)]


def figure_of(
    figure: Figure, outcomes: Sequence[Outcome], always: bool = False
) -> tuple[Any, list[str]]:
    """A figure, None if there are no runs for it; and remarks.

    Parameters
    ----------
    always
        Whether errors are drawn in % where they cannot be divided by those of FLP.
    """
    data = {o.data for o in outcomes if o.complete and figure.takes(o.settings)}
    if len(data) > 1:
        return None, ["its runs are on different data; draw those of each apart"]
    own = [o for o in outcomes if o.data in data]
    floats: Baselines | None = baselines_of(own)
    without = without_floats(figure, own, floats or {})
    remarks = [f"no FLP run of {task}, as long, to compare with" for task in without]
    if always and without:
        floats = None
        remarks = [f"{remark}: the errors are drawn, not their ratios" for remark in remarks]
    lines = lines_of(figure, own, floats)
    if not always and (other := len(lines) - len(lines := papers_own(lines, figure))):
        remarks.append(f"left out: {other} lines with other numbers than the paper's")
    if not lines:
        return None, [*remarks, f"there are not two runs to draw against the {figure.axis}"]
    return draw_one(figure, lines, floats, title(figure, own)), remarks


def draw_one(figure: Figure, lines: Lines, floats: Baselines | None, heading: str) -> Any:
    """The picture of a figure."""
    own = zip(lines.items(), names(list(lines), leave_out=figure.swept), strict=True)
    named = [Line(rest.format, name, points) for (rest, points), name in own]
    formats = {line.format for line in named}
    return picture(
        named,
        figure.axis,
        heading,
        knees=[Knee(name, at) for name, at in figure.knees.items() if name in formats],
        percent=figure.percent,
        spread=None if floats is None else spread(lines, floats),
    )


def title(figure: Figure, outcomes: Iterable[Outcome]) -> str:
    """In what the runs of a figure are not those of the paper; "" if in nothing."""
    runs = [o for o in outcomes if o.complete and figure.takes(o.settings)]
    parts = [f"{data}, not the paper's data" for data in sorted({o.data for o in runs} - {""})]
    for task, epochs in sorted({(o.settings.task, o.epochs) for o in runs}):
        if epochs != TASKS[task].epochs:
            parts.append(f"{task_name(task)}: {epochs} epochs instead of {TASKS[task].epochs}")
    if still := sum(o.ranges_stood_still for o in runs):
        following = sum(o.settings.format == "DFXP" for o in runs)
        parts.append(f"too short epochs: ranges never moved in {still} of {following} DFXP runs")
    return "\n".join(parts)
