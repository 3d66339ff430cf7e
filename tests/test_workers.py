"""Runs of a sweep in several processes of this machine (--jobs)."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from conftest import ROOT, assert_same_run
from small_network import small_pi_mnist

from records import machine
from records.folder import RunFolder
from utilities import sweep, workers
from utilities.sweep_jobs import Job, Options

LINE = ["PI_MNIST", "FLP", "--seeds", "3", "--sample", "--stop-after", "3"]
TELLS = "tells"  # a file: who the processes are
DIE = "die"  # a file: how many processes still end when they have trained for a while


def small_worker(connection, options, cores):
    """workers.work with a small network; it dies as the folder of the runs says."""

    def went_on(telling):
        plain(telling)
        (job,) = telling.sweep.jobs
        file = options.out / DIE
        if (job.done or 0) > 20 and file.exists() and (left := int(file.read_text())):
            file.write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)

    plain = workers.Telling.went_on
    with small_pi_mnist() as patch, (options.out / TELLS).open("a") as file:
        patch.setattr(workers.Telling, "went_on", went_on)
        file.write(f"{os.getpid()}\n")
        file.flush()
        workers.work(connection, options, cores)


def swept(words):
    """The exit status of a sweep whose processes have a small network."""
    with small_pi_mnist() as patch:
        patch.setattr(workers, "work", small_worker)
        return sweep.main([*map(str, words)])


@pytest.fixture(scope="module")
def line(sample):
    return [*LINE, "--data", sample, "--out"]


@pytest.fixture(scope="module")
def alone(line, tmp_path_factory):
    """The runs, one after the other in this process."""
    folder = tmp_path_factory.mktemp("alone")
    with small_pi_mnist():
        assert sweep.main([*map(str, line), str(folder), "--jobs", "1"]) == 0
    return folder


def assert_same_runs(one, other):
    assert (one / "summary.csv").read_bytes() == (other / "summary.csv").read_bytes()
    for folder in one.glob("PI_*"):
        assert_same_run(folder, other / folder.name)


def gone(pid):
    """Whether a process has ended, or is not this system's to tell."""
    try:
        return (ROOT / f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except OSError:
        return True


def test_runs_are_those_that_are_trained_one_after_the_other(line, alone, tmp_path, capsys):
    """Also if one of the processes is lost."""
    (tmp_path / DIE).write_text("1")
    assert swept([*line, tmp_path, "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("its process has ended by signal 9; it goes on") == 1
    assert out.count(" finished ") == 3 and "3 of 3 runs" in out
    pids = set((tmp_path / TELLS).read_text().split())
    assert len(pids) == 3 and all(map(gone, pids))
    assert_same_runs(alone, tmp_path)
    assert swept([*line, tmp_path, "--jobs", "2"]) == 0  # nothing is left to do
    assert len((tmp_path / TELLS).read_text().split()) == 3


def test_what_cannot_be_trained(line, tmp_path, capsys, monkeypatch):
    """Two runs whose processes are lost again and again, and one that somebody else trains."""
    monkeypatch.setattr(workers, "LOSSES", 1)
    (tmp_path / DIE).write_text("99")
    mine = RunFolder(tmp_path / "PI_MNIST_FLP_seed1235_sample")
    mine.claim(sweep.product(LINE[:2], seeds=2)[1], {})
    assert swept([*line, tmp_path, "--jobs", "2"]) == 1
    mine.unlock()
    out = capsys.readouterr().out
    assert out.count("its process has ended 1 times, by signal 9") == 2
    assert out.count("_sample                     in use ") == 1 and "0 of 3 runs finished" in out
    with (tmp_path / "summary.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["failed", "unfinished", "failed"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_ended_leaves_nobody_behind(line, alone, tmp_path, number):
    """What its processes have trained is kept, whatever the way in which it ends."""
    code = "import sys; import test_workers; sys.exit(test_workers.swept(sys.argv[1:]))"
    words = [*line, tmp_path, "--jobs", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None:
            records = [path.read_text().count("\n") for path in tmp_path.glob("*/metrics.jsonl")]
            if max(records, default=0) >= 1:
                process.send_signal(number)
                break
            time.sleep(0.01)
        out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    pids = (tmp_path / TELLS).read_text().split()
    deadline = time.monotonic() + 120
    while not all(map(gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(gone, pids))
    if number == signal.SIGINT:
        assert process.returncode == 130 and "sweep: interrupted" in err
    for folder in tmp_path.glob("PI_*"):
        assert (folder / "checkpoint.npz").exists()
    with small_pi_mnist():
        assert sweep.main([*map(str, words[:-1]), "1"]) == 0
    assert_same_runs(alone, tmp_path)


def importing(pid):
    """Whether a process is one of a sweep's, and has loaded something of NumPy's."""
    place = ROOT / f"/proc/{pid}"
    try:
        own = "spawn_main" in (place / "cmdline").read_text()
        return own and "numpy" in (place / "maps").read_text()
    except OSError:  # it has ended
        return False


def test_ctrl_c_while_the_processes_start(line, tmp_path):
    """A terminal sends it to all of them, and only the sweep's own hears it."""
    with subprocess.Popen(
        [sys.executable, "-m", "utilities.sweep", *map(str, line), tmp_path, "--jobs", "2"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        children = ROOT / f"/proc/{process.pid}/task/{process.pid}/children"
        while process.poll() is None and not any(map(importing, children.read_text().split())):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.splitlines() == ["sweep: interrupted; the same command goes on"]
    assert "ending after the segments in flight" in out


def test_how_many_processes(monkeypatch, tmp_path):
    jobs = [
        Job(settings, RunFolder(tmp_path / str(settings.seed)), 3)
        for settings in sweep.product(["PI_MNIST", "FLP"], seeds=6)
    ]
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "memory_gib", lambda: 100.0)
    monkeypatch.setattr(machine, "gpus", lambda: [])

    def number(wanted=None, threads=None, device="auto"):
        return workers.number_of_processes(wanted, jobs, Options(device=device), threads)

    assert (number(), number(3), number(50)) == (4, 3, 6)
    assert (number(threads=2), number(threads=4), number(threads=9)) == (2, 1, 1)
    assert (number(device="gpu"), number(2, device="gpu")) == (1, 2)
    monkeypatch.setattr(machine, "memory_gib", lambda: 2 * workers.GIB)
    assert number() == 2
    monkeypatch.setattr(machine, "gpus", lambda: ["one"])
    assert (number(), number(device="cpu")) == (1, 2)
    for job in jobs[1:]:
        job.status = "finished"
    assert number(3) == 1
    assert workers.automatic({"PI_MNIST", "CIFAR10"}, "cpu", None) == 1


def test_what_is_told_of_a_run_is_its_own(tmp_path):
    """A message that comes after the end of a run changes nothing."""
    told = SimpleNamespace(job=None)
    team = workers.Team(SimpleNamespace(options=Options(tmp_path)), 1)
    team._at(told, "epoch 1 of 2", 5, {"epoch": 1})
    team._ended(told, "finished", {}, "")
    assert team.busy == [] and json.dumps(team.pace.left(1)) == "null"
