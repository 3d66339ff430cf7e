"""A task and a format that were registered from outside go through every program."""

import json
import re

import numpy as np
import pytest
from fake_runs import fake_run

import format
import main
import model
import settings
import tasks
from layers import Softmax
from records.folder import RunFolder
from settings import FORMAT_ARGUMENTS, FormatArguments, Settings
from tasks import Task
from utilities import benchmark_effort, figures, reproduce, results, sweep
from xla.program_cache import PROGRAMS


class E3M4(format.FLP):
    """float8 with four bits of fraction, as a double of one: a format without numbers."""

    def significant_bits(self, nob):
        return 5


def tiny(number_format, rng, initial_range):
    """A softmax regression."""
    own = {"p": 0.8, "scale": 1.0, "initial_range": initial_range}
    return [Softmax("layer0", number_format, rng, 784, 10, **own)]


TINY = Task(data_set="mnist", batch_size=500, epochs=2, LR_start=0.05, LR_sat=1, M_sat=1, segment=4)


@pytest.fixture(autouse=True, scope="module")
def registered(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # What is registered here is no source that programs are cached under.
        patch.setattr(PROGRAMS, "folder", tmp_path_factory.mktemp("programs"))
        patch.setitem(tasks.TASKS, "TINY", TINY)
        patch.setitem(model.NETWORKS, "TINY", tiny)
        patch.setitem(format.FORMATS, "E3M4", E3M4())
        arguments = FormatArguments(needs=0, published=(), about="float8")
        patch.setitem(settings.FORMAT_ARGUMENTS, "E3M4", arguments)
        yield


@pytest.fixture(scope="module")
def runs(registered, sample, tmp_path_factory):
    """A folder with runs of TINY, the first trained by main, the others by sweep."""
    words = ["--sample", "--data", str(sample)]
    folder = tmp_path_factory.mktemp("runs")
    first = folder / Settings("TINY", "E3M4").folder_name(sample=True)
    assert main.main(["TINY", "E3M4", *words, "--out", str(first)]) == 0
    line = ["TINY", "FLP,E3M4,DFXP", "5", "31", "9,10", "2", "0.0001", "1", *words]
    assert sweep.main([*line, "--out", str(folder)]) == 0
    return folder


def test_main_and_sweep_train_it(runs):
    folders = [path.parent for path in runs.glob("*/final.npz")]
    assert len(folders) == 4
    for folder in folders:
        last = RunFolder(folder).finished()
        assert last["epoch"] == 2 and last["best_validation_error"] < 85


def test_results_show_it_without_an_error_of_the_paper(runs, tmp_path, capsys):
    fake_run(tmp_path / "real" / "one", 1.0, format="E3M4")  # a task of the paper
    fake_run(tmp_path / "real" / "two", 2.0, epochs=2, task="TINY", format="E3M4")
    assert results.main(["--sample", str(runs)]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("main.py TINY E3M4 "))
    assert re.split("  +", line)[1] == "2"  # epochs
    assert "missing: main.py TINY" not in out and "E3M4" not in out.partition("missing")[2]
    table = tmp_path / "t.csv"
    assert results.main([str(tmp_path / "real"), "--csv", str(table)]) == 0
    rows = [row.split(",") for row in table.read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == ["main.py PI_MNIST E3M4", "main.py TINY E3M4 --epochs 2"]
    assert all(row[4] == "" for row in rows)  # the paper's


def test_figures_draw_it(runs, tmp_path, capsys):
    out = tmp_path / "figures"
    assert figures.main([str(runs), "--sample", "-o", str(out)]) == 0
    assert "fig3.png" in capsys.readouterr().out
    dfxp = next(runs.glob("*DFXP*"))
    assert figures.main(["curves", *map(str, runs.glob("TINY*")), "-o", str(out / "c.png")]) == 0
    assert figures.main(["ranges", str(dfxp), "-o", str(out / "r.png")]) == 0
    assert figures.main(["filters", str(dfxp), "-o", str(out / "f.png")]) == 0


@pytest.mark.parametrize("item", ["table", *reproduce.paper_figures.FIGURES])
@pytest.mark.parametrize("scale", ["full", "small"])
def test_it_can_be_reproduced(item, scale, tmp_path, capsys):
    words = [item, "--task", "TINY", "--scale", scale, "--out", str(tmp_path / "none")]
    assert reproduce.main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.startswith("waiting")]
    assert {line[4] for line in lines} == {"TINY"} and "which it does not have" in out
    if item == "table":  # of a task that the paper does not have, all formats
        assert [line[5] for line in lines] == list(FORMAT_ARGUMENTS)
    assert ("1 epochs of TINY instead of 2" in out) == (scale == "small")


def test_the_papers_table_stays_as_it_is(tmp_path, capsys):
    assert reproduce.main(["table", "--dry-run", "--out", str(tmp_path / "none")]) == 0
    out = capsys.readouterr().out
    assert out.count("waiting") == 16 and "TINY" not in out and "E3M4" not in out


def test_a_run_whose_task_is_unknown_is_left_out(tmp_path, capsys, monkeypatch):
    fake_run(tmp_path / "one", 1.0)
    fake_run(tmp_path / "two", 1.0, epochs=2, task="TINY")
    fake_run(tmp_path / "three", 1.0, format="E3M4")
    monkeypatch.delitem(tasks.TASKS, "TINY")
    monkeypatch.delitem(settings.FORMAT_ARGUMENTS, "E3M4")
    assert results.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "'TINY' is none of PI_MNIST, MNIST" in out and "'E3M4' is none of FLP, HFLP" in out
    assert sum(line.startswith("left out: ") for line in out.splitlines()) == 2


def test_the_benchmark_measures_it():
    from utilities.benchmark_worker import Training

    network = model.Network("TINY", "E3M4", np.random.RandomState(0))
    training = Training(network, "TINY", together=1)
    training.first()
    assert training.train() > 0 and training.test() > 0
    assert benchmark_effort.effort("TINY") == benchmark_effort.Effort()
    json.dumps(training.facts())
