"""Pictures made from run folders.

    python -m utilities.figures curves runs/PI_MNIST_FLP runs/PI_MNIST_HFLP -o curves.png
"""

import argparse
import sys
from pathlib import Path

from runs import Run, RunError

# Distinct in grey as well as in colour.
STYLES = [("black", "-"), ("tab:blue", "--"), ("tab:orange", "-."), ("tab:green", ":")]


def label(run):
    """A run's arguments, as on the command line."""
    command = run.config()["command"]
    options = [i for i, word in enumerate(command) if word.startswith("--")]
    return " ".join(command[1 : options[0] if options else None])


def curves(folders, out):
    """Validation (thin) and test error (thick) against the epoch, one colour a run, into the picture `out`."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for i, folder in enumerate(folders):
        run, (colour, line) = Run(folder), STYLES[i % len(STYLES)]
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


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m utilities.figures", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    sub = kinds.add_parser("curves", help="learning curves of one or more runs")
    sub.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    sub.add_argument("-o", "--out", type=Path, default=Path("curves.png"), help="picture to write (curves.png)")
    a = parser.parse_args(arguments)
    try:
        curves(a.runs, a.out)
    except RunError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 2
    print(a.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
