"""Results do not depend on the number of cores: for each format, with one core and with more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from compiling import CONSTANTS, run

from model import Network
from xla.device import to_device
from xla.masks import mask_state
from xla.programs import TrainingProgram
from xla.statistics import channel_sum

ROOT = Path(__file__).resolve().parent.parent
# Bits are prop bits: 31 are those of a range initialisation.
FORMATS = {"FLP": 31, "HFLP": 31, "FXP": 19, "DFXP": 31}
SHAPES = [(100, 1200), (128, 2000), (100, 10), (10, 96, 10, 128), (4, 96, 4, 128)]


def written(a):
    return np.asarray(a).tobytes().hex()


def summed(function):
    """What a sum makes of each of SHAPES."""
    rng = np.random.RandomState(0)
    arrays = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    return {str(a.shape): written(run(function, a)) for a in arrays}


def both_sums():
    return {"ours": summed(channel_sum), "plain": summed(plain_sum)}


def trained(number_format):
    """The state after two batches of a network whose bias gradients are long sums."""
    rng = np.random.RandomState(3)
    network = Network("PI_MNIST", number_format, rng, 3, units=60, pieces=10)
    state = {v.name: v.get_value() for v in network.state}
    for name, value in state.items():
        if name.endswith(("/W", "/b")):
            state[name] = rng.normal(0, 0.1, value.shape).astype("float32")
    x = rng.uniform(size=(200, network.input_size)).astype("float32")
    t = np.eye(10, dtype="float32")[rng.randint(10, size=200)]
    bits = np.int32(FORMATS[number_format])
    constants = CONSTANTS | {"prop_bits": bits, "up_bits": bits}
    rows = np.arange(200, dtype="int32").reshape(2, 100)
    program = TrainingProgram(network, 100, 2)
    state = program(to_device(state | mask_state(1)), constants, *to_device((x, t)), rows, 0)
    assert np.isfinite(np.asarray(state["layer0/W"])).all()
    return {name: written(value) for name, value in state.items()}


def plain_sum(v):
    return v.sum(axis=[k for k in range(v.ndim) if k != 1], acc_dtype="float32")


def with_cores(cores, expression):
    """What an expression of this module is in a process of so many --threads."""
    code = f"import json, test_cores; print(json.dumps(test_cores.{expression}))"
    code = f"import terminal; terminal.use_threads({cores}); {code}"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    environment.pop("NPROC", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "number_format",
    ["FLP", *(pytest.param(f, marks=pytest.mark.soak) for f in FORMATS if f != "FLP")],
)
def test_the_number_of_cores_changes_no_bit(number_format):
    one, two = (with_cores(n, f"trained({number_format!r})") for n in (1, 2))
    assert [name for name, value in one.items() if two[name] != value] == []


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="JAX 0.11 does not split sums")
def test_it_would_change_plain_sums():
    """And the sum here is what more than one core make of a plain one."""
    one, two, five = (with_cores(n, "both_sums()") for n in (1, 2, 5))
    assert two == five and one["ours"] == two["ours"] == two["plain"]
    different = [shape for shape, value in one["plain"].items() if two["plain"][shape] != value]
    assert different == [str(SHAPES[k]) for k in (0, 1, 3)]
