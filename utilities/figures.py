"""Pictures made from run folders.

    python -m utilities.figures RUNS [RUNS ...] -o DIR            the paper's figures, as far as there are runs for them
    python -m utilities.figures curves RUN [RUN ...] -o FILE      learning curves
    python -m utilities.figures ranges RUN -o FILE                ranges and overflow rates of a DFXP run
    python -m utilities.figures filters RUN -o FILE               the first layer's filters

RUNS are run folders, or folders that hold them. FILE ends in .png, .svg or .pdf.
"""

import argparse
import sys
from pathlib import Path

from errors import FileError, RunError
from terminal import Parser
from utilities.paper_figures import paper
from utilities.pictures import curves, filters, ranges

SUFFIXES = (".png", ".svg", ".pdf")

KINDS = {
    "curves": "learning curves of one or more runs",
    "ranges": "ranges and overflow rates of a DFXP run",
    "filters": "the first layer's filters of a run, tiled",
}


def picture(text):
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in {', '.join(SUFFIXES)}")
    return path


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    kind = arguments[0] if arguments and arguments[0] in KINDS else None
    parser = Parser(
        "python -m utilities.figures" + (f" {kind}" if kind else ""),
        KINDS[kind] if kind else __doc__,
    )
    one = kind in ("ranges", "filters")
    parser.add_argument(
        "runs",
        type=Path,
        nargs=1 if one else "+",
        metavar="RUN" if kind else "RUNS",
        help="run folder" if kind else "run folders, or folders that hold them",
    )
    if kind:
        parser.add_argument(
            "-o",
            "--out",
            type=picture,
            default=Path(f"{kind}.png"),
            help=f"picture to write ({kind}.png)",
        )
    else:
        parser.add_argument(
            "-o", "--out", type=Path, default=Path("figures"), metavar="DIR", help="where (figures)"
        )
        parser.add_argument(
            "--sample",
            action="store_true",
            help="runs on the generated sample, instead of real data",
        )
    a = parser.parse_args(arguments[1:] if kind else arguments)
    try:
        if kind:
            {
                "curves": curves,
                "ranges": lambda runs, out: ranges(*runs, out),
                "filters": lambda runs, out: filters(*runs, out),
            }[kind](a.runs, a.out)
            paths, remarks = [a.out], []
        else:
            paths, remarks = paper(a.runs, a.out, a.sample)
        if not paths:
            raise RunError("nothing to draw: " + "; ".join(remarks))
    except (RunError, FileError, OSError) as error:
        parser.error(error)
    print("\n".join([*map(str, paths), *remarks]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
