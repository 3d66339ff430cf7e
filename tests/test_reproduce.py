"""What is behind an item of the paper, and what is made of it."""

import json
import re
import shutil

import pytest
from small_network import SIZE, small_pi_mnist

import arguments
from files import load_npz
from utilities import figures, paper_figures, reproduce


@pytest.mark.parametrize("item", ["table", "fig1", "fig2", "fig3", "fig4"])
@pytest.mark.parametrize("scale", ["full", "small"])
def test_what_would_be_reproduced(item, scale, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert reproduce.main([item, "--scale", scale, "--dry-run"]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("waiting")]
    commands = [line.partition(" main.py ")[2].split() for line in lines]
    settings = [arguments.parse(words).settings for words in commands]
    assert settings == reproduce.wanted(item, small=scale == "small")
    assert len(set(settings)) == len(settings)
    assert ("small scale" in out) == (scale == "small") and "on 2 cores of " in out
    assert all(re.match(r"waiting +[0-9.]+ (minutes?|hours)  python main.py ", x) for x in lines)
    if scale == "full":
        assert all(s.epochs is None for s in settings)
    if item == "table":
        assert len(settings) == (16 if scale == "full" else 12)
    else:
        assert scale == "full" or {s.epochs for s in settings} == {20}
        figure = paper_figures.FIGURES[item]
        swept = [s for s in settings if figure.takes(s)]
        assert len({getattr(s, figure.swept) for s in swept}) >= 5
        assert [s.format for s in settings if s not in swept] == ["FLP"]
    assert list(tmp_path.iterdir()) == []


def test_the_small_table_is_the_one_that_results_has():
    runs = reproduce.wanted("table", small=True)
    assert {(s.task, s.epochs) for s in runs} == {
        ("PI_MNIST", None),
        ("MNIST", 40),
        ("CIFAR10", 10),
    }
    results = reproduce.BENCHMARK.parent
    found = {(s.task, s.format) for s in runs if (results / s.folder_name()).is_dir()}
    assert found == {(s.task, s.format) for s in runs}
    assert [s.epochs for s in reproduce.wanted("table", "SVHN", small=True)] == [1] * 4
    words = reproduce.shrunk("table", runs)
    assert "40 epochs of MNIST instead of 800" in words and "no SVHN" in words
    assert "PI_MNIST" not in words


def test_costs_add_up_and_unknown_ones_are_said(monkeypatch):
    """An hour has 3.6e6 ms: counts of batches and of images, by the medians of the benchmark."""
    (run,) = reproduce.wanted("table", "CIFAR10", small=True)[:1]
    report = json.loads(reproduce.BENCHMARK.read_text())
    row = next(r["formats"]["FLP"] for r in report["results"] if r["task"] == "CIFAR10")
    ms = row["ms_per_batch"]["median"] * 351 * 10 + row["ms_per_test_image"]["median"] * 15_000 * 11
    assert reproduce.Costs().hours(run) == pytest.approx(ms / 3.6e6)
    runs = reproduce.wanted("table", small=True)
    assert reproduce.cost(runs)[0] == pytest.approx(sum(map(reproduce.Costs().hours, runs)))
    monkeypatch.delitem(reproduce.EXAMPLES, "cifar10")
    assert reproduce.Costs().hours(run) is None
    assert [reproduce.duration(hours) for hours in (None, 0.001, 0.5, 1.25, 8.4)] == [
        "?",
        "1 minute",
        "30 minutes",
        "1.2 hours",
        "8 hours",
    ]


def test_reproduce_draws_what_it_trained(sample, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(reproduce.SMALL_EPOCHS, "PI_MNIST", 2)
    monkeypatch.setattr(reproduce, "RANGES", ((), (4, 5)))
    words = ["fig1", "--scale", "small", "--sample", "--data", str(sample)]
    with small_pi_mnist():
        assert reproduce.main([*words, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "2 epochs of PI_MNIST instead of 800" in out and str(tmp_path / "fig1.png") in out
    assert (tmp_path / "fig1.svg").exists() and len(list(tmp_path.glob("PI_MNIST_*"))) == 3
    flp = tmp_path / "PI_MNIST_FLP_epochs2_sample"
    assert load_npz(flp / "final.npz")["layer0/W"].shape == (784, SIZE["units"] * SIZE["pieces"])
    # The pictures that need parameters, of a run that has them.
    assert figures.main(["filters", str(flp), "-o", str(tmp_path / "filters.png")]) == 0
    assert figures.main(["curves", str(flp), "-o", str(tmp_path / "curves.png")]) == 0
    shutil.rmtree(flp)
    capsys.readouterr()
    assert figures.main([str(tmp_path), "--sample", "-o", str(tmp_path / "again")]) == 2
    assert "no FLP run of PI_MNIST" in capsys.readouterr().out


def test_ranges_that_cannot_move_are_mentioned_first_and_once(
    sample, tmp_path, capsys, monkeypatch
):
    """An epoch of the sample has 20 batches, the published frequency is 100."""
    monkeypatch.setitem(reproduce.SMALL_EPOCHS, "PI_MNIST", 1)
    for widths in (reproduce.PROP_BITS, reproduce.UP_BITS):
        for number_format in widths:
            monkeypatch.setitem(widths, number_format, ((), (8, 9)))
    words = ["fig2", "--scale", "small", "--sample", "--data", str(sample), "--out", str(tmp_path)]
    warning = "with RANGE_UPDATE_FREQ 100 the ranges never move"
    assert reproduce.main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.count(warning) == 1
    with small_pi_mnist():
        assert reproduce.main(words) == 0
    out = capsys.readouterr().out
    assert out.count(warning) == 1 and out.index(warning) < out.index("running")
    assert "(2 of 5 runs)" in out and "errors say nothing about the paper's" in out


def test_the_cost_of_the_sample_is_that_of_the_sample():
    runs = reproduce.wanted("fig2", small=True)
    real, sample = (reproduce.cost(runs, sample)[0] for sample in (False, True))
    assert 0 < sample < real / 20
