"""The tasks' networks (docs/published_program.md, "Networks"), and graphs over them."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pytensor.tensor as pt
from numpy.random import RandomState
from pytensor.tensor.sharedvar import TensorSharedVariable as Shared
from pytensor.tensor.variable import TensorVariable as Tensor

from format import FORMATS, SIGNALS
from layer import Gradients, Layer, Seen
from layers import ConvMaxout, DenseMaxout, Softmax
from ranges import STORED
from xla import ops
from xla.layout import flat
from xla.rounding import Draws

N_CLASSES = 10
Options = dict[str, Any]
FIRST: Options = {"p": 0.8, "scale": 1.0, "reads_data": True}
OTHER: Options = {"p": 0.5, "scale": 0.5}


def pi_mnist(units: int = 240, pieces: int = 5, **common: Any) -> list[Layer]:
    """784 -> maxout -> maxout -> softmax; as published 240 units of 5 pieces."""
    first = FIRST | common
    other = OTHER | common
    return [
        DenseMaxout("layer0", inputs=784, units=units, pieces=pieces, **first),
        DenseMaxout("layer1", inputs=units, units=units, pieces=pieces, **other),
        Softmax("layer2", inputs=units, classes=N_CLASSES, **other),
    ]


def mnist(**common: Any) -> list[Layer]:
    """1x28x28 -> three convolutional maxout layers -> softmax."""
    first = FIRST | common
    other = OTHER | common
    conv: Options = {"maps": 48, "pieces": 2, "size": 8, "pool": 4, "stride": 2}
    last: Options = {"maps": 24, "pieces": 4, "size": 5, "pool": 2, "stride": 2}
    shape = (1, 28, 28)
    conv0 = ConvMaxout("layer0", input_shape=shape, pad=0, max_col_norm=0.9, **conv, **first)
    conv1 = ConvMaxout("layer1", input_shape=conv0.output_shape, pad=3, **conv, **other)
    conv2 = ConvMaxout("layer2", input_shape=conv1.output_shape, pad=3, **last, **other)
    features = int(np.prod(conv2.output_shape))
    return [conv0, conv1, conv2, Softmax("layer3", inputs=features, classes=N_CLASSES, **other)]


def cifar10(**common: Any) -> list[Layer]:
    """3x32x32 -> three convolutional maxout layers -> maxout -> softmax; SVHN's too."""
    first = FIRST | common
    other = OTHER | common
    conv: Options = {"pieces": 2, "size": 5, "pad": 2, "pool": 3, "stride": 2}
    conv |= {"w_LR_scale": 0.2, "b_LR_scale": 0.2}
    shape = (3, 32, 32)
    conv0 = ConvMaxout("layer0", input_shape=shape, maps=64, max_col_norm=0.9, **conv, **first)
    conv1 = ConvMaxout("layer1", input_shape=conv0.output_shape, maps=128, **conv, **other)
    conv2 = ConvMaxout("layer2", input_shape=conv1.output_shape, maps=128, **conv, **other)
    features = int(np.prod(conv2.output_shape))
    dense = DenseMaxout("layer3", inputs=features, units=400, pieces=5, **other)
    return [conv0, conv1, conv2, dense, Softmax("layer4", inputs=400, classes=N_CLASSES, **other)]


NETWORKS: dict[str, Callable[..., list[Layer]]] = {
    "PI_MNIST": pi_mnist,
    "MNIST": mnist,
    "CIFAR10": cifar10,
    "SVHN": cifar10,
}


# What tells a layer from others of its kind, as far as it has it.
DESCRIBED = (
    "units",
    "maps",
    "classes",
    "size",
    "input_size",
    "input_shape",
    "output_shape",
    "pieces",
    "pad",
    "pool",
    "stride",
    "p",
    "scale",
    "max_col_norm",
    "w_LR_scale",
    "b_LR_scale",
    "reads_data",
)


class Network:
    """The layers of a task and the graphs over them.

    Parameters
    ----------
    task
        Name in NETWORKS.
    number_format
        Name in FORMATS.
    rng
        Draws the initial weights, first layer first ("Random streams").
    initial_range
        Initial range of every signal.
    **size
        What the task's network function takes besides, such as units and pieces of
        pi_mnist.

    Attributes
    ----------
    description
        Tells networks apart whose compiled programs differ.
    draws
        The generator of random rounding, if the format is random.
    """

    draws: Draws | None = None

    def __init__(
        self,
        task: str,
        number_format: str,
        rng: RandomState,
        initial_range: int = 0,
        **size: int,
    ) -> None:
        self.format = FORMATS[number_format]
        self.description = (task, number_format, sorted(size.items()))
        common = {"number_format": self.format, "rng": rng, "initial_range": initial_range}
        self.layers = NETWORKS[task](**common, **size)
        if self.format.random:
            self.draws = Draws((len(self.layers), len(SIGNALS), STORED))
            for k, layer in enumerate(self.layers):
                layer.ranges.keys = self.draws.keys[k]

    @cached_property
    def errors(self) -> Shared:
        """Errors in the batches trained since whoever reads it last set it to zero."""
        return ops.shared(np.zeros((), "int64"), "training/errors")

    @cached_property
    def loss(self) -> Shared:
        """The sum of their examples' losses."""
        return ops.shared(np.zeros(()), "training/loss")

    @property
    def input_size(self) -> int:
        return self.layers[0].input_size

    def layers_described(self) -> list[dict[str, Any]]:
        """What each layer is, in values that JSON has."""
        described = []
        for layer in self.layers:
            sizes = {name: getattr(layer, name) for name in DESCRIBED if hasattr(layer, name)}
            described.append({"name": layer.name, "kind": type(layer).__name__, **sizes})
        return described

    @property
    def state(self) -> list[Shared]:
        """Every shared variable, first layer first."""
        drawn = [self.draws.key] if self.draws else []
        return [*(v for layer in self.layers for v in layer.state), self.errors, self.loss, *drawn]

    def training_inputs(self, batch_size: int) -> dict[str, Tensor]:
        """The inputs of a training step by name.

        x (B, inputs), t (B, classes) one-hot, mask0, mask1, ... (B, layer inputs), all
        float32; the scalars LR, M (float32), prop_bits, up_bits, frequency, batches
        (int32, batches of this epoch before this one) and max_overflow (float64).
        """
        shapes = {"x": (batch_size, self.input_size), "t": (batch_size, N_CLASSES)}
        for k, layer in enumerate(self.layers):
            shapes[f"mask{k}"] = (batch_size, layer.input_size)
        inputs = {n: pt.tensor(n, shape=shape, dtype="float32") for n, shape in shapes.items()}
        inputs |= {n: pt.scalar(n, dtype="float32") for n in ("LR", "M")}
        integers = ("prop_bits", "up_bits", "frequency", "batches")
        inputs |= {n: pt.scalar(n, dtype="int32") for n in integers}
        return inputs | {"max_overflow": pt.scalar("max_overflow", dtype="float64")}

    def passes(self, inputs: dict[str, Tensor], tf32: bool = False) -> list[tuple[Seen, Gradients]]:
        """What passes through each layer in a batch, forward and backward.

        Parameters
        ----------
        inputs
            Those of `training_inputs`.
        tf32
            Whether signals are TF32 numbers (see `xla.products`).
        """
        y = inputs["x"]
        seen = []
        for k, layer in enumerate(self.layers):
            bits = (inputs["prop_bits"], inputs["up_bits"])
            seen.append(layer.forward(y, inputs[f"mask{k}"], *bits, tf32))
            y = seen[-1].y
        e = ops.rounded_quotient(y - inputs["t"], np.float32(N_CLASSES))
        passes = []
        for layer, forward in zip(reversed(self.layers), reversed(seen), strict=True):
            backward = layer.backward(forward, e)
            e = backward.below
            passes.append((forward, backward))
        return passes[::-1]

    def training_step(
        self, batch_size: int, tf32: bool = False
    ) -> tuple[dict[str, Tensor], dict[Shared, Tensor]]:
        """One batch: forward, backward, updates; tf32 as in `passes`.

        Returns
        -------
        inputs
            Those of `training_inputs`.
        updates
            The new value of every shared variable that a batch changes.
        """
        inputs = self.training_inputs(batch_size)
        return inputs, self.updates(inputs, self.passes(inputs, tf32))

    def updates(
        self, inputs: dict[str, Tensor], passes: list[tuple[Seen, Gradients]]
    ) -> dict[Shared, Tensor]:
        """The new value of every shared variable that a batch changes."""
        frequency = inputs["frequency"]
        due = pt.eq((inputs["batches"] + np.int32(1)) % frequency, 0)
        scalars = (inputs["LR"], inputs["M"], due, frequency, inputs["max_overflow"])
        updates: dict[Shared, Tensor] = {}
        for layer, (seen, gradients) in zip(self.layers, passes, strict=True):
            updates |= layer.updates(seen.signals, gradients, *scalars)
        if self.draws:
            updates |= self.draws.updates()
        return updates | self.seen_in_training(passes[-1][0], inputs["t"])

    def seen_in_training(self, last: Seen, t: Tensor) -> dict[Shared, Tensor]:
        """Errors and cross-entropy of a batch, as the last layer has them under dropout.

        The loss is summed in float64, in nats, from what the softmax takes: its output may be
        rounded to zero. Nothing that is trained depends on either.
        """
        wrong = pt.neq(last.y.argmax(axis=1), t.argmax(axis=1))
        u = last.pre.u.astype("float64")
        u = u - u.max(axis=1, keepdims=True)
        right = (u * t.astype("float64")).sum(axis=1)
        losses = pt.log(pt.exp(u).sum(axis=1)) - right
        return {
            self.errors: self.errors + wrong.sum(dtype="int64"),
            self.loss: self.loss + losses.sum(),
        }

    def test_step(self, batch_size: int) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The test-time pass.

        Returns
        -------
        inputs
            x (B, inputs) float32, prop_bits int32.
        outputs
            The output of every layer, flat.
        """
        x = pt.tensor("x", shape=(batch_size, self.input_size), dtype="float32")
        prop_bits = pt.scalar("prop_bits", dtype="int32")
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer.test(outputs[-1], prop_bits))
        return {"x": x, "prop_bits": prop_bits}, [flat(y) for y in outputs[1:]]
