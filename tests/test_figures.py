"""Pictures."""

import json

import numpy as np
import pytest
from endings import status_of
from fake_runs import DFXP, fake_run

from files import write_npz
from utilities import figures, outcomes, paper_figures, pictures


def test_filters_are_tiled_in_order_and_scaled():
    W = np.zeros((3, 3, 2, 2), "float32")
    W[0, 0] = 2.0  # all red, at its own maximum
    W[1, 2, 0, 0] = -0.5
    picture = pictures.tile(W)
    assert picture.shape == (5, 5, 3)
    assert (picture[:2, :2] == [1.0, 0.5, 0.5]).all()
    assert (picture[0, 3] == [0.5, 0.5, 0.0]).all() and (picture[1, 4] == 0.5).all()
    assert (picture[3:5, :2] == 0.5).all() and (picture[2] == 1.0).all()
    assert pictures.tile(np.ones((784, 4), "float32")).shape == (57, 57, 3)


def test_pictures_of_a_run(tmp_path):
    fake_run(tmp_path / "flp", 2.0)
    fake_run(tmp_path / "dfxp", 2.0, **DFXP)
    W = np.random.default_rng(0).normal(size=(784, 6)).astype("float32")
    write_npz(tmp_path / "flp" / "best.npz", {"layer0/W": W})
    curves = tmp_path / "deep" / "curves.png"
    filters = tmp_path / "filters.png"
    ranges = tmp_path / "ranges.svg"
    runs = [str(tmp_path / "flp"), str(tmp_path / "dfxp")]
    assert figures.main(["curves", *runs, "-o", str(curves)]) == 0
    assert figures.main(["filters", runs[0], "-o", str(filters)]) == 0
    assert figures.main(["ranges", runs[1], "-o", str(ranges)]) == 0
    for path in (curves, filters):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert ranges.read_text().startswith("<?xml")


def test_ranges_of_a_run_that_has_only_begun(tmp_path):
    fake_run(tmp_path / "run", 2.0, epoch=0, **DFXP)
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")  # no overflow rates yet
    out = tmp_path / "ranges.png"
    assert figures.main(["ranges", str(tmp_path / "run"), "-o", str(out)]) == 0
    assert out.exists()


@pytest.mark.parametrize("kind", ["curves", "filters", "ranges"])
def test_a_folder_without_a_run_gives_one_line(kind, tmp_path, capsys):
    words = [kind, tmp_path / "nothing", "-o", tmp_path / "x.png"]
    assert status_of(figures.main, words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_drawn_gives_one_line(tmp_path, capsys):
    fake_run(tmp_path / "flp", 2.0)
    fake_run(tmp_path / "sample", 2.0, sample=True)
    fake_run(tmp_path / "curves" / "run", 2.0)
    write_npz(tmp_path / "flp" / "best.npz", {"layer0/W": np.zeros((3, 2, 5, 5), "float32")})
    run = str(tmp_path / "flp")
    for words in (
        [run],
        [str(tmp_path / "sample")],
        ["ranges", run],
        ["curves", str(tmp_path / "curves")],
        [str(tmp_path / "out")],
        ["filters", run],  # two channels
        ["filters", str(tmp_path / "sample")],  # no parameters
        ["curves", run, "-o", "x.doc"],
        ["curves"],
        [],
    ):
        assert status_of(figures.main, words) == 2
        assert capsys.readouterr().err.count("\n") == 1, words


def test_lines_of_the_papers_figures(tmp_path):
    fake_run(tmp_path / "flp", 2.0, epochs=20)
    fxp = {"format": "FXP", "initial_range": 5, "up_bits": 31}
    for i, (bits, error) in enumerate(((9, 8.0), (19, 2.2), (19, 2.6))):
        fake_run(tmp_path / f"fxp{i}", error, epochs=20, prop_bits=bits, seed=i, **fxp)
    for bits in (9, 10):
        own = DFXP | {"prop_bits": bits, "up_bits": 31}
        fake_run(tmp_path / f"dfxp{bits}", 3.0, epochs=20, **own)
    fake_run(tmp_path / "longer", 1.0, epochs=30, prop_bits=12, seed=9, **fxp)
    collected, _ = outcomes.collect([tmp_path])
    lines, without = paper_figures.lines_of(paper_figures.FIGURES["fig2"], collected)
    by_format = {rest.format: points for rest, points in lines.items()}
    points = by_format["FXP"]
    assert [(p.x, round(p.mean, 6), p.runs) for p in points] == [(9, 4.0, 1), (19, 1.2, 2)]
    assert points[1].deviation == pytest.approx(0.2 / 2**0.5)
    assert [(p.x, p.mean) for p in by_format["DFXP"]] == [(9, 1.5), (10, 1.5)]
    assert without == ["PI_MNIST"]  # of the run that is longer


def test_figures_that_there_are_runs_for_are_drawn(tmp_path, capsys):
    fake_run(tmp_path / "runs" / "flp", 2.0)
    for bits in (8, 9, 10):
        own = DFXP | {"prop_bits": bits, "up_bits": 31}
        fake_run(tmp_path / "runs" / str(bits), 20.0 / bits, **own)
    for rate in (0.0, 0.1):  # as bad as a network that learns nothing
        own = DFXP | {"max_overflow": rate}
        fake_run(tmp_path / "runs" / f"rate{rate}", 2.0 + 800 * rate, **own)
    fake_run(tmp_path / "runs" / "stopped", 2.0, epoch=3, format="HFLP")
    assert figures.main([str(tmp_path / "runs"), "-o", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"fig2.png", "fig2.svg", "fig4.png", "fig4.svg"}
    assert "fig1: there are not two runs to draw" in out
    assert "stopped after epoch 3 of 800, left out" in out


def test_training_errors_are_drawn_where_they_are_known(tmp_path):
    for name, known in (("old", False), ("new", True)):
        fake_run(tmp_path / name, 2.0)
        metrics = tmp_path / name / "metrics.jsonl"
        records = [json.loads(line) for line in metrics.read_text().splitlines()]
        for record in records[1:] if known else []:
            record["training_error"] = None if record["epoch"] == 1 else 0.5
        metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
        out = tmp_path / f"{name}.svg"
        assert figures.main(["curves", str(tmp_path / name), "-o", str(out)]) == 0
        assert ("training" in out.read_text()) == known


def test_what_a_figure_is_of_is_written_into_it(tmp_path, capsys):
    """Epochs fewer than published, other data, ranges that have never moved."""
    fake_run(tmp_path / "flp", 2.0, epochs=20, sample=True)
    for bits in (8, 9):
        own = DFXP | {"prop_bits": bits, "up_bits": 31}
        fake_run(tmp_path / str(bits), 3.0, epochs=20, sample=True, **own)
    metrics = tmp_path / "8" / "metrics.jsonl"
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    still = [record | {"ranges": records[0]["ranges"]} for record in records]
    metrics.write_text("".join(json.dumps(record) + "\n" for record in still))
    collected, _ = outcomes.collect([tmp_path], sample=True)
    heading = paper_figures.title(paper_figures.FIGURES["fig2"], collected)
    assert heading.splitlines() == [
        "generated sample, not the paper's data",
        "PI MNIST: 20 epochs instead of 800",
        "too short epochs: ranges never moved in 1 of 2 DFXP runs",
    ]
    assert figures.main([str(tmp_path), "--sample", "-o", str(tmp_path / "out")]) == 0


def test_runs_on_different_data_are_not_drawn_in_one_figure(tmp_path, capsys):
    fake_run(tmp_path / "flp", 2.0)
    for bits, data in ((8, {}), (9, {"train-images-idx3-ubyte": "another sum"})):
        own = DFXP | {"prop_bits": bits, "up_bits": 31}
        fake_run(tmp_path / str(bits), 3.0, config={"data": data}, **own)
    assert figures.main([str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "fig2: its runs are on different data" in capsys.readouterr().err


def test_labels_name_the_data_and_tell_runs_apart(tmp_path):
    for name, sample in (("one", False), ("two", False), ("three", True)):
        fake_run(tmp_path / name, 2.0, sample=sample)
    runs = [pictures.existing(tmp_path / name) for name in ("one", "two", "three")]
    assert pictures.labels(runs) == [
        f"PI_MNIST FLP in {tmp_path / 'one'}",
        f"PI_MNIST FLP in {tmp_path / 'two'}",
        "PI_MNIST FLP (generated sample)",
    ]


def test_a_single_epoch_and_an_error_of_nought_are_seen(tmp_path, monkeypatch):
    """A line of one point needs a marker, and no logarithm has a place for 0 %."""
    fake_run(tmp_path / "begun", 2.0, epoch=0)
    metrics = tmp_path / "begun" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    fake_run(tmp_path / "perfect", 0.0)
    drawn = []
    monkeypatch.setattr(pictures, "save", lambda plt, figure, out: drawn.append(figure))
    for name in ("begun", "perfect"):
        pictures.curves([tmp_path / name], tmp_path / "c.png")
    begun, perfect = (figure.axes[0] for figure in drawn)
    assert all(line.get_marker() == "o" for line in begun.lines) and begun.get_yscale() == "log"
    assert perfect.get_yscale() == "linear"
    for figure in drawn:
        pictures.pyplot().close(figure)


def test_a_damaged_run_is_no_reason_to_train_elsewhere(tmp_path, capsys):
    """What RunFolder advises whoever wants to train in it does not help here."""
    fake_run(tmp_path / "run", 2.0)
    (tmp_path / "run" / "config.json").write_text("{}")
    for words in (["curves", str(tmp_path / "run")], [str(tmp_path)]):
        assert figures.main([*words, "-o", str(tmp_path / "x.png")]) == 2
        err = capsys.readouterr().err
        assert "config.json cannot be read" in err and "--out" not in err and "remove" not in err
