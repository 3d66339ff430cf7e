"""What every layer does: training pass, backward pass, updates and test-time pass.

As in docs/published_program.md, "Training pass" to "Overflow statistics" and "Test-time
pass". The training algorithm stands once, here; the layer types (see `layers`) add
their linear maps and activations. Every gradient is computed from quantized tensors:
`pull_back` differentiates one linear map or one activation, the quantized gradient of
its output being known.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.tensor.sharedvar import TensorSharedVariable as Shared
from pytensor.tensor.variable import TensorVariable as Tensor

from format import FLP
from ranges import Ranges, Signals
from xla import ops
from xla.layout import flat, published_shape
from xla.products import product
from xla.statistics import channel_sum, column_norm

Quantizer = Callable[[Tensor], Tensor]


class Preactivation(NamedTuple):
    """What lies between the linear map and the activation, which takes u."""

    before_z: Tensor  # not quantized, as before_u
    z: Tensor
    pooled: Tensor
    before_u: Tensor
    u: Tensor


class Seen(NamedTuple):
    """What passed through a layer in a training pass, for the passes that follow."""

    signals: Signals
    W: Tensor  # quantized, as b, x but for data, and y
    b: Tensor
    mask: Tensor
    x: Tensor  # under the mask
    linear: Tensor
    pre: Preactivation
    before_y: Tensor
    y: Tensor


class Gradients(NamedTuple):
    """What passed through a layer in a backward pass: quantized, but for `below`."""

    dEdy: Tensor
    dEdz: Tensor
    dEdW: Tensor
    dEdb: Tensor
    below: Tensor  # of the layer's input


def pull_back(output: Tensor, gradient: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The gradients of `inputs`, given that of `output`, through the graph between."""
    gradients = pytensor.grad(None, list(inputs), known_grads={output: gradient})
    return cast(list[Tensor], gradients)


class Layer:
    """A dropout mask, a linear map, biases and an activation, in a number format.

    A layer type sets `input_size` and `output_shape` (both without the batch axis),
    defines `linear` and `activate`, and replaces what differs of the other small
    methods. Activations are (B, features), or (rows, maps, columns, B) in and between
    convolutional layers; axis 1 has the channels in both. No pass changes the layer.

    Parameters
    ----------
    name
        Prefix of its shared variables: name/W, name/b, name/update_W, name/update_b,
        and those of format.Ranges.
    W
        Initial weights, float32. Biases and updates start at zero.
    p
        Dropout: the probability to keep an input.
    scale
        Factor of W and b at test time.
    max_col_norm
        Largest Euclidean norm of W over axis 0.
    w_LR_scale, b_LR_scale
        Factors of the learning rate.
    initial_range
        Of the ten signals.
    reads_data
        Whether the input is data, and not a signal of the layer below, in its format.
    """

    input_size: int
    output_shape: tuple[int, ...]

    def __init__(
        self,
        name: str,
        number_format: FLP,
        W: np.ndarray,
        n_biases: int,
        *,
        p: float,
        scale: float,
        max_col_norm: float = 1.9365,
        w_LR_scale: float = 1.0,
        b_LR_scale: float = 1.0,
        initial_range: int = 0,
        reads_data: bool = False,
    ) -> None:
        self.name = name
        self.p = p
        self.scale = scale
        self.max_col_norm = max_col_norm
        self.w_LR_scale = w_LR_scale
        self.b_LR_scale = b_LR_scale
        self.reads_data = reads_data
        self.W = ops.shared(W, f"{name}/W")
        self.b = ops.shared(np.zeros(n_biases, "float32"), f"{name}/b")
        self.update_W = ops.shared(np.zeros_like(W), f"{name}/update_W")
        self.update_b = ops.shared(np.zeros(n_biases, "float32"), f"{name}/update_b")
        self.ranges = Ranges(name, number_format, initial_range)

    @property
    def state(self) -> list[Shared]:
        """The layer's shared variables."""
        return [self.W, self.b, self.update_W, self.update_b, *self.ranges.state]

    # What a layer type defines or replaces.

    def arrange_input(self, v: Tensor) -> Tensor:
        """v, flat or as the layer below made it, as `linear` takes it."""
        return flat(v)

    def arrange_output(self, v: Tensor) -> Tensor:
        """v, flat or as the layer above made it, as `activate` made it."""
        return v

    def linear(self, x: Tensor, W: Tensor, tf32: bool = False) -> Tensor:
        """The linear map, channels on axis 1; tf32: of TF32 numbers alone."""
        return product(x, W, tf32)

    def preactivate(
        self, linear: Tensor, b: Tensor, quantize: Quantizer, training: bool
    ) -> Preactivation:
        """Biases, and the quantizer of z."""
        before_z = linear + b
        z = quantize(before_z)
        return Preactivation(before_z, z, z, z, z)

    def activate(self, u: Tensor) -> Tensor:
        """y, not quantized."""
        raise NotImplementedError

    def activation_gradient(self, seen: Seen, dEdy: Tensor) -> Tensor:
        """dE/du."""
        return pull_back(seen.before_y, dEdy, seen.pre.u)[0]

    def pooling_gradient(self, seen: Seen, dEdu: Tensor, quantize: Quantizer) -> Tensor:
        """Quantized dE/dz from quantized dE/du."""
        return dEdu

    # The training algorithm.

    def forward(
        self, x: Tensor, mask: Tensor, prop_bits: Tensor, up_bits: Tensor, tf32: bool = False
    ) -> Seen:
        """Training pass.

        Parameters
        ----------
        x
            The input in any arrangement.
        mask
            float32 (B, input_size), 1 where an input counts.
        tf32
            Whether signals are TF32 numbers (see `xla.products`); data are not.
        """
        s = self.ranges.signals(prop_bits, up_bits)
        mask = ops.materialised(self.arrange_input(mask))
        W = s["w"].quantize(s["w"].observe(self.W))
        b = s["b"].quantize(s["b"].observe(self.b))
        x = self.arrange_input(x) * mask
        linear = self.linear(x, W, tf32 and not self.reads_data)
        pre = self.preactivate(linear, b, s["z"].quantize, training=True)
        s["z"].observe(pre.z, published_shape(pre.z))
        before_y = self.activate(pre.u)
        y = s["y"].quantize(before_y)
        s["y"].observe(y, flat(y).type.shape)
        return Seen(s, W, b, mask, x, linear, pre, before_y, y)

    def backward(self, seen: Seen, e: Tensor) -> Gradients:
        """Backward pass: e is dE/dy as the layer above found it, in any arrangement."""
        s = seen.signals
        dEdy = s["dEdy"].quantize(self.arrange_output(e))
        s["dEdy"].observe(dEdy, published_shape(dEdy))
        dEdu = s["dEdz"].quantize(self.activation_gradient(seen, dEdy))
        dEdb = channel_sum(dEdu)
        dEdz = self.pooling_gradient(seen, dEdu, s["dEdz"].quantize)
        s["dEdz"].observe(dEdz, published_shape(dEdz))
        below, dEdW = pull_back(seen.linear, dEdz, seen.x, seen.W)
        dEdW = s["dEdw"].observe(s["dEdw"].quantize(dEdW))
        dEdb = s["dEdb"].observe(s["dEdb"].quantize(dEdb))
        return Gradients(dEdy, dEdz, dEdW, dEdb, below * seen.mask)

    def updates(
        self, s: Signals, gradients: Gradients, LR: Tensor, M: Tensor, *due: Tensor
    ) -> dict[Shared, Tensor]:
        """The new value of every shared variable that a batch changes.

        s is of `forward`; LR and M are float32 scalars; due is as in `Ranges.updates`.
        """
        w_rate = LR * np.float32(self.w_LR_scale)
        b_rate = LR * np.float32(self.b_LR_scale)
        dW = momentum(s["update_w"].observe(self.update_W), gradients.dEdW, w_rate, M)
        db = momentum(s["update_b"].observe(self.update_b), gradients.dEdb, b_rate, M)
        update_W = s["update_w"].store(dW)
        update_b = s["update_b"].store(db)
        W = s["w"].store(self.W + update_W)
        norm = column_norm(W)
        clipped = pt.clip(norm, np.float32(0), np.float32(self.max_col_norm))
        factor = ops.rounded_quotient(clipped, np.float32(1e-7) + norm)
        return {
            self.W: s["w"].store(W * factor),
            self.b: s["b"].store(self.b + update_b),
            self.update_W: update_W,
            self.update_b: update_b,
            **self.ranges.updates(s, *due),
        }

    def test(self, x: Tensor, prop_bits: Tensor) -> Tensor:
        """Test-time pass: quantized y; no dropout, quantized W and b scaled."""
        s = self.ranges.signals(prop_bits, prop_bits)
        scale = np.float32(self.scale)
        linear = self.linear(self.arrange_input(x), s["w"].quantize(self.W) * scale)
        b = s["b"].quantize(self.b) * scale
        pre = self.preactivate(linear, b, s["z"].quantize, training=False)
        return s["y"].quantize(self.activate(pre.u))


def momentum(update: Tensor, gradient: Tensor, rate: Tensor, M: Tensor) -> Tensor:
    """M update - rate gradient, each product rounded to float32."""
    return ops.rounded_product(update, M) - ops.rounded_product(gradient, rate)
