"""Pictures of single runs: learning curves, ranges, filters."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from errors import RunError
from files import load_npz
from records.folder import RunFolder
from records.metrics import Record
from settings import Settings

# Colour, line and marker: distinct in grey as well as in colour.
STYLES: list[tuple[str, Any, str]] = [
    ("black", "-", "o"),
    ("tab:blue", "--", "s"),
    ("tab:orange", "-.", "^"),
    ("tab:green", ":", "D"),
    ("tab:red", (0, (5, 1)), "v"),
    ("tab:purple", (0, (1, 1)), "P"),
]
MOST_POINTS = 80  # of a line of `ranges`
PICTURE_SIDE = 28  # of what a dense first layer sees


def existing(folder: Path) -> RunFolder:
    """A run folder with a run in it; RunError if there is none."""
    run = RunFolder(folder)
    if not run.exists:
        raise RunError(f"{folder} is not a run folder")
    run.check_sums()
    return run


def label(run: RunFolder) -> str:
    """What tells a run from others."""
    config = run.config()
    words = Settings(**config["settings"]).words()
    return " ".join([*words, *(["(sample)"] if config.get("sample") else [])])


def pyplot() -> Any:
    """matplotlib.pyplot, set up so that the same picture is the same file."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "svg.hashsalt": "figures",
    }
    return plt


def save(plt: Any, figure: Any, *paths: Path) -> None:
    """Write a figure, and be done with it."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def label_decades(plt: Any, axis: Any) -> None:
    """Plain numbers at 1, 2 and 5 of each decade of a logarithmic axis."""
    axis.set_major_formatter(plt.matplotlib.ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(plt.matplotlib.ticker.FormatStrFormatter("%g"))
    axis.set_minor_locator(plt.matplotlib.ticker.LogLocator(subs=(2, 5)))


def curves(folders: Sequence[Path], out: Path) -> None:
    """Test (thick), validation (thin) and training error (pale) against the epoch.

    One style a run; the training error, under dropout, where a run has it.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for i, folder in enumerate(folders):
        run = existing(folder)
        colour, line, _ = STYLES[i % len(STYLES)]
        records = run.records()
        if not records:
            raise RunError(f"{folder} has no finished epoch to draw")
        epochs = [record["epoch"] for record in records]
        for what, width, alpha in (
            ("test", 1.5, 1),
            ("validation", 0.6, 0.7),
            ("training", 1, 0.4),
        ):
            errors = [record.get(f"{what}_error") for record in records]
            if not any(error is not None for error in errors):
                continue
            axes.plot(
                epochs,
                [math.nan if error is None else error for error in errors],
                color=colour,
                linestyle=line,
                label=f"{label(run)}, {what}",
                linewidth=width,
                alpha=alpha,
            )
    axes.set(xlabel="epoch", ylabel="error (%)", yscale="log")
    label_decades(plt, axes.yaxis)
    axes.legend()
    save(plt, figure, out)


def ranges(folder: Path, out: Path) -> None:
    """Ranges (above) and overflow rates (below) of the signals of a DFXP run.

    One column a layer. Rates of zero are not drawn; the grey line is the rate above
    which a range grows.
    """
    run = existing(folder)
    records = [record for record in run.records() if "ranges" in record]
    if not records:
        raise RunError(f"{folder} has no ranges: it is no DFXP run, or has no finished epoch")
    allowed = run.config()["settings"]["max_overflow"]
    # A range that goes to and fro would be a band: means of some epochs each.
    window = -(-len(records) // MOST_POINTS)
    layers = len(records[0]["ranges"])
    plt = pyplot()
    figure, axes = plt.subplots(
        2,
        layers,
        figsize=(3.2 * layers + 1.4, 5.6),
        layout="constrained",
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    draw_signals(axes[0], *means(records, "ranges", window))
    epochs, rates = means(records, "overflow_rates", window)
    draw_signals(axes[1], epochs, np.where(rates > 0, 100 * rates, np.nan))
    for k, (above, below) in enumerate(axes.T):
        above.set_title(f"layer {k}", fontsize="medium")
        above.yaxis.set_major_locator(plt.matplotlib.ticker.MaxNLocator(integer=True))
        below.axhline(100 * allowed, color="0.6", linewidth=0.8)
        below.set(xlabel=f"epoch (means of {window})" if window > 1 else "epoch", yscale="log")
    axes[0, 0].set_ylabel("range (integer bits)")
    axes[1, 0].set_ylabel("overflow rate (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    save(plt, figure, out)


def means(records: list[Record], what: str, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over so many epochs: of epochs, and of values (points, layers, signals)."""
    there = [record for record in records if what in record]
    parts = [there[i : i + window] for i in range(0, len(there), window)]
    epochs = [np.mean([record["epoch"] for record in part]) for part in parts]
    values = [np.mean([record[what] for record in part], axis=0) for part in parts]
    layers = np.shape(records[0]["ranges"])
    return np.array(epochs), np.array(values).reshape(-1, *layers)


def draw_signals(axes: Sequence[Any], epochs: np.ndarray, values: np.ndarray) -> None:
    """A line for each signal, in a picture for each layer."""
    from format import SIGNALS

    for k, layer in enumerate(axes):
        for i, signal in enumerate(SIGNALS):
            colour, line, _ = STYLES[i // 2]
            layer.plot(
                epochs,
                values[:, k, i],
                color=colour,
                linestyle=line,
                linewidth=1.6 if i % 2 else 0.8,
                label=signal,
            )


def tile(W: np.ndarray) -> np.ndarray:
    """First-layer weights as one picture, float64 (rows, columns, 3).

    W is (filters, channels, rows, columns), of one or three channels, or dense (784,
    filters). Each filter is scaled to its own largest weight.
    """
    if W.ndim == 2:
        W = W.T.reshape(-1, 1, PICTURE_SIDE, PICTURE_SIDE)
    filters = W.transpose(0, 2, 3, 1).astype("float64")
    filters = 0.5 + filters / (2 * np.abs(filters).max(axis=(1, 2, 3), keepdims=True).clip(1e-12))
    count, rows, columns, _ = filters.shape
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    picture = np.ones((down * (rows + 1) - 1, across * (columns + 1) - 1, 3))
    for i, image in enumerate(filters):
        top = i // across * (rows + 1)
        left = i % across * (columns + 1)
        picture[top : top + rows, left : left + columns] = image
    return picture


def filters(folder: Path, out: Path) -> None:
    """The first layer's filters at the best epoch, in colour if they see colours."""
    path = existing(folder).best_path
    W = load_npz(path).get("layer0/W")
    if W is None or not is_first_layer(W):
        raise RunError(f"{path} does not hold the filters of a first layer")
    picture = tile(W)
    zoom = max(1, 800 // picture.shape[0])
    out.parent.mkdir(parents=True, exist_ok=True)
    pyplot().imsave(out, np.kron(picture, np.ones((zoom, zoom, 1))))


def is_first_layer(W: np.ndarray) -> bool:
    """Whether weights can be drawn as pictures."""
    if W.dtype.kind != "f" or not W.size:
        return False
    return W.ndim == 4 and W.shape[1] in (1, 3) or W.ndim == 2 and len(W) == PICTURE_SIDE**2
