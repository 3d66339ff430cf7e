"""Saved networks, evaluated: they give the recorded errors, and nothing else passes for one."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import main
from datasets.sample import ensure_sample
from files import load_npz
from records import saved
from utilities import evaluate, predictions
from utilities.evaluation_report import comparison

RUNS = {
    "FLP": "FLP",
    "HFLP": "HFLP",
    "FXP": "FXP 5 19 31",
    "DFXP": "DFXP 5 9 11 10 0.0001 1",
}
SAME = "in every digit the recorded one"


@pytest.fixture(scope="module")
def runs(sample, tmp_path_factory):
    """A run folder of each format; that of DFXP was stopped and resumed."""
    folder = tmp_path_factory.mktemp("runs")
    for name, line in RUNS.items():
        for stop in ("1", "2") if name == "DFXP" else ("2",):
            words = ["PI_MNIST", *line.split(), "--sample", "--data", str(sample)]
            assert main.main([*words, "--out", str(folder / name), "--stop-after", stop]) == 0
    return folder


@pytest.fixture
def run_program(sample, capsys):
    """run_program(*arguments) -> exit status, stdout, stderr, on the sample."""

    def run(*arguments):
        capsys.readouterr()
        try:
            status = evaluate.main(["--data", str(sample), *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(run_program):
    """refused(*arguments): one line and status 2; returns the line."""

    def run(*arguments):
        status, out, err = run_program(*arguments)
        assert (status, out) == (2, ""), err
        assert err.startswith("evaluate: ") and err.count("\n") == 1
        return err

    return run


def record_of(run, epoch):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return next(r for r in map(json.loads, lines) if r["epoch"] == epoch)


def rewritten(source, to, arrays=None, without=(), **said):
    """A network's file with other arrays, and other things said of it."""
    there = load_npz(source)
    about = json.loads(there["about"].item()) | said
    there |= {"about": np.array(json.dumps(about).encode())} | (arrays or {})
    there = {name: value for name, value in there.items() if name not in without}
    np.savez(to, **there | {"sum": np.array(saved.sum_of(there).encode())})
    return to


# The error is the recorded one.


@pytest.mark.parametrize("which,part", [("best", "test"), ("final", "valid")])
@pytest.mark.parametrize("name", RUNS)
def test_the_recorded_errors_come_out_again(name, which, part, runs, run_program, tmp_path):
    run = runs / name
    table = tmp_path / "predictions.csv"
    status, out, err = run_program(run, "--which", which, "--part", part, "--predictions", table)
    assert (status, err) == (0, "") and SAME in out.splitlines()[1]
    epoch = record_of(run, 2)["best_epoch"] if which == "best" else 2
    recorded = record_of(run, epoch)
    assert f"epoch {epoch}" in out.splitlines()[0]
    lines = [line.split(",") for line in table.read_text().splitlines()[1:]]
    outputs = np.array([line[3:] for line in lines], "float32")
    labels, predicted = np.array([line[1:3] for line in lines], int).T
    assert (outputs.argmax(axis=1) == predicted).all()
    error = 100.0 * int((labels != predicted).sum()) / len(labels)
    assert error == recorded["test_error" if part == "test" else "validation_error"]


def test_the_ranges_of_a_saved_network_matter(runs, run_program, tmp_path):
    """Without them the network is another: that is noticed, and by how much it is said."""
    source = runs / "DFXP" / "final.npz"
    ranges = {n: v for n, v in load_npz(source).items() if n.endswith("/ranges")}
    assert any((v != 5).any() for v in ranges.values())
    other = {name: np.full_like(v, 5) for name, v in ranges.items()}
    file = rewritten(source, tmp_path / "other.npz", other)
    status, out, err = run_program(file)
    assert status == 1 and "it differs by" in out and err.count("\n") == 1
    assert "more than last bits do" in err


def test_an_error_that_differs_by_one_example_is_noticed(runs, run_program, tmp_path):
    source = runs / "FLP" / "best.npz"
    error = json.loads(load_npz(source)["about"].item())["test_error"]
    file = rewritten(source, tmp_path / "other.npz", test_error=error - 0.2)
    status, out, err = run_program(file, "--predictions", tmp_path / "p.csv")
    assert status == 1 and "it differs by +0.2 %, +1 examples" in out
    assert "not the recorded one" in err and (tmp_path / "p.csv").exists()
    assert run_program(file, "--part", "valid")[0] == 0


def test_nothing_is_recorded_of_the_training_part(runs, run_program):
    status, out, err = run_program(runs / "HFLP", "--part", "train")
    assert (status, err) == (0, "")
    assert "of 2,000 examples); it was not recorded" in out.splitlines()[1]


@pytest.mark.parametrize("name", ["FLP", "DFXP"])
def test_untrained_networks_are_evaluated_too(name, sample, tmp_path, run_program):
    """Those of DFXP were before the range initialisation moved the ranges."""
    words = ["PI_MNIST", *RUNS[name].split(), "--sample", "--data", str(sample)]
    assert main.main([*words, "--out", str(tmp_path / "run"), "--stop-after", "0"]) == 0
    for which in ("best", "final"):
        status, out, _ = run_program(tmp_path / "run", "--which", which)
        assert status == 0 and "untrained" in out and SAME in out


def test_files_of_the_first_form_are_completed_from_their_run(runs, run_program, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "DFXP", run)
    for file in (run / "best.npz", run / "final.npz"):
        ranges = [name for name in load_npz(file) if name.endswith("/ranges")]
        rewritten(runs / "DFXP" / file.name, file, without=["about", "sum", *ranges])
        status, out, _ = run_program(file)
        assert status == 0 and SAME in out
    (tmp_path / "alone.npz").write_bytes((run / "best.npz").read_bytes())
    status, out, err = run_program(tmp_path / "alone.npz")
    assert (status, out) == (2, "") and "its ranges are not in it" in err
    records = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    for ranges in (None, [[1.5] * 10] * 3, [[1] * 10]):
        changed = [record | {"ranges": ranges} for record in records]
        (run / "metrics.jsonl").write_text("".join(map("{}\n".format, map(json.dumps, changed))))
        status, out, err = run_program(run / "best.npz")
        assert (status, out) == (2, "") and "has no ranges" in err
    (run / "config.json").write_text("{")
    status, out, err = run_program(run / "best.npz")
    assert status == 2 and "config.json cannot be read" in err and "remove" not in err


@pytest.mark.parametrize("name", ["layer1/W", "layer1/ranges", "epoch", "about"])
def test_an_array_of_another_network_is_found(name, runs, refused, tmp_path):
    there = load_npz(runs / "DFXP" / "best.npz")
    other = np.array(there[name].item() + b" ") if name == "about" else there[name] + 1
    np.savez(tmp_path / "best.npz", **there | {name: other})
    assert "not those that were written together" in refused(tmp_path / "best.npz")


def test_a_network_of_another_run_is_said_to_be_one(runs, run_program, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "FLP", run)
    shutil.copy(runs / "HFLP" / "best.npz", run / "best.npz")
    status, out, err = run_program(run)
    assert status == 0 and "HFLP" in out and "is of another run than the one in" in err


def test_a_network_that_its_run_has_left_behind(runs, run_program, tmp_path):
    """As it is for half a minute, or when the run was killed then."""
    run = tmp_path / "run"
    shutil.copytree(runs / "FLP", run)
    (run / "final.npz").unlink()
    (run / "checkpoint.npz").unlink()
    (run / "checkpoint.previous.npz").unlink(missing_ok=True)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    more = last | {"epoch": 3, "best_epoch": 3, "best_validation_error": 0.0}
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(more) + "\n")
    status, out, err = run_program(run)
    assert status == 0 and SAME in out
    assert err.count("\n") == 1 and "epoch 3 has a lower validation error" in err


# What cannot be evaluated.


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--part test",
        "x --part all",
        "x --which last",
        "x --device tpu",
        "x --predictions p.txt",
        "x --confusion c.gif",
        "x --mistakes m",
        "x y",
        "x --parts test",
        "missing",
        "missing/best.npz",
        "missing.npz --which best",
    ],
)
def test_bad_arguments_give_one_line(line, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(*line.split())
    assert list(tmp_path.iterdir()) == []


def test_arguments_are_checked_before_the_heavy_imports(tmp_path):
    code = (
        "import sys\nfrom utilities import evaluate\n"
        "try:\n evaluate.main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(sorted({'jax', 'pytensor', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    for arguments in (["-h"], ["x", "--part", "y"], ["missing"], [str(tmp_path)]):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.stdout.endswith("[]\n"), done.stderr


def test_folders_without_the_network_are_refused(runs, refused, tmp_path):
    assert "no best.npz" in refused(tmp_path)
    (tmp_path / "best.npz").mkdir()
    assert "no best.npz" in refused(tmp_path)
    assert "is none" in refused(runs / "FLP" / "best.npz", "--which", "best")


def test_a_network_of_other_data_is_refused(runs, run_program, refused, tmp_path):
    ensure_sample(tmp_path / "other", ["mnist"], seed=5)
    assert "was trained on other data" in refused(runs / "FLP", "--data", tmp_path / "other")
    real = rewritten(runs / "FLP" / "best.npz", tmp_path / "real.npz", sample=False)
    assert "holds the generated sample" in refused(real)
    assert "not trained on the sample" in refused(real, "--sample")
    changed = rewritten(runs / "FLP" / "best.npz", tmp_path / "changed.npz", data={})
    assert "was trained on other data" in refused(changed)


@pytest.mark.parametrize("bad", ["folder.csv", "file/p.csv", "file/deep/p.csv"])
def test_outputs_that_cannot_be_written_are_refused_first(bad, runs, refused, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    good = tmp_path / "new" / "c.png"
    refused(runs / "FLP", "--confusion", good, "--predictions", tmp_path / bad)
    refused(runs / "FLP", "--confusion", good, "--mistakes", good)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.csv"}


def test_a_disk_that_is_full_leaves_nothing_half_written(runs, run_program, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    status, _, err = run_program(runs / "FLP", "--predictions", tmp_path / "p.csv")
    assert status == 1 and "No space left on device" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"\x93NUMPY", b"GIF89a" * 99, b"PK\x05\x06" + 18 * b"\0"]
)
def test_foreign_files_are_refused(content, refused, tmp_path):
    (tmp_path / "foreign.npz").write_bytes(content)
    refused(tmp_path / "foreign.npz")


def test_arrays_that_need_pickles_are_refused(refused, tmp_path):
    np.savez(tmp_path / "x.npz", epoch=np.array([{}], dtype=object), allow_pickle=True)
    refused(tmp_path / "x.npz")


def test_an_interrupt_is_one_line(runs, run_program, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(predictions, "predict", interrupted)
    assert run_program(runs / "FLP") == (130, "", "evaluate: interrupted\n")


# What is said and drawn.


def test_the_comparison_in_words():
    assert comparison(3.65, 3.65, 10_000) == (f"3.65 % (365 of 10,000 examples), {SAME}", True)
    line, same = comparison(3.79, 3.65, 10_000)
    assert not same and line.endswith("it differs by +0.14 %, +14 examples")
    assert comparison(0.0, None, 10)[1]
    assert not comparison(100.0 * 3 / 26_032, 100.0 * 3 / 26_031, 26_032)[1]


def test_pictures_are_written(runs, run_program, tmp_path):
    files = [tmp_path / "deep" / "confusion.png", tmp_path / "deep" / "mistakes.svg"]
    status, out, _ = run_program(runs / "FLP", "--confusion", files[0], "--mistakes", files[1])
    assert status == 0 and out.splitlines()[-2:] == list(map(str, files))
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[1].read_bytes().startswith(b"<?xml")
