"""The layer types: what is special to each; what they share is in `layer`."""

from typing import Any

import numpy as np
import pytensor.tensor as pt
from numpy.random import RandomState
from pytensor.tensor.variable import TensorVariable as Tensor

from format import FLP
from layer import Layer, Preactivation, Quantizer, Seen, pull_back
from xla import ops
from xla.convolution import correlate
from xla.layout import images
from xla.pooling import max_pool


def uniform(rng: RandomState, limit: float, *shape: int) -> np.ndarray:
    """Initial weights: uniform in +-limit, drawn in float64, float32."""
    return rng.uniform(-limit, limit, shape).astype("float32")


def maxout(z: Tensor, pieces: int) -> Tensor:
    """Maximum over adjacent pieces of axis 1; its gradient goes whole to every tie."""
    batch, channels, *pixels = z.type.shape
    return z.reshape((batch, channels // pieces, pieces, *pixels)).max(axis=2)


class DenseMaxout(Layer):
    """Maxout units: each is the maximum of `pieces` adjacent columns of x W + b."""

    def __init__(
        self,
        name: str,
        number_format: FLP,
        rng: RandomState,
        inputs: int,
        units: int,
        pieces: int,
        **options: Any,
    ) -> None:
        self.input_size = inputs
        self.output_shape = (units,)
        self.units = units
        self.pieces = pieces
        columns = units * pieces
        W = uniform(rng, np.sqrt(6.0 / (inputs + columns)), inputs, columns)
        super().__init__(name, number_format, W, columns, **options)

    def activate(self, u: Tensor) -> Tensor:
        return maxout(u, self.pieces)


class Softmax(Layer):
    """The output layer; its weights start at zero.

    The error passed to it is y - t, the derivative at z already.
    """

    def __init__(
        self,
        name: str,
        number_format: FLP,
        rng: RandomState,
        inputs: int,
        classes: int,
        **options: Any,
    ) -> None:
        self.input_size = inputs
        self.output_shape = (classes,)
        self.classes = classes
        W = np.zeros((inputs, classes), "float32")
        super().__init__(name, number_format, W, classes, **options)

    def activate(self, u: Tensor) -> Tensor:
        """As published to the last bit: exponentials and quotients are rounded to float32.

        They are computed, and the exponentials added up, in float64.
        """
        e = ops.rounded_to_float32(pt.exp((u - u.max(axis=1, keepdims=True)).astype("float64")))
        e = e.astype("float64")
        return ops.rounded_to_float32(ops.rounded_quotient(e, ops.pairwise_sum(e)))

    def activation_gradient(self, seen: Seen, dEdy: Tensor) -> Tensor:
        return dEdy


class ConvMaxout(Layer):
    """Correlation, max pooling, biases, maxout over adjacent channels.

    Parameters
    ----------
    input_shape
        (maps, rows, columns).
    maps, pieces
        Output maps, each the maximum of `pieces` adjacent channels.
    size, pad
        Side of the square filters, and the zeros around the input.
    pool, stride
        Side of the pooling windows and their distance.
    """

    def __init__(
        self,
        name: str,
        number_format: FLP,
        rng: RandomState,
        input_shape: tuple[int, ...],
        maps: int,
        *,
        pieces: int,
        size: int,
        pad: int,
        pool: int,
        stride: int,
        **options: Any,
    ) -> None:
        self.input_shape = input_shape
        self.input_size = int(np.prod(input_shape))
        self.maps = maps
        self.size = size
        self.pieces = pieces
        self.pad = pad
        self.pool = pool
        self.stride = stride
        sides = [-(-(n + 2 * pad - size + 1 - pool) // stride) + 1 for n in input_shape[1:]]
        self.output_shape = (maps, *sides)
        channels = maps * pieces
        fan_in = input_shape[0] * size**2
        fan_out = channels * size**2 // pieces // pool**2
        limit = np.sqrt(6.0 / (fan_in + fan_out))
        W = uniform(rng, limit, channels, input_shape[0], size, size)
        super().__init__(name, number_format, W, channels, **options)

    def arrange_input(self, v: Tensor) -> Tensor:
        return images(v, self.input_shape)

    def arrange_output(self, v: Tensor) -> Tensor:
        return images(v, self.output_shape)

    def linear(self, x: Tensor, W: Tensor, tf32: bool = False) -> Tensor:
        return correlate(x, W, self.pad, tf32)

    def preactivate(
        self, linear: Tensor, b: Tensor, quantize: Quantizer, training: bool
    ) -> Preactivation:
        """As published: biases after pooling, a quantizer before it in training only."""
        z = quantize(linear) if training else linear
        pooled = max_pool(z, self.pool, self.stride)
        before_u = pooled + b[None, :, None, None]
        return Preactivation(linear, z, pooled, before_u, quantize(before_u))

    def activate(self, u: Tensor) -> Tensor:
        return maxout(u, self.pieces)

    def pooling_gradient(self, seen: Seen, dEdu: Tensor, quantize: Quantizer) -> Tensor:
        return quantize(pull_back(seen.pre.pooled, dEdu, seen.pre.z)[0])
