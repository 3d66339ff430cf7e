"""xla/products.py: which products run in TF32, and that nothing is lost."""

import jax
import numpy as np
import pytest
from compiling import CONSTANTS
from pytensor.graph.traversal import ancestors

import model
from layers import ConvMaxout, Softmax
from model import Network
from xla import convolution, convolution_by_xla, device, products
from xla.device import to_device
from xla.masks import mask_state
from xla.programs import TrainingProgram

f4 = np.float32
SMALL = {"units": 4, "pieces": 3}


def tf32_numbers(*arrays):
    return [jax.lax.reduce_precision(v, exponent_bits=8, mantissa_bits=10) for v in arrays]


def two_convolutions(**common):
    """A network that convolves data and signals."""
    sizes = {"maps": 3, "pieces": 2, "size": 3, "pad": 1, "pool": 2, "stride": 2}
    other = model.OTHER | common
    first = ConvMaxout("layer0", input_shape=(1, 6, 6), reads_data=True, **sizes, **other)
    second = ConvMaxout("layer1", input_shape=first.output_shape, **sizes, **other)
    return [first, second, Softmax("layer2", inputs=12, classes=10, **other)]


def step_in_tf32(monkeypatch, task, number_format, prop_bits, pays, **size):
    """State after two batches where products in TF32 round their operands, as a GPU would."""

    def multiply(a, b, tf32=False, plain=products.multiply):
        return plain(*(tf32_numbers(a, b) if tf32 else (a, b)))

    def convolve(a, b, pads, dimensions, tf32, plain=convolution_by_xla.convolve):
        return plain(*(tf32_numbers(a, b) if tf32 else (a, b)), pads, dimensions, False)

    monkeypatch.setattr(products, "multiply", multiply)
    monkeypatch.setattr(convolution_by_xla, "convolve", convolve)
    monkeypatch.setattr(convolution, "way", lambda: convolution_by_xla)
    monkeypatch.setattr(device, "tf32_pays", lambda: pays)
    rng = np.random.RandomState(3)
    network = Network(task, number_format, rng, 3, **size)
    program = TrainingProgram(network, 4, 2)
    state = {v.name: v.get_value() for v in network.state}
    for name, value in state.items():
        if name.endswith(("/W", "/b")):
            state[name] = rng.normal(size=value.shape).astype(f4)
    x = rng.uniform(size=(8, network.input_size)).astype(f4)
    t = np.eye(10, dtype=f4)[rng.randint(10, size=8)]
    constants = CONSTANTS | {"prop_bits": np.int32(prop_bits), "up_bits": np.int32(15)}
    rows = np.arange(8, dtype="int32").reshape(2, 4)
    state = program(to_device(state | mask_state(1)), constants, *to_device((x, t)), rows, 0)
    return {name: np.asarray(v) for name, v in state.items()}


def both_ways(monkeypatch, *arguments, **size):
    """States after `step_in_tf32` in full precision, and where TF32 pays."""
    states = []
    for pays in (False, True):
        with monkeypatch.context() as patch:
            states.append(step_in_tf32(patch, *arguments, pays, **size))
    return states


@pytest.mark.parametrize(
    ("task", "number_format", "prop_bits"),
    [("PI_MNIST", "FXP", 11), ("PI_MNIST", "HFLP", 31), ("convolutions", "DFXP", 11)],
)
def test_narrow_formats_lose_nothing_in_tf32(monkeypatch, task, number_format, prop_bits):
    """Up to 11 bits every operand but the data is a TF32 number."""
    monkeypatch.setitem(model.NETWORKS, "convolutions", two_convolutions)
    size = SMALL if task == "PI_MNIST" else {}
    full, tf32 = both_ways(monkeypatch, task, number_format, prop_bits, **size)
    for name, value in full.items():
        np.testing.assert_array_equal(tf32[name], value, err_msg=name)
    assert np.abs(full["layer1/update_W"]).max() > 0


def test_tf32_would_show_in_wider_formats(monkeypatch):
    monkeypatch.setattr(products, "TF32_BITS", 14)
    full, tf32 = both_ways(monkeypatch, "PI_MNIST", "FXP", 14, **SMALL)
    assert any(not np.array_equal(tf32[name], full[name]) for name in full)


@pytest.mark.parametrize(
    ("number_format", "prop_bits", "fits"),
    [
        ("FXP", 11, True),
        ("FXP", 12, False),
        ("DFXP", 8, True),
        ("DFXP", 11, True),
        ("DFXP", 31, False),
        ("HFLP", 31, True),
        ("FLP", 4, False),
    ],
)
def test_formats_of_at_most_11_bits_are_trained_in_tf32(
    monkeypatch, number_format, prop_bits, fits
):
    """Where it pays, that is."""
    network = Network("PI_MNIST", number_format, np.random.RandomState(0), 5, **SMALL)
    program = TrainingProgram(network, 4, 2)
    for pays in (False, True):
        monkeypatch.setattr(device, "tf32_pays", lambda pays=pays: pays)
        assert program.narrow({"prop_bits": np.int32(prop_bits)}) == (pays and fits)


@pytest.mark.parametrize(("task", "count"), [("PI_MNIST", 3 + 3 + 2), ("CIFAR10", 5 + 5 + 4)])
def test_data_are_multiplied_in_full_precision(task, count):
    """Of a network's products all but two: of the data, and the gradient of the first W.

    The gradient of the data themselves is not computed.
    """
    size = SMALL if task == "PI_MNIST" else {}
    network = Network(task, "FXP", np.random.RandomState(0), 5, **size)
    for tf32 in (True, False):
        computed = ancestors(list(network.training_step(2, tf32)[1].values()))
        marked = [v.owner.op.tf32 for v in computed if v.owner and hasattr(v.owner.op, "tf32")]
        assert len(marked) == count
        assert marked.count(False) == (2 if tf32 else count)
    tested = ancestors(network.test_step(2)[1])
    assert not any(getattr(v.owner.op, "tf32", False) for v in tested if v.owner)


@pytest.mark.parametrize(("prop_bits", "full"), [(11, 2), (12, 8)])
def test_what_a_gpu_is_told(monkeypatch, prop_bits, full):
    """The precision of every product in the code that XLA gets for a GPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    network = Network("PI_MNIST", "FXP", np.random.RandomState(0), 5, **SMALL)
    program = TrainingProgram(network, 4, 2)
    constants = CONSTANTS | {"prop_bits": np.int32(prop_bits)}
    state = {v.name: v.get_value() for v in network.state} | mask_state(0)
    x = np.zeros((8, network.input_size), f4)
    t = np.zeros((8, 10), f4)
    rows = np.zeros((2, 4), "int32")
    count = np.int32(2)
    jitted = program.program.jitted
    tf32 = program.narrow(constants)
    traced = jitted.trace(state, constants, x, t, rows, np.int32(0), count, None, tf32=tf32)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("precision = [HIGHEST, HIGHEST]") == full
    assert text.count("precision = [DEFAULT, DEFAULT]") == 8 - full
