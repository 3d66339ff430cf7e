"""Pictures made from run folders.

    python -m utilities.figures RUNS [RUNS ...] -o DIR            the paper's figures, as far as there are runs for them
    python -m utilities.figures curves RUN [RUN ...] -o FILE      learning curves
    python -m utilities.figures ranges RUN -o FILE                ranges and overflow rates of a DFXP run
    python -m utilities.figures filters RUN -o FILE               the first layer's filters

RUNS are run folders, or folders that hold them. FILE ends in .png, .svg or .pdf.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from errors import FileError, RunError
from files import load_npz
from records.folder import RunFolder
from settings import Settings
from terminal import Parser
from utilities.results import by_settings, collect, mean_and_deviation

# Distinct in grey as well as in colour.
STYLES = [
    ("black", "-", "o"),
    ("tab:blue", "--", "s"),
    ("tab:orange", "-.", "^"),
    ("tab:green", ":", "D"),
    ("tab:red", (0, (5, 1)), "v"),
    ("tab:purple", (0, (1, 1)), "P"),
]
MOST_POINTS = 80  # of a line of `ranges`
SUFFIXES = (".png", ".svg", ".pdf")
SWEPT = {  # figure of the paper -> what it is drawn against, its axis, what every run in it has, and tells lines apart
    "fig1": (
        "initial_range",
        "radix point position (integer bits)",
        {"format": ("FXP",), "prop_bits": (31,), "up_bits": (31,)},
    ),
    "fig2": (
        "prop_bits",
        "bit-width of the propagations, without sign",
        {"format": ("FXP", "DFXP"), "up_bits": (31,)},
    ),
    "fig3": (
        "up_bits",
        "bit-width of the parameter updates, without sign",
        {"format": ("FXP", "DFXP"), "prop_bits": (31,)},
    ),
    "fig4": ("max_overflow", "maximum overflow rate (%)", {"format": ("DFXP",)}),
}


def existing(folder):
    run = RunFolder(folder)
    if not run.exists:
        raise RunError(f"{folder} is not a run folder")
    return run


def label(run):
    """What tells a run from others."""
    config = run.config()
    words = Settings(**config["settings"]).words()
    return " ".join([*words, *(["(sample)"] if config.get("sample") else [])])


def pyplot():
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "svg.hashsalt": "figures",
    }  # the same picture is the same file
    return plt


def save(plt, figure, *paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def curves(folders, out):
    """Validation (thin) and test error (thick) against the epoch, one style a run, into the picture `out`."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for i, folder in enumerate(folders):
        run, (colour, line, _) = existing(folder), STYLES[i % len(STYLES)]
        records = run.records()
        if not records:
            raise RunError(f"{folder} has no finished epoch to draw")
        epochs = [r["epoch"] for r in records]
        axes.plot(
            epochs,
            [r["test_error"] for r in records],
            color=colour,
            linestyle=line,
            label=f"{label(run)}, test",
        )
        axes.plot(
            epochs,
            [r["validation_error"] for r in records],
            color=colour,
            linestyle=line,
            linewidth=0.6,
            alpha=0.7,
            label=f"{label(run)}, validation",
        )
    axes.set(xlabel="epoch", ylabel="error (%)", yscale="log")
    for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis(plt.matplotlib.ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(plt.matplotlib.ticker.LogLocator(subs=(2, 5)))
    axes.legend()
    save(plt, figure, out)


def ranges(folder, out):
    """Ranges (above) and overflow rates (below) of every layer's signals over a DFXP run, one column a layer.

    Rates of zero are not drawn; the grey line is the rate above which a range grows.
    """
    from format import SIGNALS

    run = existing(folder)
    records, allowed = (
        [r for r in run.records() if "ranges" in r],
        run.config()["settings"]["max_overflow"],
    )
    if not records:
        raise RunError(f"{folder} has no ranges: it is no DFXP run, or has no finished epoch")
    plt = pyplot()
    layers = len(records[0]["ranges"])
    figure, axes = plt.subplots(
        2,
        layers,
        figsize=(3.2 * layers + 1.4, 5.6),
        layout="constrained",
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    # A range that goes to and fro would be a band: means of some epochs each.
    window = -(-len(records) // MOST_POINTS)
    drawn = {}
    for row, what in enumerate(("ranges", "overflow_rates")):
        there = [r for r in records if what in r]
        parts = [there[i : i + window] for i in range(0, len(there), window)]
        epochs = [np.mean([r["epoch"] for r in part]) for part in parts]
        drawn[row] = (
            epochs,
            np.array([np.mean([r[what] for r in part], axis=0) for part in parts]),
        )  # (points, layers, 10)
    for k in range(layers):
        for row, (epochs, values) in drawn.items():
            for i, signal in enumerate(SIGNALS):
                colour, line, _ = STYLES[i // 2]
                shown = values[:, k, i] * (100 if row else 1)
                axes[row, k].plot(
                    epochs,
                    np.where(shown > 0, shown, np.nan) if row else shown,
                    color=colour,
                    linestyle=line,
                    linewidth=1.6 if i % 2 else 0.8,
                    label=signal,
                )
        axes[0, k].set_title(f"layer {k}", fontsize="medium")
        axes[0, k].yaxis.set_major_locator(plt.matplotlib.ticker.MaxNLocator(integer=True))
        axes[1, k].axhline(100 * allowed, color="0.6", linewidth=0.8)
        axes[1, k].set(xlabel=f"epoch (means of {window})" if window > 1 else "epoch", yscale="log")
    axes[0, 0].set_ylabel("range (integer bits)")
    axes[1, 0].set_ylabel("overflow rate (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    save(plt, figure, out)


def sweep_lines(outcomes, key, common):
    """Lines of one of the paper's figures: {(task, epochs, words): [(x, mean, deviation, runs), ...]}, and FLP errors.

    y is the test error over that of FLP, trained as long on the same task; deviation is over the seeds.
    """
    groups = by_settings([o for o in outcomes if o.complete])
    flp = {
        (s.task, s.epochs, s.streams): np.mean([o.error for o in group])
        for s, group in groups.items()
        if s.format == "FLP"
    }
    lines, without = {}, set()
    for settings, group in groups.items():
        if any(getattr(settings, name) not in values for name, values in common.items()):
            continue
        baseline = flp.get((settings.task, settings.epochs, settings.streams))
        if baseline is None:
            without.add(settings.task)
            continue
        rest = replace(settings, **{key: 1 if key.endswith("bits") else 0})
        mean, deviation = mean_and_deviation([o.error / baseline for o in group])
        lines.setdefault(rest, []).append((getattr(settings, key), mean, deviation, len(group)))
    return {rest: sorted(points) for rest, points in lines.items() if len(points) > 1}, sorted(
        without
    )


def paper(folders, out, sample=False, names=tuple(SWEPT)):
    """The paper's figures (SPEC section 13) that there are runs for, out/fig1.png, .svg, ...; (paths, remarks)."""
    outcomes, remarks = collect(folders, sample)
    remarks += [
        f"{o.folder} was stopped after epoch {o.last['epoch']} of {o.epochs}, left out"
        for o in outcomes
        if not o.complete
    ]
    paths, plt = [], pyplot()
    for name in names:
        key, axis, common = SWEPT[name]
        lines, without = sweep_lines(outcomes, key, common)
        remarks += [f"{name}: no FLP run of {task}, as long, to compare with" for task in without]
        if not lines:
            remarks.append(f"{name}: there are not two runs to draw against the {axis}")
            continue
        figure, axes = plt.subplots(figsize=(6.0, 4.0), layout="constrained")
        scale = 100 if key == "max_overflow" else 1
        for i, (rest, points) in enumerate(lines.items()):
            colour, line, marker = STYLES[i % len(STYLES)]
            x, mean, deviation, _ = map(np.array, zip(*points, strict=True))
            axes.errorbar(
                x * scale,
                mean,
                deviation if deviation.any() else None,
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4,
                capsize=2,
                label=line_label(rest, key, lines),
            )
        axes.axhline(1, color="0.6", linewidth=0.8)
        # Errors of a network that learns nothing are so large that the rest would be a flat line.
        highest = max(mean for points in lines.values() for _, mean, _, _ in points)
        axes.set(
            xlabel=axis,
            ylabel="test error / test error of FLP",
            yscale="log" if highest > 5 else "linear",
        )
        for set_formatter in (
            (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter) if highest > 5 else ()
        ):
            set_formatter(plt.matplotlib.ticker.FormatStrFormatter("%g"))
        if highest > 5:
            axes.yaxis.set_minor_locator(plt.matplotlib.ticker.LogLocator(subs=(2, 5)))
        if key == "max_overflow":
            smallest = (
                min((x for points in lines.values() for x, *_ in points if x), default=1e-6) * scale
            )
            axes.set_xscale("symlog", linthresh=smallest)
        else:
            axes.xaxis.set_major_locator(plt.matplotlib.ticker.MaxNLocator(integer=True))
        axes.legend()
        files = [out / f"{name}{suffix}" for suffix in (".png", ".svg")]
        save(plt, figure, *files)
        paths += files
    return paths, remarks


def line_label(rest, key, lines):
    """What tells a line from the others of its figure: task, format, and the numbers in which they differ."""
    words = (
        [rest.task.replace("_", " "), rest.format]
        if len({r.task for r in lines}) > 1
        else [rest.format]
    )
    names = {
        "initial_range": "range",
        "prop_bits": "propagation bits",
        "up_bits": "update bits",
        "range_update_frequency": "update every",
        "max_overflow": "overflow",
        "init_epochs": "init epochs",
        "epochs": "epochs",
        "streams": "streams",
    }
    alike = [r for r in lines if r.format == rest.format]
    words += [
        f"{text} {getattr(rest, name)}"
        for name, text in names.items()
        if name != key and len({getattr(r, name) for r in alike}) > 1
    ]
    return ", ".join(words)


def tile(W):
    """First-layer weights as one picture, float64 (rows, columns, 3), each filter scaled to its own largest weight.

    W is (filters, channels, rows, columns), of one or three channels, or dense (784, filters).
    """
    if W.ndim == 2:
        W = W.T.reshape(-1, 1, 28, 28)
    filters = W.transpose(0, 2, 3, 1).astype("float64")
    filters = 0.5 + filters / (2 * np.abs(filters).max(axis=(1, 2, 3), keepdims=True).clip(1e-12))
    count, rows, columns, _ = filters.shape
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    picture = np.ones((down * (rows + 1) - 1, across * (columns + 1) - 1, 3))
    for i, image in enumerate(filters):
        top, left = i // across * (rows + 1), i % across * (columns + 1)
        picture[top : top + rows, left : left + columns] = image
    return picture


def filters(folder, out):
    """The first layer's filters at the best epoch, tiled, in colour if they see colours."""
    path = existing(folder).folder / "best.npz"
    W = load_npz(path).get("layer0/W")
    if (
        W is None
        or not W.size
        or W.ndim not in (2, 4)
        or W.ndim == 2
        and len(W) != 784
        or W.dtype.kind != "f"
    ):
        raise RunError(f"{path} does not hold the filters of a first layer")
    picture = tile(W)
    zoom = max(1, 800 // picture.shape[0])
    out.parent.mkdir(parents=True, exist_ok=True)
    pyplot().imsave(out, np.kron(picture, np.ones((zoom, zoom, 1))))


def picture(text):
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in {', '.join(SUFFIXES)}")
    return path


KINDS = {
    "curves": "learning curves of one or more runs",
    "ranges": "ranges and overflow rates of a DFXP run",
    "filters": "the first layer's filters of a run, tiled",
}


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
