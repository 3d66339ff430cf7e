"""The paper's table with our figures beside it: its rows, and how they are written."""

import csv
import io
import statistics

from settings import FORMAT_ARGUMENTS, NUMBERS, Settings
from tasks import TASKS
from utilities.outcomes import by_settings, mean_and_deviation

KEYS = ("command", "epochs", "error", "deviation", "paper", "difference", "runs", "device", "hours")

HEAD = ("command", "epochs", "test error, %", "paper, %", "difference", "runs", "device", "hours")


def command(settings):
    """The command line of a run, but for its seed."""
    return " ".join(settings.command(seed=False))


def published(seed=0):
    """{settings: the paper's test error in %} of every entry of its table, task by task."""
    return {
        Settings.published(task, number_format, seed=seed): error
        for task, how in TASKS.items()
        for number_format in FORMAT_ARGUMENTS
        if (error := how.paper.get(number_format)) is not None
    }


def in_order(settings):
    """What settings are sorted by: task, format, numbers."""
    numbers = [getattr(settings, number.name) for number in NUMBERS]
    task = list(TASKS).index(settings.task)
    number_format = list(FORMAT_ARGUMENTS).index(settings.format)
    return task, number_format, *numbers, settings.epochs or 0, settings.streams


def table(outcomes):
    """(rows, missing): a row for each group of runs, the published settings first; the commands of which there is none."""
    groups, rows, missing = by_settings(outcomes), [], []
    papers = published()
    others = sorted((s for s in groups if s not in papers), key=in_order)
    for settings in [*papers, *others]:
        if settings not in groups:
            missing.append(command(settings))
            continue
        group = groups[settings]
        complete = [o for o in group if o.complete]
        for shown in ([complete] if complete else []) + [[o] for o in group if not o.complete]:
            mean, deviation = mean_and_deviation([o.error for o in shown])
            paper = papers.get(settings) if complete and shown is complete else None
            last, epochs = shown[0].last["epoch"], shown[0].epochs
            rows.append(
                {
                    "command": command(settings),
                    "epochs": str(epochs)
                    if shown[0].complete
                    else f"stopped after {last} of {epochs}",
                    "runs": len(shown),
                    "error": mean,
                    "deviation": deviation if len(shown) > 1 else None,
                    "paper": papers.get(settings),
                    "difference": mean - paper if paper is not None else None,
                    "device": ", ".join(sorted({o.config.get("device", "?") for o in shown})),
                    "hours": statistics.mean(o.hours for o in shown),
                }
            )
    return rows, missing


def cells(row):
    """A row of `table` as text, in the order of HEAD."""
    error = f"{row['error']:.2f}" + (
        f" ± {row['deviation']:.2f}" if row["deviation"] is not None else ""
    )
    paper = f"{row['paper']:.2f}" if row["paper"] is not None else ""
    difference = f"{row['difference']:+.2f}" if row["difference"] is not None else ""
    return (
        row["command"],
        row["epochs"],
        error,
        paper,
        difference,
        str(row["runs"]),
        row["device"],
        f"{row['hours']:.2f}",
    )


def markdown(rows):
    lines = [HEAD, ("---",) * len(HEAD), *((f"`python {c[0]}`", *c[1:]) for c in map(cells, rows))]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def terminal(rows):
    lines = [HEAD, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def as_csv(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, KEYS)
    writer.writeheader()
    writer.writerows(
        {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in rows
    )
    return text.getvalue()
