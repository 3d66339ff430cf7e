"""The figure of all formats: which runs it takes, and what it says of them."""

import pytest
from endings import status_of
from fake_runs import fake_run

from settings import FORMAT_ARGUMENTS, Settings
from utilities import formats_figure as figure

KNOWN = {
    "format": "DFXPR",
    "initial_range": 5,
    "range_update_frequency": 100,
    "max_overflow": 0.0001,
    "init_epochs": 2,
}


def test_every_format_is_wanted_once_a_width():
    wanted = figure.wanted()
    assert {own.format for own in wanted} == set(FORMAT_ARGUMENTS)
    assert next(iter(wanted)).format == "FLP" and len(wanted) == 7 + 4 * 4
    for own, bits in wanted.items():
        assert own.prop_bits == own.up_bits  # 31 where the format has a width of its own
        assert bits == own.prop_bits + 1 or "prop_bits" not in own.numbers


def test_it_is_drawn_as_far_as_there_are_runs(tmp_path, capsys):
    runs = tmp_path / "runs"
    fake_run(runs / "flp", 1.5, epochs=20)
    fake_run(runs / "flp2", 2.5, epochs=20, seed=2)
    for seed, error in ((1, 4.0), (2, 5.0)):
        widths = {"prop_bits": 7, "up_bits": 7}
        fake_run(runs / f"seed{seed}", error, epochs=20, seed=seed, **KNOWN, **widths)
    fake_run(runs / "nine", 3.0, epochs=20, prop_bits=9, up_bits=9, **KNOWN)
    fake_run(runs / "other", 9.0, epochs=20, prop_bits=9, up_bits=11, **KNOWN)  # two widths
    fake_run(runs / "e4m3", 3.0, epochs=20, format="E4M3")
    fake_run(runs / "long", 9.0, epochs=800, format="BF16")
    fake_run(runs / "stopped", 9.0, epochs=20, epoch=3, format="HFLP")
    out, table = tmp_path / "f.svg", tmp_path / "t.md"
    assert figure.main([str(runs), "-o", str(out), "--markdown", str(table)]) == 0
    said = capsys.readouterr().out
    assert table.read_text().splitlines()[2:] == [
        "| FLP | 32 | 2.00 | 1.00 | 2 |",
        "| DFXPR | 8 | 4.50 | 2.25 | 2 |",
        "| DFXPR | 10 | 3.00 | 1.50 | 1 |",
        "| E4M3 | 8 | 3.00 | 1.50 | 1 |",
    ]
    assert "stopped after epoch 3 of 20" in said
    assert "missing: main.py PI_MNIST HFLP --epochs 20" in said
    assert "missing: main.py PI_MNIST E5M2S 5 - - 100 0.0001 2 --epochs 20" in said
    assert said.count("missing") == len(figure.wanted()) - 4
    assert out.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("others", "wrong"),
    [([], "nothing to draw"), ([Settings("PI_MNIST", "E4M3")], "there is no run of PI_MNIST FLP")],
)
def test_without_flp_there_is_nothing_to_compare_with(others, wrong, tmp_path, capsys):
    fake_run(tmp_path / "runs/other", 1.0)
    for own in others:
        fake_run(tmp_path / "runs" / own.format, 1.0, epochs=20, format=own.format)
    assert status_of(figure.main, [tmp_path / "runs", "-o", tmp_path / "f.png"]) == 2
    err = capsys.readouterr().err
    assert wrong in err and err.count("\n") == 1 and not (tmp_path / "f.png").exists()
