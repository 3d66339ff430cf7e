"""A network in integers, read with NumPy alone.

`python -m utilities.export` writes the folder, docs/networks.md describes it. This file and
integer_layers.py need nothing else of the program: copy both into a folder of another one.

    network = read("exported")
    y = network.layers[0].first(x)           # float32 images (n, inputs) -> integers
    for layer in network.layers[1:]:
        y = layer.y(layer.z(y))              # integers -> integers
    classes = y.argmax(axis=1)

    python -m utilities.integer_network exported    # the test vectors, computed once more
"""

import hashlib
import json
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .integer_layers import Grid, Layer

FORM = "deep-learning-storage integers"
VERSION = 1
FIXED_POINT = "fixed point"
BINARY16 = "binary16"
MANIFEST = "manifest.json"
WEIGHTS = "weights.npz"
VECTORS = "vectors.npz"
MOST_BYTES = 1 << 30  # of a file, packed or unpacked
BLOCK = 100  # images at a time

Arrays = dict[str, np.ndarray]


class Unreadable(ValueError):
    """A folder that is damaged, or something else: one line says what."""


@dataclass(frozen=True)
class Network:
    """What a folder holds.

    Parameters
    ----------
    manifest
        Of manifest.json.
    weights, vectors
        The arrays of weights.npz and of vectors.npz (empty if there are no test vectors).
    layers
        Of a network in fixed point. One in half precision has none: its arrays hold patterns,
        weights["layer0/W"].view("float16").
    """

    manifest: dict[str, Any]
    weights: Arrays
    vectors: Arrays
    layers: list[Layer]


def differences(network: Network) -> Iterator[tuple[str, np.ndarray]]:
    """(signal, integers computed here minus those of the test vectors), layer after layer.

    Each layer gets the vectors' integers of the one below, the first the images.
    """
    below = network.vectors["x"]
    for layer in network.layers:
        z, y = (network.vectors[f"{layer.name}/{signal}"].astype("int64") for signal in "zy")
        linear = layer.z if layer.below else layer.first_z
        blocks = [linear(below[k : k + BLOCK]) for k in range(0, len(below), BLOCK)]
        yield f"{layer.name}/z", np.concatenate(blocks) - z
        yield f"{layer.name}/y", layer.y(z) - y
        below = y


def unpack(content: bytes, count: int, bits: int) -> np.ndarray:
    """The first `count` words of `bits` bits in `content`, as packed.bin has them -> int64."""
    stream = np.frombuffer(content, "uint8", -(-count * bits // 8))
    words = np.unpackbits(stream, count=count * bits, bitorder="little").reshape(count, bits)
    values = np.zeros(count, "int64")
    for bit in range(bits):
        weight = 2**bit if bit < bits - 1 else -(2**bit)  # two's complement
        values += words[:, bit].astype("int64") * weight
    return values


def read(folder: str | Path) -> Network:
    """The network in a folder; Unreadable if anything in it is not as its manifest says."""
    try:
        return _read(Path(folder))
    except Exception as error:  # whatever the parsers of JSON, zip files and headers raise
        what = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        line = " ".join(what.split())
        raise Unreadable(f"{folder} is no network in integers ({line})") from None


def _read(folder: Path) -> Network:
    manifest = json.loads(_content(folder / MANIFEST))
    _must(isinstance(manifest, dict) and manifest.get("form") == FORM, "its form is another")
    _must(manifest["version"] == VERSION, f"its form has version {manifest['version']!r}")
    _must(manifest_sum(manifest) == manifest["sha256"], f"{MANIFEST} was changed")
    for name, known in manifest["files"].items():
        _must(".." not in Path(name).parts and not Path(name).is_absolute(), f"a file {name}")
        content = _content(folder / name)
        _must(len(content) == known["bytes"], f"{name} has {len(content)} bytes")
        _must(hashlib.sha256(content).hexdigest() == known["sha256"], f"{name} was changed")
    weights = _arrays(folder / WEIGHTS)
    vectors = _arrays(folder / VECTORS) if manifest["vectors"] else {}
    for layer in manifest["layers"]:
        for name, said in layer["tensors"].items():
            _check(weights[f"{layer['name']}/{name}"], said, tuple(said["shape"]))
        for name, said in layer["signals"].items() if vectors else ():
            shape = (len(vectors["x"]), *said["shape"])
            _check(vectors[f"{layer['name']}/{name}"], said, shape)
    network = Network(manifest, weights, vectors, [])
    if manifest["numbers"] == FIXED_POINT:
        _add_layers(network)
    return network


def _content(path: Path) -> bytes:
    _must(path.is_file(), f"there is no file {path.name}")
    size = path.stat().st_size
    _must(size <= MOST_BYTES, f"{path.name} has {size:,} bytes")
    return path.read_bytes()


def _must(good: bool, otherwise: str) -> None:
    if not good:
        raise ValueError(otherwise)


def manifest_sum(manifest: dict[str, Any]) -> str:
    """The SHA-256 sum of a manifest without its own."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _arrays(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        _must(unpacked <= MOST_BYTES, f"{path.name} would unpack to {unpacked:,} bytes")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _check(array: np.ndarray, said: dict[str, Any], shape: tuple[int, ...]) -> None:
    """ValueError unless an array is what the manifest says of it."""
    _must(array.shape == shape, f"an array has the shape {array.shape}, not {shape}")
    if "exponent" not in said:
        return _must(array.dtype == "uint16", "an array holds no patterns of 16 bits")
    largest = _grid(said).largest
    _must(array.dtype.kind == "i", f"an array holds {array.dtype}, not integers")
    extremes = (int(array.min()), int(array.max())) if array.size else (0,)
    _must(max(map(abs, extremes)) <= largest, f"an integer exceeds {largest}")


def _grid(said: dict[str, Any]) -> Grid:
    bits, exponent = said["bits"], said["exponent"]
    whole = type(bits) is int and type(exponent) is int
    _must(whole and 1 <= bits <= 31 and -126 <= exponent <= 101, f"{bits} bits, 2^{exponent}")
    return Grid(bits, exponent)


def _add_layers(network: Network) -> None:
    """Add the layers, each of which must take what the one below gives."""
    layers = network.layers
    y = np.zeros((1, int(np.prod(network.manifest["layers"][0]["input_shape"]))), "int64")
    if network.vectors:
        _must(network.vectors["x"].shape[1:] == y.shape[1:], "x has another shape")
    for said in network.manifest["layers"]:
        layer = layer_of(said, network.weights, layers[-1].y_grid if layers else None)
        z = layer.z(y) if layers else layer.first_z(y)
        y = layer.y(z)
        for name, array in (("z", z), ("y", y)):
            shape = (1, *said["signals"][name]["shape"])
            _must(array.shape == shape, f"{layer.name}/{name} has the shape {array.shape}")
        layers.append(layer)


def layer_of(said: dict[str, Any], weights: Arrays, below: Grid | None) -> Layer:
    """A layer, from its entry in the manifest, its arrays, and the grid of the layer below."""
    name, tensors = said["name"], said["tensors"]
    _must(said["kind"] in ("DenseMaxout", "ConvMaxout", "Softmax"), "a layer of another kind")
    for stored, seen in (("W", "Wq"), ("b", "bq")):
        integers = weights[f"{name}/{stored}"].astype("int64")
        rounded = _grid(tensors[seen]).nearest(integers, _grid(tensors[stored]).exponent)
        same = np.array_equal(rounded, weights[f"{name}/{seen}"])
        _must(same, f"{name}/{seen} does not follow from {name}/{stored}")
    layer = Layer(
        name=name,
        kind=said["kind"],
        W=weights[f"{name}/Wq"].astype("int64"),
        b=weights[f"{name}/bq"].astype("int64"),
        below=below,
        w_grid=_grid(tensors["Wq"]),
        b_grid=_grid(tensors["bq"]),
        z_grid=_grid(said["signals"]["z"]),
        y_grid=_grid(said["signals"]["y"]),
        scale=int(said["scale_exponent"]),
        input_shape=tuple(said["input_shape"]),
        pieces=int(said.get("pieces", 1)),
        pad=int(said.get("pad", 0)),
        pool=int(said.get("pool", 1)),
        stride=int(said.get("stride", 1)),
    )
    _must(layer.W.ndim == 2 or 0 <= layer.pad < layer.W.shape[-1], f"{name} is padded too much")
    return layer


def compared(network: Network) -> Iterator[str]:
    """`differences`, a line a signal."""
    for signal, off in differences(network):
        if wrong := np.count_nonzero(off):
            most = abs(off).max()
            yield f"{signal}: {wrong:,} of {off.size:,} integers differ, by at most {most}"
        else:
            yield f"{signal}: all {off.size:,} integers equal"


def main(arguments: list[str]) -> int:
    """Compute the test vectors of a folder once more, and say what is equal."""
    try:
        _must(len(arguments) == 1, "it needs the folder")
        network = read(arguments[0])
        _must(bool(network.layers), "half-precision floats have no integer test pass")
        _must(bool(network.vectors), "it has no test vectors")
    except ValueError as error:
        print(f"integer_network: {error}", file=sys.stderr)
        return 2
    for line in compared(network):
        print(line)
    return 0


if __name__ == "__main__":
    from ending import program, run  # here, and not where the file was copied to

    run(program("integer_network")(main))
