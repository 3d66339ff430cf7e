"""Programs in shells, folders and systems of other people."""

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytensor.tensor as pt
import pytest
from conftest import ROOT
from endings import status_of
from small_network import small_pi_mnist

import ending
import main
import terminal
from errors import SettingsError
from records import machine
from signals import SIGNALS
from utilities import cores, sample_data, sweep, sweep_table
from xla.graphs import to_jax

# A user whom the system does not know, as in many containers.
UNKNOWN = """
import pwd

def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = getpwuid
"""
# At its end the process says which signals its threads would take; main.py's is the first.
THREADS = """
import atexit, os, pathlib

@atexit.register
def tell():
    lines = []
    for thread in os.listdir("/proc/self/task"):
        about = pathlib.Path(f"/proc/self/task/{thread}")
        if "XLA" in (about / "comm").read_text():
            lines += [l for l in (about / "status").read_text().splitlines() if "SigBlk" in l]
    pathlib.Path("threads").write_text("\\n".join(lines))
"""
STRANGERS = (
    *("log.txt", "run.log", "slurm-17.out", "job.err", ".DS_Store", "nohup.out", "train.log.1"),
    *("job.o17", "job.e17", "job.pe17", "job.o17.2", "job.o17-2", "Thumbs.db", "desktop.ini"),
)


def test_logs_in_the_run_folder_are_nobodys_trouble(sample, tmp_path):
    """As `| tee runs/x/log.txt` makes them before the program begins; they stay as they are."""
    (tmp_path / "lost+found").mkdir()
    for name in STRANGERS:
        (tmp_path / name).write_text(name)
    line = ["PI_MNIST", "FLP", "--sample", "--data", sample, "--out", tmp_path, "--stop-after"]
    with small_pi_mnist():
        for stop in (0, 1):
            assert status_of(main.main, [*line, stop]) == 0
    assert [(tmp_path / name).read_text() for name in STRANGERS] == list(STRANGERS)
    assert (tmp_path / "lost+found").is_dir() and (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    "name", ["thesis.tex", "txt", "log", "data.csv", "lost+found2", "a.o", "o17"]
)
def test_other_files_are(name, tmp_path, capsys):
    (tmp_path / name).write_text("precious")
    assert status_of(main.main, ["PI_MNIST", "FLP", "--out", tmp_path]) == 2
    assert f"is not a run folder ({name} is in the way)" in capsys.readouterr().err
    assert os.listdir(tmp_path) == [name]


def test_an_unknown_user_without_a_home_who_compiles_nothing(sample, tmp_path):
    """And whose Python looks for modules in no folder but those that it is given, whose JAX is
    told to be strict.
    """
    (tmp_path / "sitecustomize.py").write_text(UNKNOWN + THREADS)
    gone = ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", "PYLEARN2_DATA_PATH")
    environment = {name: value for name, value in os.environ.items() if name not in gone}
    environment |= {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1", "JAX_DISABLE_JIT": "1"}
    environment |= {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    environment |= {"JAX_TRANSFER_GUARD": "disallow", "JAX_DEBUG_NANS": "1"}
    words = ["PI_MNIST", "FLP", "--sample", "--data", sample, "--stop-after", "0", "--out", "run"]
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "trained 0 of 800 epochs" in done.stdout
    masks = [int(line.split()[1], 16) for line in (tmp_path / "threads").read_text().splitlines()]
    assert masks or not Path("/proc/self/task").exists()
    for mask in masks:  # a signal that comes to a thread of XLA's breaks what it computes with
        assert all(mask >> (number - 1) & 1 for number in SIGNALS)


def test_a_home_that_is_none_is_no_place_for_runs(monkeypatch):
    monkeypatch.setenv("HOME", "")  # to be put back
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    ending.give_a_home()
    with pytest.raises(SettingsError, match="there is no such home folder"):
        terminal.expanded("~/runs")
    assert not os.path.isdir(os.path.expanduser("~"))


def test_where_nobody_knows_which_cores_a_process_has(monkeypatch):
    """On macOS."""
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == os.cpu_count()
    assert not cores.take_cores(1)
    assert cores._cores == []


@pytest.mark.parametrize("program", [main, sweep])
def test_threads_are_given_to_xla_recorded_and_compared(
    program, sample, tmp_path, monkeypatch, capsys
):
    """That XLA obeys, and that results do not, tests/test_cores.py shows."""
    monkeypatch.setenv("NPROC", "")  # to be put back
    run = tmp_path / "run" if program is main else tmp_path
    line = ["PI_MNIST", "FLP", "--sample", "--data", sample, "--out", run, "--stop-after"]
    with small_pi_mnist():
        assert status_of(program.main, [*line, 0, "--threads", 3]) == 0
        assert os.environ["NPROC"] == "3"
        (config,) = tmp_path.glob("*/config.json")
        assert json.loads(config.read_text())["machine"]["threads"] == 3
        capsys.readouterr()
        assert status_of(program.main, [*line, 1, "--threads", 2]) == 0
    assert "(threads 3 then, 2 now); its last bits may differ" in "".join(capsys.readouterr())
    for wrong in ("0", "5000", "two"):
        assert status_of(program.main, [*line, 1, "--threads", wrong]) == 2


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1e3", "9" * 30])
def test_what_is_no_number_of_threads_is_not_recorded(text, monkeypatch):
    monkeypatch.setenv("NPROC", text)
    assert machine.threads() == machine.cores()


def test_settings_of_jax_in_the_environment_change_no_bit():
    """JAX's own defaults are what a run has been trained with."""
    code = "from xla import device as d; d.select_device('cpu'); "
    code += "print({n: getattr(d.jax.config, n) for n in d.SETTLED})"
    code = code.replace("getattr(d.jax.config, n)", "str(getattr(d.jax.config, n)).split('.')[-1]")
    other = {name.upper(): "0" for name in ("jax_threefry_partitionable",)}
    other |= {"JAX_DEBUG_INFS": "1", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | other,
        capture_output=True,
        text=True,
        timeout=120,
    )
    from xla.device import SETTLED

    settled = {name: str(value) for name, value in SETTLED.items()}
    assert done.stdout.lower() == f"{settled}\n".lower(), done.stderr


def test_what_pytensor_generates_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    x = pt.fvector("x")
    (y,) = to_jax({"x": x}, [], [x + x])({"x": np.float32([1, 2])}, {})
    assert y.tolist() == [2, 4] and not list(tmp_path.iterdir())


def test_a_thread_trains_too(sample, tmp_path):
    """As that of a notebook or of a server: it hears no signals, and ends no process."""
    line = ["PI_MNIST", "FLP", "--sample", "--data", sample, "--out", tmp_path, "--stop-after", 0]
    statuses = []
    with small_pi_mnist():
        thread = threading.Thread(target=lambda: statuses.append(status_of(main.main, line)))
        thread.start()
        thread.join()
    assert statuses == [0]


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_stream_that_python_has_closed_is_one_that_nobody_wants(
    name, sample, tmp_path, monkeypatch
):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, name, stream)
    line = ["PI_MNIST", "FLP", "--sample", "--data", sample, "--out", tmp_path, "--stop-after", 0]
    with small_pi_mnist():
        assert status_of(main.main, line) == 0


def test_a_folder_of_any_name_is_told_in_one_line(tmp_path, capsys):
    folder = tmp_path / ("x" * 200) / ("y" * 200) / ("z" * 200) / "\x1b[31mred\nsecond"
    assert status_of(sample_data.main, [folder]) == 0
    line = ["PI_MNIST", "FLP", "--sample", "--data", folder, "--out", folder / "run"]
    with small_pi_mnist():
        assert status_of(main.main, [*line, "--stop-after", 0]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and all(f"{folder.parent}/\\x1b[31mred second" in said[k] for k in (0, 2))


def test_a_terminal_that_can_only_print_gets_no_table(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for name, live in (("dumb", False), ("xterm", True)):
        monkeypatch.setenv("TERM", name)
        table = sweep_table.Table([], Terminal())
        assert table.live == live
        table.close()
