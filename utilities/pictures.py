"""Pictures of single runs: learning curves, ranges, filters."""

import numpy as np

from errors import RunError
from files import load_npz
from records.folder import RunFolder
from settings import Settings

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
