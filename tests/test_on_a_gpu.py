"""On a GPU: what it stores, that it can be trained on, and what is kept. Part of `make gpu`.

TEST_DEVICE=cpu runs these tests on a CPU, where they must hold as well.
"""

import os

import jax
import numpy as np
import pytest
from compiling import CONSTANTS, run
from small_network import small_pi_mnist
from test_traces import OTHERS, OURS, OWN, QUICK, recorded

import main
import ranges
from model import Network
from utilities.replay_trace import main as replay_trace
from xla import device, ops, products
from xla.device import select_device, to_device, to_host
from xla.masks import mask_state
from xla.program_cache import ProgramCache
from xla.programs import TestProgram, TrainingProgram
from xla.statistics import column_norm

DEVICE = os.environ.get("TEST_DEVICE", "gpu")
pytestmark = pytest.mark.skipif(
    DEVICE == "gpu" and jax.default_backend() == "cpu", reason="there is no GPU"
)
f4 = np.float32
RNG = np.random.RandomState(0)
SOME, OTHER = RNG.uniform(0.1, 10, (2, 400, 100)).astype(f4)
SMALL = {"units": 48, "pieces": 5}


def test_quotients_roots_and_roundings():
    np.testing.assert_array_equal(run(ops.rounded_quotient, SOME, OTHER), SOME / OTHER)
    tens = np.linspace(-1, 1, 4001, dtype=f4)
    tenths = run(lambda v: ops.rounded_quotient(v, f4(10)), tens)
    np.testing.assert_array_equal(tenths, tens / f4(10))
    squares = np.square(SOME.astype("float64")).sum(axis=0)
    np.testing.assert_array_equal(run(column_norm, SOME), np.sqrt(squares.astype(f4)))
    counts = np.arange(1, 1201, 12, dtype="int32").reshape(50, 2)
    rates = run(lambda c: ranges.overflow_rates(c, [(100, 12)] * 50), counts)
    np.testing.assert_array_equal(rates, counts.astype(f4) / f4(100) / f4(12))
    halves = np.concatenate([np.arange(-3000, 3000) / f4(2), [f4(0.49999997), f4(8388607.5)]])
    rounded = run(ops.round_half_away_from_zero, halves.astype(f4))
    exact = np.trunc(halves.astype("float64") + np.copysign(0.5, halves))
    np.testing.assert_array_equal(rounded, exact)
    small = (np.concatenate([SOME.ravel(), SOME.ravel() * f4(2**-17)])).astype(f4)
    half = run(ops.half_precision, small)
    np.testing.assert_array_equal(half, small.astype("float16").astype(f4))


def test_an_exponential_errs_by_two_units_at_most():
    x = np.linspace(-80, 0, 20000, dtype=f4)
    exact = np.exp(x.astype("float64"))
    unit = np.spacing(exact.astype(f4)).astype("float64")
    assert (np.abs(np.asarray(jax.jit(jax.numpy.exp)(x)) - exact) / unit).max() < 2.5


def test_products_lose_nothing_in_tf32():
    a = RNG.randint(-2047, 2048, (64, 4)).astype(f4) / f4(2**11)
    b = RNG.randint(-2047, 2048, (4, 64)).astype(f4) / f4(2**11)
    found = run(lambda x, W: products.product(x, W, True), a, b)
    np.testing.assert_array_equal(found, a.astype("float64") @ b.astype("float64"))  # 24 bits


def replayed(path):
    """Sums of wide numbers are rounded, in an order of the device: there each batch is alone."""
    narrow = "9_11" in path.name or "initrange" in path.name
    options = [] if narrow else ["--resync"]
    return replay_trace([str(path), "--quiet", "--device", DEVICE, *options])


@pytest.mark.parametrize("name", OURS)
def test_own_traces(name):
    assert replayed(OWN / f"{name}.npz") == 0


@pytest.mark.parametrize("name", [*QUICK, *OTHERS])
def test_recorded_traces(name):
    assert replayed(recorded(name)) == 0


def trained(number_format, cache=None):
    """(state after two segments, how often the program was traced)."""
    rng = np.random.RandomState(0)
    network = Network("PI_MNIST", number_format, rng, 5, **SMALL)
    program = TrainingProgram(network, 20, 3, cache=cache or ProgramCache(None))
    state = to_device({v.name: v.get_value() for v in network.state} | mask_state(1))
    x, t = rng.uniform(size=(120, 784)).astype(f4), np.eye(10, dtype=f4)[rng.randint(10, size=120)]
    data = to_device((x, t))
    for batches in (0, 3):
        rows = np.arange(60 * batches // 3, 60 * batches // 3 + 60, dtype="int32").reshape(3, 20)
        state = program(state, CONSTANTS, *data, rows, batches)
    return to_host(state), program.compilations


@pytest.mark.parametrize("number_format", ["FLP", "DFXP"])
def test_deterministic_runs_are_equal(number_format, monkeypatch):
    monkeypatch.setattr(device, "_OPTIONS", {"xla_gpu_deterministic_ops": True})
    first, second = (trained(number_format)[0] for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_programs_are_kept(tmp_path):
    """A program that is read does what the one that was written did."""
    (first, compiled), (again, none) = (trained("DFXP", ProgramCache(tmp_path)) for _ in range(2))
    assert (compiled, none) == (1, 0)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)


def test_memory_is_not_reserved():
    statistics = jax.devices()[0].memory_stats() or {}
    pool, limit = (statistics.get(name, 0) for name in ("pool_bytes", "bytes_limit"))
    assert pool <= limit / 2


@pytest.mark.parametrize("task", ["PI_MNIST", "MNIST", "CIFAR10"])
def test_evaluation_of_every_kind_of_layer(task):
    network = Network(task, "DFXP", np.random.RandomState(0), 5)
    program = TestProgram(network, 8)
    state = to_device({v.name: v.get_value() for v in network.state})
    x = np.ones((12, network.input_size), f4)
    t = np.eye(10, dtype=f4)[[0, 1] * 6]
    assert program(state, np.int32(9), *program.arrange(x, t)) == 6  # an untrained softmax: ties


@pytest.mark.parametrize("words", ["FLP", "HFLP", "FXP 5 19 19", "DFXP 5 9 11 10 0.0001 1"])
def test_a_run_on_it(words, sample, tmp_path, capsys):
    arguments = ["PI_MNIST", *words.split(), "--sample", "--data", str(sample), "--device", DEVICE]
    with small_pi_mnist():
        for last in ("1", "2"):  # the second goes on
            assert (
                main.main([*arguments, "--stop-after", last, "--out", str(tmp_path / "run")]) == 0
            )
    out, err = capsys.readouterr()
    assert "epoch 2:" in out and err == ""


def test_the_device_is_the_one_that_was_asked_for():
    assert select_device(DEVICE).platform == DEVICE
