"""What has changed in config.json and metrics.jsonl is found, and said by whatever reads them."""

import json
import random
import shutil

import numpy as np
import pytest
import test_trainer
from conftest import assert_same_run
from endings import status_of
from small_network import small_pi_mnist
from test_faults import StopAfter, beginner, small_run

import main
from errors import RunError
from files import load_npz, write_npz
from records.folder import RunFolder
from records.follow import follow
from utilities import evaluate, figures, results

small_tasks = test_trainer.small_tasks  # a fixture


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_tasks):
    """The folder of a small run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run, trainer = small_run(folder)
    list(follow(run, trainer, 3))
    return folder


@pytest.fixture(scope="module")
def trained(sample, tmp_path_factory):
    """The command line and the folder of a run of main.py."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    line = f"PI_MNIST FLP --epochs 1 --data {sample} --sample --out"
    with small_pi_mnist():
        assert main.main([*line.split(), str(folder)]) == 0
        yield line.split(), folder


@pytest.fixture
def copy(trained, tmp_path):
    """(command line, a copy of its folder)."""
    line, folder = trained
    shutil.copytree(folder, tmp_path / "run")
    return [*line, str(tmp_path / "run")], tmp_path / "run"


def edit(path, change):
    """Change what a file of JSON lines, or of one value, says."""
    if path.suffix == ".jsonl":
        values = [json.loads(text) for text in path.read_text().splitlines()]
        change(values)
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
    else:
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))


def best_error_6(records):
    records[-1]["best_test_error"] = 6.625


def another_task(config):
    config["settings"]["task"] = "MNIST"


def test_a_changed_digit_is_no_result(copy, capsys):
    line, folder = copy
    whole = (folder / "metrics.jsonl").read_bytes()
    edit(folder / "metrics.jsonl", best_error_6)
    capsys.readouterr()
    assert main.main(line) == 0
    out, err = capsys.readouterr()
    assert "6.6" not in out
    assert "(best_test_error of epoch 1 is 6.625, it was " in err and err.count("\n") == 1
    assert (folder / "metrics.jsonl").read_bytes() == whole
    assert main.main(line) == 0
    assert capsys.readouterr() == (out, "")


@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_records_that_cannot_be_made_good_are_refused(damage, copy, capsys):
    """Without a checkpoint, what was trained is not thrown away for it."""
    line, folder = copy
    edit(folder / "metrics.jsonl", best_error_6)
    if damage == "removed":
        (folder / "metrics.jsonl").unlink()
    for name in ("checkpoint.npz", "checkpoint.previous.npz"):
        (folder / name).unlink(missing_ok=True)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main.main(line) == 2
    out, err = capsys.readouterr()
    assert "metrics.jsonl has changed since final.npz" in err and "back" in err and out == ""
    assert err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept


@pytest.mark.parametrize("options", [["--resume", "--out"], None])
def test_another_task_in_the_config_is_no_result(options, copy, capsys):
    line, folder = copy
    edit(folder / "config.json", another_task)
    words = [*options, str(folder)] if options else line
    assert main.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "config.json has changed since final.npz was written" in err


@pytest.mark.parametrize(
    ("name", "change"), [("metrics.jsonl", best_error_6), ("config.json", another_task)]
)
def test_all_that_read_a_run_say_what_has_changed(name, change, copy, sample, tmp_path, capsys):
    _, folder = copy
    edit(folder / name, change)
    said = f"{name} has changed since final.npz was written"

    def refusal(program, *words):
        status = status_of(program.main, words)
        out, err = capsys.readouterr()
        assert status == 2 and out == "" and err.count("\n") == 1
        return err

    assert said in refusal(results, str(folder), "--sample")
    assert said in refusal(figures, "curves", str(folder), "-o", str(tmp_path / "a.png"))
    assert said in refusal(figures, "filters", str(folder), "-o", str(tmp_path / "a.png"))
    assert not (tmp_path / "a.png").exists()
    assert evaluate.main([str(folder), "--data", str(sample)]) == 0
    assert said in capsys.readouterr().err


def test_flipped_bits_of_a_finished_run(finished, tmp_path):
    """300: found, or made good again, or without a meaning."""
    rng, folder = random.Random(3), tmp_path / "run"
    right = RunFolder(finished).finished()
    outcomes = {"found": 0, "not finished": 0, "no matter": 0}
    shutil.copytree(finished, folder)
    for number in range(300):
        path = folder / ("metrics.jsonl", "config.json")[number % 2]
        whole = path.read_bytes()
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        run = RunFolder(folder)
        try:
            record = run.finished()
        except RunError as error:
            assert "config.json" in str(error)
            outcomes["found"] += 1
        else:
            if record is None:
                outcomes["not finished"] += 1
            else:  # a blank that became another one
                assert record == right and run.config() == RunFolder(finished).config()
                outcomes["no matter"] += 1
        path.write_bytes(whole)
    assert outcomes["found"] > 100 and outcomes["not finished"] > 140, outcomes
    assert outcomes["no matter"] < 20, outcomes


def test_flipped_bits_of_records_are_made_good(finished, tmp_path):
    folder = tmp_path / "run"
    lines = (finished / "metrics.jsonl").read_bytes()
    for offset in random.Random(4).sample(range(len(lines)), 8):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(finished, folder)
        content = bytearray(lines)
        content[offset] ^= 4
        (folder / "metrics.jsonl").write_bytes(content)
        watcher = StopAfter(10**9)
        list(follow(RunFolder(folder), beginner(), 3, watcher))
        assert_same_run(finished, folder)
        assert (folder / "metrics.jsonl").read_bytes() == lines
        assert content[offset] in b"\x0e" or len(watcher.notes) == 1


def test_records_after_the_newest_checkpoint_are_no_change(finished, tmp_path):
    """A run that was killed has them; one whose last lines are lost is found."""
    shutil.copytree(finished, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    run.final_path.unlink()
    with open(run.metrics_path, "a") as file:
        file.write(run.metrics_path.read_text().splitlines()[-1] + "\n" + '{"epoch": 5, ')
    run.check_sums()
    edit_first = run.metrics_path.read_bytes().replace(b'"epoch": 0', b'"epoch": 7', 1)
    run.metrics_path.write_bytes(edit_first)
    with pytest.raises(RunError, match=r"since checkpoint\.npz .*\(epoch of epoch 0 is 7, it was"):
        run.check_sums()


def test_a_config_that_changed_is_no_start_for_more(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    edit(tmp_path / "run" / "config.json", lambda config: config.update(sample=True))
    kept = (tmp_path / "run" / "checkpoint.npz").read_bytes()
    with pytest.raises(RunError, match=r"config\.json has changed since .*checkpoint\.npz"):
        list(follow(RunFolder(tmp_path / "run"), beginner(), 3))
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes() == kept


@pytest.mark.parametrize(
    "change",
    [
        lambda a, f: a["layer0/W"].__setitem__((0, 0), np.nan),
        lambda a, f: a["layer1/update_b"].__setitem__(0, np.inf),
        lambda a, f: a["best/layer0/b"].__setitem__(0, np.nan),
        lambda a, f: a["layer0/overflow"].__setitem__((0, 0), np.nan),
        lambda a, f: a["layer0/ranges"].__setitem__(0, 101),
        lambda a, f: a["best/layer1/ranges"].__setitem__(0, -2000000),
        lambda a, f: f["records"].reverse(),
        lambda a, f: f["records"].pop(0),
        lambda a, f: f["records"][2].update(test_error=101),
        lambda a, f: f["records"][3].update(best_epoch=0),
        lambda a, f: f["records"][3].update(best_test_error=0.5),
        lambda a, f: f["records"][2].update(validation_error=0.0),
        lambda a, f: f["records"][1].update(test_error=f["records"][1]["test_error"] + 0.1),
        lambda a, f: f["best"].update(best_test_error=0.5),
        lambda a, f: f.update(best=None),
        lambda a, f: f["records"][1].update(LR=0.25),
        lambda a, f: f["records"][3].update(M=0.9),
    ],
)
def test_what_cannot_be_is_damage(change, finished, tmp_path):
    """A checkpoint with right sums, but numbers that no run has."""
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.npz"
    (tmp_path / "run" / "checkpoint.previous.npz").unlink(missing_ok=True)
    arrays = {name: value.copy() for name, value in load_npz(path).items()}
    facts = json.loads(arrays["facts"].item())
    facts["code"] = "as now"  # the rates are compared with those of the code that is known
    del facts["sums"]
    write_npz(path, arrays | {"facts": np.array(json.dumps(facts).encode())})
    list(follow(RunFolder(tmp_path / "run"), beginner(), 3))  # it can be used
    (tmp_path / "run" / "checkpoint.previous.npz").unlink()
    change(arrays, facts)
    write_npz(path, arrays | {"facts": np.array(json.dumps(facts).encode())})
    with pytest.raises(RunError, match=r"checkpoint\.npz is damaged"):
        list(follow(RunFolder(tmp_path / "run"), beginner(), 3))
