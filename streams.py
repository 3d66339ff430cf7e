"""The random streams of a run: dropout masks, and what is trained when.

Source: docs/published_program.md, "Random streams". One legacy NumPy RandomState feeds the
initial weights, then one seed a layer, then the shuffles; a seed starts the stream of its
layer's masks.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from datasets import Part
from files import Arrays
from tasks import Task
from xla.device import to_device

Chunk = tuple[Any, Any, np.ndarray]


class HasMask(Protocol):
    """What a stream of masks knows of a layer: the size of its input, and how much it keeps."""

    input_size: int
    p: float


class DeviceMasks:
    """Masks from the device's generator, drawn inside the compiled step.

    Their state is part of the trainer's.
    """

    kind = "device"

    def draw(self, count: int) -> None:
        return None

    def snapshot(self) -> Arrays:
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        pass


class PublishedMasks:
    """Masks from the published NumPy streams, one RandomState a layer."""

    kind = "given"

    def __init__(self, seeds: Sequence[int], layers: Sequence[HasMask], batch_size: int) -> None:
        self.rngs = [np.random.RandomState(np.random.RandomState(s).randint(2**30)) for s in seeds]
        self.layers = layers
        self.batch_size = batch_size

    def draw(self, count: int) -> list[np.ndarray]:
        """Masks of the next `count` batches: a uint8 (count, batch_size, inputs) a layer."""
        masks = []
        for rng, layer in zip(self.rngs, self.layers, strict=True):
            shape = (self.batch_size, layer.input_size)
            drawn = [rng.binomial(n=1, p=layer.p, size=shape).astype("uint8") for _ in range(count)]
            masks.append(np.stack(drawn))
        return masks

    def snapshot(self) -> Arrays:
        return {f"streams/{k}": pack(rng) for k, rng in enumerate(self.rngs)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        for k, rng in enumerate(self.rngs):
            unpack(rng, arrays[f"streams/{k}"])


Masks = DeviceMasks | PublishedMasks


def mask_source(
    streams: str, seeds: Sequence[int], layers: Sequence[HasMask], batch_size: int
) -> Masks:
    """The source of masks that Settings.streams names."""
    if streams == "published":
        return PublishedMasks(seeds, layers, batch_size)
    return DeviceMasks()


class Order:
    """The order in which examples, or chunks of batches, are trained.

    Attributes
    ----------
    examples : int64 (n,)
        The examples as they are ordered now: each epoch reorders what the one before left.
    """

    def __init__(self, rng: np.random.RandomState, n: int) -> None:
        self.rng = rng
        self.examples = np.arange(n)

    def shuffle_examples(self) -> None:
        self.examples = self.examples[self._permutation(len(self.examples))]

    def shuffle_batches(
        self, batches: int, per_chunk: int, skip: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(first batch, order of its batches) of each chunk, drawn when its turn comes.

        What is left over after the whole chunks comes last. The first `skip` batches are left
        out, but drawn.
        """
        chunks, left = divmod(batches, per_chunk)
        for chunk in [*self._permutation(chunks), *([chunks] if left else [])]:
            order = self._permutation(per_chunk if chunk < chunks else left)
            if skip < len(order):
                yield int(chunk) * per_chunk, order[skip:]
            skip = max(0, skip - len(order))

    def _permutation(self, n: int) -> np.ndarray:
        order = np.arange(n)
        self.rng.shuffle(order)
        return order

    def snapshot(self) -> Arrays:
        return {"order": self.examples, "rng": pack(self.rng)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """ValueError if the arrays are no order and no random state."""
        if not np.array_equal(np.sort(arrays["order"]), np.arange(len(self.examples))):
            raise ValueError("order is no order of the training examples")
        unpack(self.rng, arrays["rng"])
        self.examples = arrays["order"]


class Feed:
    """A training set, fed to the training program in whole batches.

    Parameters
    ----------
    examples
        The training set.
    order
        Says which come when.
    task, batch_size
        How they are shuffled, and how many make a batch.
    on_device : dict
        Where a training set that stays on the device is kept; it may be shared.
    """

    def __init__(
        self, examples: Part, order: Order, task: Task, batch_size: int, on_device: dict[str, Any]
    ) -> None:
        self.examples = examples
        self.order = order
        self.per_chunk = task.chunk_batches if task.shuffle == "batches" else None
        self.batch_size = batch_size
        self.batches = len(examples) // batch_size
        self.on_device = on_device

    def chunks(self, shuffled: bool, skip: int) -> Iterator[Chunk]:
        """One pass, in pieces: (x, t, rows), the rows of x and t that make up each batch.

        x float32 (n, inputs) and t float32 (n, classes) are on the device, rows is int32
        (batches, batch_size). The first `skip` batches are left out, but their order is drawn.
        """
        if self.per_chunk is not None:
            plan = self.order.shuffle_batches(self.batches, self.per_chunk, skip)
            return self._read_ahead(plan, self.per_chunk)
        return iter([self._whole(shuffled, skip)])

    def _whole(self, shuffled: bool, skip: int) -> Chunk:
        if shuffled:
            self.order.shuffle_examples()
        rows = self.order.examples if shuffled else np.arange(len(self.examples))
        rows = rows[: self.batches * self.batch_size].astype("int32")
        if "train" not in self.on_device:
            self.on_device["train"] = to_device(self.examples.read(0, len(self.examples)))
        x, t = self.on_device["train"]
        return x, t, rows.reshape(-1, self.batch_size)[skip:]

    def _read_ahead(
        self, plan: Iterator[tuple[int, np.ndarray]], per_chunk: int
    ) -> Iterator[Chunk]:
        """The chunks of a plan, each read and sent to the device during the turn of the last."""

        def load(first: int, order: np.ndarray) -> Chunk:
            batches = min(per_chunk, self.batches - first)
            start = first * self.batch_size
            x, t = to_device(self.examples.read(start, start + batches * self.batch_size))
            rows = np.arange(batches * self.batch_size, dtype="int32")
            return x, t, rows.reshape(batches, self.batch_size)[order]

        with ThreadPoolExecutor(1) as reader:
            coming = [reader.submit(load, *first) for first in [next(plan, None)] if first]
            while coming:
                chunk = coming.pop().result()
                coming += [reader.submit(load, *after) for after in [next(plan, None)] if after]
                yield chunk


def pack(rng: np.random.RandomState) -> np.ndarray:
    """The state of a legacy RandomState as uint32 (625,): its 624 words and its position."""
    _, words, position, *_ = rng.get_state()
    return np.append(words, position).astype("uint32")


def unpack(rng: np.random.RandomState, packed: np.ndarray) -> None:
    """Put a RandomState into a state that `pack` gave; ValueError if it is none."""
    words = packed[:-1]
    position = int(packed[-1])
    if position > len(words):  # it would be read beyond its words
        raise ValueError(f"a random stream is at word {position} of {len(words)}")
    rng.set_state(("MT19937", words, position, 0, 0.0))
