"""A first look: some epochs of maxout in 10-bit dynamic fixed point, and their curve.

    python -m utilities.demo        (or: make demo)

Real MNIST if it is there or can be downloaded, else a small generated sample.
"""

import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import main as program
import terminal
from datasets import load
from errors import DataError
from terminal import Parser, data_folder
from utilities import figures

FOLDER = Path("runs/demo")


@terminal.program("demo")
def main(arguments: list[str]) -> int:
    Parser("python -m utilities.demo", __doc__).parse_args(arguments)
    folder = FOLDER
    numbers = ["100", "0.0001", "2"]
    options = ["--stop-after", "8"]
    try:
        load("mnist", data_folder(None, sample=False))
    except DataError as error:
        print(no_mnist(error), flush=True)
        folder = Path(f"{FOLDER}_sample")
        numbers = ["5", "0.0001", "4"]
        options = ["--stop-after", "30", "--sample"]
    words = ["PI_MNIST", "DFXP", "5", "9", "11", *numbers, *options, "--out", str(folder)]
    print(f"python main.py {' '.join(words)}", flush=True)
    if status := program.main(words):
        return status
    figures.draw_curves([folder], folder / "curves.png")
    print(f"learning curve {folder / 'curves.png'}")
    return 0


def no_mnist(error: DataError) -> str:
    """What the user is told before the sample is trained on."""
    frame = "*" * 78
    return (
        f"{frame}\n* No real MNIST here: {error}\n"
        "* Going on with a generated sample: ITS ERROR RATES SAY NOTHING ABOUT MNIST.\n"
        "* Its ranges are updated every 5 batches, since an epoch has only 20.\n"
        f"{frame}"
    )


if __name__ == "__main__":
    terminal.run(main)
