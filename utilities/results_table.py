"""The paper's table with our figures beside it: its rows, and how they are written."""

import csv
import io
import statistics
from dataclasses import dataclass

from settings import FORMAT_ARGUMENTS, NUMBERS, Settings
from tasks import TASKS
from utilities.naming import counted
from utilities.outcomes import (
    Baselines,
    Outcome,
    baseline,
    baselines_of,
    by_settings,
    errors_of_seeds,
    mean_and_deviation,
)

HEAD = (
    "command",
    "epochs",
    "test error, %",
    "paper, %",
    "difference",
    "over FLP",
    "paper over FLP",
    "runs",
    "device",
    "hours",
)


@dataclass(frozen=True)
class Row:
    """A line of the table: runs that differ by their seeds only.

    `error` is the mean of the seeds' errors, that of a seed the mean of its runs;
    `deviation` is None of a single seed, `paper` where the paper has no such run,
    `difference` also while the runs are not complete. `ratio` is that to the error of FLP runs
    as long, `paper_ratio` the paper's of the same format, whatever the epochs are here; None
    where there are none.
    """

    command: str
    epochs: str
    error: float
    deviation: float | None
    paper: float | None
    difference: float | None
    ratio: float | None
    paper_ratio: float | None
    runs: int
    device: str
    hours: float

    def cells(self) -> tuple[str, ...]:
        """As text, in the order of HEAD."""
        deviation = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return (
            self.command,
            self.epochs,
            f"{self.error:.2f}{deviation}",
            "" if self.paper is None else f"{self.paper:.2f}",
            "" if self.difference is None else f"{self.difference:+.2f}",
            "" if self.ratio is None else f"{self.ratio:.2f}",
            "" if self.paper_ratio is None else f"{self.paper_ratio:.2f}",
            str(self.runs),
            self.device,
            f"{self.hours:.2f}",
        )


def command(settings: Settings) -> str:
    """The command line of a run, but for its seed."""
    return " ".join(settings.command(seed=False))


def published() -> dict[Settings, float]:
    """The paper's test errors in %, task by task, by their settings with seed 0."""
    return {
        Settings.published(task, number_format, seed=0): error
        for task, how in TASKS.items()
        for number_format in FORMAT_ARGUMENTS
        if (error := how.paper.get(number_format)) is not None
    }


def order(settings: Settings) -> tuple:
    """What settings are sorted by: task, format, numbers."""
    task = list(TASKS).index(settings.task)
    number_format = list(FORMAT_ARGUMENTS).index(settings.format)
    numbers = [getattr(settings, number.name) for number in NUMBERS]
    return task, number_format, *numbers, settings.epochs or 0, settings.streams


def table(outcomes: list[Outcome]) -> tuple[list[Row], list[str]]:
    """Rows, the paper's settings first; and the commands of those that are missing.

    Runs on different data have rows of their own, and the paper's errors only those on the
    official data.
    """
    rows: list[Row] = []
    papers = published()
    for data in sorted({outcome.data for outcome in outcomes}):
        own = [outcome for outcome in outcomes if outcome.data == data]
        groups = by_settings(own)
        floats = baselines_of(own)
        others = sorted((s for s in groups if s not in papers), key=order)
        for settings in [*papers, *others]:
            paper = None if data else papers.get(settings)
            group = groups.get(settings, [])
            complete = [outcome for outcome in group if outcome.complete]
            if complete:
                rows.append(row_of(complete, paper, floats))
            rows += [row_of([o], paper, floats) for o in group if not o.complete]
    official = by_settings(outcome for outcome in outcomes if not outcome.data)
    missing = [command(settings) for settings in papers if settings not in official]
    return rows, missing if official else []


def remarks(outcomes: list[Outcome]) -> list[str]:
    """What a reader of the table must know to compare its rows."""
    lines = [
        f"paper: left empty beside runs on the {data}, whose errors say nothing about the paper's"
        for data in sorted({outcome.data for outcome in outcomes} - {""})
    ]
    still = sum(outcome.ranges_stood_still for outcome in outcomes)
    if still:
        lines.append(
            f"ranges: in {counted(still, 'run')} in DFXP they never moved, the epochs are too short"
        )
    return lines


def ratios(outcome: Outcome, error: float, floats: Baselines) -> tuple[float | None, float | None]:
    """An error over that of FLP, here and in the paper; None where there is none."""
    flp = statistics.mean(floats.get(baseline(outcome.settings), [0.0]))
    if outcome.settings.format == "FLP" or not outcome.complete or not flp:
        return None, None
    paper = TASKS[outcome.settings.task].paper
    known = {"FLP", outcome.settings.format} <= set(paper) and not outcome.data
    known = known and outcome.has_papers_numbers
    return error / flp, paper[outcome.settings.format] / paper["FLP"] if known else None


def row_of(outcomes: list[Outcome], paper: float | None, floats: Baselines) -> Row:
    """The row of complete runs that differ by their seeds, or of one stopped early."""
    first = outcomes[0]
    errors = errors_of_seeds(outcomes)
    mean, deviation = mean_and_deviation(errors)
    epochs = str(first.epochs) if first.complete else f"{first.last['epoch']} of {first.epochs}"
    ratio, paper_ratio = ratios(first, mean, floats)
    whole = TASKS[first.settings.task].epochs
    reduced = f" (published: {whole})" if first.epochs != whole else ""
    own = {"": "", "generated sample": " --sample"}.get(first.data, f" ({first.data})")
    return Row(
        command=command(first.settings) + own,
        epochs=("" if first.complete else "stopped after ") + epochs + reduced,
        error=mean,
        deviation=deviation if len(errors) > 1 else None,
        paper=paper,
        difference=mean - paper if paper is not None and first.complete else None,
        ratio=ratio,
        paper_ratio=paper_ratio,
        runs=len(outcomes),
        device="; ".join(sorted({outcome.device for outcome in outcomes})),
        hours=statistics.mean(outcome.hours for outcome in outcomes),
    )


def markdown(rows: list[Row]) -> str:
    """The table in Markdown."""
    lines = [HEAD, ("---",) * len(HEAD)]
    for cells in (row.cells() for row in rows):
        lines.append((f"`python {cells[0]}`", *cells[1:]))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def aligned(rows: list[Row]) -> str:
    """The table for a terminal."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ""
    for line in lines:
        cells = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)]
        text += "  ".join(cells).rstrip() + "\n"
    return text


def as_csv(rows: list[Row]) -> str:
    """The table as CSV, its numbers to 6 digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.__dataclass_fields__))
    writer.writeheader()
    for row in rows:
        values = vars(row).items()
        writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in values})
    return text.getvalue()
