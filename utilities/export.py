"""A trained network in integers, as hardware has it: a folder that docs/networks.md describes.

    python -m utilities.export RUN -o DIR
    python -m utilities.export FILE.npz -o DIR [--vectors N]

RUN is a run folder, of which best.npz is taken unless --which says final. Weights and biases come
as .npz, as packed words of bits, and as hexadecimal text; beside them manifest.json, which says
what they mean, and test vectors: the first N test images with every layer's integers.
utilities/integer_network.py reads the folder with NumPy alone.
"""

import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import terminal
from data_options import add_own_set, completed, load_chosen, own_set
from errors import DataError, FileError, Stopped, printable_path
from files import Arrays
from records import networks
from records.networks import SavedNetwork
from tasks import TASKS
from utilities import integer_folder, integer_network
from utilities.evaluation_report import words

EXPORTED = ("FXP", "DFXP", "FXPR", "DFXPR", "HFLP")  # random or not, its test pass is the same


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = terminal.Parser("python -m utilities.export", __doc__)
    parser.add_argument(
        "network", type=terminal.path, metavar="RUN|FILE.npz", help="run folder, or its network"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=terminal.folder,
        required=True,
        metavar="DIR",
        help="the folder to write; an earlier export is replaced",
    )
    parser.add_argument(
        "--which", choices=("best", "final"), help="network of a run folder (default best)"
    )
    parser.add_argument(
        "--vectors",
        type=terminal.whole(0, 1_000_000),
        default=16,
        metavar="N",
        help="test vectors (default 16; none need no data)",
    )
    terminal.add_data_options(parser)
    add_own_set(parser)
    a = parser.parse_args(arguments)
    a.own = own_set(parser, a)
    if a.which and not a.network.is_dir():
        parser.error("--which is for a run folder")
    return a


def read(path: Path) -> SavedNetwork:
    """A saved network that has integers."""
    saved = networks.read(path)
    if saved.settings.format == "FLP":
        raise FileError(f"{path} is in FLP: its float32 numbers are no integers of few bits")
    if saved.settings.format not in EXPORTED:
        raise FileError(
            f"{path} is in {saved.settings.format}: only {', '.join(EXPORTED)} have a form in "
            "integers; its .npz file holds the exact values as float32"
        )
    if saved.epoch == 0:
        raise FileError(
            f"{path} is the untrained network, whose numbers are not stored in "
            f"{saved.settings.format} yet; export one of a later epoch"
        )
    return saved


def test_images(saved: SavedNetwork, a: argparse.Namespace) -> Arrays:
    """x and labels of the first test images; nothing if none are asked for."""
    if not a.vectors:
        return {}
    a.own = completed(a.own, saved.data, saved.path)
    a.sample = a.sample or saved.sample
    folder = a.own.folder if a.own else terminal.existing_data_folder(a.data, a.sample)
    data = load_chosen(TASKS[saved.settings.task].data_set, a)
    if data.identity != saved.data:
        raise DataError(f"{saved.path} was trained on other data than that in {folder}")
    if a.vectors > len(data.test):
        raise DataError(f"there are no more than {len(data.test)} test images in {folder}")
    x, t = data.test.read(0, a.vectors)
    return {"x": x, "labels": t.argmax(axis=1)}


def built(saved: SavedNetwork) -> Any:
    """The network of a file, its arrays checked; a model.Network."""
    from model import Network

    settings = saved.settings
    network = Network(settings.task, settings.format, np.random.RandomState(0))
    variables = [variable for layer in network.layers for variable in (layer.W, layer.b)]
    if network.format.has_ranges:
        variables += [layer.ranges.ranges for layer in network.layers]
    networks.check(saved, {str(v.name): v.get_value() for v in variables})
    for variable in variables:
        variable.set_value(saved.arrays[str(variable.name)])
    return network


def remembering(function: Callable, seen: list) -> Callable:
    """The function, with what it is given put into a list."""

    def call(argument: Any) -> Any:
        seen.append(argument)
        return function(argument)

    return call


def signals(
    network: Any, x: np.ndarray, prop_bits: int, batch: int, check: Callable[[], None]
) -> Arrays:
    """z (after pooling, quantized) and y of every layer for some images, by the test pass.

    `check` is called before each batch.
    """
    from xla.device import device_failures
    from xla.graphs import compiled
    from xla.layout import batch_first

    seen: list[Any] = []
    for layer in network.layers:
        layer.activate = remembering(layer.activate, seen)
    inputs, outputs = network.test_step(batch)
    names = [f"{layer.name}/{signal}" for signal in "zy" for layer in network.layers]
    with device_failures():
        program = compiled(inputs, network.state, [*map(batch_first, seen), *outputs])
        state = {variable.name: variable.get_value() for variable in network.state}
        whole = np.pad(x, [(0, -len(x) % batch), (0, 0)])
        found = []
        for k in range(0, len(x), batch):
            check()
            values = {"x": whole[k : k + batch], "prop_bits": np.int32(prop_bits)}
            found.append([np.asarray(array) for array in program(values, state)])
        arrays = [np.concatenate(parts)[: len(x)] for parts in zip(*found, strict=True)]
    return dict(zip(names, arrays, strict=True))


def export(a: argparse.Namespace, stopping: terminal.Signals) -> SavedNetwork:
    """Write the folder; the network that is in it."""
    with stopping.at_once():
        saved = read(networks.file_of(a.network, a.which))
        integer_folder.check_target(a.out)
        vectors = test_images(saved, a)
        for remark in networks.remarks(saved):
            terminal.say("export", remark)
    with terminal.importing(xla=True):
        from utilities.integer_form import contents
        from xla.device import select_device
    with terminal.held_back():
        select_device("cpu")  # its sums are float32, whatever the format
    network = built(saved)
    settings = saved.settings
    if vectors:
        batch = TASKS[settings.task].batch_size
        x = vectors["x"]
        vectors |= signals(network, x, settings.prop_bits, batch, stopping.check)
    with stopping.at_once():
        integer_folder.write(a.out, contents(saved, network.layers_described(), vectors))
    return saved


def report(saved: SavedNetwork, folder: Path) -> None:
    """Sizes; and the folder read again, and its test vectors computed again."""
    exported = integer_network.read(folder)
    tensors = [said["tensors"][name] for said in exported.manifest["layers"] for name in ("W", "b")]
    count = sum(np.prod(said["shape"], dtype=int) for said in tensors)
    bits = " or ".join(str(n) for n in sorted({said["word_bits"] for said in tensors}))
    packed = (folder / integer_folder.PACKED).stat().st_size
    whole = saved.path.stat().st_size
    print(f"{words(saved)}: {count:,} weights and biases")
    print(f"float32 ({saved.path.name}): {whole:,} bytes")
    print(f"{bits} bits ({integer_folder.PACKED}): {packed:,} bytes, {100 * packed / whole:.1f} %")
    if exported.layers and exported.vectors:
        print(
            f"{len(exported.vectors['x'])} test vectors, each layer computed again from the "
            "program's integers of the one below, y from its z:"
        )
        for line in integer_network.compared(exported):
            print(f"  {line}")
    print(f"written to {printable_path(folder)}")


@terminal.program("export")
def main(arguments: list[str]) -> int:
    a = parse(arguments)
    done = "nothing was written"
    with terminal.Signals() as stopping:
        try:
            saved = export(a, stopping)
            done = f"{a.out} is written"
            with stopping.at_once():
                report(saved, a.out)
            return 0
        except Stopped:
            terminal.say("export", f"interrupted; {done}")
            return 128 + (stopping.received or 0)


if __name__ == "__main__":
    terminal.run(main)
