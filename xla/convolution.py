"""Cross-correlation of images and its gradients, in one of two ways.

Images are arrays of (rows, maps, columns, batch), written (H, C, W, B); filters are (O,
C, R, S): output maps, input maps, rows, columns. `convolution_by_rows` writes
everything as matrix products, which run near a CPU's peak; there XLA's own convolutions
are slow, most of all in a loop. `convolution_by_xla` leaves the rest to XLA, which
knows GPUs.
"""

from types import ModuleType

import jax
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable

from xla import convolution_by_rows, convolution_by_xla
from xla.ops import JaxOp, Type, Variables


def way() -> ModuleType:
    """The module that convolves on the device in use."""
    return convolution_by_rows if jax.default_backend() == "cpu" else convolution_by_xla


class ConvolutionOp(JaxOp):
    """A JaxOp of the two below and `Correlation`.

    Parameters
    ----------
    pad
        Zeros on each side of the images, fewer than R and S.
    tf32
        Whether it and its gradients may run in TF32 (see `products`).
    """

    __props__ = ("pad", "tf32")

    def __init__(self, pad: int, tf32: bool = False) -> None:
        self.pad = pad
        self.tf32 = tf32


class CorrelationInputGradient(ConvolutionOp):
    """The gradient of Correlation in its input.

    (H', O, W', B), (O, C, R, S) -> (H, C, W, B).
    """

    def apply(self, dz: jax.Array, W: jax.Array) -> jax.Array:
        return way().input_gradient(dz, W, self.pad, self.tf32)

    def result(self, dz: Type, W: Type) -> Type:
        (height, _, width, B) = dz[0]
        (_, C, R, S) = W[0]
        return (height + R - 1 - 2 * self.pad, C, width + S - 1 - 2 * self.pad, B), dz[1]


class CorrelationFilterGradient(ConvolutionOp):
    """The gradient of Correlation in its filters.

    (H, C, W, B), (H', O, W', B) -> (O, C, R, S).
    """

    def apply(self, x: jax.Array, dz: jax.Array) -> jax.Array:
        return way().filter_gradient(x, dz, self.pad, self.tf32)

    def result(self, x: Type, dz: Type) -> Type:
        (H, C, W, _) = x[0]
        (height, n_out, width, _) = dz[0]
        return (n_out, C, H + 2 * self.pad - height + 1, W + 2 * self.pad - width + 1), x[1]


class Correlation(ConvolutionOp):
    """Cross-correlation, stride 1.

    (H, C, W, B), (O, C, R, S) -> (H', O, W', B), with H' = H + 2 pad - R + 1, and W'
    likewise.
    """

    def apply(self, x: jax.Array, W: jax.Array) -> jax.Array:
        return way().correlate(x, W, self.pad, self.tf32)

    def result(self, x: Type, W: Type) -> Type:
        (H, _, width, B) = x[0]
        (n_out, _, R, S) = W[0]
        return (H + 2 * self.pad - R + 1, n_out, width + 2 * self.pad - S + 1, B), x[1]

    def pullback(
        self, inputs: Variables, outputs: Variables, cotangents: Variables
    ) -> list[Variable]:
        x, W = inputs
        (dz,) = cotangents
        return [
            CorrelationInputGradient(self.pad, self.tf32)(dz, W),
            CorrelationFilterGradient(self.pad, self.tf32)(x, dz),
        ]


def correlate(x: TensorVariable, W: TensorVariable, pad: int, tf32: bool = False) -> TensorVariable:
    """Cross-correlation of images (H, C, W, B) with filters (O, C, R, S), stride 1."""
    return Correlation(pad, tf32)(x, W)
