"""Many runs: lists and ranges, several as one program, interruptions, Ray, and what is made of the results."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, assert_same_run

import arguments
import datasets
import main
from errors import DataError
from files import load_npz
from settings import Settings
from utilities import figures, outcomes, paper_figures, reproduce, results, sweep, sweeping

WORDS = ["PI_MNIST", "FLP,DFXP", "5", "9:10", "11", "10", "0.0001", "1"]
NAMES = [
    "PI_MNIST_FLP_sample",
    "PI_MNIST_DFXP_5_9_11_10_0.0001_1_sample",
    "PI_MNIST_DFXP_5_10_11_10_0.0001_1_sample",
]


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
        command = sweeping.Options().command(settings)
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


@pytest.mark.parametrize("program", [sweep, reproduce])
def test_nothing_is_started_without_data(program, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("datasets._reachable", lambda mirrors, *_: [])
    words = (
        ["fig2", "--scale", "small"]
        if program is reproduce
        else ["PI_MNIST", "FLP,HFLP", "--seeds", "2"]
    )
    assert program.main([*words, "--data", str(tmp_path), "--out", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "put the official files into" in err
    assert list(tmp_path.iterdir()) == []


def test_a_task_without_data_does_not_end_the_others(sample, tmp_path, capsys, monkeypatch):
    """MNIST is there, SVHN_LOCAL_PATH is not."""
    monkeypatch.delenv("SVHN_LOCAL_PATH", raising=False)

    usual = datasets.load

    def load(data_set, folder, is_sample):
        if data_set == "svhn":
            raise DataError("no SVHN here")
        return usual(data_set, folder, is_sample)

    monkeypatch.setattr(datasets, "load", load)
    words = [
        "PI_MNIST,SVHN",
        "FLP",
        "--epochs",
        "1",
        "--sample",
        "--data",
        str(sample),
        "--out",
        str(tmp_path),
    ]
    assert sweep.main(words) == 1
    out = capsys.readouterr().out
    assert "no SVHN here" in out and "1 of 2 runs finished" in out
    assert [
        row["status"] for row in csv.DictReader((tmp_path / "summary.csv").read_text().splitlines())
    ] == [
        "finished",
        "failed",
    ]


@pytest.mark.parametrize("program", [sweep, reproduce])
def test_a_file_is_no_place_for_runs(program, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    command = [
        *(["PI_MNIST", "FLP"] if program is sweep else ["fig1"]),
        "--out",
        str(tmp_path / "file"),
    ]
    try:
        status = program.main(command)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert capsys.readouterr().err.endswith("is a file; give a folder with --out\n")


@pytest.fixture(scope="module")
def alone(sample, tmp_path_factory):
    """The runs of WORDS, each trained by main.py."""
    folder = tmp_path_factory.mktemp("alone")
    for settings, name in zip(sweep.product(WORDS), NAMES, strict=True):
        command = sweeping.Options(sample=True, stop_after=3).command(settings)[1:]
        assert main.main([*command, "--data", str(sample), "--out", str(folder / name)]) == 0
    return folder


@pytest.mark.parametrize("together", ["auto", "2"])
def test_a_sweep_trains_what_main_trains(together, alone, sample, tmp_path, capsys):
    line = [
        *WORDS,
        "--sample",
        "--data",
        str(sample),
        "--stop-after",
        "3",
        "--out",
        str(tmp_path),
        "--together",
        together,
    ]
    assert sweep.main(line) == 0
    out = capsys.readouterr().out
    assert out.count("finished  ") == 3 and "3 of 3 runs finished" in out
    for name in NAMES:
        assert_same_run(alone / name, tmp_path / name)
        assert (
            json.loads((alone / name / "config.json").read_text())["settings"]
            == json.loads((tmp_path / name / "config.json").read_text())["settings"]
        )
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert [r["folder"] for r in rows] == NAMES and {r["status"] for r in rows} == {"finished"}
    assert [float(r["test_error"]) for r in rows] == [
        json.loads((alone / n / "metrics.jsonl").read_text().splitlines()[-1])["best_test_error"]
        for n in NAMES
    ]
    # Again: nothing is left to do. More seeds: only those.
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz")}
    assert sweep.main(line) == 0
    assert "running" not in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz")} == before


def test_a_batched_program_gives_the_same_bits(alone, sample, tmp_path, monkeypatch):
    """The one for GPUs, made here: results of runs trained together are those of runs trained alone."""
    import compilation

    monkeypatch.setattr(compilation, "batching_pays", lambda: True)
    line = [
        *WORDS,
        "--sample",
        "--data",
        str(sample),
        "--stop-after",
        "3",
        "--out",
        str(tmp_path),
        "--together",
        "2",
    ]
    assert sweep.main(line) == 0
    for name in NAMES:
        assert_same_run(alone / name, tmp_path / name)


def test_runs_that_diverge_or_are_in_use_do_not_end_the_others(
    sample, tmp_path, capsys, monkeypatch
):
    from errors import Diverged
    from records.folder import RunFolder as Run
    from trainer import Trainer

    usual = Trainer._train

    def train(self, *rest, **more):
        if self.settings.prop_bits == 9 and self.position.epoch == 1:
            raise Diverged("epoch 2, layer 0: W became NaN")
        return usual(self, *rest, **more)

    monkeypatch.setattr(Trainer, "_train", train)
    other = Run(tmp_path / "PI_MNIST_FXP_5_11_11_sample")
    other.lock()
    assert (
        sweep.main(
            [
                "PI_MNIST",
                "FXP",
                "5",
                "9:11",
                "11",
                "--sample",
                "--data",
                str(sample),
                "--stop-after",
                "2",
                "--out",
                str(tmp_path),
                "--together",
                "3",
            ]
        )
        == 1
    )
    other.unlock()
    out = capsys.readouterr().out
    assert (
        "became NaN" in out and "in use by another process" in out and "1 of 3 runs finished" in out
    )
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert [r["status"] for r in rows] == ["diverged", "finished", "unfinished"]


def test_an_interrupted_sweep_goes_on(sample, tmp_path):
    """Five times, at random moments; the summary is that of an undisturbed one."""
    line = [
        sys.executable,
        "-m",
        "utilities.sweep",
        *WORDS,
        "--sample",
        "--data",
        str(sample),
        "--stop-after",
        "15",
        "--out",
    ]
    subprocess.run(
        [*line, tmp_path / "whole"], cwd=ROOT, check=True, capture_output=True, timeout=300
    )
    rng, stopped = random.Random(7), 0
    for _ in range(5):
        process = subprocess.Popen(
            [*line, tmp_path / "pieces"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for text in process.stdout:
            if " running" in text:
                break
        time.sleep(rng.uniform(0, 1.5))
        process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
        _, err = process.communicate(timeout=120)
        stopped += process.returncode in (130, 143, -signal.SIGKILL)
        assert "Traceback" not in err
    assert stopped == 5
    subprocess.run(
        [*line, tmp_path / "pieces"], cwd=ROOT, check=True, capture_output=True, timeout=300
    )
    assert (tmp_path / "pieces" / "summary.csv").read_bytes() == (
        tmp_path / "whole" / "summary.csv"
    ).read_bytes()
    for name in NAMES:
        assert_same_run(tmp_path / "whole" / name, tmp_path / "pieces" / name)


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
    """Two workers, of which one is killed in the middle of a run: nothing is lost, nothing run twice to the end."""
    pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")
    words = [
        "PI_MNIST",
        "FXP",
        "5",
        "9:12",
        "11",
        "--sample",
        "--data",
        str(sample),
        "--stop-after",
        "40",
        "--out",
    ]
    assert sweep.main([*words, str(tmp_path / "alone")]) == 0
    command = (
        "import sys, os; os.sched_getaffinity = lambda _: {0, 1}; from utilities import sweep; "
        "sys.exit(sweep.main(sys.argv[1:]))"
    )
    cluster = subprocess.Popen(
        [sys.executable, "-c", command, *words, str(tmp_path / "ray"), "--ray"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    killed, deadline = None, time.monotonic() + 240
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
    assert (tmp_path / "ray" / "summary.csv").read_bytes() == (
        tmp_path / "alone" / "summary.csv"
    ).read_bytes()


# ------------------------------------------------------------------------------------- what is made of finished runs


def fake_run(folder, error, epochs=800, epoch=None, sample=False, **settings):
    """A run folder as main.py leaves it, without parameters."""
    own = {"task": "PI_MNIST", "format": "FLP", "epochs": None if epochs == 800 else epochs}
    s = Settings(**(own | settings))
    folder.mkdir(parents=True)
    config = {
        "settings": {**s.__dict__},
        "epochs": epochs,
        "data": {},
        "sample": sample,
        "device": "cpu: cpu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    records = [
        {
            "epoch": e,
            "validation_error": 2.0,
            "test_error": error,
            "best_epoch": 0,
            "best_validation_error": 2.0,
            "best_test_error": error,
            "seconds": 36.0,
        }
        for e in ((0,) if epoch == 0 else (0, epoch or epochs))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


DFXP = {
    "format": "DFXP",
    "initial_range": 5,
    "prop_bits": 9,
    "up_bits": 11,
    "range_update_frequency": 100,
    "max_overflow": 0.0001,
    "init_epochs": 2,
}


def test_the_table(tmp_path, capsys):
    fake_run(tmp_path / "a" / "one", 1.0, seed=1)
    fake_run(tmp_path / "a" / "two", 1.2, seed=2)
    fake_run(tmp_path / "b", 1.5, epoch=30, **DFXP)
    fake_run(tmp_path / "c", 3.0, epochs=10, format="HFLP")
    fake_run(tmp_path / "d", 3.0, sample=True, format="HFLP")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "config.json").write_text("{}")
    assert (
        results.main(
            [str(tmp_path), "--markdown", str(tmp_path / "t.md"), "--csv", str(tmp_path / "t.csv")]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    columns = [line.split("  ") for line in lines]
    assert [c.strip() for c in columns[1] if c.strip()] == [
        "main.py PI_MNIST FLP",
        "800",
        "1.10 ± 0.14",
        "1.05",
        "+0.05",
        "2",
        "cpu: cpu",
        "0.02",
    ]
    assert "stopped after 30 of 800" in lines[2] and "1.28" in lines[2] and "+0.22" not in lines[2]
    assert (
        sum(line.startswith("missing: ") for line in lines) == 14
        and "missing: main.py PI_MNIST FXP 5 19 19" in lines
    )
    assert sum(line.startswith("left out: ") for line in lines) == 2
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert float(rows[0]["error"]) == pytest.approx(1.1) and rows[0]["runs"] == "2"
    assert (tmp_path / "t.md").read_text().count("\n") == 2 + len(rows)


def test_lines_of_the_papers_figures(tmp_path):
    fake_run(tmp_path / "flp", 2.0, epochs=20)
    for i, (bits, error) in enumerate(((9, 8.0), (19, 2.2), (19, 2.6))):
        fake_run(
            tmp_path / f"fxp{i}",
            error,
            epochs=20,
            format="FXP",
            initial_range=5,
            prop_bits=bits,
            up_bits=31,
            seed=i,
        )
    for bits in (9, 10):
        fake_run(
            tmp_path / f"dfxp{bits}", 3.0, epochs=20, **DFXP | {"prop_bits": bits, "up_bits": 31}
        )
    fake_run(
        tmp_path / "longer",
        1.0,
        epochs=30,
        format="FXP",
        initial_range=5,
        prop_bits=12,
        up_bits=31,
        seed=9,
    )
    collected, _ = outcomes.collect([tmp_path])
    key, _, common = paper_figures.SWEPT["fig2"]
    lines, without = paper_figures.sweep_lines(collected, key, common)
    fxp, dfxp = (
        next(points for rest, points in lines.items() if rest.format == f) for f in ("FXP", "DFXP")
    )
    assert [(x, round(mean, 6), n) for x, mean, _, n in fxp] == [(9, 4.0, 1), (19, 1.2, 2)]
    assert without == ["PI_MNIST"]  # of the run that is longer
    assert fxp[1][2] == pytest.approx(0.2 / 2**0.5) and [p[:2] for p in dfxp] == [
        (9, 1.5),
        (10, 1.5),
    ]


def test_pictures(alone, tmp_path, capsys):
    run = str(alone / NAMES[1])
    assert figures.main(["ranges", run, "-o", str(tmp_path / "ranges.svg")]) == 0
    assert (
        figures.main(["curves", run, str(alone / NAMES[0]), "-o", str(tmp_path / "curves.png")])
        == 0
    )
    fake_run(tmp_path / "runs" / "flp", 2.0)
    for bits in (8, 9, 10):
        fake_run(
            tmp_path / "runs" / str(bits), 20.0 / bits, **DFXP | {"prop_bits": bits, "up_bits": 31}
        )
    capsys.readouterr()
    assert figures.main([str(tmp_path / "runs"), "-o", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"fig2.png", "fig2.svg"}
    assert "fig1: there are not two runs to draw" in out
    assert (tmp_path / "ranges.svg").read_text().startswith("<?xml")
    assert results.main(["--sample", run]) == 0
    capsys.readouterr()
    for words in (
        [str(alone)],
        [str(tmp_path / "runs"), "--sample"],
    ):  # the one is on the sample, the other is not
        with pytest.raises(SystemExit) as stop:
            results.main(words)
        assert stop.value.code == 2 and "no run to show" in capsys.readouterr().err
    for bad in (
        [str(tmp_path / "runs" / "flp")],
        ["ranges", str(alone / NAMES[0])],
        ["curves", str(tmp_path)],
        [str(tmp_path / "out")],
        ["filters", str(tmp_path / "runs" / "flp")],
        ["curves", run, "-o", "x.doc"],
        ["curves"],
        [],
    ):
        with pytest.raises(SystemExit) as stop:
            figures.main(bad)
        assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1, bad


@pytest.mark.parametrize("item", ["table", "fig1", "fig2", "fig3", "fig4"])
@pytest.mark.parametrize("scale", ["full", "small"])
def test_what_would_be_reproduced(item, scale, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert reproduce.main([item, "--scale", scale, "--dry-run"]) == 0
    out = capsys.readouterr().out
    commands = [line.split()[3:] for line in out.splitlines() if line.startswith("waiting")]
    settings = [arguments.parse(words).settings for words in commands]
    assert settings == reproduce.wanted(item, small=scale == "small") and len(set(settings)) == len(
        settings
    )
    assert ("small scale" in out) == (scale == "small") and "on two CPU cores" in out
    assert all((s.epochs is None) == (scale == "full") for s in settings)
    if item == "table":
        assert len(settings) == 16
    else:
        key, _, common = paper_figures.SWEPT[item]
        swept = [s for s in settings if all(getattr(s, n) in v for n, v in common.items())]
        assert len({getattr(s, key) for s in swept}) >= 5 and "FLP" in {s.format for s in settings}
        assert len(swept) == len(settings) - 1
    assert list(tmp_path.iterdir()) == []


def test_reproduce_draws_what_it_trained(sample, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(reproduce.SMALL_EPOCHS, "PI_MNIST", 2)
    monkeypatch.setitem(reproduce.POINTS, "fig1", (None, (4, 5)))
    assert (
        reproduce.main(
            ["fig1", "--scale", "small", "--sample", "--data", str(sample), "--out", str(tmp_path)]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "2 epochs of PI_MNIST instead of 800" in out and str(tmp_path / "fig1.png") in out
    assert (tmp_path / "fig1.svg").exists() and len(list(tmp_path.glob("PI_MNIST_*"))) == 3
    final = load_npz(tmp_path / "PI_MNIST_FLP_epochs2_sample" / "final.npz")
    assert final["layer0/W"].shape == (784, 1200)
    shutil.rmtree(tmp_path / "PI_MNIST_FLP_epochs2_sample")
    with pytest.raises(SystemExit) as stop:
        figures.main([str(tmp_path), "--sample", "-o", str(tmp_path / "again")])
    assert stop.value.code == 2 and "no FLP run of PI_MNIST" in capsys.readouterr().err
