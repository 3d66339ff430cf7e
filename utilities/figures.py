"""Pictures made from run folders.

    python -m utilities.figures RUNS [RUNS ...] -o DIR            the paper's figures
    python -m utilities.figures curves RUN [RUN ...] -o FILE      learning curves
    python -m utilities.figures ranges RUN -o FILE                ranges and overflow of a DFXP run
    python -m utilities.figures filters RUN -o FILE               the first layer's filters

RUNS are run folders, or folders that hold them; the paper's figures are drawn as far as
there are runs for them. FILE ends in .png, .svg or .pdf.
"""

from pathlib import Path

import terminal
from errors import RunError
from terminal import Parser
from utilities.paper_figures import draw
from utilities.pictures import curves, filters, ranges

SUFFIXES = (".png", ".svg", ".pdf")
KINDS = {
    "curves": "learning curves of one or more runs",
    "ranges": "ranges and overflow rates of a DFXP run",
    "filters": "the first layer's filters of a run, tiled",
}


def parser_of(kind: str | None) -> Parser:
    """The command line for a kind of picture, or for the paper's figures."""
    parser = Parser(
        " ".join(["python -m utilities.figures", *([kind] if kind else [])]),
        KINDS[kind] if kind else __doc__,
    )
    parser.add_argument(
        "runs",
        type=terminal.folder,
        nargs=1 if kind in ("ranges", "filters") else "+",
        metavar="RUN" if kind else "RUNS",
        help="run folder" if kind else "run folders, or folders that hold them",
    )
    if kind:
        file = f"{kind}.png"
        parser.add_argument(
            "-o",
            "--out",
            type=terminal.file(*SUFFIXES),
            default=Path(file),
            help=f"picture to write ({file})",
        )
        return parser
    parser.add_argument(
        "-o",
        "--out",
        type=terminal.folder,
        default=Path("figures"),
        metavar="DIR",
        help="where (figures)",
    )
    parser.add_argument(
        "--sample",
        action="store_true",
        help="runs on the generated sample, instead of real data",
    )
    return parser


@terminal.program("figures")
def main(arguments: list[str]) -> int:
    words = arguments
    kind = words[0] if words and words[0] in KINDS else None
    parser = parser_of(kind)
    a = parser.parse_args(words[1:] if kind else words)
    paths = [a.out]
    remarks: list[str] = []
    if kind == "curves":
        curves(a.runs, a.out)
    elif kind == "ranges":
        ranges(a.runs[0], a.out)
    elif kind == "filters":
        filters(a.runs[0], a.out)
    else:
        paths, remarks = draw(a.runs, a.out, a.sample)
    if not paths:
        raise RunError("nothing to draw: " + "; ".join(remarks))
    print("\n".join([*map(str, paths), *remarks]))
    return 0


if __name__ == "__main__":
    terminal.run(main)
