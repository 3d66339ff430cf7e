"""A first look: a few epochs of a maxout network in 10-bit dynamic fixed point, and its learning curve.

    python -m utilities.demo        (or: make demo)

Real MNIST if it is there or can be downloaded, else a small generated sample.
"""

import argparse
import os
import sys
from pathlib import Path

import datasets
import main as program
from utilities import figures

FOLDER = Path("runs/demo")


def main():
    argparse.ArgumentParser(
        prog="python -m utilities.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    folder = Path(os.environ.get("PYLEARN2_DATA_PATH") or "data")
    out, numbers, options = FOLDER, ["100", "0.0001", "2"], ["--stop-after", "8"]
    try:
        datasets.load("PI_MNIST", folder)
    except datasets.DataError as error:
        print(
            f"{'*' * 78}\n* No real MNIST here: {error}\n* Going on with a generated sample: ITS ERROR RATES SAY "
            f"NOTHING ABOUT MNIST.\n* Its ranges are updated every 5 batches, since an epoch has only 20.\n{'*' * 78}",
            flush=True,
        )
        out, numbers, options = (
            Path(f"{FOLDER}_sample"),
            ["5", "0.0001", "4"],
            ["--stop-after", "30", "--sample"],
        )
    arguments = ["PI_MNIST", "DFXP", "5", "9", "11", *numbers, *options, "--out", str(out)]
    print(f"python main.py {' '.join(arguments)}", flush=True)
    if status := program.main(arguments):
        return status
    figures.curves([out], out / "curves.png")
    print(f"learning curve {out / 'curves.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
