"""Recorded traces, and by how much a replay may differ from one.

The limits are those of docs/fidelity.md, "What is not, and why".
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from files import load_npz

STATE = ("W", "b", "update_W", "update_b")
SIGNAL_OF = {"W": "w", "b": "b", "update_W": "update_w", "update_b": "update_b"}


@dataclass(frozen=True)
class Tolerance:
    """Limits on a difference; None is no limit. `steps` counts half-precision steps."""

    fraction: float | None = None
    absolute: float | None = None
    relative: float | None = None
    steps: float | None = None


EQUAL = Tolerance(fraction=0.0)
LOOSE = Tolerance(relative=1e-2)
ANY = Tolerance()


class Trace:
    """A recorded trace: metadata and arrays; FileError, KeyError or ValueError if it is none."""

    def __init__(self, path: Path) -> None:
        self.arrays = load_npz(path, compressed=True)
        self.folder = Path(path).parent
        self.meta: dict[str, Any] = json.loads(self.arrays["meta_json"].item())

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def layers(self) -> range:
        return range(len(self.meta["W_shapes"]))

    @property
    def masks(self) -> list[np.ndarray]:
        """Dropout masks, uint8 (batches, batch_size, inputs) for each layer."""
        masks = []
        for k, width in enumerate(self.meta["mask_widths"]):
            bits = np.unpackbits(self[f"mask/L{k}/packed"], axis=1)[:, :width]
            masks.append(bits.reshape(-1, self.meta["batch_size"], width))
        return masks

    @property
    def on_grid(self) -> bool:
        """Whether its format is fixed point."""
        return self.meta["format"] in ("FXP", "DFXP")

    @property
    def narrow(self) -> bool:
        """Whether the numbers have at most 11 bits.

        Then sums of products are exact in float32, whatever their order.
        """
        bits = max(self.meta["comp_precision"], self.meta["update_precision"])
        return self.on_grid and bits <= 11

    @property
    def exact(self) -> bool:
        """Whether the state must agree exactly after every batch."""
        cold = self.meta["task"] == "PI_MNIST" and not self.meta["warm"]
        return self.narrow or (self.on_grid and cold)

    def tolerance(self, batch: int, layer: int, tensor: str) -> Tolerance:
        """What the state after `batch` is allowed to be off by."""
        convolutional = self.meta["task"] != "PI_MNIST"
        if self.exact:
            return EQUAL
        if self.meta["format"] == "FLP":
            if self.meta["warm"]:
                return Tolerance(relative=1e-5) if batch < (1 if convolutional else 3) else ANY
            return Tolerance(absolute=5e-8 if convolutional else 2e-7)
        if batch > 0:
            return LOOSE if batch == 1 else ANY
        if self.meta["format"] == "HFLP":
            return self._of_half_precision(layer, tensor)
        return Tolerance(absolute=1e-6 if convolutional else 2e-5)

    def _of_half_precision(self, layer: int, tensor: str) -> Tolerance:
        if self.meta["task"] == "PI_MNIST":
            return EQUAL
        softmax = self.meta["task"] != "MNIST" and layer == self.layers[-1]
        if softmax and tensor in ("W", "update_W"):
            return Tolerance(fraction=0.15, absolute=2e-5)
        return Tolerance(fraction=0.002, steps=2)

    def intermediate_tolerance(self, layer: int, name: str) -> Tolerance:
        """What passes through a step is allowed to be off by."""
        if not self.narrow:
            return Tolerance(relative=1e-5) if self.meta["format"] == "FLP" else LOOSE
        if name == "y" and layer == self.layers[-1]:
            return Tolerance(absolute=1.2e-7)
        if name in ("z", "u"):  # sums beyond 24 bits, before their quantizer
            return Tolerance(absolute=2.5e-4)
        return EQUAL


def sample_of(array: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The entries of `array` that a recorded sample of it holds."""
    flat = array.ravel()
    return flat if flat.size == reference.size else flat[sample_indices(flat.size)]


def sample_indices(size: int) -> np.ndarray:
    """Which entries of a flat tensor are recorded."""
    if size <= 2000:
        return np.arange(size)
    return np.sort(np.random.RandomState(777).randint(0, size, 2000))


def statistics(array: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, l2 norm, smallest, largest, sum of magnitudes, in float64."""
    a = array.astype("float64")
    return np.array([a.mean(), a.std(), np.sqrt((a * a).sum()), a.min(), a.max(), np.abs(a).sum()])


class Report:
    """Prints comparisons and remembers whether one of them was out of tolerance."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.failures = 0
        self.flips = 0
        self.compared = 0
        self.seen: set[tuple[int, str]] = set()

    def compare(
        self,
        label: str,
        computed: Any,
        recorded: Any,
        tolerance: Tolerance,
        step: float | None = None,
    ) -> None:
        """Say how many entries are equal, and the largest difference, in steps if there are."""
        computed = np.asarray(computed).ravel()
        recorded = np.asarray(recorded).ravel()
        equal = (computed == recorded) | (np.isnan(computed) & np.isnan(recorded))
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.where(equal, 0, np.abs(computed.astype("float64") - recorded))
        difference = np.where(np.isnan(difference), np.inf, difference)
        self.flips += int((~equal).sum())
        self.compared += equal.size
        largest = difference.max(initial=0.0)
        steps = f" = {largest / step:g} steps" if step else ""
        self.line(
            f"{label}: {100 * equal.mean():.2f} % equal, largest difference {largest:g}{steps}",
            within(tolerance, difference, recorded),
        )

    def line(self, text: str, ok: bool) -> None:
        """One comparison."""
        self.failures += not ok
        if not ok or not self.quiet:
            print(text + ("" if ok else "   OUT OF TOLERANCE"))


def within(tolerance: Tolerance, difference: np.ndarray, recorded: np.ndarray) -> bool:
    """Whether differences from what is recorded, 0 where equal, keep all limits."""
    ok = True
    if tolerance.fraction is not None:
        ok &= bool(np.count_nonzero(difference) <= tolerance.fraction * difference.size)
    if tolerance.absolute is not None:
        ok &= bool(difference.max(initial=0.0) <= tolerance.absolute)
    if tolerance.relative is not None:
        size = np.sqrt(np.square(np.nan_to_num(recorded.astype("float64"))).sum())
        most = tolerance.relative * max(size, 1e-30)
        ok &= bool(np.sqrt(np.square(difference).sum()) <= most)
    if tolerance.steps is not None:
        step = np.spacing(np.abs(recorded).astype("float16"))
        ok &= bool((difference <= tolerance.steps * step).all())
    return ok
