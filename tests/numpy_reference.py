"""docs/published_program.md in plain NumPy: what the compiled programs are compared with.

Written from that page alone, in its order and with its letters; nothing of the program
is imported. Sums of products are formed in float64 and rounded to float32 once. Where
the numbers have so few bits that every float32 sum is exact, any order of summation
gives the same; elsewhere this is the value that a float32 sum may miss by its last
bits.
"""

from dataclasses import dataclass, field

import numpy as np

SIGNALS = ("z", "dEdz", "y", "dEdy", "w", "b", "dEdw", "dEdb", "update_w", "update_b")
CLASSES = 10
f4 = np.float32


# --- Formats


def power_of_two(n):
    """2^n as float32; n stops at +-126 as the ranges do at +-100: scales stay finite."""
    return f4(2.0 ** min(max(int(n), -126), 126))


def round_half_away(x):
    t = np.trunc(x)
    with np.errstate(invalid="ignore"):
        away = np.abs(x - t) >= f4(0.5)
    return t + np.copysign(away.astype("f4"), x)


def fixed_point(x, nob, noib):
    """q(x; NOB, NOIB), float32 throughout."""
    top = f4(f4(2.0**nob) - f4(1))
    with np.errstate(over="ignore", invalid="ignore"):
        steps = round_half_away(np.asarray(x, f4) * power_of_two(nob - noib))
        return np.clip(steps, -top, top) * power_of_two(noib - nob)


def half(x):
    """float32 -> IEEE binary16 -> float32."""
    with np.errstate(over="ignore"):
        return np.asarray(x, f4).astype(np.float16).astype(f4)


FORMATS = ("FLP", "HFLP", "FXP", "DFXP")


def quantize(number_format, x, nob, noib):
    assert number_format in FORMATS
    if number_format == "FLP":
        return np.asarray(x, f4)
    return half(x) if number_format == "HFLP" else fixed_point(x, nob, noib)


def overflow_rate(v, nob, noib):
    """Rate of |v| >= (2^NOB - 1) / 2^(NOB-NOIB), divided by each dimension in turn in float32."""
    limit = f4(f4(2.0**nob) - f4(1)) * power_of_two(noib - nob)
    rate = f4(np.count_nonzero(np.abs(v) >= limit))
    for n in np.shape(v):
        rate = f4(rate / f4(n))
    return float(rate)


def next_range(noib, o, o1, max_overflow):
    if o > max_overflow:
        noib += 1
    elif not o1 > max_overflow:
        noib -= 1
    return min(max(noib, -100), 100)


# --- linear maps, pooling, maxout


def dot(a, b):
    return (a.astype("f8") @ b.astype("f8")).astype(f4)


def correlate(x, W, pad):
    """(B, C, H, W) with (O, C, R, S) -> (B, O, H', W')."""
    x = np.pad(x.astype("f8"), [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    R, S = W.shape[2:]
    rows = x.shape[2] - R + 1
    columns = x.shape[3] - S + 1
    z = np.zeros((len(x), len(W), rows, columns))
    for r in range(R):
        for s in range(S):
            window = x[:, :, r : r + rows, s : s + columns]
            z += np.einsum("bchw,oc->bohw", window, W[:, :, r, s].astype("f8"), optimize=True)
    return z.astype(f4)


def correlate_gradients(x, W, dz, pad):
    """(gradient of x, gradient of W) of `correlate`."""
    padded = np.pad(x.astype("f8"), [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    dx = np.zeros(padded.shape)
    dW = np.zeros(W.shape)
    dz = dz.astype("f8")
    W = W.astype("f8")
    rows, columns = dz.shape[2:]
    for r in range(W.shape[2]):
        for s in range(W.shape[3]):
            here = np.s_[:, :, r : r + rows, s : s + columns]
            dW[:, :, r, s] = np.einsum("bohw,bchw->oc", dz, padded[here], optimize=True)
            dx[here] += np.einsum("bohw,oc->bchw", dz, W[:, :, r, s], optimize=True)
    height, width = x.shape[2:]
    return dx[:, :, pad : pad + height, pad : pad + width].astype(f4), dW.astype(f4)


def windows(shape, pool, stride):
    """((i, j), slice of the pixels of window i, j), cut at the border, for every window."""
    sides = [int(np.ceil((n - pool) / stride)) + 1 for n in shape[2:]]
    for i in range(sides[0]):
        for j in range(sides[1]):
            yield (
                (i, j),
                np.s_[:, :, i * stride : i * stride + pool, j * stride : j * stride + pool],
            )


def max_pool(c, pool, stride):
    found = {ij: c[pixels].max(axis=(2, 3)) for ij, pixels in windows(c.shape, pool, stride)}
    rows, columns = (1 + max(ij[axis] for ij in found) for axis in (0, 1))
    return np.stack(
        [np.stack([found[i, j] for j in range(columns)], axis=-1) for i in range(rows)], axis=-2
    )


def unpool(c, r, du, pool, stride):
    """Every pixel equal to its window's maximum gets that window's gradient; windows add up."""
    dz = np.zeros(c.shape)
    for (i, j), pixels in windows(c.shape, pool, stride):
        dz[pixels] += np.where(
            c[pixels] == r[:, :, i, j, None, None], du[:, :, i, j, None, None], 0
        )
    return dz.astype(f4)


def maxout(u, pieces):
    """Unit k is the maximum of the adjacent channels k * pieces ... of axis 1."""
    return np.stack(
        [u[:, k : k + pieces].max(axis=1) for k in range(0, u.shape[1], pieces)], axis=1
    )


def route(u, y, g, pieces):
    """Every piece equal to its unit's maximum gets the unit's whole gradient."""
    du = np.zeros_like(u)
    for channel in range(u.shape[1]):
        unit = channel // pieces
        du[:, channel] = np.where(u[:, channel] == y[:, unit], g[:, unit], 0)
    return du


def softmax(z):
    e = np.exp((z - z.max(axis=1, keepdims=True)).astype("f8")).astype(f4).astype("f8")
    return (e / e.sum(axis=1, keepdims=True)).astype(f4)


# --- Training pass, Backward pass, Updates, Overflow statistics


@dataclass
class Layer:
    """A layer's constants and state; kind is "dense", "conv" or "softmax"."""

    kind: str
    W: np.ndarray
    p: float
    scale: float
    max_col_norm: float = 1.9365
    w_LR_scale: float = 1.0
    b_LR_scale: float = 1.0
    pieces: int = 1
    input_shape: tuple = ()
    pad: int = 0
    pool: int = 1
    stride: int = 1
    ranges: dict = field(default_factory=dict)

    def __post_init__(self):
        self.b = np.zeros(len(self.W) if self.kind == "conv" else self.W.shape[1], f4)
        self.update_W = np.zeros_like(self.W)
        self.update_b = np.zeros_like(self.b)
        self.ranges = {signal: self.ranges.get(signal, 0) for signal in SIGNALS}
        self.overflow = {signal: [0.0, 0.0] for signal in SIGNALS}
        self.rates = {}

    @property
    def input_size(self):
        return int(np.prod(self.input_shape)) if self.kind == "conv" else len(self.W)

    @property
    def output_shape(self):
        if self.kind != "conv":
            return (self.W.shape[1] // self.pieces,)
        sides = [
            n + 2 * self.pad - k + 1
            for n, k in zip(self.input_shape[1:], self.W.shape[2:], strict=True)
        ]
        return (
            len(self.W) // self.pieces,
            *(int(np.ceil((n - self.pool) / self.stride)) + 1 for n in sides),
        )


def dense(rng, inputs, units, pieces, **options):
    limit = np.sqrt(6.0 / (inputs + units * pieces))
    return Layer(
        "dense",
        rng.uniform(-limit, limit, (inputs, units * pieces)).astype(f4),
        pieces=pieces,
        **options,
    )


def softmax_layer(inputs, **options):
    return Layer("softmax", np.zeros((inputs, CLASSES), f4), **options)


def conv(rng, input_shape, maps, pieces, size, pad, pool, stride, **options):
    channels = maps * pieces
    fan_in = input_shape[0] * size * size
    fan_out = channels * size * size // pieces // (pool * pool)
    limit = np.sqrt(6.0 / (fan_in + fan_out))
    W = rng.uniform(-limit, limit, (channels, input_shape[0], size, size)).astype(f4)
    return Layer(
        "conv",
        W,
        pieces=pieces,
        input_shape=tuple(input_shape),
        pad=pad,
        pool=pool,
        stride=stride,
        **options,
    )


def pi_mnist(rng, units, pieces):
    return [
        dense(rng, 784, units, pieces, p=0.8, scale=1.0),
        dense(rng, units, units, pieces, p=0.5, scale=0.5),
        softmax_layer(units, p=0.5, scale=0.5),
    ]


def mnist(rng):
    first = conv(
        rng, (1, 28, 28), 48, 2, 8, pad=0, pool=4, stride=2, p=0.8, scale=1.0, max_col_norm=0.9
    )
    second = conv(rng, first.output_shape, 48, 2, 8, pad=3, pool=4, stride=2, p=0.5, scale=0.5)
    third = conv(rng, second.output_shape, 24, 4, 5, pad=3, pool=2, stride=2, p=0.5, scale=0.5)
    return [first, second, third, softmax_layer(int(np.prod(third.output_shape)), p=0.5, scale=0.5)]


def column_norm(W):
    return np.sqrt((W.astype("f8") ** 2).sum(0).astype("f4"))


class Batch:
    """A batch's number format and bit-widths: how its signals are quantized and observed."""

    def __init__(self, number_format, prop_bits, up_bits):
        self.format = number_format
        self.prop_bits = prop_bits
        self.up_bits = up_bits

    def q(self, layer, signal, v, nob=None):
        return quantize(self.format, v, nob or self.prop_bits, layer.ranges[signal])

    def observe(self, layer, signal, v, nob=None):
        if self.format == "DFXP":
            noib = layer.ranges[signal]
            rates = [overflow_rate(v, nob or self.prop_bits, n) for n in (noib, noib - 1)]
            layer.rates[signal] = rates


def training_step(
    layers,
    number_format,
    x,
    t,
    masks,
    LR,
    M,
    prop_bits,
    up_bits,
    max_overflow=0.0,
    update_after=None,
):
    """One batch; changes the layers and returns what passed through each, a dict.

    update_after : the update frequency, if this batch is followed by a range update.
    """
    batch = Batch(number_format, prop_bits, up_bits)
    seen = []
    below = np.asarray(x, f4)
    for layer, mask in zip(layers, masks, strict=True):
        seen.append(_forward(batch, layer, below, mask.astype(f4)))
        below = seen[-1]["fixed_y"]
    e = (below - t.astype(f4)) / f4(CLASSES)
    for layer, s in reversed(list(zip(layers, seen, strict=True))):
        e = _backward(batch, layer, s, e)
    for layer, s in zip(layers, seen, strict=True):
        _update(batch, layer, s, f4(LR), f4(M))
        if number_format == "DFXP":
            _accumulate(layer)
            if update_after:
                update_ranges(layer, update_after, max_overflow)
    return seen


def _forward(batch, layer, below, mask):
    """Training pass."""
    batch.observe(layer, "w", layer.W, batch.up_bits)
    batch.observe(layer, "b", layer.b, batch.up_bits)
    s = {"mask": mask, "fixed_x": below * mask}
    s["fixed_W"] = batch.q(layer, "w", layer.W)
    s["fixed_b"] = batch.q(layer, "b", layer.b)
    if layer.kind == "conv":
        images = s["fixed_x"].reshape(-1, *layer.input_shape)
        s["z"] = correlate(images, s["fixed_W"], layer.pad)
        s["fixed_z"] = batch.q(layer, "z", s["z"])
        s["pooled"] = max_pool(s["fixed_z"], layer.pool, layer.stride)
        s["u"] = s["pooled"] + s["fixed_b"][None, :, None, None]
        s["fixed_u"] = batch.q(layer, "z", s["u"])
        y = maxout(s["fixed_u"], layer.pieces)
    else:
        s["z"] = dot(s["fixed_x"], s["fixed_W"]) + s["fixed_b"]
        s["fixed_z"] = batch.q(layer, "z", s["z"])
        softmaxed = layer.kind == "softmax"
        y = softmax(s["fixed_z"]) if softmaxed else maxout(s["fixed_z"], layer.pieces)
    s["unflattened_y"] = y
    s["y"] = y.reshape(len(y), -1)
    s["fixed_y"] = batch.q(layer, "y", s["y"])
    batch.observe(layer, "z", s["fixed_z"])
    batch.observe(layer, "y", s["fixed_y"])
    return s


def _backward(batch, layer, s, e):
    """Backward pass: adds to s, and returns the gradient of the layer's input."""
    g = batch.q(layer, "dEdy", e.reshape(-1, *layer.output_shape))
    if layer.kind == "conv":
        routed = route(s["fixed_u"], s["unflattened_y"], g, layer.pieces)
        du = batch.q(layer, "dEdz", routed)
        unpooled = unpool(s["fixed_z"], s["pooled"], du, layer.pool, layer.stride)
        dz = batch.q(layer, "dEdz", unpooled)
        db = du.astype("f8").sum(axis=(0, 2, 3)).astype(f4)
        images = s["fixed_x"].reshape(-1, *layer.input_shape)
        e, dW = correlate_gradients(images, s["fixed_W"], dz, layer.pad)
        e = e.reshape(len(e), -1)
    else:
        softmaxed = layer.kind == "softmax"
        dz = g if softmaxed else route(s["fixed_z"], s["unflattened_y"], g, layer.pieces)
        dz = batch.q(layer, "dEdz", dz)
        db = dz.astype("f8").sum(axis=0).astype(f4)
        dW = dot(s["fixed_x"].T, dz)
        e = dot(dz, s["fixed_W"].T)
    s["fixed_dEdy"] = g
    s["fixed_dEdz"] = dz
    s["fixed_dEdW"] = batch.q(layer, "dEdw", dW)
    s["fixed_dEdb"] = batch.q(layer, "dEdb", db)
    for name in ("dEdy", "dEdz", "dEdW", "dEdb"):
        batch.observe(layer, name.replace("W", "w"), s[f"fixed_{name}"])
    return e * s["mask"]


def _update(batch, layer, s, LR, M):
    """Updates."""
    batch.observe(layer, "update_w", layer.update_W)
    batch.observe(layer, "update_b", layer.update_b)
    w_rate = LR * f4(layer.w_LR_scale)
    b_rate = LR * f4(layer.b_LR_scale)
    update_W = M * layer.update_W - w_rate * s["fixed_dEdW"]
    update_b = M * layer.update_b - b_rate * s["fixed_dEdb"]
    layer.update_W = batch.q(layer, "update_w", update_W)
    layer.update_b = batch.q(layer, "update_b", update_b)
    W = batch.q(layer, "w", layer.W + layer.update_W, batch.up_bits)
    layer.b = batch.q(layer, "b", layer.b + layer.update_b, batch.up_bits)
    n = column_norm(W)
    factor = np.clip(n, f4(0), f4(layer.max_col_norm)) / (f4(1e-7) + n)
    layer.W = batch.q(layer, "w", W * factor, batch.up_bits)


def _accumulate(layer):
    """Overflow statistics."""
    for signal in SIGNALS:
        both = zip(layer.overflow[signal], layer.rates[signal], strict=True)
        layer.overflow[signal] = [sum_so_far + rate for sum_so_far, rate in both]
    layer.counted = {signal: list(both) for signal, both in layer.overflow.items()}


def update_ranges(layer, frequency, max_overflow):
    for signal in SIGNALS:
        o, o1 = (acc / frequency for acc in layer.overflow[signal])
        layer.ranges[signal] = next_range(layer.ranges[signal], o, o1, max_overflow)
        layer.overflow[signal] = [0.0, 0.0]


# --- Test-time pass


def test_pass(layers, number_format, x, prop_bits):
    """The outputs of every layer, flattened."""
    outputs = [np.asarray(x, f4)]
    for layer in layers:
        q = {signal: layer.ranges[signal] for signal in SIGNALS}
        W = quantize(number_format, layer.W, prop_bits, q["w"]) * f4(layer.scale)
        b = quantize(number_format, layer.b, prop_bits, q["b"]) * f4(layer.scale)
        if layer.kind == "conv":
            images = outputs[-1].reshape(-1, *layer.input_shape)
            pooled = max_pool(correlate(images, W, layer.pad), layer.pool, layer.stride)
            u = quantize(number_format, pooled + b[None, :, None, None], prop_bits, q["z"])
        else:
            u = quantize(number_format, dot(outputs[-1], W) + b, prop_bits, q["z"])
        y = softmax(u) if layer.kind == "softmax" else maxout(u, layer.pieces)
        outputs.append(quantize(number_format, y.reshape(len(y), -1), prop_bits, q["y"]))
    return outputs[1:]


test_pass.__test__ = False  # not a test, for all its name


# --- Random streams


class Streams:
    """Stream seeds, masks and shuffles of the published program.

    rng : the generator that has drawn the weights.
    """

    def __init__(self, rng, layers, batch_size):
        self.rng = rng
        self.layers = layers
        self.batch_size = batch_size
        self.seeds = [int(rng.randint(999999)) for _ in layers]
        self.mask_rngs = [
            np.random.RandomState(np.random.RandomState(s).randint(2**30)) for s in self.seeds
        ]

    def masks(self):
        """One batch's masks, a list."""
        return [
            rng.binomial(n=1, p=layer.p, size=(self.batch_size, layer.input_size))
            for rng, layer in zip(self.mask_rngs, self.layers, strict=True)
        ]

    def fresh_list(self, n):
        order = list(range(n))
        self.rng.shuffle(order)
        return order
