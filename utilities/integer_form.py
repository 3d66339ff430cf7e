"""What stands in a folder of integers; docs/networks.md describes it.

utilities.integer_network reads such a folder, utilities.integer_folder writes it.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from errors import FileError
from files import Arrays
from format import SIGNALS
from records.networks import SavedNetwork

from .integer_layers import Layer
from .integer_network import BINARY16, FIXED_POINT, FORM, VERSION, layer_of
from .integer_words import Words, fixed_point, half_precision, hexadecimal, pack, rounded

RULES = {
    "value": "an integer stands for integer * 2^exponent; exponent = range - bits, at least -126; "
    "range is the number of integer bits; bits does not count the sign",
    "parameters": "W and b are as training stored them; Wq and bq, which the test pass takes, are "
    "the same, rounded and saturated to their exponent and bits",
    "rounding": "to the nearest integer, halves away from zero",
    "saturation": "to -(2^bits - 1) and 2^bits - 1; from 25 bits on -2^bits and 2^bits",
}
BINARY16_RULES = {
    "value": "an integer is the pattern of an IEEE binary16 number",
    "parameters": "W and b are as training stored them and as the test pass takes them",
    "rounding": "to the nearest binary16 number, halves to the even one; subnormal numbers stay",
    "saturation": "what is too large becomes infinite",
}
FILES = {
    "layout": "C order; W is (inputs, units * pieces), of a convolutional layer (channels, input "
    "maps, rows, columns); x and y are flat, (maps, rows, columns) in that order",
    "packed.bin": "W and b of the first layer, W and b of the next, ..., each from a byte on: "
    "two's complement words of word_bits bits, one after the other, least significant bit first, "
    "which fill each byte from its least significant bit on",
    "hex": "a two's complement word of word_bits bits a line; x.hex: float32 patterns",
}
TEST_PASS = [
    "the input of layer0 is data, floats; that of every other layer is y of the one below",
    "DenseMaxout, Softmax: s = x Wq",
    "ConvMaxout: s = cross-correlation of x with Wq, stride 1, pad zeros on each side; then its "
    "maxima over pool x pool windows, stride apart, cut at the border",
    "z = (s + bq) * 2^scale_exponent, exact sums, then rounded and saturated",
    "DenseMaxout, ConvMaxout: y = maximum of the channels u * pieces to u * pieces + pieces - 1 of "
    "z, rounded and saturated",
    "Softmax: y = softmax of the numbers that z stands for, in floats, rounded and saturated",
    "the class is the first of those with the largest y",
]
SIZES = ("pieces", "pad", "pool", "stride")


@dataclass
class Contents:
    """What a folder is to hold.

    Parameters
    ----------
    manifest
        All of it but for the sums of the files.
    weights, vectors
        The arrays of the two .npz files; without vectors there is none.
    packed
        packed.bin.
    words
        What gets a file in hex/, by tensor: layer0/W, ...
    """

    manifest: dict[str, Any]
    weights: Arrays = field(default_factory=dict)
    vectors: Arrays = field(default_factory=dict)
    packed: bytes = b""
    words: dict[str, Words] = field(default_factory=dict)

    def hexadecimal(self) -> dict[str, bytes]:
        """File name -> its text."""
        return {hex_name(name): hexadecimal(words) for name, words in self.words.items()}


def hex_name(tensor: str) -> str:
    """The file of a tensor's words."""
    return f"hex/{tensor.replace('/', '_')}.hex"


def contents(saved: SavedNetwork, described: list[dict[str, Any]], vectors: Arrays) -> Contents:
    """The integers of a network.

    Parameters
    ----------
    described
        Its layers, as model.Network describes them.
    vectors
        x, labels, and z and y of every layer, float32: layer0/z, ...; or nothing.

    Raises
    ------
    FileError
        It is not stored in its format.
    """
    made = Contents(_manifest(saved, len(vectors["x"]) if vectors else 0))
    below = None
    for said in described:
        entry = _sizes(said)
        entry["tensors"] = _add_tensors(made, saved, said["name"])
        entry["signals"] = _add_signals(made, saved, entry, vectors)
        if made.manifest["numbers"] == FIXED_POINT:
            layer = layer_of(entry, made.weights, below)
            if below:
                entry["sums"] = _sums(layer)
            below = layer.y_grid
        made.manifest["layers"].append(entry)
    if vectors:
        made.vectors |= {"x": vectors["x"], "labels": vectors["labels"].astype("uint8")}
        made.words["x"] = Words(vectors["x"].view("int32"), 32)
    return made


def _manifest(saved: SavedNetwork, inputs: int) -> dict[str, Any]:
    half = saved.settings.format == "HFLP"
    return {
        "form": FORM,
        "version": VERSION,
        "numbers": BINARY16 if half else FIXED_POINT,
        "settings": saved.settings.as_json(),
        "epoch": saved.epoch,
        "validation_error": saved.validation_error,
        "test_error": saved.test_error,
        "data": saved.data,
        "sample": saved.sample,
        "rules": {**(BINARY16_RULES if half else RULES), **FILES, "test_pass": TEST_PASS},
        "vectors": {"inputs": inputs, "part": "test", "first": 0} if inputs else None,
        "layers": [],
    }


def _sizes(said: dict[str, Any]) -> dict[str, Any]:
    half, exponent = math.frexp(said["scale"])
    if half != 0.5:
        raise FileError(f"{said['name']} has the scale {said['scale']}, which is no power of two")
    return {
        "name": said["name"],
        "kind": said["kind"],
        "input_shape": list(said.get("input_shape") or [said["input_size"]]),
        "output_shape": list(said["output_shape"]),
        **{size: said[size] for size in SIZES if size in said},
        "scale_exponent": exponent - 1,
    }


def _add_tensors(made: Contents, saved: SavedNetwork, name: str) -> dict[str, Any]:
    entries = {}
    for tensor, words in _parameters(saved, name).items():
        made.weights[f"{name}/{tensor}"] = words.integers
        made.words[f"{name}/{tensor}"] = words
        entries[tensor] = words.entry(words.integers.shape)
        entries[tensor]["hex"] = hex_name(f"{name}/{tensor}")
        if tensor in ("W", "b"):
            packed = pack(words)
            entries[tensor]["packed"] = {"offset": len(made.packed), "bytes": len(packed)}
            made.packed += packed
    return entries


def _parameters(saved: SavedNetwork, name: str) -> dict[str, Words]:
    """W and b as stored; in fixed point Wq and bq as well, as the propagations see them."""
    found = {}
    settings = saved.settings
    for tensor in ("W", "b"):
        values = saved.arrays[f"{name}/{tensor}"]
        try:
            if settings.format == "HFLP":
                found[tensor] = half_precision(values)
                continue
            noib = range_of(saved, name, tensor.lower())
            # Ranges that moved after the last batch are not yet those of what it stored.
            found[tensor] = fixed_point(values, settings.up_bits, noib, drift=1)
            found[f"{tensor}q"] = rounded(found[tensor], settings.prop_bits, noib)
        except ValueError as error:
            raise FileError(f"{name}/{tensor} of {saved.path}: {error}") from None
    return found


def range_of(saved: SavedNetwork, name: str, signal: str) -> int:
    """The range of a signal of a layer."""
    return int(saved.arrays[f"{name}/ranges"][SIGNALS.index(signal)])


def _add_signals(
    made: Contents, saved: SavedNetwork, entry: dict[str, Any], vectors: Arrays
) -> dict[str, Any]:
    name = entry["name"]
    outputs = entry["output_shape"]
    channels = outputs[0] * entry.get("pieces", 1)
    shapes = {"z": (channels, *outputs[1:]), "y": (math.prod(outputs),)}
    entries = {}
    for signal, shape in shapes.items():
        tensor = f"{name}/{signal}"
        values = vectors.get(tensor, np.zeros(0, "float32"))
        try:
            if saved.settings.format == "HFLP":
                words = half_precision(values)
            else:
                noib = range_of(saved, name, signal)
                words = fixed_point(values, saved.settings.prop_bits, noib)
        except ValueError as error:
            raise FileError(f"{tensor} of {saved.path}: {error}") from None
        entries[signal] = words.entry(shape)
        if vectors:
            made.vectors[tensor] = words.integers
            made.words[tensor] = words
            entries[signal]["hex"] = hex_name(tensor)
    return entries


def _sums(layer: Layer) -> dict[str, Any]:
    """How wide an accumulator must be, with its sign, for any input."""
    largest = layer.largest_sum
    return {
        "bits": largest.bit_length() + 1,
        "exponent": layer.sum_exponent,
        "exact_in_float32": largest <= 2**24,
    }
