"""A page about runs: tables, figures, and for each run its curves, ranges, filters and settings.

    python -m utilities.report RUNS [RUNS ...] -o report.html

RUNS are run folders, or folders that hold them, on any data. The page is one file that
needs no server and no network.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import terminal
from errors import printable_path
from files import write_named
from tasks import TASKS
from utilities.learning_curves import curves, panels
from utilities.naming import counted, task_name
from utilities.outcomes import Outcome, collect, nothing
from utilities.paper_figures import FIGURES, figure_of
from utilities.pictures import pyplot, rendered
from utilities.report_html import Html, document, join, picture, table, tag
from utilities.report_runs import command as command_of
from utilities.report_runs import section
from utilities.results_table import HEAD, order
from utilities.results_table import remarks as table_remarks
from utilities.results_table import table as results_rows

RUN_HEAD = (
    "run",
    "epochs",
    "seed",
    "data",
    "test error, %",
    "validation error, %",
    "best epoch",
    "hours",
)
FOOT = "Made by python -m utilities.report from run folders alone."


@terminal.program("report")
def main(arguments: list[str]) -> int:
    parser = terminal.Parser("python -m utilities.report", __doc__)
    parser.add_argument(
        "runs",
        type=terminal.folder,
        nargs="+",
        metavar="RUNS",
        help="run folders, or folders that hold them",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=terminal.file(".html"),
        default=Path("report.html"),
        metavar="FILE",
        help="page to write (report.html)",
    )
    a = parser.parse_args(arguments)
    outcomes, left_out = collect(a.runs, sample=None)
    if not outcomes:
        raise nothing("to show", left_out)
    content = page(outcomes, left_out).encode(errors="backslashreplace")
    a.out.parent.mkdir(parents=True, exist_ok=True)
    write_named(a.out, lambda file: file.write(content))
    print(f"{printable_path(a.out)}: {counted(len(outcomes), 'run')}, {len(content) / 1e6:.1f} MB")
    for remark in left_out:
        print(f"left out: {remark}")
    return 0


def page(outcomes: Sequence[Outcome], left_out: Sequence[str]) -> Html:
    """The page; `left_out` says which runs are not in it, and why."""
    runs = sorted(outcomes, key=lambda o: (*order(o.settings), o.data, o.settings.seed))
    anchors = [f"run-{i}" for i in range(1, len(runs) + 1)]
    tasks = dict.fromkeys(task_name(run.settings.task) for run in runs)
    title = f"{counted(len(runs), 'run')}: {', '.join(tasks)}"
    return document(
        title,
        tag("h1", title),
        *(tag("p", note, class_="note") for note in notes(runs)),
        *left_out_list(left_out),
        tag("h2", "Beside the paper"),
        papers_table(runs),
        tag("h2", "Figures"),
        figures(runs),
        tag("h2", "Runs"),
        runs_table(runs, anchors),
        *(section(run, anchor) for run, anchor in zip(runs, anchors, strict=True)),
        tag("p", FOOT, class_="foot"),
    )


def notes(runs: Sequence[Outcome]) -> list[str]:
    """In what the runs are not the paper's."""
    lines = table_remarks(list(runs))
    for task in dict.fromkeys(run.settings.task for run in runs):
        published = TASKS[task].epochs
        own = {run.epochs for run in runs if run.settings.task == task} - {published}
        if own:
            counts = ", ".join(map(str, sorted(own)))
            lines.append(f"{task_name(task)}: runs of {counts} epochs instead of {published}")
    if stopped := sum(not run.complete for run in runs):
        lines.append(f"not come to the last epoch: {counted(stopped, 'run')}")
    return lines


def left_out_list(left_out: Sequence[str]) -> list[Html]:
    """What is not in the page."""
    if not left_out:
        return []
    return [tag("h2", "Left out"), tag("ul", *(tag("li", remark) for remark in left_out))]


def papers_table(runs: Sequence[Outcome]) -> Html:
    """The table of utilities.results: runs that differ by their seeds together."""
    rows, missing = results_rows(list(runs))
    lines = []
    for row in rows:
        numbers = [row.error, row.paper, row.difference, row.ratio, row.paper_ratio, row.runs]
        keys = ["", None, *numbers, "", row.hours]
        cells = list(zip(row.cells(), keys, strict=True))
        cells[0] = (tag("code", row.command), row.command)
        cells[1] = (cells[1][0], float(row.epochs.removeprefix("stopped after ").split()[0]))
        lines.append([(text, sort_key(text, key)) for text, key in cells])
    if not missing:
        return table(HEAD, lines)
    words = tag("summary", f"Missing of the paper's table: {counted(len(missing), 'run')}")
    items = tag("ul", *(tag("li", tag("code", command)) for command in missing))
    return join((table(HEAD, lines), tag("details", words, items)))


def sort_key(text: object, key: Any) -> float | str:
    """What a cell is sorted by: its number if it has one."""
    return str(text) if key == "" else "" if key is None else key


def runs_table(runs: Sequence[Outcome], anchors: Sequence[str]) -> Html:
    """All runs, each with a link to what follows about it."""
    lines = []
    for run, anchor in zip(runs, anchors, strict=True):
        name = " ".join(run.settings.words())
        last = run.last
        epochs = str(run.epochs) if run.complete else f"{last['epoch']} of {run.epochs}"
        best = last["best_validation_error"]
        lines.append(
            [
                (tag("a", name, href=f"#{anchor}", title=command_of(run)), name),
                (epochs, last["epoch"]),
                (run.settings.seed, run.settings.seed),
                (run.data or "official", None),
                (f"{run.error:.2f}", run.error),
                (f"{best:.2f}", best),
                (last["best_epoch"], last["best_epoch"]),
                (f"{run.hours:.2f}", run.hours),
            ]
        )
    return table(RUN_HEAD, lines)


def figures(runs: Sequence[Outcome]) -> Html:
    """Learning curves of the paper's formats, and those of its figures that there are runs for."""
    parts = []
    for group in comparable(runs):
        parts.append(
            drawn(curves([group]), f"learning curves, {task_name(group[0].settings.task)}")
        )
    for data in sorted({run.data for run in runs}):
        own = [run for run in runs if run.data == data]
        for name, figure in FIGURES.items():
            picture_of, _ = figure_of(figure, own)
            if picture_of is not None:
                about = f"{name}: test error against the {figure.axis}"
                parts.append(drawn(picture_of, about + (f", {data}" if data else "")))
    return join(parts) if parts else tag("p", "No two runs that can be compared.")


def comparable(runs: Sequence[Outcome]) -> list[list[Outcome]]:
    """Runs of formats with the paper's numbers on the same task and data, as long: two at least."""
    groups = []
    for panel in panels([run for run in runs if run.has_papers_numbers]):
        for epochs in sorted({run.epochs for run in panel}, reverse=True):
            group = [run for run in panel if run.epochs == epochs]
            if len(group) > 1:
                groups.append(group)
    return groups


def drawn(figure: Any, about: str) -> Html:
    """A figure of matplotlib's in the page."""
    content = rendered(figure, ".svg")
    pyplot().close(figure)
    return tag("figure", picture(content, "svg+xml", about), tag("figcaption", about))


if __name__ == "__main__":
    terminal.run(main)
