"""The step as a GPU gets it: quotients, roots and roundings, as far as a CPU can tell.

What XLA makes of it is looked at in `make gpu-check`.
"""

import jax
import numpy as np
import pytest
from compiling import CONSTANTS, equations, run
from pytensor.graph.traversal import ancestors

from model import Network
from xla import ops
from xla.masks import mask_state
from xla.programs import TestProgram, TrainingProgram

f4 = np.float32


@pytest.fixture
def gpu(monkeypatch):
    """What is traced from here on is what a GPU would get."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def traced(number_format):
    """The equations of the training step and of the test-time pass."""
    network = Network("PI_MNIST", number_format, np.random.RandomState(0), 5, units=4, pieces=3)
    state = {v.name: v.get_value() for v in network.state}
    x = np.zeros((8, network.input_size), f4)
    t = np.zeros((8, 10), f4)
    rows = np.zeros((2, 4), "int32")
    count = np.int32(2)
    training = TrainingProgram(network, 4, 2)
    arguments = (state | mask_state(0), CONSTANTS, x, t, rows, np.int32(0), count, None)
    yield from equations(training.program.jitted.trace(*arguments, tf32=False).jaxpr.jaxpr)
    batches = (x.reshape(2, 4, -1), np.zeros((2, 4), "int32"))
    test = TestProgram(network, 4).program.jitted
    yield from equations(test.trace(state, np.int32(9), *batches, np.int32(0), count).jaxpr.jaxpr)


@pytest.mark.parametrize("number_format", ["FLP", "HFLP", "FXP", "DFXP"])
def test_a_gpu_divides_and_takes_roots_in_float64(gpu, number_format):
    """Its float32 instructions for that err in the last bits."""
    found = {}
    for equation in traced(number_format):
        found.setdefault(equation.primitive.name, set()).add(str(equation.outvars[0].aval.dtype))
    assert found["div"] == found["sqrt"] == {"float64"}
    assert not found.keys() & {"rsqrt", "cbrt", "pow"}


def test_no_rounding_to_float32_can_be_deleted(gpu):
    """XLA for GPUs takes float64 -> float32 -> float64 for nothing."""
    *_, last = equations(jax.make_jaxpr(ops.to_float32)(np.zeros(3)).jaxpr)
    assert last.primitive.name == "bitcast_convert_type"
    network = Network("PI_MNIST", "DFXP", np.random.RandomState(0), 5, units=4, pieces=3)
    rounding = {
        type(v.owner.op)
        for v in ancestors(list(network.training_step(4)[1].values()))
        if v.owner and v.type.dtype == "float32"
        if "float64" in [i.type.dtype for i in v.owner.inputs]
    }
    assert rounding == {ops.RoundedToFloat32}


def numbers(n):
    """float32 of all sizes, halves of exact quotients and roots among them."""
    rng = np.random.RandomState(1)
    bits = rng.randint(0x00800000, 0x7F000000, n).astype("int32")
    return bits.view(f4)


def test_quotients_of_a_gpu_are_those_of_a_cpu(gpu):
    x, y = numbers(40000).reshape(2, 20000)
    with np.errstate(over="ignore", under="ignore"):
        x[:1000] = y[:1000] * f4(3)
        expected = x / y
    normal = expected >= np.finfo(f4).tiny  # XLA's CPU code has no others
    found = run(ops.rounded_quotient, x, y)
    np.testing.assert_array_equal(found[normal], expected[normal])
    tens = np.linspace(-1, 1, 4001, dtype=f4)
    found = run(lambda v: ops.rounded_quotient(v, f4(10)), tens)
    np.testing.assert_array_equal(found, tens / f4(10))


def test_roots_of_a_gpu_are_those_of_a_cpu(gpu):
    x = numbers(20000)
    x[:5000] = np.square(x[:5000].view("int32").astype(f4) / f4(2**31))
    np.testing.assert_array_equal(np.asarray(jax.jit(ops.root)(x)), np.sqrt(x))
