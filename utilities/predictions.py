"""What a saved network says of every example of a part, as training tests it."""

from dataclasses import dataclass

import numpy as np

from datasets import Dataset, Part
from records import networks
from records.networks import SavedNetwork
from trainer import Trainer
from xla.device import device_failures, to_device, to_host
from xla.graphs import compiled

MEASURED = ("valid", "test")  # parts that training measures errors on
BLOCK = 64  # batches that are read at a time


@dataclass(frozen=True)
class Predictions:
    """What a network says of the examples of a part, in their order.

    Parameters
    ----------
    outputs
        Float32 (n, classes), those of the last layer.
    labels
        Int (n,), the right classes.
    error
        In % of all examples. Of a part that training measures errors on it is computed
        as there, by the same compiled program.
    """

    outputs: np.ndarray
    labels: np.ndarray
    error: float

    @property
    def classes(self) -> np.ndarray:
        """The predicted ones, int (n,)."""
        return self.outputs.argmax(axis=1)

    @property
    def wrong(self) -> int:
        """How many examples of all the error is."""
        return round(self.error * len(self.labels) / 100)

    @property
    def mistakes(self) -> np.ndarray:
        """Which examples are wrong, the most confident first.

        That is, those with the largest output; of equal ones, as few bits have many,
        those with the smallest output of the right class.
        """
        classes = self.classes
        rows = np.flatnonzero(classes != self.labels)
        predicted = self.outputs[rows, classes[rows]]
        right = self.outputs[rows, self.labels[rows]]
        return rows[np.lexsort((rows, right, -predicted))]


def predict(network: SavedNetwork, data: Dataset, part: str) -> Predictions:
    """Evaluate a saved network on a part of its data.

    Raises
    ------
    FileError
        Its arrays are not those of a network of its task and format.
    DeviceFailed
        The device is out of memory.
    """
    with device_failures():
        trainer = Trainer(network.settings, data)
        check_network(network, trainer)
        trainer.state |= to_device(network.arrays)
        error = trainer.error(part) if part in MEASURED else None
        outputs, labels = _outputs(trainer, getattr(data, part))
    if error is None:
        error = 100.0 * int((outputs.argmax(axis=1) != labels).sum()) / len(labels)
    return Predictions(outputs, labels, error)


def check_network(network: SavedNetwork, trainer: Trainer) -> None:
    """FileError unless the network's arrays are what this trainer's network needs."""
    networks.check(network, {name: trainer.state[name] for name in trainer.network_names})


def _outputs(trainer: Trainer, examples: Part) -> tuple[np.ndarray, np.ndarray]:
    """The outputs (n, classes) for all examples, and their labels (n,)."""
    size = trainer.batch_size
    inputs, outputs = trainer.network.test_step(size)
    test_pass = compiled(inputs, trainer.network.state, outputs[-1:])
    bits = np.int32(trainer.settings.prop_bits)
    found = []
    labels = []
    for start in range(0, len(examples), BLOCK * size):
        x, t = examples.read(start, min(start + BLOCK * size, len(examples)))
        labels.append(t.argmax(axis=1))
        for first in range(0, len(x), size):
            batch = filled_up(x[first : first + size], size)
            values = to_device({"x": batch, "prop_bits": bits})
            (y,) = to_host(test_pass(values, trainer.state))
            found.append(y[: len(x) - first])
    return np.concatenate(found), np.concatenate(labels)


def filled_up(x: np.ndarray, size: int) -> np.ndarray:
    """A batch of so many rows, with zeros for those that are missing."""
    return np.concatenate([x, np.zeros((size - len(x), x.shape[1]), x.dtype)])
