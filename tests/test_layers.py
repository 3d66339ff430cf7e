"""layers.py and layer.py, compiled: every type in every format against the NumPy evaluation."""

import copy
import itertools
from functools import cache

import numpy as np
import numpy_reference as ref
import pytensor.tensor as pt
import pytest

from format import FORMATS, SIGNALS
from layers import ConvMaxout, DenseMaxout, Softmax
from model import Network
from utilities.replay_inside import intermediates
from xla.graphs import compiled
from xla.layout import batch_first, flat

f4 = np.float32
B = 6
BATCHES = 5
FREQUENCY = 2
MAX_OVERFLOW = 0.02
PROP_BITS = 9
UP_BITS = 11
LR = f4(0.046875)
M = f4(0.625)
STATE = ("W", "b", "update_W", "update_b")
LAYER_NAMES = ("conv", "dense", "softmax")
RANGES = np.array(
    [
        [1, -4, 0, -6, -1, -2, -4, -4, -5, -5],
        [2, -4, 2, -4, -1, -2, -2, -3, -5, -5],
        [1, -4, -2, -4, -1, -2, -1, -3, -5, -5],
    ],
    "int32",
)
OPTIONS = (
    {"p": 0.8, "scale": 1.0, "max_col_norm": 0.9, "w_LR_scale": 0.25, "b_LR_scale": 0.75},
    {"p": 0.5, "scale": 0.25, "b_LR_scale": 0.5},
    {"p": 0.75, "scale": 0.5, "max_col_norm": 0.8},
)


class Small(Network):
    """A convolutional layer whose border windows are cut, a dense and a softmax layer."""

    def __init__(self, number_format, rng):
        self.format = f = FORMATS[number_format]
        first = ConvMaxout(
            "layer0",
            f,
            rng,
            (2, 6, 6),
            maps=3,
            pieces=2,
            size=3,
            pad=1,
            pool=3,
            stride=2,
            **OPTIONS[0],
        )
        second = DenseMaxout("layer1", f, rng, 27, 4, 3, **OPTIONS[1])
        self.layers = [first, second, Softmax("layer2", f, rng, 4, 10, **OPTIONS[2])]


def small(rng):
    """The same network, of the reference's layers."""
    first = ref.conv(rng, (2, 6, 6), 3, 2, 3, pad=1, pool=3, stride=2, **OPTIONS[0])
    return [first, ref.dense(rng, 27, 4, 3, **OPTIONS[1]), ref.softmax_layer(4, **OPTIONS[2])]


def warm(layers):
    """Give every tensor something to show.

    Coarse dyadic numbers, some of them ties and some beyond the ranges.
    """
    rng = np.random.RandomState(5)
    for layer, ranges in zip(layers, RANGES, strict=True):
        layer.W = (np.rint(rng.uniform(-0.9, 0.9, layer.W.shape) * 16) / 16).astype(f4)
        layer.b = (np.rint(rng.uniform(-0.5, 0.5, layer.b.shape) * 32) / 32).astype(f4)
        layer.update_W = (np.rint(rng.normal(0, 0.03, layer.W.shape) * 1024) / 1024).astype(f4)
        layer.update_b = (np.rint(rng.normal(0, 0.03, layer.b.shape) * 1024) / 1024).astype(f4)
        layer.ranges = dict(zip(SIGNALS, ranges.tolist(), strict=True))
    return layers


def state_of(layers):
    """The program's state that says the same as the reference's layers."""
    state = {}
    for k, layer in enumerate(layers):
        state |= {f"layer{k}/{name}": getattr(layer, name) for name in STATE}
        state[f"layer{k}/ranges"] = np.array([layer.ranges[s] for s in SIGNALS], "int32")
        state[f"layer{k}/overflow"] = np.array([layer.overflow[s] for s in SIGNALS]).T.copy()
        state[f"layer{k}/epoch_overflow"] = np.zeros(10)
    return state | {"training/errors": np.zeros((), "int64"), "training/loss": np.zeros(())}


def examples():
    rng = np.random.RandomState(6)
    x = (rng.randint(-16, 17, (B * BATCHES, 72)) / 16).astype(f4)
    t = np.eye(10, dtype=f4)[rng.randint(0, 10, B * BATCHES)]
    masks = [
        (rng.uniform(size=(BATCHES, B, layer.input_size)) < layer.p).astype("uint8")
        for layer in small(np.random.RandomState(1))
    ]
    return x, t, masks


def constants():
    return {
        "LR": LR,
        "M": M,
        "prop_bits": np.int32(PROP_BITS),
        "up_bits": np.int32(UP_BITS),
        "frequency": np.int32(FREQUENCY),
        "max_overflow": np.float64(MAX_OVERFLOW),
    }


@cache
def history(number_format):
    """The reference's layers before every batch and after the last, and what passed in each."""
    layers = warm(small(np.random.RandomState(1)))
    (x, t, masks) = examples()
    states = [copy.deepcopy(layers)]
    seen = []
    for b in range(BATCHES):
        rows = slice(b * B, (b + 1) * B)
        seen.append(
            ref.training_step(
                layers,
                number_format,
                x[rows],
                t[rows],
                [m[b] for m in masks],
                LR,
                M,
                PROP_BITS,
                UP_BITS,
                MAX_OVERFLOW,
                FREQUENCY if (b + 1) % FREQUENCY == 0 else None,
            )
        )
        states.append(copy.deepcopy(layers))
    return states, seen


@cache
def computed(number_format):
    """(state after, what passed through each layer) of every batch.

    Each begins with the reference's state before it.
    """
    network = Small(number_format, np.random.RandomState(1))
    (x, t, masks) = examples()
    inputs = network.training_inputs(B)
    passes = network.passes(inputs)
    updates = network.updates(inputs, passes)
    inside = {
        (k, name): v
        for k, passed in enumerate(passes)
        for name, v in intermediates(*passed).items()
    }
    function = compiled(inputs, network.state, [*updates.values(), *inside.values()])
    batches = []
    for b, before in enumerate(history(number_format)[0][:-1]):
        rows = slice(b * B, (b + 1) * B)
        values = constants() | {"x": x[rows], "t": t[rows], "batches": np.int32(b)}
        values |= {f"mask{k}": m[b].astype(f4) for k, m in enumerate(masks)}
        state = state_of(before)
        outputs = [np.asarray(v) for v in function(values, state)]
        new = state | dict(zip((v.name for v in updates), outputs[: len(updates)], strict=True))
        batches.append((new, dict(zip(inside, outputs[len(updates) :], strict=True))))
    return batches


def compare(number_format, label, mine, plain):
    """Equality where the numbers have at most 11 bits.

    In float32 a few last bits may differ, in halves a step here and there.
    """
    plain = plain.reshape(mine.shape)
    if number_format in ("FXP", "DFXP"):
        np.testing.assert_array_equal(mine, plain, err_msg=label)
        return
    limit = 1e-6 * np.abs(plain).max(initial=0)
    if number_format == "FLP" or label.endswith((" z", " u", " y")):  # sums before their quantizer
        assert np.abs(mine - plain).max() <= limit, label
        return
    differing = mine != plain
    assert differing.mean() <= 0.002, label
    assert (np.abs(mine - plain) <= 2 * np.spacing(np.abs(plain).astype("float16")).astype(f4))[
        differing
    ].all(), label


EVERY_FORMAT = pytest.mark.parametrize("number_format", ref.FORMATS)
EVERY_LAYER = pytest.mark.parametrize("k", range(3), ids=LAYER_NAMES)


@EVERY_FORMAT
@EVERY_LAYER
def test_inside_a_training_step(number_format, k):
    for b, ((_, inside), seen) in enumerate(
        zip(computed(number_format), history(number_format)[1], strict=True)
    ):
        names = [name for layer, name in inside if layer == k]
        assert len(names) == (13 if k == 0 else 11)
        for name in names:
            mine = inside[k, name]
            plain = seen[k][name]
            assert mine.dtype == "float32"
            if k == 2 and name == "y" and number_format != "FLP":  # of equal z
                np.testing.assert_array_equal(mine, plain)
            else:
                compare(number_format, f"batch {b} layer {k} {name}", mine, plain)


@EVERY_FORMAT
@EVERY_LAYER
def test_updates_of_a_training_step(number_format, k):
    for b, ((state, _), after) in enumerate(
        zip(computed(number_format), history(number_format)[0][1:], strict=True)
    ):
        for name in STATE:
            mine = state[f"layer{k}/{name}"]
            assert mine.dtype == "float32"
            compare(number_format, f"batch {b} layer {k} {name}", mine, getattr(after[k], name))


def test_the_small_network_is_not_trivial():
    """What the comparisons above rest on: nothing is all zero, ranges move, something saturates."""
    for number_format in ref.FORMATS:
        states, seen = history(number_format)
        for k in range(3):
            for name in STATE:
                before, after = (getattr(states[i][k], name) for i in (0, -1))
                assert np.count_nonzero(after) > 0.3 * after.size and (before != after).any()
            assert np.count_nonzero(seen[0][k]["fixed_dEdz"]) and np.count_nonzero(
                seen[0][k]["fixed_dEdW"]
            )
    states, seen = history("DFXP")
    moved = np.array(
        [[[states[i][k].ranges[s] for s in SIGNALS] for k in range(3)] for i in (0, 2, 4)]
    )
    steps = set(np.diff(moved, axis=0).ravel().tolist())
    assert steps == {-1, 0, 1}
    for k, signal in itertools.product(range(3), SIGNALS):  # every rate says something
        assert any(0 < states[b][k].rates[signal][0] < 1 for b in range(1, BATCHES + 1)), (
            f"{k} {signal}"
        )
    flat_y = [
        s[0]["fixed_y"] for s in seen
    ]  # how a conv layer's y counts; in four dimensions the rate differs
    lower = [state[0].ranges["y"] - 1 for state in states]
    assert any(
        ref.overflow_rate(y, PROP_BITS, noib)
        != ref.overflow_rate(y.reshape(B, 3, 3, 3), PROP_BITS, noib)
        for y, noib in zip(flat_y, lower[:-1], strict=True)
    )


@EVERY_LAYER
def test_overflow_statistics_and_ranges(k):
    for (state, _), after in zip(computed("DFXP"), history("DFXP")[0][1:], strict=True):
        expected = state_of(after)
        for name in ("ranges", "overflow"):
            mine = state[f"layer{k}/{name}"]
            assert mine.dtype == expected[f"layer{k}/{name}"].dtype
            np.testing.assert_array_equal(mine, expected[f"layer{k}/{name}"])


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_the_column_norm_step_is_exact_to_the_last_bit(kind):
    """Of weights with all their 24 bits, the gradient being zero: "Updates" in written order."""
    rng = np.random.RandomState(3)
    f = FORMATS["FLP"]
    options = {"p": 0.5, "scale": 0.5, "max_col_norm": 0.9}
    if kind == "dense":
        layer = DenseMaxout("layer", f, rng, 40, 30, 2, **options)
        plain = ref.dense(rng, 40, 30, 2, **options)
    else:
        sizes = {"maps": 20, "pieces": 2, "size": 5, "pad": 0, "pool": 1, "stride": 1}
        layer = ConvMaxout("layer", f, rng, (3, 5, 5), **sizes, **options)
        plain = ref.conv(rng, (3, 5, 5), **sizes, **options)
    plain.W = (rng.normal(size=plain.W.shape) * 0.14).astype(f4)
    plain.b, plain.update_W, plain.update_b = (
        (rng.normal(size=v.shape) * 0.05).astype(f4)
        for v in (plain.b, plain.update_W, plain.update_b)
    )
    state = {f"layer/{name}": getattr(plain, name) for name in STATE} | {
        v.name: v.get_value() for v in layer.state if v.name.split("/")[1] not in STATE
    }
    shapes = {
        "x": (2, layer.input_size),
        "mask": (2, layer.input_size),
        "e": (2, int(np.prod(layer.output_shape))),
    }
    inputs = {name: pt.tensor(name, shape=shape, dtype="float32") for name, shape in shapes.items()}
    rates = {name: pt.scalar(name, dtype="float32") for name in ("LR", "M")}
    seen = layer.forward(inputs["x"], inputs["mask"], None, None)
    gradients = layer.backward(seen, inputs["e"])
    updates = layer.updates(seen.signals, gradients, rates["LR"], rates["M"], None, None, None)
    function = compiled(inputs | rates, layer.state, list(updates.values()))
    values = {name: np.zeros(shape, f4) for name, shape in shapes.items()} | {
        "LR": LR,
        "M": f4(0.6999),
    }
    new = dict(
        zip((v.name for v in updates), map(np.asarray, function(values, state)), strict=True)
    )

    update_W = f4(0.6999) * plain.update_W
    update_b = f4(0.6999) * plain.update_b
    W = plain.W + update_W
    n = ref.column_norm(W)
    assert (n > 0.9).any() and (n < 0.9).any()
    expected = W * (np.clip(n, f4(0), f4(0.9)) / (f4(1e-7) + n))
    assert (expected != W * np.clip(n, f4(0), f4(0.9)) / (f4(1e-7) + n)).any()  # the order shows
    for name, value in (
        ("W", expected),
        ("b", plain.b + update_b),
        ("update_W", update_W),
        ("update_b", update_b),
    ):
        np.testing.assert_array_equal(new[f"layer/{name}"], value, err_msg=name)


def test_fixed_formats_keep_no_statistics():
    for number_format in ("FLP", "HFLP", "FXP"):
        _, updates = Small(number_format, np.random.RandomState(1)).training_step(B)
        parameters = {f"layer{k}/{name}" for k in range(3) for name in STATE}
        assert {v.name for v in updates} == parameters | {"training/errors", "training/loss"}


@EVERY_FORMAT
def test_test_time_pass(number_format):
    network = Small(number_format, np.random.RandomState(1))
    (x, _, _) = examples()
    inputs, outputs = network.test_step(B)
    function = compiled(inputs, network.state, outputs)
    layers = history(number_format)[0][-1]
    for b in range(BATCHES):
        part = x[b * B : (b + 1) * B]
        mine = function({"x": part, "prop_bits": np.int32(PROP_BITS)}, state_of(layers))
        expected = ref.test_pass(layers, number_format, part, PROP_BITS)
        for k, (computed_y, plain) in enumerate(zip(mine, expected, strict=True)):
            if number_format == "HFLP":
                assert (
                    np.abs(computed_y - plain) <= 2 * np.spacing(np.abs(plain).astype("float16"))
                ).all()
                assert k == 2 or (np.asarray(computed_y) != plain).mean() <= 0.05
            else:
                compare(number_format, f"layer {k} output", np.asarray(computed_y), plain)


# --- ties and dropout


def gradients(layer, x, mask, e):
    """Of one layer: quantized dEdz, dEdW and dEdb, and the gradient of the input; 15 bits."""
    inputs = {
        name: pt.tensor(name, shape=a.shape, dtype="float32")
        for name, a in (("x", x), ("mask", mask), ("e", e))
    }
    bits = pt.iscalar("bits")
    found = layer.backward(layer.forward(inputs["x"], inputs["mask"], bits, bits), inputs["e"])
    outputs = [batch_first(found.dEdz), found.dEdW, found.dEdb, flat(found.below)]
    function = compiled(inputs | {"bits": bits}, layer.state, outputs)
    state = {v.name: v.get_value() for v in layer.state}
    return [
        np.asarray(v) for v in function({"x": x, "mask": mask, "e": e, "bits": np.int32(15)}, state)
    ]


FLOAT_AND_FIXED = pytest.mark.parametrize("number_format", ["FLP", "FXP"])
WIDE = {"p": 0.5, "scale": 0.5, "initial_range": 6}


@FLOAT_AND_FIXED
def test_tied_pieces_all_get_the_whole_gradient(number_format):
    layer = DenseMaxout("layer", FORMATS[number_format], np.random.RandomState(0), 3, 2, 3, **WIDE)
    layer.W.set_value(np.tile(f4([[1], [2], [-1]]), (1, 6)) * f4([1, 1, 0.5, 1, 1, 1]))
    x = f4([[1, 0, 0], [0, 0, 1]])
    e = f4([[0.5, -1], [2, 4]])
    dz, dW, db, e_below = gradients(layer, x, np.ones((2, 3), f4), e)
    assert dz.tolist() == [[0.5, 0.5, 0, -1, -1, -1], [0, 0, 2, 4, 4, 4]]
    assert db.tolist() == dz.sum(0).tolist() and (dW == x.T @ dz).all()
    assert (e_below == dz @ layer.W.get_value().T).all()


@FLOAT_AND_FIXED
def test_tied_pixels_all_get_the_whole_gradient_of_every_window(number_format):
    layer = ConvMaxout(
        "layer",
        FORMATS[number_format],
        np.random.RandomState(0),
        (1, 5, 5),
        maps=1,
        pieces=2,
        size=1,
        pad=0,
        pool=3,
        stride=2,
        **WIDE,
    )
    layer.W.set_value(f4([1, 1]).reshape(2, 1, 1, 1))
    e = f4([[1, 2, 4, 8]])
    dz, dW, db, e_below = gradients(layer, np.full((1, 25), 0.5, f4), np.ones((1, 25), f4), e)
    image = (
        [[1, 1, 3, 2, 2]] * 2 + [[5, 5, 15, 10, 10]] + [[4, 4, 12, 8, 8]] * 2
    )  # 3 = both windows, and so on
    assert dz.tolist() == [[image, image]]  # both pieces are tied, too
    assert db.tolist() == [15, 15]  # of du, before unpooling
    assert dW.ravel().tolist() == [min(0.5 * np.sum(image), limit_of(number_format))] * 2
    assert e_below.ravel().tolist() == (2 * np.array(image)).ravel().tolist()


def limit_of(number_format):
    return (2**15 - 1) / 2**9 if number_format in ("FXP", "DFXP") else np.inf


@FLOAT_AND_FIXED
@pytest.mark.parametrize("kind", ["dense", "conv", "softmax"])
def test_a_dropped_input_gets_no_gradient_and_gives_none(number_format, kind):
    rng = np.random.RandomState(0)
    f = FORMATS[number_format]
    sizes = {"maps": 3, "pieces": 2, "size": 3, "pad": 1, "pool": 2, "stride": 2}
    layer = {
        "dense": lambda: DenseMaxout("layer", f, rng, 16, 3, 2, **WIDE),
        "conv": lambda: ConvMaxout("layer", f, rng, (1, 4, 4), **sizes, **WIDE),
        "softmax": lambda: Softmax("layer", f, rng, 16, 10, **WIDE),
    }[kind]()
    layer.W.set_value(rng.choice([-1, -0.5, 0.5, 1], layer.W.get_value().shape).astype(f4))
    x = rng.choice([-1, 1, 2], (5, 16)).astype(f4)
    mask = (rng.uniform(size=(5, 16)) < 0.5).astype(f4)
    mask[:, 3] = 0
    mask[:, 4] = 1
    e = rng.choice([-1, 0.5, 2], (5, int(np.prod(layer.output_shape)))).astype(f4)
    dz, dW, db, e_below = gradients(layer, x, mask, e)
    assert db.any()
    assert (e_below[mask == 0] == 0).all() and np.count_nonzero(
        e_below[mask == 1]
    ) > 0.5 * mask.sum()
    W = layer.W.get_value()
    xm = x * mask
    if kind == "conv":
        dx, expected = ref.correlate_gradients(xm.reshape(5, 1, 4, 4), W, dz, 1)
        dx = dx.reshape(5, 16)
    else:
        dx = dz @ W.T
        expected = xm.T @ dz
        assert (dW[3] == 0).all() and dW[4].any()
    top = limit_of(number_format)
    np.testing.assert_array_equal(dW, np.clip(expected, -top, top))
    np.testing.assert_array_equal(e_below, dx * mask)


def test_a_test_pass_between_forward_and_backward_changes_nothing():
    """A layer remembers no pass: what the backward pass needs is handed to it."""
    rng = np.random.RandomState(0)
    sizes = {"maps": 2, "pieces": 2, "size": 2, "pad": 0, "pool": 2, "stride": 2}
    layer = ConvMaxout("layer", FORMATS["FLP"], rng, (1, 5, 5), **sizes, **WIDE)
    arrays = {
        "x": rng.normal(size=(3, 25)).astype(f4),
        "mask": np.ones((3, 25), f4),
        "e": rng.normal(size=(3, 8)).astype(f4),
        "other": rng.normal(size=(3, 25)).astype(f4),
    }
    inputs = {name: pt.tensor(name, shape=a.shape, dtype="float32") for name, a in arrays.items()}
    state = {v.name: v.get_value() for v in layer.state}

    def gradients(tested):
        seen = layer.forward(inputs["x"], inputs["mask"], None, None)
        if tested:
            layer.test(inputs["other"], None)
        found = layer.backward(seen, inputs["e"])
        outputs = [batch_first(found.dEdz), found.dEdW, found.dEdb, flat(found.below)]
        return compiled(inputs, layer.state, outputs)(arrays, state)

    for plain, computed in zip(gradients(False), gradients(True), strict=True):
        assert np.any(plain)
        np.testing.assert_array_equal(computed, plain)


@pytest.mark.parametrize("rows", [2, 100, 3000])
def test_the_softmax_is_the_published_one_to_its_last_bit(rows):
    """Of few rows and of many, which XLA compiles in another way."""
    rng = np.random.RandomState(rows)
    z = (rng.normal(size=(rows, 10)) * rng.choice([0.1, 1, 3], (rows, 1))).astype("float32")
    v = pt.tensor("z", shape=z.shape, dtype="float32")
    layer = Softmax("layer", FORMATS["FLP"], rng, 16, 10, **OPTIONS[2])
    (y,) = compiled({"z": v}, [], [layer.activate(v)])({"z": z}, {})
    np.testing.assert_array_equal(y, ref.softmax(z))
