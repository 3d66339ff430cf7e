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
NOT_STORED = ("z", "u", "y")  # before their quantizers
SIGNAL_OF = {"W": "w", "b": "b", "update_W": "update_w", "update_b": "update_b"}


@dataclass(frozen=True)
class Tolerance:
    """Limits on a difference; None is no limit."""

    fraction: float | None = None
    absolute: float | None = None
    relative: float | None = None


EQUAL = Tolerance(fraction=0.0)
ANY = Tolerance()
Values = dict[tuple[int, str], np.ndarray]  # by layer and name


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
    def flips(self) -> bool:
        """Whether a sum in another order may change a value by a whole step of its format."""
        return self.meta["format"] != "FLP" and not self.narrow

    def recorded(self, prefix: str) -> Values:
        """What is recorded under a prefix: by layer and name the whole of it, or a sample."""
        found: Values = {}
        for suffix in ("/sample", "", "/full"):
            for key, array in self.arrays.items():
                first, *rest = key.removesuffix(suffix).split("/")
                if key.endswith(suffix) and first == prefix and len(rest) == 2:
                    found[int(rest[0].removeprefix("L")), rest[1]] = array
        return found

    def tolerance(self, batch: int) -> Tolerance:
        """What the state after `batch` is allowed to be off by, not resynchronised."""
        if self.narrow:
            return EQUAL
        convolutional = self.meta["task"] != "PI_MNIST"
        if self.meta["warm"]:
            return Tolerance(relative=1e-5) if batch < (1 if convolutional else 3) else ANY
        return Tolerance(absolute=5e-8 if convolutional else 2e-7)

    def intermediate_tolerance(self, name: str) -> Tolerance:
        """What passes through a step is allowed to be off by, not resynchronised."""
        if not self.narrow:
            return Tolerance(relative=1e-5)
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
    """Prints comparisons and remembers whether one of them was out of tolerance.

    Attributes
    ----------
    compared, flips, may_differ
        Stored values compared with recorded ones, how many differ, how many may.
    held, held_open
        Stored values judged from the operands they had, how many may have several values.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.failures = 0
        self.flips = 0
        self.compared = 0
        self.may_differ = 0
        self.held = 0
        self.held_open = 0
        self.seen: set[tuple[int, str]] = set()

    @property
    def counts(self) -> str:
        """Those above, in words."""
        words = f"{self.flips} of {self.compared} stored values differ"
        if not self.held:
            return words
        return f"{words}, {self.may_differ} may; alone {self.held_open} of {self.held} may"

    def compare(
        self,
        label: str,
        computed: Any,
        recorded: Any,
        tolerance: Tolerance,
        step: float | None = None,
        stored: bool = True,
    ) -> None:
        """Say how many entries are equal, and the largest difference, in steps if there are."""
        computed = np.asarray(computed).ravel()
        recorded = np.asarray(recorded).ravel()
        equal = (computed == recorded) | (np.isnan(computed) & np.isnan(recorded))
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.where(equal, 0, np.abs(computed.astype("float64") - recorded))
        difference = np.where(np.isnan(difference), np.inf, difference)
        self._count(~equal, stored)
        largest = difference.max(initial=0.0)
        steps = f" = {largest / step:g} steps" if step else ""
        self.line(
            f"{label}: {100 * equal.mean():.2f} % equal, largest difference {largest:g}{steps}",
            within(tolerance, difference, recorded),
        )

    def judge(
        self, label: str, bounds: Any, computed: Any, recorded: np.ndarray, stored: bool = True
    ) -> None:
        """Compare with recorded entries; both must lie within bounds (a bounds.Interval)."""
        recorded = np.asarray(recorded).ravel()
        computed = sample_of(np.asarray(computed), recorded)
        bounds = bounds.sampled(recorded)
        equal = (computed == recorded) | (np.isnan(computed) & np.isnan(recorded))
        outside = np.count_nonzero(~(bounds.holds(recorded) & bounds.holds(computed)))
        self._count(~equal, stored)
        self.may_differ += stored * int((~bounds.known).sum())
        text = f"{label}: {100 * equal.mean():.2f} % equal, {100 * bounds.known.mean():.2f} % must"
        self.line(text + (f", {outside} outside their bounds" if outside else ""), not outside)

    def hold(self, label: str, bounds: Any, values: np.ndarray, stored: bool = True) -> None:
        """Say how many values are outside their bounds, if any."""
        self.held += stored * values.size
        self.held_open += stored * int((~bounds.known).sum())
        if outside := np.count_nonzero(~bounds.holds(values.reshape(bounds.lo.shape))):
            self.line(f"{label}: {outside} of {values.size} outside their bounds", ok=False)

    def _count(self, differ: np.ndarray, stored: bool) -> None:
        self.flips += stored * int(differ.sum())
        self.compared += stored * differ.size

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
    return ok
