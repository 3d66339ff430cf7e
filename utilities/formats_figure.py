"""Every number format against its bits, on PI_MNIST in 20 epochs.

    python -m utilities.formats_figure RUNS [RUNS ...] -o FILE [--markdown FILE]

RUNS are run folders, or folders that hold them; the commands of those that are missing are
printed. Propagations and stored parameters have the same width. FILE ends in .png, .svg or
.pdf; the table of the errors goes to stdout, or to --markdown.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import terminal
from errors import RunError
from files import write_named
from settings import FORMAT_ARGUMENTS, Settings
from utilities.outcomes import by_settings, collect, errors_of_seeds, mean_and_deviation
from utilities.pictures import WIDTH, End, label_ends, pyplot, rendered, styles, write_all

EPOCHS = 20
FIXED = ("FXP", "FXPR", "DFXP", "DFXPR")  # a line each
RATIOS = (1, 2, 5, 10, 20, 50)  # what is written at the axis
WIDTHS = {"FXP": (11, 13, 15, 19), "DFXP": (5, 7, 9, 11)}  # without the sign
FLOATS = {"BF16": 16, "HFLP": 16, "E4M3": 8, "E4M3S": 8, "E5M2": 8, "E5M2S": 8}  # a point each
HEIGHT = 4.5  # inches, of the picture
HEAD = ("format", "bits", "test error, %", "of FLP's", "runs")


@dataclass(frozen=True)
class Point:
    """A format at a width: its bits with the sign, its error in %, and that over FLP's."""

    format: str
    bits: int
    error: float
    ratio: float
    deviation: float
    runs: int

    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        numbers = (f"{self.error:.2f}", f"{self.ratio:.2f}", str(self.runs))
        return self.format, str(self.bits), *numbers


def wanted() -> dict[Settings, int]:
    """The settings of all points, FLP first, and their bits."""

    def own(name: str, **widths: int) -> Settings:
        return Settings.published("PI_MNIST", name, seed=0, epochs=EPOCHS, **widths)

    found = {own("FLP"): 32} | {own(name): bits for name, bits in FLOATS.items()}
    for name in FIXED:
        for nob in WIDTHS[name.removesuffix("R")]:
            found[own(name, prop_bits=nob, up_bits=nob)] = nob + 1
    return found


def points(folders: Iterable[Path], sample: bool) -> tuple[list[Point], list[str]]:
    """What runs show, and remarks: runs that are left out, commands of those that are missing.

    RunError if there is no run of FLP to compare with, or if they are on different data.
    """
    outcomes, remarks = collect(folders, sample)
    for outcome in outcomes:
        if not outcome.complete:
            here = f"epoch {outcome.last['epoch']} of {outcome.epochs}"
            remarks.append(f"{outcome.folder} was stopped after {here}, left out")
    groups = by_settings(o for o in outcomes if o.complete)
    groups = {own: groups[own] for own in wanted() if own in groups}
    if len({o.data for group in groups.values() for o in group}) > 1:
        raise RunError("the runs are on different data; draw those of each apart")
    found: list[Point] = []
    for own, bits in wanted().items():
        if own not in groups:
            remarks.append(f"missing: {' '.join(own.command(seed=False))}")
            continue
        errors = errors_of_seeds(groups[own])
        mean, deviation = mean_and_deviation(errors)
        baseline = found[0].error if found else mean
        if not found and own.format != "FLP":
            raise RunError(f"there is no run of PI_MNIST FLP with --epochs {EPOCHS}")
        ratios = (mean / baseline, deviation / baseline)
        found.append(Point(own.format, bits, mean, *ratios, len(errors)))
    if not found:
        raise RunError("nothing to draw: " + "; ".join(remarks))
    order = list(FORMAT_ARGUMENTS)
    return sorted(found, key=lambda p: (order.index(p.format), p.bits)), remarks


def draw(found: list[Point], out: Path) -> None:
    """The picture."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    names: dict[int, list[End]] = {}  # by where they stand
    for name in (*FIXED, *FLOATS):
        if own := [point for point in found if point.format == name]:
            (style,) = styles([name])
            x, y, off = zip(*((p.bits, p.ratio, p.deviation) for p in own), strict=True)
            axes.errorbar(
                x,
                y,
                off if any(off) else None,  # there are several seeds
                color=style.colour,
                linestyle=style.dash if name in FIXED else "none",
                marker=style.marker,
                capsize=2,
            )
            end = End(x[0], y[0], name, style.text)  # where the lines are apart
            names.setdefault(x[0], []).append(end)
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set_xlim(4.5, 20.5)
    axes.text(4.6, 1.03, "FLP", va="bottom", color="grey")
    axes.set_yscale("log")
    axes.set_yticks(RATIOS, map(str, RATIOS))
    axes.yaxis.set_minor_locator(plt.NullLocator())
    axes.set_xlabel("bits of a stored number, with the sign")
    axes.set_ylabel("test error / that of FLP")
    axes.set_title(f"PI MNIST, {EPOCHS} epochs", loc="left")
    for ends in names.values():
        label_ends(axes, ends, HEIGHT, margin=False)
    content = rendered(figure, out.suffix)
    plt.close(figure)
    write_named(out, lambda file: write_all(content, file))


def markdown(found: list[Point]) -> str:
    """The table."""
    lines = [HEAD, ("---",) * len(HEAD), *(point.cells() for point in found)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


@terminal.program("formats_figure")
def main(arguments: list[str]) -> int:
    parser = terminal.Parser("python -m utilities.formats_figure", __doc__)
    parser.add_argument("runs", type=terminal.folder, nargs="+", metavar="RUNS")
    suffixes = terminal.file(".png", ".svg", ".pdf")
    picture = Path("formats.png")
    parser.add_argument("-o", "--out", type=suffixes, default=picture, help=f"({picture})")
    parser.add_argument("--markdown", type=terminal.path, help="write the table there")
    parser.add_argument("--sample", action="store_true", help="runs on the generated sample")
    a = parser.parse_args(arguments)
    found, remarks = points(a.runs, a.sample)
    draw(found, a.out)
    text = markdown(found)
    if a.markdown:
        write_named(a.markdown, lambda file: write_all(text.encode(), file))
    print(text + "\n".join([str(a.out), *remarks]))
    return 0


if __name__ == "__main__":
    terminal.run(main)
