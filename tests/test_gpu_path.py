"""A GPU's arithmetic (tests/gpu_path.py) changes nothing that is stored, and what sees to that."""

import os
import subprocess
import sys
from pathlib import Path

import gpu_path
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run
from gpu_path import DEVIATIONS
from test_traces import OWN, recorded

import ranges
from utilities.replay_trace import main as replay_trace
from xla import ops, products, statistics

f4 = np.float32
ROOT = Path(__file__).resolve().parent.parent
# The tests of operations, layers and formats, and the traces.
FILES = [
    f"tests/test_{name}.py"
    for name in (
        *("ops", "products", "statistics", "pooling", "convolution"),
        *("layers", "format", "formats", "rounding", "traces"),
    )
]
RNG = np.random.RandomState(0)
SOME, OTHERS = RNG.uniform(0.1, 10, (2, 40, 100)).astype(f4)
OVERFLOWS = np.arange(1, 1201, 12, dtype="int32").reshape(50, 2)  # of 1200 elements


def off_the_path(patch, name):
    """The program without what keeps a deviation from showing."""
    if name == "div":
        patch.setattr(ops.RoundedQuotient, "apply", lambda self, x, y: jnp.asarray(x) / y)
    elif name == "sqrt":
        patch.setattr(statistics, "root", jnp.sqrt)
    elif name == "convert":
        patch.setattr(ops, "to_float32", lambda x: x.astype("float32"))
    elif name == "tf32":
        patch.setattr(products, "TF32_BITS", 24)
    else:  # nothing guards an exponential but the size of its error
        patch.setattr(gpu_path, "off", lambda x, units: x * (1 + x / 64))


def rates(counts):
    """The overflow rates of tensors of 1200 elements."""
    return ranges.overflow_rates(counts, [(100, 12)] * len(OVERFLOWS))


# What must be equal to the last bit: of the arrays, and as NumPy has it.
EXACT = {
    "div": (ops.rounded_quotient, (SOME, OTHERS), SOME / OTHERS),
    "sqrt": (
        statistics.column_norm,
        (SOME,),
        np.sqrt(np.square(SOME.astype("float64")).sum(axis=0).astype(f4)),
    ),
    "convert": (rates, (OVERFLOWS,), OVERFLOWS.astype(f4) / f4(100) / f4(12)),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_a_guard_is_for(monkeypatch, name):
    function, arrays, expected = EXACT[name]
    wrong = []
    for guarded in (True, False):
        if not guarded:
            off_the_path(monkeypatch, name)

        def built_anew(*variables):
            return function(*variables)

        with gpu_path.gpu_path(name) as counted:
            wrong.append((run(built_anew, *arrays) != expected).mean())
            assert (counted[name] == 0) == guarded
    assert wrong[0] == 0 and wrong[1] > 0.05


def test_numbers_that_tf32_would_round_become_nan():
    eleven, twelve = np.array([2047, 2049], f4) / f4(64)
    one = np.ones((1, 1), f4)
    for tf32, expected in ((True, np.nan), (False, twelve)):

        def product(a, b, tf32=tf32):
            return products.product(a, b, tf32)

        with gpu_path.gpu_path("tf32") as counted:
            assert run(product, np.array([[eleven]], f4), one) == eleven
            np.testing.assert_equal(run(product, np.array([[twelve]], f4), one)[0, 0], expected)
            assert counted["tf32"] == tf32


def test_an_exponential_errs_by_two_units():
    x = np.linspace(-10, 0, 4000, dtype=f4)
    plain = np.asarray(jnp.exp(x))
    with gpu_path.gpu_path("exp"):
        off = np.asarray(jnp.exp(x)).view("int32") - plain.view("int32")
    assert set(off) == {-2, 0, 2} and 0.1 < (off == 2).mean() < 0.4


def test_a_trace_holds_on_the_path():
    """No quotient, root or rounding is left that a GPU computes in another way."""
    with gpu_path.gpu_path(*DEVIATIONS) as counted:
        assert replay_trace([str(OWN / "PI4warm_DFXPmixed_9_11_mo1e-2_f2.npz"), "--quiet"]) == 0
    assert set(counted) == {"tf32", "exp"}


@pytest.mark.soak
@pytest.mark.parametrize("name", ["tf32", "div", "sqrt", "exp"])
def test_a_trace_does_not_hold_without_its_guard(monkeypatch, name):
    """Rates that are tied are in no trace; `test_what_a_guard_is_for` has them."""
    trace = recorded("PI48_FLP" if name == "tf32" else "PI48warm_FXPmixed_9_11")
    off_the_path(monkeypatch, name)
    with gpu_path.gpu_path(name) as counted:
        assert replay_trace([str(trace), "--quiet"]) == 1
    assert counted[name]


@pytest.mark.soak
@pytest.mark.parametrize("name", [*DEVIATIONS, ",".join(DEVIATIONS)])
def test_tests_pass_on_the_path(name):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.gpu_path", "-m", ""]
    command += FILES if "," in name else ["tests/test_traces.py"]
    environment = os.environ | {"GPU_PATH": name}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "as on a GPU" in done.stdout
