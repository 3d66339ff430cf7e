"""utilities.benchmark: what is counted and reported. Nothing here depends on a clock."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from endings import status_of
from small_network import CODE, SIZE

from errors import SettingsError
from model import Network
from records import machine
from tasks import TASKS
from utilities import (
    benchmark,
    benchmark_measure,
    benchmark_processes,
    benchmark_products,
    benchmark_table,
    benchmark_worker,
)
from utilities.benchmark_parts import PARTS


def products(task, batch_size):
    return benchmark_products.products(Network(task, "FLP", np.random.RandomState(0)), batch_size)


def test_matrix_products_of_a_step():
    """Forward and both gradients of every layer, but not the gradient of the images."""
    dense = 784 * 1200 * 2 + 240 * 1200 * 3 + 240 * 10 * 3
    assert sum(m * k * n for m, k, n in products("PI_MNIST", 100)) == 100 * dense
    pixels = (21**2, 9**2, 6**2, 1)
    weights = (96 * 64, 96 * 48 * 64, 96 * 48 * 25, 216 * 10)
    expected = [
        p * w * (2 if i == 0 else 3) for i, (p, w) in enumerate(zip(pixels, weights, strict=True))
    ]
    assert sum(m * k * n for m, k, n in products("MNIST", 128)) == 128 * sum(expected)
    assert (256, 1600, 256 * 128) in products("CIFAR10", 128)


def spread(median):
    return {"median": median, "min": median / 2, "max": 2 * median}


def test_table():
    row = {
        "ms_per_batch": spread(4.0),
        "ms_per_test_image": spread(0.5),
        "to_first_batch_s": [9.0, 3.0],
        "peak_GiB": 1.0,
        "to_floor": spread(2.0),
        "peers": {},
        "together": {
            "runs": 8,
            "alone_ms": spread(6.0),
            "together_ms": spread(4.0),
            "gain": spread(1.5),
        },
        "checkpoint": {"copy_s": spread(0.01), "write_s": spread(0.14), "every_s": 30},
    }
    peers = {
        "eager": {"ms_per_batch": spread(12.0), "to_ours": spread(3.0)},
        "compile": {"ms_per_batch": spread(10.0), "to_ours": spread(2.5)},
        "qpytorch": {"why_not": "no qtorch"},
    }
    report = {
        "results": [
            {
                "task": "MNIST",
                "formats": {"FLP": row, "FXP": row | {"to_FLP": spread(1.25), "peers": peers}},
            }
        ]
    }
    head, _, flp, fxp, _, _, _, checkpoints, _, _, _, _, together, _ = benchmark_table.markdown(
        report
    ).splitlines()
    assert (
        together == "| MNIST | FLP | 8 | 6.0 (3.0 - 12.0) | 4.0 (2.0 - 8.0) | 1.50 (0.75 - 3.00) |"
    )
    assert checkpoints == "| MNIST | FLP | 0.010 | 0.140 | 0.50 |"
    assert len({line.count("|") for line in (head, flp, fxp)}) == 1
    assert flp.split(" | ")[:3] == ["| MNIST", "FLP", "4.0 (2.0 - 8.0)"]
    cells = [cell.strip() for cell in fxp.strip("|").split("|")]
    assert cells[2:8] == ["4.0 (2.0 - 8.0)", "0.500", "2.00", "1.25", "9.0 (3.0)", "1.00"]
    assert cells[8:] == [
        "12.0 (6.0 - 24.0)",
        "10.0 (5.0 - 20.0)",
        "",
        "2.50 (1.25 - 5.00)",
    ]  # the faster of both


def test_table_of_layers():
    rows = [
        {
            "layer": "layer0",
            "product": "forward",
            "ours_ms": spread(8.0),
            "blas_ms": spread(4.0),
            "to_blas": spread(2.0),
        }
    ]
    report = {"results": [{"task": "MNIST", "formats": {}, "layers": rows}]}
    assert benchmark_table.markdown(report).splitlines()[-1] == (
        "| MNIST | layer0 | forward | 8.0 (4.0 - 16.0) | 4.0 (2.0 - 8.0) | 2.00 (1.00 - 4.00) |"
    )


class Answers:
    """A measuring process that has its answers already."""

    why = None

    def __init__(self, *answers):
        self.answers = list(answers)

    def ask(self, what):
        return self.answers.pop(0)

    def close(self):
        assert self.answers == []


def test_rounds_of_layers_are_put_together(monkeypatch):
    rounds = [[["layer0", "forward", 8.0, 4.0], ["layer0", "filters", 1.0, 2.0]]] * 2
    rounds += [[["layer0", "forward", 9.0, 3.0], ["layer0", "filters", 1.0, 1.0]]]
    monkeypatch.setattr(benchmark_measure, "worker", lambda *_: Answers(*rounds))
    forward, filters = benchmark_measure.measure_layers("MNIST", 2, "cpu", lambda text: None)
    assert (forward["layer"], forward["product"]) == ("layer0", "forward")
    assert forward["ours_ms"] == {"median": 8.5, "min": 8.0, "max": 9.0}
    assert forward["to_blas"] == {"median": 2.5, "min": 2.0, "max": 3.0}
    assert filters["product"] == "filters" and filters["to_blas"]["max"] == 1.0


def test_layers_are_measured():
    """In batches of two, each product of each convolution but for the images' gradient."""
    network = Network("MNIST", "FLP", np.random.RandomState(0))
    rows = benchmark_worker.Layers(network, batch=2).measure()
    names = [("layer0", "forward"), ("layer0", "filters")]
    for layer in ("layer1", "layer2"):
        names += [(layer, product) for product in ("forward", "filters", "input")]
    assert [row[:2] for row in rows] == names
    assert all(ours > 0 and blas > 0 for _, _, ours, blas in rows)


def check_report(report, number_format):
    """A report of PI_MNIST in one format, of two runs together."""
    assert report["device"].startswith("cpu") and report["versions"]["jax"]
    (result,) = report["results"]
    row = result["formats"][number_format]
    median = row["ms_per_batch"]["median"]
    assert median > 0 and row["ms_per_test_image"]["median"] > 0 and row["peak_GiB"] > 0
    floor = result["floor_ms"]["median"]
    assert row["to_floor"]["median"] == pytest.approx(median / floor)
    assert row["together"]["runs"] == 2 and row["together"]["gain"]["median"] > 0
    assert row["checkpoint"]["write_s"]["min"] > 0 and row["checkpoint"]["every_s"] == 30
    assert len(row["to_first_batch_s"]) == 2 and row["peers"] == {}
    return result


def test_a_benchmark_of_a_small_network(tmp_path, monkeypatch, capsys):
    """From the command line to the report, with processes that know a small PI_MNIST."""
    code = CODE + "from utilities import benchmark_worker; benchmark_worker.main()"
    monkeypatch.setattr(benchmark_processes, "WORKER", [sys.executable, "-c", code])
    usual = signal.getsignal(signal.SIGTERM)
    out = tmp_path / "benchmark.json"
    table = tmp_path / "benchmark.md"
    words = ["--tasks", "PI_MNIST", "--formats", "FLP", "--rounds", "1", "--device", "cpu"]
    try:
        files = ["-o", str(out), "--markdown", str(table)]
        assert benchmark.main([*words, "--together", "2", "--parts", *files]) == 0
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert not benchmark_processes.Process.running
    result = check_report(json.loads(out.read_text()), "FLP")
    assert [row["cores"] for row in result["parts"]] == sorted({1, machine.cores()})
    assert all(list(row["parts_ms"]) == list(PARTS) for row in result["parts"])
    units = SIZE["units"]
    width = units * SIZE["pieces"]
    dense = 784 * width * 2 + units * width * 3 + units * 10 * 3
    assert result["GFLOP"] == pytest.approx(2e-9 * 100 * dense)
    printed = capsys.readouterr().out
    assert printed.strip() == table.read_text().strip() and "PI_MNIST | FLP" in printed


def test_another_revision_is_measured_in_turn(tmp_path, monkeypatch):
    """Its processes run in its own tree, and answer with times of their own."""
    facts = {"flop": 1e9, "checkpoint_s": 30, "peak_GiB": 1, "device": "cpu", "versions": {}}
    answers = {"first": 0, "facts": facts | {"remarks": ["on the CPU"]}, "test": 1.0}
    said = []

    class Answering:
        running: list = []
        started = 0.0
        why = None

        def __init__(self, task, what, device, together=1, tree=benchmark_processes.ROOT, **_):
            self.factor = 1 if tree == benchmark_processes.ROOT else 2

        def ask(self, what):
            return answers.get(what, [0, 0] if what == "checkpoint" else 4.0 * self.factor)

        def close(self):
            pass

    monkeypatch.setattr(benchmark_measure, "worker", Answering)
    plan = benchmark_measure.Plan(["FLP"], 3, "cpu", against=("abcdefg", tmp_path))
    measurement = benchmark_measure.Measurement("PI_MNIST", plan, said.append)
    measurement.start()
    measurement.train()
    result = measurement.report()
    assert measurement.machine() == {"device": "cpu", "versions": {}} and said[-1] == "on the CPU"
    row = result["formats"]["FLP"]
    assert row["ms_per_batch"]["median"] == 4 and row["to_floor"]["median"] == 1
    assert row["against"]["ms_per_batch"]["median"] == 8
    assert row["against"]["to_ours"] == {"median": 2, "min": 2, "max": 2}
    last = benchmark_table.markdown({"results": [result]}).splitlines()[-1]
    assert "| abcdefg | 8.0 (8.0 - 8.0) | 4.0 (4.0 - 4.0) | 2.00 (2.00 - 2.00) |" in last


def test_the_tree_of_a_revision(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(benchmark_processes, "ROOT", tmp_path)
    git("init", "-q")
    (tmp_path / "utilities").mkdir()
    (tmp_path / "a.py").write_text("old")
    git("add", "-A")
    git("commit", "-qm", "no benchmark")
    (tmp_path / "utilities" / "benchmark_worker.py").write_text("worker")
    git("add", "-A")
    git("commit", "-qm", "a benchmark")
    (tmp_path / "a.py").write_text("not committed")
    with benchmark_processes.tree_of("HEAD") as (name, tree):
        assert len(name) == 7 and (tree / "a.py").read_text() == "old"
    assert not tree.exists() and (tmp_path / "a.py").read_text() == "not committed"
    with pytest.raises(SettingsError, match="has no utilities/benchmark_worker"):
        with benchmark_processes.tree_of("HEAD~1"):
            pass


@pytest.mark.soak
def test_a_whole_benchmark(tmp_path):
    """One task, one round."""
    out = tmp_path / "benchmark.json"
    words = ["--tasks", "PI_MNIST", "--formats", "FXP", "--rounds", "1", "--device", "cpu"]
    run = subprocess.run(
        [sys.executable, "-m", "utilities.benchmark", *words, "--together", "2", "-o", out],
        cwd=benchmark_processes.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    result = check_report(json.loads(out.read_text()), "FXP")
    flop = sum(2 * m * k * n for m, k, n in products("PI_MNIST", 100))
    assert result["GFLOP"] == pytest.approx(flop / 1e9)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rounds", "0"],
        ["--tasks", "SVNH"],
        ["--formats"],
        ["-o", "no/such/folder/b"],
        ["-o", "."],
        ["--peer", "no-such-python"],
        ["--peer", "/bin/echo"],
        ["--against", "no-such-revision"],
        ["--against", "--all"],
        ["--against", ""],
    ],
)
def test_bad_arguments(arguments, capsys):
    assert status_of(benchmark.main, arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def living(group):
    """The processes of a group, without those that only wait to be reaped by a parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
            found += [path.parent.name] if int(pgrp) == group and state not in "ZX" else []
    return found


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_every_process(number, status):
    words = ["--tasks", "PI_MNIST", "--formats", "FLP"]
    with subprocess.Popen(
        [sys.executable, "-m", "utilities.benchmark", *words],
        cwd=benchmark_processes.ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert "starting" in run.stderr.readline()
        run.send_signal(number)
        _, err = run.communicate(timeout=30)
    assert run.returncode == status and "Traceback" not in err
    deadline = time.monotonic() + 20
    while living(run.pid) and time.monotonic() < deadline:  # what a killed process had started
        time.sleep(0.1)
    assert living(os.getpgrp()) and not living(run.pid)


def test_a_process_is_ended_without_waiting_for_what_it_has_started():
    """That has its output open, too."""
    code = "import subprocess; subprocess.Popen(['sleep', '20']); print(1, flush=True); input()"
    process = benchmark_processes.Process([sys.executable, "-c", code])
    assert process.read() == 1
    start = time.monotonic()
    process.close()
    assert time.monotonic() - start < 15


def test_the_programs_process_has_no_threads_that_could_take_a_signal():
    """They come with NumPy; signals are blocked in the main one while a process is started."""
    code = "import sys; from utilities import benchmark; print('numpy' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=benchmark_processes.ROOT, capture_output=True, text=True
    )
    assert run.stdout == "False\n", run.stderr


@pytest.mark.parametrize("number_format", ["FLP", "FXP", "DFXP"])
@pytest.mark.parametrize("task", ["PI_MNIST", "MNIST"])
def test_the_peer_trains_the_same_network(task, number_format):
    torch = pytest.importorskip(
        "torch", reason="PyTorch, with which the benchmark compares, is not installed"
    )
    from utilities.torch_parts import parts
    from utilities.torch_peer import Peer

    peer = Peer(task, number_format, "eager", channels_last=False)
    ours = [
        layer.W.get_value().shape for layer in Network(task, "FLP", np.random.RandomState(0)).layers
    ]
    assert [tuple(p.shape) for p in peer.parameters[: peer.layers]] == ours and peer.batch == TASKS[
        task
    ].batch_size
    found = parts(peer.measure, 1)
    assert found["matrix products"] > 0 and (found["convolutions"] > 0) == (task == "MNIST")
    before = [p.clone() for p in peer.parameters]
    peer.ranges.fill_(-3.0)  # so small that something overflows
    peer.step()
    peer.step()
    assert all(torch.isfinite(p).all() for p in peer.parameters)
    moved = [not torch.equal(a, b) for a, b in zip(before, peer.parameters, strict=True)]
    # The gradients of hidden layers' biases may be less than a step of the grid.
    assert sum(moved) >= (len(moved) - 1 if number_format == "FLP" else peer.layers)
    assert bool(peer.rates.any()) == (number_format == "DFXP")
