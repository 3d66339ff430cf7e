"""Pictures of single runs: learning curves, ranges, filters."""

import io
import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from ending import importing
from errors import RunError
from files import load_npz, write_atomically
from records.folder import RunFolder
from records.metrics import Record
from settings import Settings
from utilities.outcomes import data_name, fact

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
    if not (folder / "config.json").exists():
        raise RunError(f"{folder} is not a run folder")
    try:
        run = RunFolder(folder)
        run.check_sums()
    except RunError as error:
        raise RunError(fact(error)) from None
    return run


def label(run: RunFolder) -> str:
    """What tells a run from others, and the paper's from those on other data."""
    config = run.config()
    words = Settings(**config["settings"]).words()
    data = data_name(config)
    return " ".join([*words, *([f"({data})"] if data else [])])


def labels(runs: Sequence[RunFolder]) -> list[str]:
    """Of several runs: those that would be the same with their folders."""
    own = [label(run) for run in runs]
    return [
        f"{text} in {run.folder}" if own.count(text) > 1 else text
        for run, text in zip(runs, own, strict=True)
    ]


def load_matplotlib() -> Any:
    """matplotlib, drawing into files, whatever a notebook has put into the environment.

    MissingPackage if there is none.
    """
    os.environ["MPLBACKEND"] = "agg"
    with importing():
        import matplotlib

        matplotlib.use("agg")
    return matplotlib


def pyplot() -> Any:
    """matplotlib.pyplot, set up so that the same picture is the same file."""
    load_matplotlib()
    with importing():
        import matplotlib.pyplot as plt

    plt.rcParams |= {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "svg.hashsalt": "figures",
    }
    return plt


def save(plt: Any, figure: Any, *paths: Path) -> None:
    """Write a figure, each file whole or not at all, and be done with it."""
    contents = [rendered(figure, path.suffix) for path in paths]
    plt.close(figure)
    for path, content in zip(paths, contents, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, partial(write_all, content))


def write_all(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def rendered(figure: Any, suffix: str) -> bytes:
    """A picture file of a figure; the same figure is the same file."""
    matplotlib = load_matplotlib()
    kind = suffix[1:]
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "figures"}):
        figure.savefig(content, format=kind, dpi=150, metadata=undated.get(kind))
    return content.getvalue()


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
    runs = [existing(folder) for folder in folders]
    least = math.inf
    for i, (run, name) in enumerate(zip(runs, labels(runs), strict=True)):
        colour, line, marker = STYLES[i % len(STYLES)]
        records = run.records()
        if not records:
            raise RunError(f"{run.folder} has no finished epoch to draw")
        epochs = [record["epoch"] for record in records]
        for what, width, alpha in (
            ("test", 1.5, 1),
            ("validation", 0.6, 0.7),
            ("training", 1, 0.4),
        ):
            errors = [record.get(f"{what}_error") for record in records]
            known = [error for error in errors if error is not None]
            if not known:
                continue
            least = min(least, *known)
            axes.plot(
                epochs,
                [math.nan if error is None else error for error in errors],
                color=colour,
                linestyle=line,
                marker=marker if len(known) == 1 else None,  # which no line would show
                label=f"{name}, {what}",
                linewidth=width,
                alpha=alpha,
            )
    axes.set(xlabel="epoch", ylabel="error (%)")
    if least > 0:
        axes.set_yscale("log")
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
    figure.suptitle(label(run), fontsize="medium")
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
                marker="." if len(epochs) == 1 else None,
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
    run = existing(folder)
    path = run.best_path
    W = load_npz(path).get("layer0/W")
    if W is None or not is_first_layer(W):
        raise RunError(f"{path} does not hold the filters of a first layer")
    picture = tile(W)
    plt = pyplot()
    rows, columns, _ = picture.shape
    figure, axes = plt.subplots(figsize=(5.6, 0.4 + 5.6 * rows / columns), layout="constrained")
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(label(run), fontsize="medium")
    save(plt, figure, out)


def is_first_layer(W: np.ndarray) -> bool:
    """Whether weights can be drawn as pictures."""
    if W.dtype.kind != "f" or not W.size:
        return False
    return W.ndim == 4 and W.shape[1] in (1, 3) or W.ndim == 2 and len(W) == PICTURE_SIDE**2
