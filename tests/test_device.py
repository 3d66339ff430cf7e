"""xla/device.py: which device is chosen, and what is said where it is not there."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from xla import cuda_installed, device, finite
from xla.device import select_device
from xla.program_cache import Program

ROOT = Path(__file__).resolve().parent.parent
# JAX's CUDA packages on a machine without a driver, as JAX meets them.
PLUGIN = """
import sys
print("a library's own line", file=sys.stderr)

def initialize():
    raise RuntimeError("Unable to load CUDA. Is it installed?")
"""


@pytest.fixture
def wheels(tmp_path):
    """A folder with such packages."""
    folder = tmp_path / "jax_plugins" / "xla_cuda12"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PLUGIN)
    return tmp_path


def selected(name, *, path="", **settings):
    """What a new process prints of selecting a device, and on stderr."""
    code = (
        "from errors import DeviceMissing\nfrom xla.device import select_device\ntry:\n"
        f"    print(select_device({name!r}, tell=lambda text: print('told:', text)).platform)\n"
        "except DeviceMissing as error:\n    print('missing:', error)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_PLATFORM")}
    environment |= {"PYTHONPATH": f"{ROOT}:{path}"} | settings
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines(), done.stderr


def gpu_is_here():
    return Path("/dev/nvidia0").exists()


@pytest.mark.skipif(gpu_is_here(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto", ["told: computing on the CPU: ", "cpu"]),
        ("gpu", ["missing: JAX finds no GPU (Unable to load CUDA"]),
        ("cpu", ["cpu"]),
    ],
)
def test_cuda_packages_without_a_driver(wheels, name, expected):
    lines, errors = selected(name, path=wheels)
    assert len(lines) == len(expected) and errors == ""
    for line, beginning in zip(lines, expected, strict=True):
        assert line.startswith(beginning)
        assert "install requirements-cuda.txt" not in line
    assert "NVIDIA driver" in lines[0] or name == "cpu"


@pytest.mark.skipif(cuda_installed(), reason="JAX's CUDA packages are installed")
def test_without_cuda_packages_the_remedy_is_to_install_them():
    lines, errors = selected("gpu")
    remedy = "install requirements-cuda.txt or use --device cpu"
    assert lines == [f"missing: JAX finds no GPU; {remedy}"] and errors == ""


def test_random_numbers_do_not_depend_on_the_environment():
    try:
        jax.config.update("jax_threefry_partitionable", False)
        jax.config.update("jax_random_seed_offset", 7)
        select_device("cpu")
        assert jax.config.jax_threefry_partitionable and jax.config.jax_random_seed_offset == 0
    finally:
        select_device("cpu")


@pytest.mark.skipif(gpu_is_here(), reason="there is a GPU")
def test_what_the_environment_asks_for_gives_way_to_the_command_line():
    assert selected("cpu", JAX_PLATFORM_NAME="gpu") == (["cpu"], "")
    (line,), errors = selected("auto", JAX_PLATFORM_NAME="gpu")
    assert line.startswith("missing: JAX finds no device") and "unset JAX_PLATFORM_NAME" in line
    assert errors == ""


@pytest.fixture
def as_before(monkeypatch):
    """What `select_device` sets is as it was, after the test."""
    monkeypatch.setattr(device, "_OPTIONS", {})
    for name in device.GPU_SETTINGS:
        monkeypatch.setenv(name, "")  # so that it is put back
        del os.environ[name]
    return monkeypatch


def test_a_gpu_is_told_to_be_deterministic_whatever_was_compiled_before(as_before):
    """With the program, that is: XLA reads its flags once, when it compiles for the first time."""
    flags = os.environ.get("XLA_FLAGS")
    told = []

    class Lowered:
        def compile(self, compiler_options):
            told.append(compiler_options)
            return lambda x: x

    for deterministic in (False, True):
        select_device("auto", deterministic)
        program = Program(abs, tuple)
        as_before.setattr(program, "jitted", SimpleNamespace(lower=lambda x: Lowered()))
        with as_before.context() as patch:
            patch.setattr(jax, "default_backend", lambda: "gpu")
            program(np.float32(1))
    assert told == [{}, {"xla_gpu_deterministic_ops": True}]
    as_before.setattr(jax, "default_backend", lambda: "cpu")
    assert device.compiler_options() == {}
    assert os.environ.get("XLA_FLAGS") == flags


def test_what_the_environment_says_of_a_gpu_stays(as_before):
    """Memory is not reserved, and products of small integers are exact, unless it says so."""
    select_device("auto")
    expected = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_ENABLE_WINOGRAD_NONFUSED": "0"}
    assert {name: os.environ[name] for name in expected} == expected
    for name in expected:
        as_before.setenv(name, "1")
    select_device("auto")
    assert {os.environ[name] for name in expected} == {"1"}


def test_what_is_not_finite_is_found_in_one_transfer(monkeypatch):
    state = {name: np.ones(3, "float32") for name in ("b", "W", "c", "d")}
    state["W"][1], state["c"][2] = np.nan, np.inf
    fetched = []

    def fetch(array, plain=np.asarray):
        fetched.append(array)
        return plain(array)

    monkeypatch.setattr(finite, "np", SimpleNamespace(asarray=fetch))
    assert finite.not_finite(state, ["d", "c", "W"]) == ["W", "c"]
    assert len(fetched) == 1
