"""Pictures."""

import json

import matplotlib
import numpy as np
import pytest
from endings import status_of
from fake_runs import DFXP, change, fake_run

from files import write_npz
from format import SIGNALS
from settings import Settings
from utilities import (
    figures,
    filter_pictures,
    learning_curves,
    naming,
    outcomes,
    paper_figures,
    pictures,
    range_pictures,
)

# Of red, green and blue in grey, by their places in "#rrggbb".
LIGHT = ((1, 0.299), (3, 0.587), (5, 0.114))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, instead of their files."""
    figures_drawn = []
    for module in (figures, paper_figures):
        monkeypatch.setattr(module, "save", lambda figure, *paths: figures_drawn.append(figure))
    yield figures_drawn
    for figure in figures_drawn:
        pictures.pyplot().close(figure)


def words_in(axes):
    """What is written into a panel, beside its axes."""
    return [text.get_text() for text in axes.texts]


def test_filters_are_tiled_in_order_and_scaled():
    W = np.zeros((3, 3, 2, 2), "float32")
    W[0, 0] = 2.0  # all red
    W[1, 2, 0, 0] = -0.5
    each = filter_pictures.tile(W)  # two rows of two would be one of three here
    assert each.shape == (2, 8, 3)
    assert (each[:2, :2] == [1.0, 0.5, 0.5]).all()
    assert (each[0, 3] == [0.5, 0.5, 0.0]).all() and (each[1, 4] == 0.5).all()
    assert (each[:2, 6:] == 0.5).all() and (each[:, 2] == 1.0).all()
    one = filter_pictures.tile(W, largest=1.0)
    assert (one[:2, :2] == [1.0, 0.5, 0.5]).all()  # and no more
    assert (one[0, 3] == [0.5, 0.5, 0.25]).all()


def test_filters_are_few_and_say_their_scale(tmp_path, drawn):
    fake_run(tmp_path / "run", 2.0)
    W = np.random.default_rng(0).normal(size=(784, 1200)).astype("float32")
    write_npz(tmp_path / "run" / "best.npz", {"layer0/W": W})
    words = ["filters", str(tmp_path / "run"), "-o", "x.png"]
    for options, said in (
        ([], "the first 60 of 1200 filters; grey 0, white from 2.8, black from -2.8 on"),
        (["--count", "7", "--scale", "each"], "the first 7 of 1200 filters; grey 0, each on its"),
    ):
        assert figures.main([*words, *options]) == 0
        assert said in drawn[-1].axes[0].get_title(loc="left")
    assert status_of(figures.main, [*words, "--count", "0"]) == 2
    drawn.append(filter_pictures.filters(outcomes.run_in(tmp_path / "run"), filter_pictures.MOST))
    for figure in drawn:  # noise, which no other filters are worse to compress than
        assert len(pictures.compact(figure, ".png")) < 300_000


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


def test_a_matplotlibrc_beside_the_runs_changes_no_picture(tmp_path, monkeypatch):
    fake_run(tmp_path / "flp", 2.0)
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 20\naxes.facecolor: red\n")
    for name in ("clean.svg", "hostile.svg"):
        if name == "hostile.svg":  # as it is read where matplotlib is loaded
            monkeypatch.chdir(tmp_path)
            matplotlib.rc_file(matplotlib.matplotlib_fname())
        assert figures.main(["curves", str(tmp_path / "flp"), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "hostile.svg").read_bytes() == (tmp_path / "clean.svg").read_bytes()


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
    fake_run(tmp_path / "strange", 2.0, **DFXP)
    change(tmp_path / "strange", lambda r: r | {"ranges": [[1, 2]]})
    write_npz(tmp_path / "flp" / "best.npz", {"layer0/W": np.zeros((3, 2, 5, 5), "float32")})
    run = str(tmp_path / "flp")
    for words in (
        [run],
        [str(tmp_path / "sample")],
        ["ranges", run],
        ["ranges", str(tmp_path / "strange")],
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
    figure, floats = paper_figures.FIGURES["fig2"], paper_figures.baselines_of(collected)
    lines = paper_figures.lines_of(figure, collected, floats)
    without = paper_figures.without_floats(figure, collected, floats)
    by_format = {rest.format: points for rest, points in lines.items()}
    points = by_format["FXP"]
    assert [(p.x, round(p.mean, 6), len(p.errors)) for p in points] == [(9, 4.0, 1), (19, 1.2, 2)]
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
    lines = out.splitlines()
    assert f"left out: {tmp_path}/runs/stopped was stopped after epoch 3 of 800" in lines


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
    assert "fig2: its runs are on different data" in capsys.readouterr().out


def test_names_are_what_differs_and_the_folder_if_nothing_does(tmp_path):
    own = [
        Settings("PI_MNIST", "FLP"),
        Settings("PI_MNIST", **DFXP),
        Settings("PI_MNIST", **DFXP | {"prop_bits": 10, "max_overflow": 0.001}),
        Settings("PI_MNIST", **DFXP, seed=7),
    ]
    assert naming.names(own) == [
        "FLP",
        "DFXP, propagation bits 9, overflow 0.0001, seed 1234",
        "DFXP, propagation bits 10, overflow 0.001, seed 1234",
        "DFXP, propagation bits 9, overflow 0.0001, seed 7",
    ]
    assert naming.names(own[1::2]) == ["seed 1234", "seed 7"]
    assert naming.names(own[1:3], "prop_bits") == ["overflow 0.0001", "overflow 0.001"]
    assert naming.names([Settings("MNIST", "FLP"), own[0]]) == ["MNIST", "PI MNIST"]
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    names = naming.with_folders(["FLP", "FLP", "HFLP"], folders)
    assert names == [f"FLP in {folders[0]}", f"FLP in {folders[1]}", "HFLP"]


def test_curves_of_a_folder_a_panel_a_data_set(tmp_path, drawn, capsys):
    """From the first epoch on, with names at the ends, one colour a format."""
    fake_run(tmp_path / "runs" / "a", 2.0, **DFXP)
    fake_run(tmp_path / "runs" / "b", 2.5, **DFXP, seed=7)
    fake_run(tmp_path / "runs" / "c", 3.0, format="FLP")
    fake_run(tmp_path / "runs" / "d" / "$x$", 1.0, sample=True)  # no formula
    fake_run(tmp_path / "runs" / "e", 1.0, epochs=40, task="MNIST")
    fake_run(tmp_path / "runs" / "f", 1.5, sample=True)
    (tmp_path / "runs" / "g").mkdir()
    (tmp_path / "runs" / "g" / "config.json").write_text("{}")
    for name in "abc":
        change(tmp_path / "runs" / name, lambda r: r | ({} if r["epoch"] else {"test_error": 90.0}))
    assert figures.main(["curves", str(tmp_path / "runs"), "-o", str(tmp_path / "c.png")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and out[1].startswith(f"left out: {tmp_path}/runs/g/config.json cannot")
    panels = drawn[0].axes
    titles = [panel.get_title(loc="left") for panel in panels]
    assert titles == [
        "PI MNIST",
        "PI MNIST FLP, generated sample",
        "MNIST FLP --epochs 40, 40 epochs instead of 800",
    ]
    assert words_in(panels[0]) == [
        "FLP, 3.00 %",
        "DFXP, seed 1234, 2.00 %",
        "DFXP, seed 7, 2.50 %",
    ]
    assert any(f"in {tmp_path}/runs/d/$x$" in text for text in words_in(panels[1]))
    assert "validation" in words_in(panels[2])
    flp, one, other = (text.get_color() for text in panels[0].texts)
    assert one == other == pictures.styles(["DFXP"])[0].text and flp != one
    assert all(line.get_xdata()[0] >= 1 for line in panels[0].lines)
    assert panels[0].get_ylim()[1] < 10
    assert len(pictures.compact(drawn[0], ".png")) < 300_000


def test_a_format_has_one_colour_whatever_is_before_it():
    alone = pictures.styles(["DFXP"])
    among = pictures.styles(["FXP", "FLP", "DFXP", "DFXP", "FXP", "HFLP"])
    assert among[2] == alone[0] and among[3].text == alone[0].text
    assert among[3].colour != alone[0].colour
    colours = {style.text for style in among}
    assert len(colours) == 4
    # In grey as well, by dash where lightness is near.
    light = sorted(sum(int(c[i : i + 2], 16) * w for i, w in LIGHT) / 255 for c in colours)
    assert min(np.diff(light)) > 0.1
    assert len({(style.dash, style.marker) for style in among}) >= 4


def test_lines_are_smoothed_from_the_first_value_on():
    values = np.r_[10.0, np.tile([1.0, 3.0], 300)]
    line = learning_curves.smoothed(values)
    assert line[0] == 10.0 and abs(line[300:-10] - 2).max() < 0.1
    assert (learning_curves.smoothed(values[:40]) == values[:40]).all()
    known = np.array([np.nan, 2.0, np.nan])
    assert np.array_equal(learning_curves.smoothed(known), known, equal_nan=True)


def test_names_at_ends_keep_apart_in_their_order():
    places = pictures.spread(np.array([0.5, 0.1, 0.5, 0.52]), 0.1)
    assert list(np.argsort(places, kind="stable")) == [1, 0, 2, 3]
    assert np.diff(np.sort(places)).min() > 0.1 - 1e-9 and places[1] == 0.1
    assert abs(places[[0, 2, 3]].mean() - 0.5066) < 0.01


def test_a_single_epoch_and_an_error_of_nought_are_seen(tmp_path, drawn):
    """A line of one point needs a marker, and no logarithm has a place for 0 %."""
    fake_run(tmp_path / "begun", 2.0, epoch=0)
    change(tmp_path / "begun", lambda r: None if r["epoch"] else r)
    fake_run(tmp_path / "perfect", 0.0)
    for name in ("begun", "perfect"):
        figures.draw_curves([tmp_path / name], tmp_path / "c.png")
    begun, perfect = (figure.axes[0] for figure in drawn)
    assert all(line.get_marker() != "None" for line in begun.lines)
    assert begun.get_yscale() == "log" and perfect.get_yscale() == "linear"


@pytest.mark.parametrize("last", [1, 2, 5])
def test_epochs_are_whole(last, tmp_path, drawn):
    fake_run(tmp_path / "run", 2.0, epochs=last, **DFXP)
    figures.draw_curves([tmp_path / "run"], tmp_path / "c.png")
    assert figures.main(["ranges", str(tmp_path / "run"), "-o", "r.png"]) == 0
    for figure in drawn:
        for axes in figure.axes:
            assert all(tick == int(tick) for tick in axes.get_xticks())


def test_equal_ranges_run_side_by_side_and_all_have_a_name(tmp_path, drawn):
    fake_run(tmp_path / "run", 2.0, epochs=4, **DFXP)
    change(tmp_path / "run", lambda r: r | {"ranges": [[3] * 9 + [-1]] * 3})
    assert figures.main(["ranges", str(tmp_path / "run"), "-o", "r.png"]) == 0
    above, below = drawn[0].axes[0], drawn[0].axes[3]
    lines = np.array([line.get_ydata() for line in above.lines])
    apart = np.diff(np.sort(lines[:9], axis=0), axis=0) * range_pictures.HEIGHTS[0] * 72
    assert (apart / np.ptp(above.get_ylim()) >= 1).all()  # points, at README size pixels
    assert abs(lines[:9].mean() - 3) < 1e-9 and (lines[9] == -1).all()
    assert words_in(above) == list(SIGNALS)
    assert words_in(below) == ["limit 0.01 %"]


def test_points_without_neighbours_get_markers(drawn):
    axes = pictures.pyplot().figure().add_subplot()
    drawn.append(axes.figure)
    line = pictures.plot(axes, np.arange(5), np.array([1.0, np.nan, 2.0, 3.0, np.nan]))
    assert line.get_marker() == "." and line.get_markevery() == [0]
    assert pictures.plot(axes, np.arange(2), np.ones(2)).get_marker() == "None"


def test_any_number_can_be_drawn(tmp_path, drawn, capsys):
    """That of the sweep which docs/running.md begins with: it has no FLP runs."""
    for seed in (1, 2):
        for bits, error in ((5, 9.0), (9, 2.0), (12, 1.0)):
            own = DFXP | {"prop_bits": bits}
            fake_run(tmp_path / f"{bits}_{seed}", error * seed, epochs=2, seed=seed, **own)
    words = ["swept", "PROP_BITS", str(tmp_path), "-o", "s.png"]
    assert figures.main(words) == 0
    assert "no FLP run of PI_MNIST" in capsys.readouterr().out
    fake_run(tmp_path / "flp", 2.0, epochs=2)
    assert figures.main(words) == 0
    assert capsys.readouterr().out == "s.png\n"
    percent, ratio = (figure.axes[0] for figure in drawn)
    assert percent.get_ylabel() == "test error (%)" and "over" not in ratio.get_ylabel()
    assert list(percent.lines[0].get_ydata()) == [13.5, 3.0, 1.5]
    assert list(ratio.lines[0].get_ydata()) == [6.75, 1.5, 0.75]
    assert "means of 2 seeds" in ratio.get_title(loc="left")
    assert status_of(figures.main, ["swept", "SEED", str(tmp_path)]) == 2
    assert status_of(figures.main, ["swept", "UP_BITS", str(tmp_path), "-o", "s.png"]) == 2


def test_the_papers_knees_and_the_spread_over_seeds_are_drawn(tmp_path, drawn, capsys):
    for seed in (1, 2):
        fake_run(tmp_path / f"flp{seed}", 2.0 + 0.1 * seed, seed=seed)
        for bits in (8, 9):
            own = DFXP | {"prop_bits": bits, "up_bits": 31, "seed": seed}
            fake_run(tmp_path / f"{bits}_{seed}", 3.0 + seed, **own)
            for rate in (0.0, 0.01):  # lines of figure 4, not of figure 2
                other = own | {"max_overflow": rate}
                fake_run(tmp_path / f"{bits}_{seed}_{rate}", 9.0, **other)
    assert figures.main([str(tmp_path), "-o", "out"]) == 0
    fig2, fig4 = (figure.axes[0] for figure in drawn)
    assert words_in(fig2) == ["FLP", "paper: 9", "DFXP"]
    assert words_in(fig4) == ["FLP", "propagation bits 8", "propagation bits 9"]
    assert fig2.containers[0].has_yerr and fig2.patches  # of FLP
    assert "fig2: left out: 2 lines with other numbers than the paper's" in capsys.readouterr().out


def test_what_was_left_out_is_a_list(tmp_path, capsys):
    for name in ("one", "two"):
        fake_run(tmp_path / name, 1.0, sample=True)
    for words in (["curves", str(tmp_path / "one")], [str(tmp_path)]):
        figures.main([*words, "-o", str(tmp_path / "x.png")])
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert f"left out: {tmp_path}/two was trained on the generated sample" in lines
    assert captured.err.count("\n") == 1


def test_a_damaged_run_is_no_reason_to_train_elsewhere(tmp_path, capsys):
    """What RunFolder advises whoever wants to train in it does not help here."""
    fake_run(tmp_path / "run", 2.0)
    (tmp_path / "run" / "config.json").write_text("{}")
    for words in (["curves", str(tmp_path / "run")], [str(tmp_path)]):
        assert figures.main([*words, "-o", str(tmp_path / "x.png")]) == 2
        err = capsys.readouterr().err
        assert "config.json cannot be read" in err and "--out" not in err and "remove" not in err
