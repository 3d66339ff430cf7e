"""Learning curves: a panel a data set, each run under the name that tells it from the others."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from settings import FORMAT_ARGUMENTS
from tasks import TASKS
from utilities.naming import names, task_name, with_folders
from utilities.outcomes import Outcome, values
from utilities.pictures import (
    WIDTH,
    End,
    Style,
    label_ends,
    logarithmic,
    plot,
    pyplot,
    styles,
    whole_numbers,
)

SMOOTHED = 60  # a line is a mean over 1/60 of the epochs to both sides of each
HEIGHT = 2.9  # inches, of a panel; more if it has many names
AXIS, NAME = 0.8, 0.17  # of what is around its axes, of a name
FALL = 40  # the first 1/40 of the epochs may begin above a panel, which their fall would else fill
ROOM = 1.3  # times the errors after that


def panels(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Runs by task and data, in the order of the tasks; in each by format, the longest first."""
    groups: dict[tuple[int, str], list[Outcome]] = {}
    for outcome in outcomes:
        key = list(TASKS).index(outcome.settings.task), outcome.data
        groups.setdefault(key, []).append(outcome)
    order = list(FORMAT_ARGUMENTS)

    def rank(outcome: Outcome) -> tuple[int, int]:
        return order.index(outcome.settings.format), -outcome.last["epoch"]

    return [sorted(groups[key], key=rank) for key in sorted(groups)]


def curves(groups: Sequence[Sequence[Outcome]]) -> Any:
    """The test errors of runs, a panel for each group.

    Of a run that is alone in its panel the validation error, and the training error, under
    dropout, are drawn as well.
    """
    plt = pyplot()
    heights = [max(HEIGHT, AXIS + NAME * len(group)) for group in groups]
    figure, axes = plt.subplots(
        len(groups),
        figsize=(WIDTH, 0.4 + sum(heights)),
        layout="constrained",
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    for panel, group, height in zip(axes[:, 0], groups, heights, strict=True):
        ends = draw_run(panel, *group) if len(group) == 1 else draw_runs(panel, group)
        finish(panel, group)
        panel.set_ylabel("error (%)" if len(group) == 1 else "test error (%)")
        label_ends(panel, ends, height - AXIS)
    return figure


def draw_runs(axes: Any, outcomes: Sequence[Outcome]) -> list[End]:
    """Several runs: their test errors, and a point where the validation error is lowest."""
    texts = with_folders(names([o.settings for o in outcomes]), [o.folder for o in outcomes])
    drawn = zip(outcomes, texts, styles([o.settings.format for o in outcomes]), strict=True)
    return [
        draw_error(axes, outcome, "test_error", style, f"{text}, {result(outcome)}")
        for outcome, text, style in drawn
    ]


def draw_run(axes: Any, outcome: Outcome) -> list[End]:
    """A run alone: its errors on all three parts of the data, as far as they are known."""
    (style,) = styles([outcome.settings.format])
    ends = []
    for what, dash, text in (
        ("test_error", "-", f"test, {result(outcome)}"),
        ("validation_error", "--", "validation"),
        ("training_error", ":", "training, under dropout"),
    ):
        if np.isfinite(values(outcome.records, what)).any():
            ends.append(draw_error(axes, outcome, what, replace(style, dash=dash), text))
    return ends


def draw_error(axes: Any, outcome: Outcome, what: str, style: Style, text: str) -> End:
    """One line, smoothed, over the raw values; where it ends."""
    records = since_first(outcome)
    epochs = values(records, "epoch")
    raw = values(records, what)
    line = smoothed(raw)
    if not np.array_equal(line, raw, equal_nan=True):
        axes.plot(epochs, raw, color=style.colour, linewidth=0.5, alpha=0.25)
    plot(axes, epochs, line, color=style.colour, linestyle=style.dash, linewidth=1.5)
    best = outcome.last["best_epoch"]
    if what == "test_error" and best >= epochs[0]:
        point = outcome.last["best_test_error"]
        axes.plot([best], [point], color=style.colour, marker=style.marker, markersize=5)
    known = np.flatnonzero(np.isfinite(line))
    last = known[-1] if len(known) else 0
    return End(epochs[last], float(line[last]) if len(known) else 0.0, text, style.text)


def since_first(outcome: Outcome) -> list[dict[str, Any]]:
    """The records from the first epoch on; that of the untrained network if there is no other."""
    return [record for record in outcome.records if record["epoch"]] or outcome.records


def smoothed(values: np.ndarray) -> np.ndarray:
    """Centred means; over fewer values at the beginning, so that the line begins where they do."""
    most = len(values) // SMOOTHED
    result = np.full(len(values), math.nan)
    for i in range(len(values)):
        half = min(most, i)
        part = values[i - half : i + half + 1]
        if np.isfinite(values[i]):
            result[i] = np.nanmean(part)
    return result


def result(outcome: Outcome) -> str:
    """The test error at the lowest validation error, and after how many epochs if not all."""
    early = "" if outcome.complete else f" after {outcome.last['epoch']}"
    return f"{outcome.error:.2f} %{early}"


def finish(axes: Any, outcomes: Sequence[Outcome]) -> None:
    """Title and axes of a panel."""
    axes.set_title(title(outcomes), loc="left")
    axes.set_xlabel("epoch")
    whole_numbers(axes.xaxis)
    lines = [line.get_xydata() for line in axes.lines]
    low, high = limits(np.concatenate(lines))
    if not low > 0:
        return
    if first := [f"{line[0, 1]:.2g}" for line in lines if line[0, 1] > high]:
        axes.set_ylim(low, high)
        said = " to ".join(sorted({min(first, key=float), max(first, key=float)}, key=float))
        axes.text(0.08, 0.97, f"first epoch: {said} %", transform=axes.transAxes, va="top")
    logarithmic(axes)


def limits(points: np.ndarray) -> tuple[float, float]:
    """What to show of errors, points (epoch, error): not the fall of the first epochs.

    (0, the largest) if there is an error of 0.
    """
    points = points[np.isfinite(points[:, 1])]
    if not len(points) or points[:, 1].min() <= 0:
        return 0.0, max(1.0, points[:, 1].max(initial=0.0))
    late = points[points[:, 0] >= points[:, 0].max() / FALL]
    return late[:, 1].min() / 1.1, ROOM * late[:, 1].max()


def title(outcomes: Sequence[Outcome]) -> str:
    """What the runs of a panel have in common, and in what they are not the paper's."""
    first = outcomes[0]
    parts = [task_name(first.settings.task)]
    if len({outcome.settings.format for outcome in outcomes}) == 1:
        parts[0] += f" {first.settings.format}"
    if len(outcomes) == 1:
        parts = [" ".join(first.settings.command(seed=True)[1:])]
    if first.data:
        parts.append(first.data)
    published = TASKS[first.settings.task].epochs
    if len(epochs := {outcome.epochs for outcome in outcomes}) == 1 and published not in epochs:
        parts.append(f"{first.epochs} epochs instead of {published}")
    return ", ".join(parts)
