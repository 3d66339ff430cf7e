"""Evaluate a saved network: its error, and what it takes for what.

    python -m utilities.evaluate RUN                     best.npz of a run folder, on the test part
    python -m utilities.evaluate FILE.npz --part valid
    python -m utilities.evaluate RUN --mistakes mistakes.png --confusion confusion.png

The error is computed by the compiled pass that training tests with. The exit status is
0 if it equals the recorded one in every digit (that of train is not recorded), 1 if it
does not, and 2 if the network cannot be evaluated. Whether it was trained on the
generated sample, its file says.
"""

import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import argparse
import functools

import datasets
import terminal
from data_options import add_own_set, completed, own_set
from errors import DataError
from records import networks
from records.networks import SavedNetwork
from tasks import TASKS
from utilities.evaluation_files import PICTURES, Files, check_writable
from utilities.evaluation_report import report

PARTS = ("test", "valid", "train")


def parser() -> terminal.Parser:
    """The command line."""
    result = terminal.Parser("python -m utilities.evaluate", __doc__)
    result.add_argument(
        "network",
        type=terminal.path,
        metavar="RUN|FILE.npz",
        help="a run folder, or a network that was saved in one",
    )
    result.add_argument("--part", choices=PARTS, default="test", help="of the data (default: test)")
    result.add_argument(
        "--which",
        choices=("best", "final"),
        help="network of a RUN: at the lowest validation error (default), or after the last epoch",
    )
    result.add_argument(
        "--predictions",
        type=terminal.file(".csv"),
        metavar="FILE.csv",
        help="write label, prediction and outputs of every example",
    )
    for what, text in (
        ("confusion", "draw the confusion matrix"),
        ("mistakes", "draw the most confident mistakes"),
    ):
        result.add_argument(
            f"--{what}",
            type=terminal.file(*PICTURES),
            metavar="FILE.png",
            help=f"{text} ({', '.join(PICTURES)})",
        )
    terminal.add_data_options(result)
    add_own_set(result)
    terminal.add_device_options(result)
    return result


def data_of(network: SavedNetwork, a: argparse.Namespace) -> tuple[datasets.Dataset, Path]:
    """The data that a network was trained on, and their folder; DataError if others are there."""
    name = TASKS[network.settings.task].data_set
    if a.own:
        folder = a.own.folder
        data = datasets.load_own(name, a.own)
    else:
        folder = terminal.existing_data_folder(a.data, network.sample)
        data = datasets.load(name, folder, network.sample)
    names = sorted({*network.data, *data.identity})
    differing = [n for n in names if network.data.get(n) != data.identity.get(n)]
    if differing:
        option = "--data-set" if a.own else "--data"
        raise DataError(
            f"{network.path} was trained on other data than those in {folder} "
            f"({', '.join(differing)}); give the folder of its data with {option}"
        )
    return data, folder


def evaluate(a: argparse.Namespace) -> int:
    """Evaluate, print and write; the exit status."""
    check_writable([path for path in (a.predictions, a.confusion, a.mistakes) if path])
    network = networks.read(networks.file_of(a.network, a.which))
    if a.sample and not network.sample:
        raise DataError(f"{network.path} was not trained on the sample; leave --sample out")
    a.own = completed(a.own, network.data, network.path)
    data, folder = data_of(network, a)
    for remark in networks.remarks(network):
        terminal.say("evaluate", remark)
    with terminal.importing(xla=True):
        from utilities.predictions import predict
        from xla.device import select_device
        from xla.program_cache import cache_programs

    tell = functools.partial(terminal.say, parser().name)
    with terminal.held_back():
        select_device(a.device, a.deterministic, tell)
    cache_programs()
    predictions = predict(network, data, a.part)
    same = report(network, a.part, predictions)
    files = Files(network, data, folder, a.part, predictions, a.own)
    for line in files.write(a.predictions, a.confusion, a.mistakes):
        print(line)
    return 0 if same else 1


@terminal.program("evaluate")
def main(arguments: list[str]) -> int:
    command = parser()
    a = command.parse_args(arguments)
    a.own = own_set(command, a)
    return evaluate(a)


if __name__ == "__main__":
    terminal.run(main)
