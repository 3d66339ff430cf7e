"""Epochs beyond the schedule of a finished run."""

import json
import shutil

import pytest
from conftest import assert_same_run
from endings import status_of
from small_network import small_pi_mnist

import main
from errors import RunError, Stopped
from records import extension, follow, networks
from records.folder import RunFolder
from tasks import TASKS
from utilities import evaluate, figures, outcomes, results, sweep

WORDS = "PI_MNIST DFXP 5 9 11 10 0.0001 1 --epochs 2 --sample".split()
NAME = "PI_MNIST_DFXP_5_9_11_10_0.0001_1_epochs2_sample"


@pytest.fixture(autouse=True, scope="module")
def small():
    with small_pi_mnist():
        yield


@pytest.fixture(scope="module")
def finished(sample, small, tmp_path_factory):
    """A finished run of two epochs; nothing is to be changed in it."""
    folder = tmp_path_factory.mktemp("finished") / NAME
    assert main.main([*WORDS, "--data", str(sample), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def extended(finished, sample, tmp_path_factory):
    """The same with two epochs more."""
    folder = tmp_path_factory.mktemp("extended") / NAME
    shutil.copytree(finished, folder)
    words = [*WORDS, "--data", str(sample), "--out", str(folder), "--extend", "2"]
    assert main.main(words) == 0
    return folder


@pytest.fixture
def run(finished, sample, tmp_path):
    """run(*options): main.py on a copy of the finished run."""
    shutil.copytree(finished, tmp_path / NAME)

    def main_with(*options):
        line = [*WORDS, "--data", str(sample), "--out", str(tmp_path / NAME), *options]
        return status_of(main.main, line)

    return main_with


def test_it_goes_on_with_the_last_rates_and_says_so(finished, extended):
    records = RunFolder(extended).records()
    assert records[:3] == RunFolder(finished).records()
    last = TASKS["PI_MNIST"].schedule(2)[-1]
    assert [(record["LR"], record["M"]) for record in records[2:]] == [last] * 3
    notes = [record.get("note") for record in records]
    assert notes == [None] * 3 + ["extended by 2 epochs, with the last rates", None]
    config = RunFolder(extended).config()
    assert config["epochs"] == 2 and [e["epochs"] for e in config["extended"]] == [2]
    assert networks.read(extended / "final.npz").epoch == 4


def test_the_result_says_so(extended, sample, capsys):
    line = [*WORDS, "--data", str(sample), "--out", str(extended)]
    for more, said in (([], ""), (["--extend", "2"], "it has these epochs already")):
        assert main.main([*line, *more]) == 0
        out, err = capsys.readouterr()
        assert "; trained 4 of 2 + 2 epochs on" in out and out.count("\n") == 1 and said in err


@pytest.mark.parametrize("where", [0, 2, 7])
def test_interrupted_it_is_the_same(where, run, extended, tmp_path, monkeypatch, capsys):
    """At its first look at the state, and at others; also before anything was trained."""
    looks = iter(range(1000))

    def trained(self, batches):
        if next(looks) == where:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(main.Progress, "trained", trained)
        patch.setattr(follow, "CHECKPOINT_SECONDS", 0)
        assert run("--extend", "2") == 128
    assert run("--extend", "3") == 2
    said = "is not finished (2 + 2 epochs): its command with --extend 2 goes on"
    assert said in capsys.readouterr().err
    assert run("--extend", "2") == 0
    assert_same_run(extended, tmp_path / NAME)


def test_stopped_before_it_began_it_goes_on(run, extended, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(main, "remark", lambda *_: (_ for _ in ()).throw(MemoryError))
        assert run("--extend", "2") == 1
    assert not RunFolder(tmp_path / NAME).finished()
    assert run("--resume") == 0
    assert_same_run(extended, tmp_path / NAME)


def test_twice(run, extended, tmp_path, capsys):
    assert run("--extend", "1") == run("--extend", "2", "--stop-after", "3") == 0
    assert RunFolder(tmp_path / NAME).records()[-1]["epoch"] == 3
    assert run("--extend", "2") == 0
    one, two = (RunFolder(folder) for folder in (tmp_path / NAME, extended))
    assert one.records()[4]["note"] == "extended by 1 epochs, with the last rates"
    assert one.records()[4]["W_l2"] == two.records()[4]["W_l2"]
    assert run("--extend", "1") == 2
    assert "has been extended by 2 epochs" in capsys.readouterr().err
    config = one.config()
    config["extended"][1]["epochs"] = 1
    one.config_path.write_text(json.dumps(config))
    with pytest.raises(RunError, match="extended by 1 epochs"):
        one.config()


def test_only_a_finished_run(sample, finished, tmp_path, capsys):
    line = [*WORDS, "--data", str(sample), "--out", str(tmp_path / "run")]
    assert main.main([*line, "--extend", "1"]) == 2
    assert f"there is no run in {tmp_path / 'run'} to extend" in capsys.readouterr().err
    assert main.main([*line, "--stop-after", "1"]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    capsys.readouterr()
    assert main.main([*line, "--extend", "1"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "is not finished (2 epochs): its command without --extend goes on with it" in err
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    kept = shutil.copytree(finished, tmp_path / "kept")
    for path in kept.glob("checkpoint*"):
        path.unlink()
    assert main.main([*line[:-1], str(kept), "--extend", "1"]) == 2
    assert "has no checkpoint to go on from" in capsys.readouterr().err


def test_a_refusal_names_the_ways(run, capsys):
    for epochs, words in (
        ("5", "its own command with --extend 3 goes on at the last ones once it is finished"),
        ("5", "5 epochs in pieces are --epochs 5 with --stop-after; or give another folder"),
        ("1", "its rates are those of 2 epochs: its own command with --stop-after 1; or give"),
    ):
        assert run("--epochs", epochs) == 2
        err = capsys.readouterr().err
        assert f"(epochs 2 there, {epochs} here)" in err and words in err
        assert err.count("\n") == 1
    there = {"task": "PI_MNIST", "format": "FLP", "epochs": None, "seed": 1}
    assert extension.advice(there, there | {"epochs": 900, "seed": 2}) == ""
    assert "--extend 100 goes on" in extension.advice(there, there | {"epochs": 900})


def test_what_is_made_of_it_says_so(extended, finished, sample, tmp_path, capsys):
    """The epochs beyond the schedule are none of its settings'."""
    (outcome,), remarks = outcomes.collect([extended], sample=True)
    assert outcome.complete and outcome.records == RunFolder(finished).records()
    assert len(remarks) == 1 and "extended to 2 + 2 epochs, those after 2 (test" in remarks[0]
    assert results.main(["--sample", str(extended)]) == 0
    assert "was extended to 2 + 2 epochs" in capsys.readouterr().out
    assert figures.main(["curves", str(extended), "-o", str(tmp_path / "curves.svg")]) == 0
    words = ["--sample", "--data", str(sample)]
    assert evaluate.main([str(extended), "--which", "final", *words]) == 0
    assert "epochs2 (sample), epoch 4 of 2 + 2\n" in capsys.readouterr().out


def test_a_sweep_goes_on_with_it(run, extended, sample, tmp_path, capsys):
    """As main.py does; and it leaves a finished one as it is."""
    assert run("--extend", "2", "--stop-after", "3") == 0
    for _ in range(2):
        assert sweep.main([*WORDS, "--data", str(sample), "--out", str(tmp_path)]) == 0
        assert "1 of 1 runs finished" in capsys.readouterr().out
        assert_same_run(extended, tmp_path / NAME)
