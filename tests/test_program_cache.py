"""program_cache.py: what is found again, what is not, and that nothing stale is."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from compiling import CONSTANTS

from model import Network
from xla import device, program_cache, program_files
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
training = TrainingProgram(network, 2, 1).program.jitted
training.trace(state | mask_state(0), constants, x, t, shape((1, 2), "int32"), count, count, None)
images, classes = shape((1, 2, 3072), "float32"), shape((1, 2), "int32")
testing = TestProgram(network, 2).program.jitted
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
    first = ProgramCache(None, copies)
    keys = {first.key()}
    assert keys == {ProgramCache(None).key()}
    for number, copy in enumerate(copies, start=1):
        copy.write_text(f"{copy.read_text()}CONSTANT = 1\n")
        keys.add(ProgramCache(None, copies).key())
        assert len(keys) == number + 1, copy.name
    assert first.key() in keys - {ProgramCache(None, copies).key()}  # what it began with still runs
    assert first.key() == ProgramCache(None).key()


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
    with monkeypatch.context() as patched:  # so many threads XLA has
        patched.setenv("NPROC", "77")
        keys.add(cache.key())
    assert len(keys) == 11 and cache.key() in keys


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
    with pytest.MonkeyPatch.context() as patched:  # on macOS
        patched.delattr(os, "sched_getaffinity")
        patched.setattr(os, "cpu_count", lambda: 98)
        assert [trained(cache, "DFXP")[1] for _ in range(2)] == [1, 0]
    for expected in (1, 0):
        assert trained(cache)[1] == expected
        assert trained(cache, batch_size=3)[1] == expected
        assert trained(cache, units=3)[1] == expected


class Evil:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


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
    at = program_files.HEADER
    for content in (
        whole[:-1],
        b"",
        b"something else",
        whole[: at + 40] + b"x" + whole[at + 41 :],
        whole[: at - 8] + b"x" + whole[at - 7 :],
    ):
        path.write_bytes(content)
        assert Counted(cache).traces(f4(1)) == 1
        assert Counted(cache).traces(f4(1)) == 0


def with_header(path, data):
    """As a program's file, with everything right but the program."""
    key = path.name.removeprefix("program-")
    path.write_bytes(program_files.MAGIC + key.encode() + hashlib.sha256(data).digest() + data)


@ON_A_CPU
def test_a_program_that_asks_for_anything_else_is_not_loaded(tmp_path):
    cache = ProgramCache(tmp_path / "programs")
    cache.folder.mkdir(mode=0o700)
    assert Counted(cache).traces(f4(1)) == 1
    (path,) = cache.folder.iterdir()
    evil = Evil(tmp_path / "made")
    _, in_tree, out_tree = pickle.loads(path.read_bytes()[program_files.HEADER :])
    inner = (pickle.dumps(evil), in_tree, out_tree)
    for value in (evil, inner, (pickle.dumps(sys.exit), in_tree, out_tree)):
        with_header(path, pickle.dumps(value))
        assert Counted(cache).traces(f4(1)) == 1
        assert Counted(cache).traces(f4(1)) == 0  # it has been replaced
    data = pickle.dumps(evil)  # as programs were cached before they had a header
    path.write_bytes(hashlib.sha256(data).digest() + data)
    assert Counted(cache).traces(f4(1)) == 1
    assert not (tmp_path / "made").exists()


@ON_A_CPU
def test_a_program_under_the_name_of_another_is_compiled_again(tmp_path):
    cache = ProgramCache(tmp_path)
    assert Counted(cache).traces(f4(1)) == 1
    assert Counted(cache).traces(np.zeros(3, f4)) == 1
    one, other = tmp_path.iterdir()
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])
    assert Counted(cache).traces(f4(1)) == 1
    assert Counted(cache).traces(np.zeros(3, f4)) == 1


@ON_A_CPU
def test_only_what_nobody_else_can_write_is_loaded(tmp_path, monkeypatch):
    cache = ProgramCache(tmp_path)
    assert Counted(cache).traces(f4(1)) == 1
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    for what, mode in ((path, 0o620), (path, 0o602), (tmp_path, 0o777), (tmp_path, 0o1777)):
        usual = what.stat().st_mode
        what.chmod(mode)
        assert Counted(ProgramCache(tmp_path)).traces(f4(1)) == 1
        path.exists() and what.chmod(usual)
    with monkeypatch.context() as patched:
        patched.setattr(program_files.os, "geteuid", lambda: 12345)
        assert Counted(cache).traces(f4(1)) == 1
    assert Counted(cache).traces(f4(1)) == 0
    moved = path.rename(tmp_path / "moved")
    path.symlink_to(moved)
    assert Counted(cache).traces(f4(1)) == 1


def test_a_folder_that_others_can_write_gets_one_that_they_cannot(tmp_path, monkeypatch):
    assert program_files.private(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o1777)
    own = program_files.private(tmp_path / "open")
    assert own.parent == tmp_path / "open" and program_files.is_safe(own.stat())
    assert program_files.private(tmp_path / "open") == own
    own.rmdir()
    own.symlink_to(tmp_path / "a" / "b")
    with pytest.raises(OSError):
        program_files.private(tmp_path / "open")
    own.unlink()
    own.mkdir()
    own.chmod(0o777)
    with pytest.raises(OSError):
        program_files.private(tmp_path / "open")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "open"))
    monkeypatch.setattr(program_cache, "PROGRAMS", ProgramCache(None))
    named = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "open"))
    try:
        program_cache.cache_programs()
        assert program_cache.PROGRAMS.folder is None
    finally:
        jax.config.update("jax_compilation_cache_dir", named)


@ON_A_CPU
def test_files_of_others_stay(tmp_path):
    names = ["program-notes-1.txt", "program-" + "0" * 64, "program-" + "0" * 65, "program-", "x"]
    for name in names:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    for n in range(3):
        assert Counted(ProgramCache(tmp_path, most=1), fact=n).traces(f4(1)) == 1
    assert len(list(tmp_path.iterdir())) == len(names) + 1
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def refuse(*arguments, **options):
    raise PermissionError


@ON_A_CPU
def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    """What is there is used; what is not there is compiled, and not cached."""
    assert Counted(ProgramCache(tmp_path)).traces(f4(1)) == 1
    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(program_files, "write_atomically", refuse)
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


def test_a_gpus_programs_are_kept_if_they_can_be_read(tmp_path, monkeypatch):
    """Its kind and driver, and what XLA is told, are part of the key."""
    keys = {ProgramCache(None).key()}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    keys.add(ProgramCache(None).key())
    for name in ("device_name", "compiler_options"):
        with monkeypatch.context() as patched:
            patched.setattr(device, name, lambda: "another")
            keys.add(ProgramCache(None).key())
    assert len(keys) == 4
    for expected in (1, 0):
        assert Counted(ProgramCache(tmp_path)).traces(f4(1)) == expected
    (path,) = tmp_path.iterdir()
    path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(program_files, "read", refuse)
        assert Counted(ProgramCache(tmp_path)).traces(f4(1)) == 1
    assert not list(tmp_path.iterdir())  # JAX's own cache serves
