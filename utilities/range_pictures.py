"""Ranges and overflow rates of a DFXP run, as it learns."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from errors import RunError
from records.metrics import Record
from settings import Settings
from utilities.outcomes import Outcome
from utilities.pictures import (
    FONT_SIZE,
    WIDTH,
    End,
    label_ends,
    logarithmic,
    plot,
    pyplot,
    whole_numbers,
)

MOST_POINTS = 80, 25  # of a line of ranges, of rates
HEIGHTS = 3.4, 2.2  # inches, of ranges and of rates
SIDE_BY_SIDE = 1.5  # points between lines that are equal
EQUAL = 0.2  # bits
LEAST = 1e-3  # of the limit; rates below it are not drawn
PARTS = "ranges", "overflow_rates"  # of a record
NAMES = "range (integer bits)", "overflow rate (%)"
# Of signals: those of values and of their gradients differ by dash, the kinds by colour.
SIGNAL_STYLES: dict[str, tuple[str, Any]] = {
    "z": ("#000000", "-"),
    "dEdz": ("#000000", (0, (4, 1.5))),
    "y": ("#0060b0", "-"),
    "dEdy": ("#0060b0", (0, (4, 1.5))),
    "w": ("#e08a00", "-"),
    "b": ("#e08a00", (0, (1, 1))),
    "dEdw": ("#009e73", "-"),
    "dEdb": ("#009e73", (0, (1, 1))),
    "update_w": ("#b03060", "-"),
    "update_b": ("#b03060", (0, (1, 1))),
}


def ranges(outcome: Outcome) -> Any:
    """Ranges (above) and overflow rates (below) of the signals of a DFXP run.

    One column a layer. Lines that are equal run side by side. Rates of less than a
    thousandth of the limit are below the edge.
    RunError if the run has no ranges.
    """
    records = with_ranges(outcome)
    layers = len(records[0]["ranges"])
    figure, axes = pyplot().subplots(
        2,
        layers,
        figsize=(WIDTH if layers < 4 else WIDTH * layers / 3, 0.9 + sum(HEIGHTS)),
        layout="constrained",
        sharex=True,
        sharey="row",
        squeeze=False,
        gridspec_kw={"height_ratios": HEIGHTS},
    )
    # What goes to and fro would be a band: means of some epochs each.
    windows = [-(-len(records) // most) for most in MOST_POINTS]
    draw_rates(axes[1], *means(records, "overflow_rates", windows[1]), outcome.settings)
    for k, below in enumerate(axes[1]):
        whole_numbers(below.xaxis, 4)
        below.set_xlabel("epoch")
        axes[0, k].set_title(f"layer {k}", loc="left")
    draw_ranges(axes[0], *means(records, "ranges", windows[0]))
    for axis, name, window in zip(axes[:, 0], NAMES, windows, strict=True):
        axis.set_ylabel(name + (f", means of {window} epochs" if window > 1 else ""))
    figure.suptitle(outcome.label, fontsize="medium")
    return figure


def with_ranges(outcome: Outcome) -> list[Record]:
    """The records that have ranges; RunError if there are none, or they are anything else."""
    from format import SIGNALS

    records = [record for record in outcome.records if "ranges" in record]
    if not records:
        raise RunError(f"{outcome.folder} has no ranges: it is no DFXP run")
    try:
        own = [np.asarray(r[what], "float64") for r in records for what in PARTS if what in r]
    except (TypeError, ValueError):
        own = []
    shapes = {values.shape for values in own}
    whole = len(shapes) == 1 and len(shape := shapes.pop()) == 2 and shape[1] == len(SIGNALS)
    if not whole or not all(np.isfinite(values).all() for values in own):
        raise RunError(f"{outcome.folder} has ranges or overflow rates that are none")
    return records


def means(records: list[Record], what: str, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over so many epochs: of epochs, and of values (points, layers, signals)."""
    there = [record for record in records if what in record]
    parts = [there[i : i + window] for i in range(0, len(there), window)]
    epochs = [np.mean([record["epoch"] for record in part]) for part in parts]
    values = [np.mean([record[what] for record in part], axis=0) for part in parts]
    layers = np.shape(records[0]["ranges"])
    return np.array(epochs), np.array(values).reshape(-1, *layers)


def draw_ranges(axes: Sequence[Any], epochs: np.ndarray, values: np.ndarray) -> None:
    """A line for each signal, in a panel for each layer; its name at its end."""
    low = np.floor(values.min()) - 0.6
    high = np.ceil(values.max()) + 0.6
    bit = 72 * HEIGHTS[0] / (high - low)  # points
    lines = [side_by_side(values[:, k], SIDE_BY_SIDE / bit) for k in range(len(axes))]
    ends = [draw_signals(*of) for of in zip(axes, [epochs] * len(axes), lines, strict=True)]
    for panel, own in zip(axes, ends, strict=True):
        panel.set_ylim(low, high)
        whole_numbers(panel.yaxis)
        panel.grid(axis="y", color="0.92", linewidth=0.6)
        label_ends(panel, own, HEIGHTS[0])


def draw_rates(
    axes: Sequence[Any], epochs: np.ndarray, rates: np.ndarray, settings: Settings
) -> None:
    """A line for each signal, rates in %, and the limit above which a range grows."""
    limit = 100 * settings.max_overflow
    rates = 100 * np.where(rates > 0, rates, np.nan)
    for k, panel in enumerate(axes):
        draw_signals(panel, epochs, rates[:, k])
        panel.axhline(limit, color="0.45", linewidth=1)
        panel.annotate(
            f"limit {limit:g} %",
            (0.99, limit),
            (0, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color="0.3",
            fontsize=FONT_SIZE - 1,
        )
    if limit > 0:
        highest = np.nanmax(rates, initial=limit)
        axes[0].set_ylim(limit * LEAST, 3 * highest)
        for panel in axes:
            logarithmic(panel)


def draw_signals(panel: Any, epochs: np.ndarray, values: np.ndarray) -> list[End]:
    """A line for each signal of a layer, values (points, signals); where they end."""
    from format import SIGNALS

    ends = []
    for signal, line in zip(SIGNALS, values.T, strict=True):
        colour, dash = SIGNAL_STYLES[signal]
        plot(panel, epochs, line, color=colour, linestyle=dash, linewidth=1.2)
        if len(epochs):
            ends.append(End(epochs[-1], line[-1], signal, colour))
    return ends


def side_by_side(values: np.ndarray, apart: float) -> np.ndarray:
    """Lines (points, lines) moved so far apart that those that are equal are all seen."""
    moved = values.astype("float64")
    for row, place in zip(moved, values, strict=True):
        order = np.argsort(place, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(place[order]) > EQUAL) + 1)
        for group in groups:
            row[group] += apart * (np.arange(len(group)) - (len(group) - 1) / 2)
    return moved
