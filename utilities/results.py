"""The paper's table (SPEC section 13) with our figures beside it, from run folders alone.

    python -m utilities.results results/ [--markdown FILE] [--csv FILE]

RUNS are run folders, or folders that hold them. Error rates are test errors at the lowest validation error, means and
standard deviations over the seeds there are. What is missing, or was stopped early, is said.
"""

import csv
import io
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from errors import RunError
from files import write_atomically
from records.folder import RunFolder
from settings import FORMAT_ARGUMENTS, NUMBERS, Settings
from tasks import TASKS
from terminal import Parser


@dataclass(frozen=True)
class Outcome:
    """A run: its settings, the epochs it is to have, and its records (at least one)."""

    folder: Path
    settings: Settings
    epochs: int
    records: list
    config: dict

    @property
    def last(self):
        return self.records[-1]

    @property
    def complete(self):
        return self.last["epoch"] >= self.epochs

    @property
    def error(self):
        """Test error at the lowest validation error, %."""
        return self.last["best_test_error"]

    @property
    def hours(self):
        return sum(r.get("seconds", 0) for r in self.records) / 3600


def collect(folders, sample=False):
    """(outcomes, remarks): the runs in folders, and those left out, with the reason. RunError if a folder has none.

    Runs on the generated sample are left out, unless `sample`: then only those are taken.
    """
    outcomes, remarks = [], []
    for folder in map(Path, folders):
        configs = sorted(folder.rglob("config.json")) if folder.is_dir() else []
        if not configs:
            raise RunError(f"{folder} holds no run folder (nothing there has a config.json)")
        for path in configs:
            try:
                run = RunFolder(path.parent)
                config, records = run.config(), run.records()
            except RunError as error:
                remarks.append(str(error))
                continue
            if not records:
                remarks.append(f"{path.parent} has no finished epoch")
            elif bool(config.get("sample")) != sample:
                remarks.append(
                    f"{path.parent} was trained on {'real data' if sample else 'the generated sample'}, left out"
                )
            else:
                outcomes.append(
                    Outcome(
                        path.parent,
                        Settings(**config["settings"]),
                        config["epochs"],
                        records,
                        config,
                    )
                )
    return outcomes, remarks


def by_settings(outcomes):
    """{settings without seed: outcomes of all seeds}."""
    groups = {}
    for outcome in outcomes:
        groups.setdefault(replace(outcome.settings, seed=0), []).append(outcome)
    return groups


def mean_and_deviation(values):
    """(mean, sample standard deviation); the latter 0 of a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


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


KEYS = ("command", "epochs", "error", "deviation", "paper", "difference", "runs", "device", "hours")
HEAD = ("command", "epochs", "test error, %", "paper, %", "difference", "runs", "device", "hours")


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


def main(arguments=None):
    parser = Parser("python -m utilities.results", __doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUNS", help="run folders, or folders that hold them"
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the table as Markdown, too"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV, too")
    parser.add_argument(
        "--sample",
        action="store_true",
        help="runs on the generated sample, instead of those on real data",
    )
    a = parser.parse_args(arguments)
    try:
        outcomes, remarks = collect(a.runs, a.sample)
        if not outcomes:
            raise RunError("no run to show: " + "; ".join(remarks))
        rows, missing = table(outcomes)
        for path, text in ((a.markdown, markdown(rows)), (a.csv, as_csv(rows))):
            if path:
                write_atomically(path, lambda file, text=text: file.write(text.encode()))
    except (RunError, OSError) as error:
        parser.error(error)
    print(terminal(rows), end="")
    for remark in remarks:
        print(f"left out: {remark}")
    for line in missing:
        print(f"missing: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
