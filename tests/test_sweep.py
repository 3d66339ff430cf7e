"""Many runs: lists and ranges, several as one program, interruptions, Ray."""

import csv
import errno
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, assert_same_run
from small_network import CODE, small_pi_mnist

import arguments
import datasets
import main
import model
from bars import Pace
from errors import DataError, Diverged
from records.folder import RunFolder
from utilities import reproduce, sweep, sweep_jobs, sweep_table, sweeping
from utilities.sweep_jobs import Job, Options
from utilities.sweeping import Sweep

WORDS = ["PI_MNIST", "FLP,DFXP", "5", "9:10", "11", "10", "0.0001", "1"]
NAMES = [
    "PI_MNIST_FLP_sample",
    "PI_MNIST_DFXP_5_9_11_10_0.0001_1_sample",
    "PI_MNIST_DFXP_5_10_11_10_0.0001_1_sample",
]


@pytest.fixture(autouse=True, scope="module")
def small_network():
    """Nothing here depends on the size of the network."""
    with small_pi_mnist():
        yield


def statuses(folder):
    """The column of summary.csv."""
    rows = csv.DictReader((folder / "summary.csv").read_text().splitlines())
    return [row["status"] for row in rows]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("9", ["9"]),
        ("9,10,11", ["9", "10", "11"]),
        ("5:8", ["5", "6", "7", "8"]),
        ("5:9:2", ["5", "7", "9"]),
        (" -2:1", ["-2", "-1", "0", "1"]),
        ("1:2,7", ["1", "2", "7"]),
        ("0,1e-4", ["0", "1e-4"]),
        ("FLP,HFLP", ["FLP", "HFLP"]),
    ],
)
def test_lists_and_ranges(text, words):
    assert sweep.expand(text) == words


def test_an_output_that_takes_nothing_ends_a_finished_sweep_with_status_1(
    sample, tmp_path, monkeypatch, capsys
):
    """Without a buffer, as in many containers, nothing is left that would fail at the end."""

    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    words = ["PI_MNIST", "FLP", "--sample", "--data", str(sample), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "stdout", Full())
    assert sweep.main([*words, "--stop-after", "0"]) == 1
    err = capsys.readouterr().err
    assert os.strerror(errno.ENOSPC) in err and err.count("\n") == 1
    assert statuses(tmp_path) == ["finished"]


def test_bit_widths_that_a_format_ignores_make_no_more_runs(capsys, monkeypatch):
    words = ["PI_MNIST", "DFXP,E4M3S", "5", "7,9", "11", "100", "0.0001", "2"]
    settings = sweep.product(words)
    assert [(s.format, s.prop_bits) for s in settings] == [
        ("DFXP", 7),
        ("DFXP", 9),
        ("E4M3S", 31),
    ]
    monkeypatch.setattr(sweep, "execute", lambda *_: (0, None))
    assert sweep.main(words) == 0 and capsys.readouterr().err == ""
    words[1] = "E4M3S,E5M2S"
    assert sweep.main(words) == 0
    assert capsys.readouterr().err == "sweep: E4M3S, E5M2S: 7,9 11 is ignored\n"


def test_all_combinations_each_once():
    settings = sweep.product(WORDS, seeds=2, epochs=7)
    assert [(s.format, s.seed, s.prop_bits) for s in settings] == [
        ("FLP", 1234, 31),
        ("FLP", 1235, 31),
        ("DFXP", 1234, 9),
        ("DFXP", 1234, 10),
        ("DFXP", 1235, 9),
        ("DFXP", 1235, 10),
    ]
    assert {s.epochs for s in settings} == {7}


def test_a_run_is_the_one_that_its_command_trains():
    for settings in (
        *sweep.product(WORDS, seeds=2, epochs=7),
        *sweep.product(["SVHN", "FXP", " -3:-2", "9", "11"]),
    ):
        command = Options().command(settings)
        assert arguments.parse(command[1:]).settings == settings


@pytest.mark.parametrize(
    "line",
    [
        "",
        "PI_MNIST",
        "PI_MNIST FOO",
        "PI_MNIST,FOO FLP",
        "PI_MNIST FXP 5 9",
        "PI_MNIST FXP 5 8: 9",
        "PI_MNIST FXP 5 9:8 11",
        "PI_MNIST FXP 5 9,,10 11",
        "PI_MNIST FXP 5 9:32 11",
        "PI_MNIST FXP 5 1:9:0 11",
        "PI_MNIST FXP 5 0:999999999 11",
        "PI_MNIST FLP --seeds 0",
        "PI_MNIST FLP --together 0",
        "PI_MNIST FLP --together x",
        "PI_MNIST FLP --gpus -1",
        "PI_MNIST FLP --jobs x",
        "PI_MNIST FLP --out=",
        "PI_MNIST FLP --nonsense",
        "PI_MNIST DFXP 5 9 11 100 0.0001 2 3",
        "PI_MNIST FXP 5 1:31 -5:-1:0",
    ],
)
def test_bad_arguments_give_one_line_and_status_2(line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        sweep.main(line.split())
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith("sweep: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--cpus", "--gpus"])
def test_options_of_ray_are_refused_without_it(option, tmp_path, capsys):
    out = tmp_path / "runs"
    assert sweep.main(["PI_MNIST", "FLP", "--sample", "--out", str(out), option, "1"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("sweep: --cpus and --gpus") and err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("program", [sweep, reproduce])
def test_nothing_is_started_without_data(program, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("datasets.source.reachable", lambda mirrors, *_: [])
    words = ["PI_MNIST", "FLP,HFLP", "--seeds", "2"]
    if program is reproduce:
        words = ["fig2", "--scale", "small"]
    assert program.main([*words, "--data", str(tmp_path), "--out", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "put the official files into" in err
    assert list(tmp_path.iterdir()) == []


def test_a_task_without_data_does_not_end_the_others(sample, tmp_path, capsys, monkeypatch):
    usual = datasets.load

    def load(data_set, folder, is_sample):
        if data_set == "svhn":
            raise DataError("no SVHN here")
        return usual(data_set, folder, is_sample)

    monkeypatch.setattr(datasets, "load", load)
    words = ["PI_MNIST,SVHN", "FLP", "--epochs", "1", "--sample", "--data", str(sample)]
    assert sweep.main([*words, "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "no SVHN here" in out and "1 of 2 runs finished" in out
    assert statuses(tmp_path) == ["finished", "failed"]


@pytest.mark.parametrize("program", [sweep, reproduce])
def test_a_file_is_no_place_for_runs(program, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    words = ["PI_MNIST", "FLP"] if program is sweep else ["fig1"]
    try:
        status = program.main([*words, "--out", str(tmp_path / "file")])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert capsys.readouterr().err.endswith("is a file; give a folder with --out\n")


def test_somebody_elses_summary_stays(sample, tmp_path, capsys):
    (tmp_path / "summary.csv").write_text("my,own,data\n")
    words = ["PI_MNIST", "FLP", "--epochs", "1", "--sample", "--data", str(sample)]
    assert sweep.main([*words, "--out", str(tmp_path)]) == 2
    assert "summary.csv is no summary of a sweep" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"summary.csv"}
    assert (tmp_path / "summary.csv").read_text() == "my,own,data\n"


@pytest.fixture(scope="module")
def line(sample):
    """The words of a sweep over WORDS, but for --out."""
    return [*WORDS, "--sample", "--data", str(sample), "--stop-after", "3"]


@pytest.fixture(scope="module")
def alone(sample, small_network, tmp_path_factory):
    """The runs of WORDS, each trained by main.py."""
    folder = tmp_path_factory.mktemp("alone")
    for settings, name in zip(sweep.product(WORDS), NAMES, strict=True):
        command = Options(sample=True, stop_after=3).command(settings)[1:]
        assert main.main([*command, "--data", str(sample), "--out", str(folder / name)]) == 0
    return folder


@pytest.mark.parametrize("together", ["auto", "2"])
def test_a_sweep_trains_what_main_trains(together, alone, line, tmp_path, capsys):
    words = [*line, "--out", str(tmp_path), "--together", together]
    assert sweep.main(words) == 0
    out = capsys.readouterr().out
    assert out.count("finished  ") == 3 and "3 of 3 runs finished" in out
    for name in NAMES:
        assert_same_run(alone / name, tmp_path / name)
        configs = [RunFolder(folder / name).config() for folder in (alone, tmp_path)]
        assert configs[0]["settings"] == configs[1]["settings"]
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert [row["folder"] for row in rows] == NAMES
    assert {row["status"] for row in rows} == {"finished"}
    errors = [RunFolder(alone / name).records()[-1]["best_test_error"] for name in NAMES]
    assert [float(row["test_error"]) for row in rows] == errors
    # Again: nothing is left to do.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert sweep.main(words) == 0
    assert "running" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == before


def test_a_run_that_somebody_else_finishes_is_finished(alone, line, tmp_path, monkeypatch, capsys):
    """As where the same sweep runs on two machines."""
    other = RunFolder(tmp_path / NAMES[1])
    plain = Sweep._refuse

    def refuse(self, job, error):
        result = plain(self, job, error)
        other.unlock()
        shutil.copytree(alone / NAMES[1], other.folder, dirs_exist_ok=True)
        return result

    monkeypatch.setattr(Sweep, "_refuse", refuse)
    other.lock()
    assert sweep.main([*line, "--out", str(tmp_path)]) == 0
    assert "3 of 3 runs finished" in capsys.readouterr().out
    assert (tmp_path / "summary.csv").read_text().count(",finished,") == 3


def test_a_batched_program_gives_the_same_bits(alone, line, tmp_path, monkeypatch):
    """The one for GPUs, made here: runs trained together are those trained alone."""
    from xla import device
    from xla.program_cache import PROGRAMS

    monkeypatch.setattr(device, "batching_pays", lambda: True)
    monkeypatch.setattr(PROGRAMS, "folder", tmp_path / "programs")  # not where the usual one is
    words = [word.replace("FLP,", "") for word in line]
    assert sweep.main([*words, "--out", str(tmp_path), "--together", "2"]) == 0
    for name in NAMES[1:]:
        assert_same_run(alone / name, tmp_path / name)


def test_runs_that_diverge_or_are_in_use_do_not_end_the_others(
    sample, tmp_path, capsys, monkeypatch
):
    from trainer import Trainer

    usual = Trainer._train

    def train(self, *rest, **more):
        if self.settings.prop_bits == 9 and self.position.epoch == 1:
            raise Diverged("epoch 2, layer 0: W became NaN")
        return usual(self, *rest, **more)

    monkeypatch.setattr(Trainer, "_train", train)
    words = ["PI_MNIST", "DFXP", "5", "9:11", "11", "10", "0.0001", "1", "--sample"]
    options = ["--data", str(sample), "--stop-after", "2", "--together", "3"]
    other = RunFolder(tmp_path / "PI_MNIST_DFXP_5_11_11_10_0.0001_1_sample")
    other.lock()
    assert sweep.main([*words, *options, "--out", str(tmp_path)]) == 1
    other.unlock()
    out = capsys.readouterr().out
    assert "became NaN" in out and "in use by another process" in out
    assert "1 of 3 runs finished" in out
    assert statuses(tmp_path) == ["diverged", "finished", "unfinished"]


def test_a_device_that_fails_ends_all_runs_that_share_it(line, tmp_path, capsys, monkeypatch):
    import jax

    from xla.programs import TrainingProgram

    def together(self, calls):
        raise jax.errors.JaxRuntimeError("out of memory")

    monkeypatch.setattr(TrainingProgram, "together", together)
    assert sweep.main([*line, "--out", str(tmp_path), "--together", "2"]) == 1
    assert capsys.readouterr().out.count("the device cannot go on (out of memory)") == 3
    assert statuses(tmp_path) == ["failed"] * 3
    for name in NAMES:
        run = RunFolder(tmp_path / name)
        run.lock()  # others may have it
        run.unlock()


def test_warnings_of_main_are_heard_in_a_sweep_once_each(line, tmp_path, capsys, monkeypatch):
    words = ["PI_MNIST", "DFXP", "5", "9:10", "11", "100", "0.0001", "0", *line[8:]]
    assert sweep.main([*words[:-1], "0", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("the ranges never move (2 of 2 runs)") == 1
    monkeypatch.setattr("records.machine.processor", lambda: "another")
    assert sweep.main([*words[:-1], "1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("started with other versions or on another device (processor") == 1
    assert sweep.main(["PI_MNIST", "FLP", "5", "9", *line[8:], "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == "sweep: FLP: 5 9 is ignored\n"
    monkeypatch.setattr("xla.device.select_device", lambda *a: a[2]("computing on the CPU"))
    assert sweep.main([*WORDS[:-1], "0", *line[8:-1], "0", "--out", str(tmp_path / "both")]) == 0
    assert capsys.readouterr().out.count("computing on the CPU") == 1  # two programs, once


class Unwritable:
    def isatty(self):
        return False

    def flush(self):
        raise OSError(28, "No space left on device")

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_sweep_goes_on_when_nothing_can_be_printed(line, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Unwritable())
    assert sweep.main([*line, "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "sweep: No space left on device (the output cannot be written)\n"
    )
    assert statuses(tmp_path) == ["finished"] * 3


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
def test_runs_where_nothing_can_be_written(line, capsys):
    assert sweep.main([*line, "--out", "/proc/self/runs"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "give another folder with --out" in err


def in_a_process(words):
    """A sweep in a process of its own, in which each look at the state takes a while."""
    code = CODE + (
        "import sys, time; from utilities import sweep, sweep_table; "
        "sweep_table.Table.went_on = lambda self: time.sleep(0.03); "
        "sys.exit(sweep.main(sys.argv[1:]))"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.soak)])
def test_an_interrupted_sweep_goes_on(times, sample, tmp_path):
    """At random moments; the summary is that of an undisturbed one."""
    line = [*WORDS, "--sample", "--data", str(sample), "--stop-after", "15", "--out"]
    whole = tmp_path / "whole"
    pieces = tmp_path / "pieces"
    assert sweep.main([*line, str(whole)]) == 0
    rng = random.Random(7)
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL] * times
    for number in signals[:times]:
        with in_a_process([*line, str(pieces)]) as process:
            for text in process.stdout:
                if " running" in text:
                    break
            time.sleep(rng.uniform(0, 1.2 * 3 / times))
            process.send_signal(number)
            _, err = process.communicate(timeout=120)
        expected = -number if number == signal.SIGKILL else 128 + number
        assert process.returncode == expected and "Traceback" not in err
    assert sweep.main([*line, str(pieces)]) == 0
    assert (pieces / "summary.csv").read_bytes() == (whole / "summary.csv").read_bytes()
    for name in NAMES:
        assert_same_run(whole / name, pieces / name)


class Terminal:
    """Where a table is drawn; `during` happens while the first line is written."""

    def __init__(self, during=lambda: None):
        self.text = ""
        self.during = during

    def isatty(self):
        return True

    def write(self, text):
        self.text += text
        during, self.during = self.during, lambda: None
        during()

    def flush(self):
        pass


def job(tmp_path, status, **record):
    (settings,) = sweep.product(["PI_MNIST", "FLP"])
    return Job(settings, RunFolder(tmp_path), last_epoch=3, status=status, record=record)


def test_a_table_on_a_terminal_is_drawn_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    known = {"epoch": 1, "seconds": 60.0, "best_test_error": 2.0, "best_validation_error": 3.0}
    jobs = [job(tmp_path, "running", **known), job(tmp_path, "waiting")]
    out = Terminal()
    table = sweep_table.Table(jobs, out)
    table.changed(jobs[0])
    assert "epoch 1 of 3, test error 2.00 % (validation 3.00 %)" in out.text
    assert "2 runs: 1 running, 1 waiting, about 5 min left" in out.text
    jobs[0].status = "finished"
    table.changed(jobs[0])
    assert "\x1b[2A\x1b[J" in out.text  # both lines of the first one are erased
    assert out.text.endswith("2 runs: 1 finished, 1 waiting\n")
    table.close()


@pytest.mark.parametrize("columns", [30, 60, 80, 120])
def test_a_table_fits_the_terminal_and_moves_within_an_epoch(columns, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "8")
    jobs = [job(tmp_path / f"PI_MNIST_DFXP_5_{k}_11_100_0.0001_2", "running") for k in range(9)]
    table = sweep_table.Table(jobs, Terminal())
    pace = Pace(iter([0.0, 1.0, 3.0]).__next__)
    pace.look(0)
    for own in jobs:
        own.batches, own.pace, own.done = 100, pace, 0
    jobs[0].where = "range initialisation 1 of 2, 10 %"
    *_, last = table.rows()
    assert "left" not in last  # nothing has been trained yet
    pace.look(10)
    jobs[0].done = 10
    jobs[1].record = {"epoch": 1, "best_test_error": 2.0, "best_validation_error": 3.0}
    jobs[1].where = "epoch 2 of 3, 45 %"
    first, second, *_, more, last = rows = table.rows()
    table.close()
    assert len(rows) == 6 and all(len(line) < columns for line in rows)
    assert more == "and 5 more" and last.endswith(", about 9 min left")
    if columns > 50:
        assert first.startswith("PI_MNIST_") and first.endswith("initialisation 1 of 2, 10 %")
        assert "epoch 2 of 3, 45 %, test error 2.00 %" in second
        assert ("PI_MNIST_DFXP_5_1_11_100_0.0001_2 " in second) == (columns > 60)
        assert second.endswith("(validation 3.00 %)") == (columns > 80)


def test_a_sweep_goes_on_from_what_is_there_and_says_where_it_is(line, tmp_path):
    seen = []

    class Seen(sweeping.Listener):
        def went_on(self):
            (own,) = jobs
            seen.append((own.where, own.record.get("epoch"), own.batches_left))

    for last in (1, 2):
        options = Options(tmp_path, Path(line[10]), sample=True, stop_after=last)
        jobs = sweep_jobs.plan(sweep.product(["PI_MNIST", "FLP"]), options)
        sweeping.Sweep(jobs, options, listener=Seen()).train()
        if last == 1:
            assert seen[0] == ("untrained network", None, 20) and seen[-1][1:] == (1, 0)
            seen.clear()
    assert seen[0] == ("epoch 2 of 2, testing", 1, 0) and seen[-1] == ("epoch 2 of 2", 2, 0)


def test_what_a_signal_says_while_a_table_is_drawn_comes_after_it(tmp_path):
    """A second print in the middle of one would be an error, or garble the table."""
    out = Terminal(during=lambda: table.say("ending"))
    table = sweep_table.Table([job(tmp_path, "waiting")], out)
    table.draw()
    assert "ending" not in out.text
    table.say("later")
    assert "ending\nlater\n" in out.text


def holder(path):
    """The process that has a file open."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if any(
                os.path.realpath(f"/proc/{pid}/fd/{n}") == str(path)
                for n in os.listdir(f"/proc/{pid}/fd")
            ):
                return int(pid)
        except OSError:
            continue
    return None


@pytest.mark.soak
def test_a_lost_worker_of_a_ray_cluster(sample, tmp_path):
    """Two workers, one of which is killed: nothing is lost, nothing trained twice to the end."""
    pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")
    words = ["PI_MNIST", "HFLP", "--seeds", "4", "--sample", "--data", str(sample)]
    words += ["--stop-after", "40", "--out"]
    with pytest.MonkeyPatch.context() as patch:  # the workers have the published network
        patch.setitem(model.NETWORKS, "PI_MNIST", model.pi_mnist)
        assert sweep.main([*words, str(tmp_path / "alone")]) == 0
    cluster = ray_cluster([*words, str(tmp_path / "ray"), "--ray"])
    killed = None
    deadline = time.monotonic() + 240
    while killed is None and time.monotonic() < deadline and cluster.poll() is None:
        for path in (tmp_path / "ray").glob("*/metrics.jsonl"):
            if 5 <= path.read_text().count("\n") <= 25 and (pid := holder(path.parent / ".lock")):
                os.kill(pid, signal.SIGKILL)
                killed = path.parent.name
                break
        time.sleep(0.02)
    out, err = cluster.communicate(timeout=400)
    assert killed and cluster.returncode == 0, (killed, out, err)
    assert "4 of 4 runs finished" in out
    for folder in (tmp_path / "alone").glob("PI_*"):
        assert_same_run(folder, tmp_path / "ray" / folder.name)
    summaries = [tmp_path / name / "summary.csv" for name in ("alone", "ray")]
    assert summaries[0].read_bytes() == summaries[1].read_bytes()


@pytest.mark.soak
def test_a_sweep_on_ray_can_be_interrupted(sample, tmp_path):
    """Its runs write a checkpoint, and go on without Ray."""
    pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")
    words = ["PI_MNIST", "HFLP", "--seeds", "2", "--sample", "--data", str(sample)]
    words += ["--stop-after", "60", "--out", str(tmp_path)]
    cluster = ray_cluster([*words, "--ray"])
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and cluster.poll() is None:
        lines = [path.read_text().count("\n") for path in tmp_path.glob("*/metrics.jsonl")]
        if len(lines) == 2 and min(lines) >= 3:
            break
        time.sleep(0.05)
    cluster.send_signal(signal.SIGINT)
    out, err = cluster.communicate(timeout=120)
    assert cluster.returncode == 130 and "Traceback" not in err, (out, err)
    assert out.count(" interrupted ") == 2
    kept = [RunFolder(path.parent).records() for path in tmp_path.glob("*/config.json")]
    assert all(3 <= len(records) < 61 for records in kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model.NETWORKS, "PI_MNIST", model.pi_mnist)
        assert sweep.main(words) == 0


def ray_cluster(words):
    """A sweep on a cluster of two workers."""
    code = (
        "import sys, os; os.sched_getaffinity = lambda _: {0, 1}; from utilities import sweep; "
        "sys.exit(sweep.main(sys.argv[1:]))"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def test_how_many_runs_a_program_trains_at_a_time(tmp_path):
    """On a GPU several where there are no convolutions; of those several are not measured."""
    for asked, on_a_gpu, on_a_cpu in ((None, (8, 1, 1, 1), (1, 1, 1, 1)), (3, (3, 3, 3, 1), None)):
        one = Sweep([], Options(tmp_path), asked)
        for pays, expected in ((True, on_a_gpu), (False, on_a_cpu or on_a_gpu)):
            found = [
                one._at_a_time(task, pays) for task in ("PI_MNIST", "MNIST", "CIFAR10", "SVHN")
            ]
            assert tuple(found) == expected
