"""Pictures made from run folders.

    python -m utilities.figures RUNS [RUNS ...] -o DIR            the paper's figures
    python -m utilities.figures swept NUMBER RUNS ... -o FILE     errors against any number
    python -m utilities.figures curves RUNS [RUNS ...] -o FILE    learning curves
    python -m utilities.figures ranges RUN -o FILE                ranges and overflow of a DFXP run
    python -m utilities.figures filters RUN -o FILE               the first layer's filters

RUNS are run folders, or folders that hold them; the paper's figures are drawn as far as
there are runs for them. FILE ends in .png, .svg or .pdf.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import terminal
from errors import printable_path
from terminal import Parser
from utilities import filter_pictures
from utilities.filter_pictures import filters
from utilities.learning_curves import curves, panels
from utilities.outcomes import collect, nothing, run_in
from utilities.paper_figures import SWEPT, draw, draw_swept
from utilities.pictures import save
from utilities.range_pictures import ranges

SUFFIXES = (".png", ".svg", ".pdf")
KINDS = {
    "swept": "test errors against a number in which runs differ",
    "curves": "learning curves of runs, a panel a data set",
    "ranges": "ranges and overflow rates of a DFXP run",
    "filters": "the first layer's filters of a run, tiled",
}
ONE_RUN = ("ranges", "filters")


def parser_of(kind: str | None) -> Parser:
    """The command line for a kind of picture, or for the paper's figures."""
    parser = Parser(
        " ".join(["python -m utilities.figures", *([kind] if kind else [])]),
        KINDS[kind] if kind else __doc__,
    )
    if kind == "swept":
        parser.add_argument(
            "number", choices=SWEPT, metavar="NUMBER", help=f"one of {', '.join(SWEPT)}"
        )
    parser.add_argument(
        "runs",
        type=terminal.folder,
        nargs=1 if kind in ONE_RUN else "+",
        metavar="RUN" if kind in ONE_RUN else "RUNS",
        help="run folder" if kind in ONE_RUN else "run folders, or folders that hold them",
    )
    file = f"{kind}.png" if kind else "figures"
    parser.add_argument(
        "-o",
        "--out",
        type=terminal.file(*SUFFIXES) if kind else terminal.folder,
        default=Path(file),
        metavar="FILE" if kind else "DIR",
        help=f"picture to write ({file})" if kind else f"where ({file})",
    )
    if kind in (None, "swept"):
        parser.add_argument(
            "--sample",
            action="store_true",
            help="runs on the generated sample, instead of real data",
        )
    if kind == "filters":
        add_filter_options(parser)
    return parser


def add_filter_options(parser: argparse.ArgumentParser) -> None:
    """How many filters, and on which scale."""
    parser.add_argument(
        "--count",
        type=terminal.whole(1, filter_pictures.MOST),
        default=filter_pictures.USUAL,
        metavar="N",
        help=f"the first N filters, at most {filter_pictures.MOST} ({filter_pictures.USUAL})",
    )
    parser.add_argument(
        "--scale",
        choices=filter_pictures.SCALES,
        default="one",
        help="the same scale for all (default), or each to its own largest weight",
    )


@terminal.program("figures")
def main(arguments: list[str]) -> int:
    words = arguments
    kind = words[0] if words and words[0] in KINDS else None
    a = parser_of(kind).parse_args(words[1:] if kind else words)
    paths = [a.out]
    remarks: list[str] = []
    if kind == "curves":
        remarks = draw_curves(a.runs, a.out)
    elif kind == "ranges":
        save(ranges(run_in(a.runs[0])), a.out)
    elif kind == "filters":
        save(filters(run_in(a.runs[0]), a.count, a.scale), a.out)
    elif kind == "swept":
        remarks = draw_swept(SWEPT[a.number], a.runs, a.out, a.sample)
    else:
        paths, remarks = draw(a.runs, a.out, a.sample)
    if not paths:
        raise nothing("to draw", remarks)
    print("\n".join([*map(printable_path, paths), *remarks]))
    return 0


def draw_curves(folders: list[Path], out: Path) -> list[str]:
    """Write the learning curves of runs, on any data; what was left out, a line each."""
    outcomes, remarks = collect(folders, sample=None)
    if not outcomes:
        raise nothing("to draw", remarks)
    save(curves(panels(outcomes)), out)
    return [f"left out: {remark}" for remark in remarks]


if __name__ == "__main__":
    terminal.run(main)
