"""A run in the report: its curves, its ranges, its filters, what it is and where it was trained."""

import io
from typing import Any

import numpy as np

from ending import importing
from errors import FileError, RunError
from settings import FORMAT_ARGUMENTS, NUMBERS
from tasks import TASKS
from utilities.filter_pictures import USUAL, first_filters, tile, white_from
from utilities.learning_curves import limits, since_first, smoothed
from utilities.outcomes import Outcome, values
from utilities.pictures import COLOURS
from utilities.range_pictures import (
    LEAST,
    SIDE_BY_SIDE,
    SIGNAL_STYLES,
    means,
    side_by_side,
    with_ranges,
)
from utilities.report_charts import BOTTOM, HEIGHT, TOP, Series, chart
from utilities.report_html import Html, facts, picture, tag

RANGE_POINTS = 60  # of a line
RATE_POINTS = 20


def section(outcome: Outcome, anchor: str) -> Html:
    """All about a run."""
    charts = [errors(outcome), losses(outcome), *signals(outcome)]
    return tag(
        "section",
        tag("h3", tag("code", command(outcome))),
        tag("p", summary(outcome)),
        *(tag("p", remark, class_="note") for remark in remarks(outcome)),
        tag("div", *(part for part in charts if part), class_="charts"),
        filters(outcome),
        details(outcome),
        class_="run",
        id=anchor,
    )


def command(outcome: Outcome) -> str:
    """As it was given, without its folders."""
    sample = ["--sample"] if outcome.config.get("sample") else []
    return " ".join(["python", *outcome.settings.command(), *sample])


def summary(outcome: Outcome) -> str:
    """The result in words."""
    last = outcome.last
    words = (
        f"Test error {outcome.error:.2f} %, at the lowest validation error, "
        f"{last['best_validation_error']:.2f} % in epoch {last['best_epoch']}."
    )
    paper = TASKS[outcome.settings.task].paper.get(outcome.settings.format)
    if paper is not None and outcome.has_papers_numbers and not outcome.data:
        words += f" The paper, after {TASKS[outcome.settings.task].epochs} epochs: {paper:.2f} %."
    return words


def remarks(outcome: Outcome) -> list[str]:
    """What a reader must know to take its errors for what they are."""
    lines = []
    if outcome.data:
        lines.append(f"Trained on {outcome.data}: its errors say nothing about the paper's.")
    if outcome.epochs != (published := TASKS[outcome.settings.task].epochs):
        lines.append(f"{outcome.epochs} epochs instead of {published}.")
    if not outcome.complete:
        lines.append(f"Stopped after epoch {outcome.last['epoch']} of {outcome.epochs}.")
    if outcome.ranges_stood_still:
        lines.append("The epochs are too short: the ranges never moved.")
    for record in outcome.records:
        if "note" in record:
            lines.append(f"Epoch {record['epoch']}: {record['note']}")
    return lines


# ------------------------------------------------------------------------------- charts


def errors(outcome: Outcome) -> Html:
    """The errors on the three parts of the data, test errors of single epochs behind them."""
    records = since_first(outcome)
    epochs = values(records, "epoch")
    colour = COLOURS[list(FORMAT_ARGUMENTS).index(outcome.settings.format) % len(COLOURS)]
    test = values(records, "test_error")
    lines = [Series("", epochs, test, colour, pale=True)]
    for what, dash in (("test", None), ("validation", "5 3"), ("training", "1.5 2.5")):
        own = values(records, f"{what}_error")
        if np.isfinite(own).any():
            lines.append(Series(what, epochs, smoothed(own), colour, dash))
    points = np.concatenate([np.stack([line.x, line.y], axis=1) for line in lines])
    low, high = limits(points)
    return chart("errors (%)", lines, (low, high), logarithmic=low > 0)


def losses(outcome: Outcome) -> Html | None:
    """The mean cross-entropy while training; None where it is not known."""
    records = since_first(outcome)
    loss = smoothed(values(records, "training_loss"))
    if not np.isfinite(loss).any():
        return None
    lines = [Series("loss", values(records, "epoch"), loss, "#555555")]
    low, high = np.nanmin(loss), np.nanmax(loss)
    logarithmic = bool(0 < low < high / 3)
    bounds = (low / 1.1, 1.1 * high) if logarithmic else (min(0.0, low), 1.1 * max(high, 1e-9))
    return chart("training loss (nats), under dropout", lines, bounds, logarithmic)


def signals(outcome: Outcome) -> list[Html]:
    """Ranges and overflow rates of each layer; nothing of a run that has none."""
    if not any("ranges" in record for record in outcome.records):
        return []
    try:
        records = with_ranges(outcome)
    except RunError as error:
        return [tag("p", error, class_="note")]
    count = len(records)
    epochs, ranges = means(records, "ranges", -(-count // RANGE_POINTS))
    rate_epochs, rates = means(records, "overflow_rates", -(-count // RATE_POINTS))
    limit = 100 * outcome.settings.max_overflow
    layers = range(ranges.shape[1])
    return [
        *(range_chart(f"ranges of layer {k} (bits)", epochs, ranges[:, k]) for k in layers),
        *(rate_chart(k, rate_epochs, 100 * rates[:, k], limit) for k in layers),
    ]


def range_chart(title: str, epochs: np.ndarray, values: np.ndarray) -> Html:
    """The ranges of a layer, values (points, signals)."""
    low, high = np.floor(values.min()) - 0.6, np.ceil(values.max()) + 0.6
    bit = (HEIGHT - TOP - BOTTOM) / (high - low)
    return chart(title, named(epochs, side_by_side(values, SIDE_BY_SIDE / bit)), (low, high))


def rate_chart(layer: int, epochs: np.ndarray, rates: np.ndarray, limit: float) -> Html:
    """The overflow rates of a layer in %, values (points, signals)."""
    shown = np.where(rates > 0, rates, np.nan)
    title = f"overflow rates of layer {layer} (%)"
    least = limit if limit > 0 else np.nanmin(shown, initial=1.0)
    low, high = least * LEAST, 3 * np.nanmax(shown, initial=least)
    marked = (limit, f"limit {limit:g} %") if limit > 0 else None
    return chart(title, named(epochs, shown), (low, high), logarithmic=True, limit=marked)


def named(epochs: np.ndarray, lines: np.ndarray) -> list[Series]:
    """A line for each signal."""
    return [
        Series(name, epochs, line, colour, None if dash == "-" else " ".join(map(str, dash[1])))
        for (name, (colour, dash)), line in zip(SIGNAL_STYLES.items(), lines.T, strict=True)
    ]


def filters(outcome: Outcome) -> Html:
    """The first layer's filters, where they are there; else why not."""
    try:
        W = first_filters(outcome.folder)
    except (FileError, RunError, OSError) as error:
        missing = not (outcome.folder / "best.npz").exists()
        why = "the folder has no best.npz" if missing else str(error)
        return tag("p", f"Filters: not drawn, {why}.", class_="none")
    shown = W[:USUAL]
    largest = white_from(shown)
    tiles = np.round(255 * tile(shown, largest)).astype("uint8")
    with importing():
        from PIL import Image
    content = io.BytesIO()
    Image.fromarray(tiles).quantize(256).save(content, "png", optimize=True)
    words = (
        f"The first {len(shown)} of {len(W)} filters of the first layer; grey 0, white from "
        f"{largest:.2g}, black from {-largest:.2g} on"
    )
    alt = "filters of the first layer"
    return tag(
        "figure",
        picture(content.getvalue(), "png", alt, class_="pixels"),
        tag("figcaption", words),
    )


# ------------------------------------------------------------------------------ details


def details(outcome: Outcome) -> Html:
    """Settings, data, machine."""
    config = outcome.config
    own = outcome.settings
    numbers = {n.name: n.argument for n in NUMBERS}
    return facts(
        [
            ("folder", tag("code", outcome.folder)),
            ("task, format", f"{own.task}, {own.format}"),
            *((numbers[name], f"{value:g}") for name, value in own.numbers.items()),
            ("epochs, seed, streams", f"{outcome.epochs}, {own.seed}, {own.streams}"),
            ("started", config.get("started", "not recorded")),
            ("hours", f"{outcome.hours:.2f}"),
            ("machine", outcome.device),
            ("versions", in_words(config.get("versions", "not recorded"))),
            ("git revision", config.get("git_revision", "not recorded")),
            ("data", in_words(config["data"]) or "no sums recorded"),
            ("training error", training_error(outcome)),
        ]
    )


def training_error(outcome: Outcome) -> str:
    """That of the last epoch, and the loss."""
    error, loss = (values([outcome.last], f"training_{what}")[0] for what in ("error", "loss"))
    if not np.isfinite(error):
        return "not recorded"
    return f"{error:.2f} %, loss {loss:.4g}, in the last epoch, under dropout"


def in_words(value: Any) -> str:
    """A value of config.json."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{name} {of}" for name, of in value.items())
