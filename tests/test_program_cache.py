"""program_cache.py: what is found again, what is not, and that nothing stale is."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from compiling import CONSTANTS

from model import Network
from xla import program_cache
from xla.device import to_device, to_host
from xla.masks import mask_state
from xla.program_cache import ROOT, SOURCES, Program, ProgramCache
from xla.programs import TrainingProgram

f4 = np.float32
ON_A_CPU = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="only a CPU's programs are cached here"
)
# Builds and traces both programs of every kind of layer, then says what it has
# imported.
BUILD = """
import json, sys
import jax, numpy as np
from xla.masks import mask_state
from xla.programs import TestProgram, TrainingProgram
from model import Network
network = Network("CIFAR10", "DFXP", np.random.RandomState(0))
shape = jax.ShapeDtypeStruct
state = {v.name: shape(v.get_value().shape, v.dtype) for v in network.state}
x, t = shape((2, 3072), "float32"), shape((2, 10), "float32")
constants = {name: shape((), "float32") for name in ("LR", "M")}
constants |= {name: shape((), "int32") for name in ("prop_bits", "up_bits", "frequency")}
constants["max_overflow"] = shape((), "float64")
count = shape((), "int32")
training = TrainingProgram(network, 2, 1)._program.jitted
training.trace(state | mask_state(0), constants, x, t, shape((1, 2), "int32"), count, count, None)
images, classes = shape((1, 2, 3072), "float32"), shape((1, 2), "int32")
testing = TestProgram(network, 2)._program.jitted
testing.trace(state, count, images, classes, count, count)
print(json.dumps([getattr(module, "__file__", None) for module in list(sys.modules.values())]))
"""


def test_the_sources_are_what_is_imported_to_build_programs():
    """A module that is missing from SOURCES would let a changed program pass for the old one."""
    output = subprocess.check_output([sys.executable, "-c", BUILD], cwd=ROOT, text=True)
    files = [Path(name) for name in json.loads(output) if name]
    imported = {path for path in files if path.is_relative_to(ROOT) and ".venv" not in path.parts}
    assert {path.relative_to(ROOT) for path in imported} == {p.relative_to(ROOT) for p in SOURCES}


def test_a_change_in_any_source_is_another_key(tmp_path):
    copies = [tmp_path / str(path.relative_to(ROOT)).replace("/", "-") for path in SOURCES]
    for path, copy in zip(SOURCES, copies, strict=True):
        copy.write_text(path.read_text())
    cache = ProgramCache(None, copies)
    keys = {cache.key()}
    assert keys == {ProgramCache(None).key()}
    for number, copy in enumerate(copies, start=1):
        copy.write_text(f"{copy.read_text()}CONSTANT = 1\n")
        keys.add(cache.key())
        assert len(keys) == number + 1, copy.name


def test_what_else_the_key_depends_on(monkeypatch):
    cache = ProgramCache(None, [])
    keys = {cache.key(), cache.key("a"), cache.key("a", "b")}
    for name in ("JAX_THREEFRY_PARTITIONABLE", "XLA_FLAGS", "PYTENSOR_FLAGS"):
        with monkeypatch.context() as patched:
            patched.setenv(name, "other")
            keys.add(cache.key())
    for module in (jax, np):
        with monkeypatch.context() as patched:
            patched.setattr(module, "__version__", "0")
            keys.add(cache.key())
    with monkeypatch.context() as patched:
        patched.setattr(program_cache.os, "sched_getaffinity", lambda process: range(99))
        keys.add(cache.key())
    with monkeypatch.context() as patched:
        patched.setattr(program_cache, "_processor", lambda: "another")
        keys.add(cache.key())
    assert len(keys) == 10 and cache.key() in keys


def trained(cache, number_format="FLP", batch_size=2, units=2):
    """(state after a segment of PI_MNIST's network, how often its program was traced)."""
    rng = np.random.RandomState(0)
    network = Network("PI_MNIST", number_format, rng, 5, units=units, pieces=2)
    program = TrainingProgram(network, batch_size, 2, cache=cache)
    state = to_device({v.name: v.get_value() for v in network.state} | mask_state(1))
    x = rng.uniform(size=(8, network.input_size)).astype(f4)
    rows = np.arange(2 * batch_size, dtype="int32").reshape(2, batch_size)
    state = program(state, CONSTANTS, *to_device((x, np.eye(10, dtype=f4)[:8])), rows, 0)
    return to_host(state), program.compilations


@ON_A_CPU
def test_cached_programs_need_no_tracing(tmp_path):
    """They give the same bits; another network or batch size has a program of its own."""
    cache = ProgramCache(tmp_path)
    first, compilations = trained(cache, "DFXP")
    again, none = trained(cache, "DFXP")
    assert (compilations, none) == (1, 0)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    for expected in (1, 0):
        assert trained(cache)[1] == expected
        assert trained(cache, batch_size=3)[1] == expected
        assert trained(cache, units=3)[1] == expected


class Counted:
    """x + 1 as a program with a cache, and how often it was traced."""

    def __init__(self, cache, fact=0):
        self.traced = 0
        self.program = Program(self.function, lambda: (fact,), cache=cache)

    def function(self, x):
        self.traced += 1
        return x + 1

    def traces(self, x):
        """Traces that this call needed."""
        before = self.traced
        np.testing.assert_array_equal(self.program(x), x + 1)
        return self.traced - before


@ON_A_CPU
def test_every_kind_of_arguments_has_a_program_of_its_own(tmp_path):
    cache = ProgramCache(tmp_path)
    for expected in (1, 0):
        counted = Counted(cache)
        assert counted.traces(f4(1)) == expected
        assert counted.traces(np.float64(1)) == expected
        assert counted.traces(np.zeros(3, f4)) == expected
        assert counted.traces(np.ones(3, f4)) == 0
    assert Counted(cache, fact=1).traces(f4(1)) == 1


@ON_A_CPU
def test_a_damaged_or_foreign_program_is_compiled_again(tmp_path):
    cache = ProgramCache(tmp_path)
    assert Counted(cache).traces(f4(1)) == 1
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for content in (whole[:-1], b"", b"something else", whole[:40] + b"x" + whole[41:]):
        path.write_bytes(content)
        assert Counted(cache).traces(f4(1)) == 1
        assert Counted(cache).traces(f4(1)) == 0


def refuse(*arguments, **options):
    raise PermissionError


@ON_A_CPU
def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    """What is there is used; what is not there is compiled, and not cached."""
    assert Counted(ProgramCache(tmp_path)).traces(f4(1)) == 1
    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(program_cache, "write_atomically", refuse)
    cache = ProgramCache(tmp_path)
    assert Counted(cache).traces(f4(1)) == 0
    assert Counted(cache, fact=1).traces(f4(1)) == 1
    assert Counted(cache, fact=1).traces(f4(1)) == 1
    assert Counted(ProgramCache(None)).traces(f4(1)) == 1
    gone = ProgramCache(tmp_path, sources=[tmp_path / "no such source"])
    assert Counted(gone).traces(f4(1)) == 1


@ON_A_CPU
def test_only_so_many_programs_are_cached(tmp_path):
    for n in range(4):
        assert Counted(ProgramCache(tmp_path, most=2), fact=n).traces(f4(1)) == 1
        assert len(list(tmp_path.iterdir())) == min(n + 1, 2)
