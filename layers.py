"""Layers: training pass, backward pass, updates and test-time pass (SPEC sections 3-6 and 8).

The training algorithm stands once, in `Layer`; a layer type adds its linear map and its activation. Every gradient is
computed from quantized tensors: `pull_back` differentiates one linear map or one activation at a time, the quantized
gradient of its output being known.
"""

import numpy as np
import pytensor
import pytensor.tensor as pt

from format import Ranges
from xla import ops
from xla.convolution import correlate
from xla.layout import batch_first, flat, images, published_shape
from xla.pooling import max_pool
from xla.products import product
from xla.statistics import column_norm


def pull_back(output, gradient, *inputs):
    """The gradients of `inputs`, given the gradient of `output`, through the graph between them."""
    return pytensor.grad(None, list(inputs), known_grads={output: gradient})


class Layer:
    """A dropout mask, a linear map, biases and an activation, everything stored in a number format.

    A layer type sets `input_size` and `output_shape` (both without the batch axis) and defines `linear`,
    `preactivate`, `activate` and, where it is not the plain derivative, the gradient of each. Activations are (B, features),
    or (rows, maps, columns, B) in and between convolutional layers; axis 1 has the channels in both.

    Parameters
    ----------
    name : str
        Prefix of its shared variables: name/W, name/b, name/update_W, name/update_b, and those of format.Ranges.
    number_format : FLP, HFLP, FXP or DFXP
    W : float32 array
        Initial weights. Biases and updates start at zero.
    n_biases : int
    p : float
        Dropout: the probability to keep an input.
    scale : float
        Factor of W and b at test time.
    max_col_norm : float
        Largest Euclidean norm of W over axis 0.
    w_LR_scale, b_LR_scale : float
        Factors of the learning rate.
    initial_range : int
        Initial range of the ten signals.
    input_on_grid : bool
        Whether the input is a signal of the layer below, in its format, and not data.
    """

    def __init__(
        self,
        name,
        number_format,
        W,
        n_biases,
        *,
        p,
        scale,
        max_col_norm=1.9365,
        w_LR_scale=1.0,
        b_LR_scale=1.0,
        initial_range=0,
        input_on_grid=True,
    ):
        self.name, self.p, self.scale, self.max_col_norm = name, p, scale, max_col_norm
        self.w_LR_scale, self.b_LR_scale, self.input_on_grid = w_LR_scale, b_LR_scale, input_on_grid
        b = np.zeros(n_biases, "float32")
        self.W, self.b = ops.shared(W, f"{name}/W"), ops.shared(b, f"{name}/b")
        self.update_W = ops.shared(np.zeros_like(W), f"{name}/update_W")
        self.update_b = ops.shared(np.zeros_like(b), f"{name}/update_b")
        self.dynamics = Ranges(name, number_format, initial_range)

    @property
    def state(self):
        """The layer's shared variables."""
        d = self.dynamics
        return [
            self.W,
            self.b,
            self.update_W,
            self.update_b,
            d.ranges,
            d.overflow,
            d.epoch_overflow,
        ]

    def arrange_input(self, v):
        """v, flat or as the layer below made it, as `linear` takes it."""
        return flat(v)

    def arrange_output(self, v):
        """v, flat or as the layer above made it, as `activate` made it."""
        return v

    def linear(self, x, W):
        """x -> the linear map's output, channels on axis 1."""
        raise NotImplementedError

    def preactivate(self, linear, b, quantize, training):
        """Linear map's output, biases -> (before quantization z, z, u): u is what `activate` takes."""
        before = linear + b
        z = quantize(before)
        return before, z, z

    def activate(self, u):
        """u -> y, not quantized."""
        raise NotImplementedError

    def activation_gradient(self, g):
        """Gradient of y -> gradient of u."""
        return pull_back(self.y, g, self.u)[0]

    def linear_gradient(self, du, quantize):
        """Quantized gradient of u -> quantized gradient of the linear map's output."""
        return du

    def forward(self, x, mask, prop_bits, up_bits):
        """Training pass: x (any arrangement) and mask (B, input_size; 1 = keep) -> quantized y."""
        s = self.signals = self.dynamics.signals(prop_bits, up_bits)
        self.mask = self.arrange_input(mask)
        self.Wq, self.bq = (
            s["w"].quantize(s["w"].observe(self.W)),
            s["b"].quantize(s["b"].observe(self.b)),
        )
        self.x = self.arrange_input(x) * self.mask
        self.a = self.linear(self.x, self.Wq)
        self.before_z, self.z, self.u = self.preactivate(
            self.a, self.bq, s["z"].quantize, training=True
        )
        s["z"].observe(self.z, published_shape(self.z))
        self.y = self.activate(self.u)
        self.fixed_y = s["y"].quantize(self.y)
        return s["y"].observe(self.fixed_y, flat(self.fixed_y).type.shape)

    def backward(self, e):
        """Gradient from above (any arrangement) -> gradient of the input as `linear` took it, both not quantized."""
        s = self.signals
        self.g = s["dEdy"].quantize(self.arrange_output(e))
        s["dEdy"].observe(self.g, published_shape(self.g))
        du = s["dEdz"].quantize(self.activation_gradient(self.g))
        db = du.sum(
            axis=[i for i in range(du.type.ndim) if i != 1], dtype="float32", acc_dtype="float32"
        )
        self.dz = self.linear_gradient(du, s["dEdz"].quantize)
        s["dEdz"].observe(self.dz, published_shape(self.dz))
        e_below, dW = pull_back(self.a, self.dz, self.x, self.Wq)
        self.dW = s["dEdw"].observe(s["dEdw"].quantize(dW))
        self.db = s["dEdb"].observe(s["dEdb"].quantize(db))
        return e_below * self.mask

    def updates(self, LR, M, update_due, frequency, max_overflow):
        """After `forward` and `backward`: the new value of every shared variable that a batch changes, a dict.

        LR, M : float32 scalars; the others as in `Ranges.updates`.
        """
        s = self.signals
        update_W = self._momentum(
            s["update_w"], self.update_W, self.dW, LR * np.float32(self.w_LR_scale), M
        )
        update_b = self._momentum(
            s["update_b"], self.update_b, self.db, LR * np.float32(self.b_LR_scale), M
        )
        W = s["w"].store(self.W + update_W)
        norm = column_norm(W)
        W = s["w"].store(
            W
            * (
                pt.clip(norm, np.float32(0), np.float32(self.max_col_norm))
                / (np.float32(1e-7) + norm)
            )
        )
        return {
            self.W: W,
            self.b: s["b"].store(self.b + update_b),
            self.update_W: update_W,
            self.update_b: update_b,
            **self.dynamics.updates(s, update_due, frequency, max_overflow),
        }

    @staticmethod
    def _momentum(signal, update, gradient, rate, M):
        step = ops.rounded_product(signal.observe(update), M) - ops.rounded_product(gradient, rate)
        return signal.quantize(step)

    def test(self, x, prop_bits):
        """Test-time pass: x (any arrangement) -> quantized y; no dropout, quantized W and b scaled."""
        s = self.dynamics.signals(prop_bits, prop_bits)
        scale = np.float32(self.scale)
        a = self.linear(self.arrange_input(x), s["w"].quantize(self.W) * scale)
        _, _, u = self.preactivate(
            a, s["b"].quantize(self.b) * scale, s["z"].quantize, training=False
        )
        return s["y"].quantize(self.activate(u))

    def intermediates(self):
        """What passed through the last `forward` and `backward`, by the names and in the shapes of the recorded traces."""
        return {
            "fixed_W": self.Wq,
            "fixed_b": self.bq,
            "fixed_x": flat(self.x),
            "z": batch_first(self.before_z),
            "fixed_z": batch_first(self.z),
            "y": flat(self.y),
            "fixed_y": flat(self.fixed_y),
            "fixed_dEdy": batch_first(self.g),
            "fixed_dEdz": batch_first(self.dz),
            "fixed_dEdW": self.dW,
            "fixed_dEdb": self.db,
        }


def uniform(rng, limit, shape):
    """Initial weights from a legacy RandomState: uniform in +-limit, drawn in float64, float32."""
    return rng.uniform(-limit, limit, shape).astype("float32")


def maxout(z, pieces):
    """Maximum over adjacent pieces of axis 1; its gradient goes whole to every tie."""
    batch, channels, *pixels = z.type.shape
    return z.reshape((batch, channels // pieces, pieces, *pixels)).max(axis=2)


class DenseMaxout(Layer):
    """Maxout units, unit u being the maximum of columns u*pieces .. u*pieces + pieces - 1 of x W + b."""

    def __init__(self, name, number_format, rng, inputs, units, pieces, **options):
        self.input_size, self.output_shape, self.pieces = inputs, (units,), pieces
        W = uniform(rng, np.sqrt(6.0 / (inputs + units * pieces)), (inputs, units * pieces))
        super().__init__(name, number_format, W, units * pieces, **options)

    def linear(self, x, W):
        return product(x, W, self.input_on_grid)

    def activate(self, u):
        return maxout(u, self.pieces)


class Softmax(Layer):
    """The output layer; its weights start at zero. The error passed to it is y - t, the derivative at z already."""

    def __init__(self, name, number_format, rng, inputs, classes, **options):
        self.input_size, self.output_shape = inputs, (classes,)
        super().__init__(
            name, number_format, np.zeros((inputs, classes), "float32"), classes, **options
        )

    def linear(self, x, W):
        return product(x, W, self.input_on_grid)

    def activate(self, u):
        e = pt.exp(u - u.max(axis=1, keepdims=True))
        return ops.rounded_quotient(e, ops.pairwise_sum(e))

    def activation_gradient(self, g):
        return g


class ConvMaxout(Layer):
    """Correlation, max pooling, biases, maxout over adjacent channels.

    Parameters
    ----------
    input_shape : (maps, rows, columns)
    maps, pieces : int
        Output maps, each the maximum of `pieces` adjacent channels.
    size, pad : int
        Side of the square filters, and the zeros around the input.
    pool, stride : int
        Side of the pooling windows and their distance.
    """

    def __init__(
        self,
        name,
        number_format,
        rng,
        input_shape,
        maps,
        pieces,
        size,
        pad,
        pool,
        stride,
        **options,
    ):
        self.input_shape, self.input_size = input_shape, int(np.prod(input_shape))
        self.pieces, self.pad, self.pool, self.stride = pieces, pad, pool, stride
        sides = [-(-(n + 2 * pad - size + 1 - pool) // stride) + 1 for n in input_shape[1:]]
        self.output_shape = (maps, *sides)
        fan_in, fan_out = input_shape[0] * size**2, maps * pieces * size**2 // pieces // pool**2
        W = uniform(
            rng, np.sqrt(6.0 / (fan_in + fan_out)), (maps * pieces, input_shape[0], size, size)
        )
        super().__init__(name, number_format, W, maps * pieces, **options)

    def arrange_input(self, v):
        return v if v.type.ndim == 4 else images(v, self.input_shape)

    def arrange_output(self, v):
        return v if v.type.ndim == 4 else images(v, self.output_shape)

    def linear(self, x, W):
        return correlate(x, W, self.pad, self.input_on_grid)

    def preactivate(self, linear, b, quantize, training):
        """As published: a quantizer before pooling in training only, the biases after it."""
        z = quantize(linear) if training else linear
        self.pooled = max_pool(z, self.pool, self.stride)
        self.before_u = self.pooled + b[None, :, None, None]
        return linear, z, quantize(self.before_u)

    def activate(self, u):
        return maxout(u, self.pieces)

    def linear_gradient(self, du, quantize):
        return quantize(pull_back(self.pooled, du, self.z)[0])

    def intermediates(self):
        return super().intermediates() | {
            "u": batch_first(self.before_u),
            "fixed_u": batch_first(self.u),
        }
