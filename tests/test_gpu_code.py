"""What XLA compiles for an H100 and an A100, without one: `make gpu-check`.

Needs requirements-gpu-check.txt; some seconds a program.
"""

import re
from functools import cache
from importlib.util import find_spec

import jax.numpy as jnp
import numpy as np
import pytest

from format import FORMATS
from model import NETWORKS
from settings import FORMAT_ARGUMENTS, PAPER
from tasks import TASKS
from utilities import gpu_reading as reading
from utilities.gpu_devices import DEVICES, gpu
from utilities.gpu_report import KINDS, TOGETHER, compiled
from xla import cuda_installed
from xla.statistics import PartialCounts

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        not cuda_installed() or find_spec("jax_plugins.xla_cuda12") is None,
        reason="XLA's compiler for GPUs is not installed (requirements-gpu-check.txt)",
    ),
]
RNG = np.random.RandomState(0)
PROGRAMS = [(t, f, k) for t in TASKS for f in PAPER for k in KINDS]
PROGRAMS += [("PI_MNIST", f, "train") for f in FORMAT_ARGUMENTS if f not in PAPER]


@cache
def compilation(device, task, number_format, kind, bits=9):
    return compiled(gpu(device), task, number_format, kind, bits)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("task", "number_format", "kind"), PROGRAMS)
def test_programs(device, task, number_format, kind):
    """Exact, and nothing that the host is asked between the batches of a segment."""
    made = compilation(device, task, number_format, kind)
    assert not reading.with_instruction(made, reading.INEXACT)
    assert not reading.with_instruction(made, reading.ATOMIC)
    assert not reading.unrounded_rates(made.hlo)
    fused = set(reading.with_instruction(made, reading.FUSED))
    fused -= set(reading.with_instruction(made, reading.EXPONENTIAL))
    assert all(name.startswith(("gemm_", "dot_", "wrapped_dot")) for name in fused), fused
    assert made.hlo.count(" while(") == 1
    assert not [word for word in reading.UNWANTED if word in made.hlo]
    found = reading.counts(made)
    assert found.kernels > 5 and found.moved > 1e6
    if task == "PI_MNIST":
        assert found.outside == 0  # one CUDA graph a batch; convolutions are in none
    if kind != "test":  # its loop's length differs from part to part of a set
        assert f'"known_trip_count":{{"n":"{TASKS[task].segment}"' in made.hlo
    runs = TOGETHER.get(task, 2) if kind == "together" else 1
    written = " ".join(re.findall(r" = (\(.*?\)|\S+) fusion\(", made.hlo))
    integers = [reading.size(array) for array in re.findall(r"s32\[[\d,]+\]", written)]
    # The overflows of images are counted as they lie.
    assert max(integers, default=0) < 4 * runs * PartialCounts.LARGE
    narrow = kind != "test" and number_format != "FLP"
    assert (found.tf32 > 0) == narrow
    if narrow:
        assert found.full == 2  # those with the data
    else:
        assert not reading.with_instruction(made, reading.TF32)
    if kind != "test":  # every parameter's memory is used again
        donated = len(re.findall("may-alias|must-alias", made.hlo.splitlines()[0]))
        assert donated >= 4 * len(NETWORKS[task](number_format=FORMATS[number_format], rng=RNG))


def added_up(x):
    """Sums whose order nothing settles."""
    return jnp.zeros(8).at[(x.astype(int) % 8)].add(x, mode="drop")


@pytest.mark.parametrize("number_format", ["FXP", "DFXP"])
def test_wide_formats_are_never_multiplied_in_tf32(number_format):
    made = compilation("h100", "PI_MNIST", number_format, "train", 19)
    assert not reading.with_instruction(made, reading.TF32)
    assert reading.counts(made).tf32 == 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_programs_have_no_atomics(monkeypatch, deterministic):
    from xla import device
    from xla.described import as_on_a_gpu, compile_for
    from xla.program_cache import Program

    device.select_device("cpu")
    monkeypatch.setattr(device, "_OPTIONS", {"xla_gpu_deterministic_ops": deterministic})
    x = np.zeros(4096, "float32")
    with as_on_a_gpu():
        made = compile_for(DEVICES["h100"], Program(added_up, tuple), (x,))
    assert bool(reading.with_instruction(made, reading.ATOMIC)) != deterministic


def test_overflow_rates_are_there():
    """What `unrounded_rates` looks for."""
    hlo = compilation("h100", "PI_MNIST", "DFXP", "train").hlo
    assert re.search(r"f64\[(2,10|10,2)\]\S* multiply", hlo)


@pytest.mark.parametrize(
    ("function", "pattern"),
    [
        (lambda x: x / (x + 1), reading.INEXACT),
        (lambda x: jnp.sqrt(x), reading.INEXACT),
        (jnp.exp, reading.FUSED),
        (jnp.exp, reading.EXPONENTIAL),
        (added_up, reading.ATOMIC),
        (
            lambda x: jnp.dot(x.reshape(64, 64), x.reshape(64, 64), precision="default"),
            reading.TF32,
        ),
    ],
)
def test_the_checks_find_what_they_look_for(function, pattern):
    from xla.described import compile_for
    from xla.device import select_device
    from xla.program_cache import Program

    select_device("cpu")
    x = np.zeros(4096, "float32")
    made = compile_for(DEVICES["h100"], Program(function, tuple), (x,))
    assert reading.with_instruction(made, pattern)


def test_an_unrounded_rate_is_found():
    from xla.described import compile_for
    from xla.device import select_device
    from xla.program_cache import Program

    def rates(counts):
        for sides in np.arange(3.0, 23.0).reshape(2, 10, 1):
            counts = (counts.astype("float64") / sides).astype("float32")
        return counts.astype("float64") + 1

    select_device("cpu")
    made = compile_for(DEVICES["h100"], Program(rates, tuple), (np.zeros((10, 2), "int32"),))
    assert reading.unrounded_rates(made.hlo)
