"""xla/products.py: which products run in TF32, and that nothing is lost."""

import jax
import numpy as np
import pytest
from compiling import CONSTANTS
from pytensor.graph.traversal import ancestors

from format import FORMATS
from model import Network
from xla import convolution, device, products
from xla.device import to_device
from xla.masks import mask_state
from xla.programs import TrainingProgram

f4 = np.float32
SMALL = {"units": 4, "pieces": 3}


def step_in_tf32(monkeypatch, number_format, prop_bits, narrow, task="PI_MNIST", **size):
    """State after two batches where products marked as on a narrow grid round their operands to TF32, as a GPU would."""

    def product(a, b, precision=jax.lax.Precision.HIGHEST, multiply=products._product):
        if precision == jax.lax.Precision.DEFAULT:
            a, b = (jax.lax.reduce_precision(v, exponent_bits=8, mantissa_bits=10) for v in (a, b))
        return multiply(a, b)

    def convolve(a, b, pads, dimensions, precision, multiply=convolution._convolve):
        if precision == jax.lax.Precision.DEFAULT:
            a, b = (jax.lax.reduce_precision(v, exponent_bits=8, mantissa_bits=10) for v in (a, b))
        return multiply(a, b, pads, dimensions, jax.lax.Precision.HIGHEST)

    monkeypatch.setattr(products, "_product", product)
    monkeypatch.setattr(convolution, "_convolve", convolve)
    monkeypatch.setattr(convolution, "_explicit_products", lambda: False)
    monkeypatch.setattr(device, "tf32_pays", lambda: narrow)
    rng = np.random.RandomState(3)
    network = Network(task, number_format, rng, 3, **size)
    program = TrainingProgram(network, 4, 2)
    state = {v.name: v.get_value() for v in network.state}
    for name, value in state.items():
        if name.endswith(("/W", "/b")):
            state[name] = rng.normal(size=value.shape).astype(f4)
    x, t = (
        rng.uniform(size=(8, network.input_size)).astype(f4),
        np.eye(10, dtype=f4)[rng.randint(10, size=8)],
    )
    constants = CONSTANTS | {"prop_bits": np.int32(prop_bits), "up_bits": np.int32(15)}
    state = program(
        to_device(state | mask_state(1)),
        constants,
        *to_device((x, t)),
        np.arange(8, dtype="int32").reshape(2, 4),
        0,
    )
    return {name: np.asarray(v) for name, v in state.items()}


@pytest.mark.parametrize(
    ("number_format", "prop_bits", "narrow"),
    [
        ("FXP", 11, True),
        ("DFXP", 11, True),
        ("DFXP", 8, True),
        ("HFLP", 31, True),
        ("FXP", 12, False),
        ("FLP", 4, False),
    ],
)
def test_narrow_formats_lose_nothing_in_tf32(monkeypatch, number_format, prop_bits, narrow):
    """Up to 11 bits every operand but the data is a TF32 number; wider formats ask for full precision."""
    with monkeypatch.context() as patch:
        full = step_in_tf32(patch, number_format, prop_bits, False, **SMALL)
    with monkeypatch.context() as patch:
        tf32 = step_in_tf32(patch, number_format, prop_bits, True, **SMALL)
    for name, value in full.items():
        np.testing.assert_array_equal(tf32[name], value, err_msg=name)
    assert np.abs(full["layer1/update_W"]).max() > 0
    assert (FORMATS[number_format].significant_bits(prop_bits) <= products.TF32_BITS) == narrow


def test_tf32_would_show_in_wider_formats(monkeypatch):
    with monkeypatch.context() as patch:
        full = step_in_tf32(patch, "FXP", 14, False, **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(products, "TF32_BITS", 14)
        tf32 = step_in_tf32(patch, "FXP", 14, True, **SMALL)
    assert any(not np.array_equal(tf32[name], full[name]) for name in full)


def test_convolutions_lose_nothing_in_tf32(monkeypatch):
    with monkeypatch.context() as patch:
        full = step_in_tf32(patch, "DFXP", 11, False, task="MNIST")
    with monkeypatch.context() as patch:
        tf32 = step_in_tf32(patch, "DFXP", 11, True, task="MNIST")
    for name, value in full.items():
        np.testing.assert_array_equal(tf32[name], value, err_msg=name)


def test_data_are_multiplied_in_full_precision():
    """Of a network's products, only those of the images are never narrow: forward, and the gradient of the first W."""
    for task, count in (
        ("PI_MNIST", 3 + 3 + 2),
        ("CIFAR10", 5 + 5 + 2),
    ):  # CIFAR10: and two gradients of images
        network = Network(
            task, "FXP", np.random.RandomState(0), 5, **(SMALL if task == "PI_MNIST" else {})
        )
        computed = ancestors(list(network.training_step(2)[1].values()))
        marked = [v.owner.op for v in computed if v.owner and hasattr(v.owner.op, "on_grid")]
        assert len(marked) == count and [op.on_grid for op in marked].count(False) == 2
