"""The paper's table ("Published results") with our figures beside it.

    python -m utilities.results results/ [--markdown FILE] [--csv FILE]

RUNS are run folders, or folders that hold them. Error rates are test errors at the
lowest validation error, means and standard deviations over the seeds there are. What is
missing, or was stopped early, is said.
"""

import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import terminal
from files import write_named
from utilities import results_table
from utilities.outcomes import collect, nothing
from utilities.results_table import aligned, as_csv, markdown, table


@terminal.program("results")
def main(arguments: list[str]) -> int:
    parser = terminal.Parser("python -m utilities.results", __doc__)
    parser.add_argument(
        "runs",
        type=terminal.folder,
        nargs="+",
        metavar="RUNS",
        help="run folders, or folders that hold them",
    )
    parser.add_argument(
        "--markdown", type=terminal.path, metavar="FILE", help="write the table as Markdown, too"
    )
    parser.add_argument(
        "--csv", type=terminal.path, metavar="FILE", help="write the table as CSV, too"
    )
    parser.add_argument(
        "--sample",
        action="store_true",
        help="runs on the generated sample, instead of those on real data",
    )
    a = parser.parse_args(arguments)
    outcomes, remarks = collect(a.runs, a.sample)
    if not outcomes:
        raise nothing("to show", [f"left out: {remark}" for remark in remarks])
    rows, missing = table(outcomes)
    for path, text in ((a.markdown, markdown(rows)), (a.csv, as_csv(rows))):
        if path:
            write(path, text)
    print(aligned(rows), end="")
    for line in results_table.remarks(outcomes):
        print(line)
    for remark in remarks:
        print(f"left out: {remark}")
    for line in missing:
        print(f"missing: {line}")
    return 0


def write(path: Path, text: str) -> None:
    """Write a file of text, whole or not at all."""
    write_named(path, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    terminal.run(main)
