"""The four tasks and their networks (SPEC sections 9 and 10)."""

import numpy as np
import pytensor.tensor as pt

import ops
from format import FORMATS
from layers import ConvMaxout, DenseMaxout, Softmax, flat

N_CLASSES = 10


HIDDEN = {"p": 0.5, "scale": 0.5}
INPUT = {"p": 0.8, "scale": 1.0, "input_on_grid": False}


def pi_mnist(number_format, rng, initial_range, units=240, pieces=5):
    """784 -> maxout -> maxout -> softmax; the published size is 240 units of 5 pieces."""
    o = {"initial_range": initial_range}
    return [
        DenseMaxout("layer0", number_format, rng, 784, units, pieces, **INPUT, **o),
        DenseMaxout("layer1", number_format, rng, units, units, pieces, **HIDDEN, **o),
        Softmax("layer2", number_format, rng, units, N_CLASSES, **HIDDEN, **o),
    ]


def mnist(number_format, rng, initial_range):
    """1x28x28 -> three convolutional maxout layers -> softmax."""
    o = {"initial_range": initial_range}
    first = ConvMaxout(
        "layer0",
        number_format,
        rng,
        (1, 28, 28),
        maps=48,
        pieces=2,
        size=8,
        pad=0,
        pool=4,
        stride=2,
        max_col_norm=0.9,
        **INPUT,
        **o,
    )
    second = ConvMaxout(
        "layer1",
        number_format,
        rng,
        first.output_shape,
        maps=48,
        pieces=2,
        size=8,
        pad=3,
        pool=4,
        stride=2,
        **HIDDEN,
        **o,
    )
    third = ConvMaxout(
        "layer2",
        number_format,
        rng,
        second.output_shape,
        maps=24,
        pieces=4,
        size=5,
        pad=3,
        pool=2,
        stride=2,
        **HIDDEN,
        **o,
    )
    last = Softmax(
        "layer3", number_format, rng, int(np.prod(third.output_shape)), N_CLASSES, **HIDDEN, **o
    )
    return [first, second, third, last]


def cifar10(number_format, rng, initial_range):
    """3x32x32 -> three convolutional maxout layers -> maxout -> softmax; SVHN has the same network."""
    o = {"initial_range": initial_range}
    conv = {
        "pieces": 2,
        "size": 5,
        "pad": 2,
        "pool": 3,
        "stride": 2,
        "w_LR_scale": 0.2,
        "b_LR_scale": 0.2,
    }
    first = ConvMaxout(
        "layer0", number_format, rng, (3, 32, 32), maps=64, max_col_norm=0.9, **conv, **INPUT, **o
    )
    second = ConvMaxout(
        "layer1", number_format, rng, first.output_shape, maps=128, **conv, **HIDDEN, **o
    )
    third = ConvMaxout(
        "layer2", number_format, rng, second.output_shape, maps=128, **conv, **HIDDEN, **o
    )
    dense = DenseMaxout(
        "layer3", number_format, rng, int(np.prod(third.output_shape)), 400, 5, **HIDDEN, **o
    )
    return [
        first,
        second,
        third,
        dense,
        Softmax("layer4", number_format, rng, 400, N_CLASSES, **HIDDEN, **o),
    ]


NETWORKS = {"PI_MNIST": pi_mnist, "MNIST": mnist, "CIFAR10": cifar10, "SVHN": cifar10}


# What tells a layer from others of its kind, as far as it has it.
DESCRIBED = (
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
)


class Network:
    """The layers of a task and the graphs over them.

    Parameters
    ----------
    task : str
        Name in NETWORKS.
    number_format : str
        Name in FORMATS.
    rng : numpy.random.RandomState
        Draws the initial weights, first layer first (SPEC section 11).
    initial_range : int
        Initial range of every signal.
    **size
        What the task's network function takes besides, such as units and pieces of pi_mnist.

    `description` tells networks apart whose compiled programs differ.
    """

    def __init__(self, task, number_format, rng, initial_range=0, **size):
        self.format, self.description = (
            FORMATS[number_format],
            (task, number_format, sorted(size.items())),
        )
        self.layers = NETWORKS[task](self.format, rng, initial_range, **size)

    @property
    def input_size(self):
        return self.layers[0].input_size

    def layers_described(self):
        """What each layer is, in values that JSON has."""
        described = []
        for layer in self.layers:
            sizes = {name: getattr(layer, name) for name in DESCRIBED if hasattr(layer, name)}
            described.append({"name": layer.name, "kind": type(layer).__name__, **sizes})
        return described

    @property
    def state(self):
        """Every shared variable, first layer first."""
        return [v for layer in self.layers for v in layer.state]

    def training_step(self, batch_size):
        """One batch: forward, backward, updates (SPEC sections 3-6).

        Returns
        -------
        inputs : dict of name -> variable
            x (B, inputs), t (B, classes) one-hot, mask0, mask1, ... (B, layer inputs), all float32; the scalars LR, M
            (float32), prop_bits, up_bits, frequency, batches (int32, batches of this epoch before this one), and
            max_overflow (float64).
        updates : dict of shared variable -> new value
        """
        x = pt.tensor("x", shape=(batch_size, self.input_size), dtype="float32")
        t = pt.tensor("t", shape=(batch_size, N_CLASSES), dtype="float32")
        masks = [
            pt.tensor(f"mask{k}", shape=(batch_size, layer.input_size), dtype="float32")
            for k, layer in enumerate(self.layers)
        ]
        LR, M = pt.scalar("LR", dtype="float32"), pt.scalar("M", dtype="float32")
        prop_bits, up_bits, frequency, batches = (
            pt.scalar(name, dtype="int32")
            for name in ("prop_bits", "up_bits", "frequency", "batches")
        )
        max_overflow = pt.scalar("max_overflow", dtype="float64")

        y = x
        for layer, mask in zip(self.layers, masks, strict=True):
            y = layer.forward(y, mask, prop_bits, up_bits)
        e = ops.rounded_quotient(y - t, np.float32(N_CLASSES))
        for layer in reversed(self.layers):
            e = layer.backward(e)
        update_due = pt.eq((batches + np.int32(1)) % frequency, 0)
        updates = {}
        for layer in self.layers:
            updates |= layer.updates(LR, M, update_due, frequency, max_overflow)
        inputs = [x, t, *masks, LR, M, prop_bits, up_bits, frequency, batches, max_overflow]
        return {v.name: v for v in inputs}, updates

    def test_step(self, batch_size):
        """The test-time pass (SPEC section 8): inputs x, prop_bits -> [y (B, classes) of every layer's output]."""
        x = pt.tensor("x", shape=(batch_size, self.input_size), dtype="float32")
        prop_bits = pt.scalar("prop_bits", dtype="int32")
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer.test(outputs[-1], prop_bits))
        return {"x": x, "prop_bits": prop_bits}, [flat(y) for y in outputs[1:]]
