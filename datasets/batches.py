"""The batches of CIFAR-10: pickles, read without running what they say."""

import io
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.parts import CLASSES, Pixels
from errors import DataError

PUTS = ("PUT", "BINPUT", "LONG_BINPUT")  # what gives an object a number
BYTES_A_STEP = 128  # at least, in what is longer than so many steps; an image has 3072 bytes
FEW_STEPS = 100_000


def parse_batch(path: Path, content: bytes) -> tuple[Pixels, NDArray[np.int64]]:
    """Images uint8 (n, 3072) and labels (n,) of one batch.

    Parameters
    ----------
    path
        Its name in messages.

    Raises
    ------
    DataError
        It is no such batch.
    """
    try:
        _check_steps(content)
        batch = _BatchUnpickler(content).load()
        x = _entry(batch, "data").array
        labels = _entry(batch, "labels")
        labels = np.array(labels.array if isinstance(labels, _PickledArray) else labels)
    except Exception as error:  # a hostile or damaged pickle can raise anything
        raise DataError(
            f"{path} is not a CIFAR-10 batch ({error}): give a pickled dictionary of data, uint8 "
            "in C order, and labels, integers"
        ) from error
    fit = x.ndim == 2 and x.shape[1] == 3072 and labels.shape == x.shape[:1]
    if not fit or x.dtype != np.uint8 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path} has data {x.dtype} {x.shape} and labels {labels.dtype} {labels.shape}, not "
            "uint8 (n, 3072) and integers (n,): give a batch of that form"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < CLASSES:
        raise DataError(
            f"{path} has labels from {labels.min()} to {labels.max()}: give a set with labels 0..9"
        )
    return x, labels.astype(np.int64)


def training_names(folder: Path) -> list[str]:
    """data_batch_1 up to the last that a folder has, or to the first that is missing."""
    numbers = [path.name.removeprefix("data_batch_") for path in folder.glob("data_batch_*")]
    found = [int(number) for number in numbers if re.fullmatch("[1-9][0-9]{0,3}", number)]
    return [f"data_batch_{k}" for k in range(1, min(max(found), len(found) + 1) + 1)]


def _entry(batch: Any, name: str) -> Any:
    """What a dictionary has under a name, written by Python 2, or by Python 3 as a text."""
    return batch[name if name in batch else name.encode()]


def _check_steps(content: bytes) -> None:
    """ValueError if a pickle takes more memory than images and their labels of its size.

    A step of one byte can make an object of two hundred. And Python makes room for as many
    numbered objects as the largest number says, wherever it counts from.
    """
    most = FEW_STEPS + len(content) // BYTES_A_STEP
    for steps, (put, number, _) in enumerate(pickletools.genops(content)):
        if steps == most:
            raise ValueError(f"it has more than {most:,} steps")
        if put.name in PUTS and (number is None or not 0 <= number <= steps):
            raise ValueError(f"it has the number {number}")


class _BatchUnpickler(pickle.Unpickler):
    """Reads plain objects, and arrays and numbers of integers; NumPy's names mean what is below.

    Nothing else can be looked up, so nothing can be called; and as NumPy itself is not
    called either, its own names may move (numpy.core became numpy._core).
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")  # the batches come from Python 2

    def find_class(self, module: str, name: str) -> object:
        # functions of this call alone: a pickle can set attributes of what it is given
        known = {
            ("core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
            ("core.multiarray", "scalar"): lambda *of: _scalar(*of),
            ("core.numeric", "_frombuffer"): lambda *of: _frombuffer(*of),
            ("", "ndarray"): None,  # only ever an argument of _reconstruct
            ("", "dtype"): _PickledDtype,
        }
        if (module, name) == ("_codecs", "encode"):  # Python 3's bytes before protocol 3
            return lambda *of: _latin1(*of)
        place = module.replace("numpy._core.", "numpy.core.").partition("numpy")
        key = (place[2].removeprefix("."), name)
        if place[:2] != ("", "numpy") or key not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[key]


def _latin1(text: str, encoding: bytes | str) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


class _PickledDtype:
    """A type of integers; its byte order comes with the state."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code
        self.order = "|"

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        self.order = order.decode() if isinstance(order, bytes) else order

    def integers(self) -> np.dtype:
        if not re.fullmatch("[iu][1248]", self.code) or self.order not in ("|", "<", ">"):
            raise pickle.UnpicklingError("it has an array of something else than integers")
        return np.dtype(self.order + self.code)


class _PickledArray:
    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran, data = state
        if fortran:
            raise pickle.UnpicklingError("its array is not in C order")
        self.array = np.frombuffer(data, dtype.integers()).reshape(shape)


def _frombuffer(data: bytes, dtype: _PickledDtype, shape: tuple, order: str) -> _PickledArray:
    """An array as protocol 5 has it."""
    result = _PickledArray()
    result.__setstate__((1, shape, dtype, order != "C", data))
    return result


def _scalar(dtype: _PickledDtype, data: bytes) -> int:
    return int(np.frombuffer(data, dtype.integers())[0])
