"""Pictures made from run folders.

    python -m utilities.figures curves runs/PI_MNIST_FLP runs/PI_MNIST_HFLP -o curves.png
    python -m utilities.figures filters runs/CIFAR10_FLP -o filters.png
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from runs import Run, RunError, Settings, describe, load_npz

# Distinct in grey as well as in colour.
STYLES = [("black", "-"), ("tab:blue", "--"), ("tab:orange", "-."), ("tab:green", ":")]


def existing(folder):
    run = Run(folder)
    if not run.exists:
        raise RunError(f"{folder} is not a run folder")
    return run


def label(run):
    """What tells a run from others."""
    return " ".join(describe(Settings(**run.config()["settings"])))


def curves(folders, out):
    """Validation (thin) and test error (thick) against the epoch, one colour a run, into the picture `out`."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for i, folder in enumerate(folders):
        run, (colour, line) = existing(folder), STYLES[i % len(STYLES)]
        records = run.records()
        if not records:
            raise RunError(f"{folder} has no finished epoch to draw")
        epochs = [r["epoch"] for r in records]
        axes.plot(epochs, [r["test_error"] for r in records], line, color=colour, label=f"{label(run)}, test")
        axes.plot(epochs, [r["validation_error"] for r in records], line, color=colour, linewidth=0.6, alpha=0.7,
                  label=f"{label(run)}, validation")
    axes.set(xlabel="epoch", ylabel="error (%)", yscale="log")
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    plt.close(figure)


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
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    picture = tile(load_npz(existing(folder).folder / "best.npz")["layer0/W"])
    zoom = max(1, 800 // picture.shape[0])
    out.parent.mkdir(parents=True, exist_ok=True)
    plt.imsave(out, np.kron(picture, np.ones((zoom, zoom, 1))))


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m utilities.figures", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    sub = kinds.add_parser("curves", help="learning curves of one or more runs")
    sub.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    sub.add_argument("-o", "--out", type=Path, default=Path("curves.png"), help="picture to write (curves.png)")
    sub = kinds.add_parser("filters", help="the first layer's filters of a run, tiled")
    sub.add_argument("run", type=Path, metavar="RUN", help="run folder")
    sub.add_argument("-o", "--out", type=Path, default=Path("filters.png"), help="picture to write (filters.png)")
    a = parser.parse_args(arguments)
    try:
        curves(a.runs, a.out) if a.kind == "curves" else filters(a.run, a.out)
    except (RunError, OSError, ValueError, KeyError) as error:  # ValueError: a picture format that is unknown
        print(f"figures: {error}", file=sys.stderr)
        return 2
    print(a.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
