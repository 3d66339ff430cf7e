"""The table that is made of finished runs."""

import csv
import shutil

import pytest
from fake_runs import DFXP, fake_run

from utilities import outcomes, results, results_table


def test_the_table(tmp_path, capsys):
    fake_run(tmp_path / "a" / "one", 1.0, seed=1)
    fake_run(tmp_path / "a" / "two", 1.2, seed=2)
    fake_run(tmp_path / "b", 1.5, epoch=30, **DFXP)
    fake_run(tmp_path / "c", 3.0, epochs=10, format="HFLP")
    fake_run(tmp_path / "d", 3.0, sample=True, format="HFLP")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "config.json").write_text("{}")
    markdown = tmp_path / "t.md"
    table = tmp_path / "t.csv"
    words = [str(tmp_path), "--markdown", str(markdown), "--csv", str(table)]
    assert results.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[1].split("  ") if cell.strip()] == [
        "main.py PI_MNIST FLP",
        "800",
        "1.10 ± 0.14",
        "1.05",
        "+0.05",
        "2",
        "cpu: cpu",
        "0.03",
    ]
    assert "stopped after 30 of 800" in lines[2] and "1.28" in lines[2]
    assert "+0.22" not in lines[2]
    assert sum(line.startswith("missing: ") for line in lines) == 14
    assert "missing: main.py PI_MNIST FXP 5 19 19" in lines
    assert sum(line.startswith("left out: ") for line in lines) == 2
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert float(rows[0]["error"]) == pytest.approx(1.1) and rows[0]["runs"] == "2"
    assert markdown.read_text().count("\n") == 2 + len(rows)


def test_runs_of_one_seed_count_as_one(tmp_path):
    """A figure's runs beside others of the same settings are no spread over seeds."""
    fake_run(tmp_path / "fig1", 1.0, seed=1)
    fake_run(tmp_path / "fig2", 1.2, seed=1)
    rows, _ = results_table.table(outcomes.collect([tmp_path])[0])
    assert (rows[0].error, rows[0].deviation, rows[0].runs) == (pytest.approx(1.1), None, 2)
    fake_run(tmp_path / "fig3", 1.5, seed=2)
    rows, _ = results_table.table(outcomes.collect([tmp_path])[0])
    assert (rows[0].error, rows[0].runs) == (pytest.approx(1.3), 3)
    assert rows[0].deviation == pytest.approx(0.4 / 2**0.5)


@pytest.mark.parametrize(
    ("config", "device"),
    [
        (
            {"machine": {"processor": "Xeon", "cores": 2, "threads": 1, "memory_gib": 15.6}},
            "Xeon, 2 cores (1 threads), 16 GiB",
        ),
        (
            {
                "device": "gpu: NVIDIA H100",
                "machine": {"processor": "Xeon", "cores": 16, "memory_gib": None},
            },
            "gpu: NVIDIA H100, Xeon, 16 cores",
        ),
        ({}, "cpu: cpu"),
        ({"machine": "a Xeon"}, "cpu: cpu"),
        ({"machine": {}, "device": 3}, "3"),
    ],
)
def test_the_device_is_named_as_far_as_it_is_known(config, device, tmp_path, capsys):
    fake_run(tmp_path / "run", 1.0, config=config)
    assert results.main([str(tmp_path)]) == 0
    assert f"  {device}  " in capsys.readouterr().out.splitlines()[1]


def test_errors_are_compared_with_those_of_floats_as_long(tmp_path, capsys):
    """Beside the paper's ratio, 0.59 / 0.51, however many the epochs are."""
    fake_run(tmp_path / "flp", 2.0, epochs=40, task="MNIST")
    fake_run(tmp_path / "flp2", 3.0, epochs=40, task="MNIST", seed=2)
    fake_run(tmp_path / "dfxp", 2.5, epochs=40, task="MNIST", **DFXP)
    fake_run(tmp_path / "other", 5.0, epochs=40, task="MNIST", **DFXP | {"prop_bits": 8})
    fake_run(tmp_path / "longer", 1.0, epochs=50, task="MNIST", **DFXP)
    fake_run(tmp_path / "stopped", 1.0, epochs=40, epoch=3, task="MNIST", format="HFLP")
    fake_run(tmp_path / "sample", 2.5, epochs=40, task="MNIST", sample=True, **DFXP)
    out = tmp_path / "t.csv"
    assert results.main([str(tmp_path), "--csv", str(out)]) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    found = {row["command"].removeprefix("main.py MNIST "): row for row in rows}
    ratios = {name: (row["ratio"], row["paper_ratio"]) for name, row in found.items()}
    assert ratios == {
        "FLP --epochs 40": ("", ""),
        "HFLP --epochs 40": ("", ""),
        "DFXP 5 8 11 100 0.0001 2 --epochs 40": ("2.0", ""),
        "DFXP 5 9 11 100 0.0001 2 --epochs 40": ("1.0", "1.156863"),
        "DFXP 5 9 11 100 0.0001 2 --epochs 50": ("", ""),
    }


def test_a_run_that_is_there_twice_is_one_run(tmp_path, capsys):
    fake_run(tmp_path / "a", 1.0)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    found, remarks = outcomes.collect([tmp_path, tmp_path / "a"])
    assert len(found) == 1 and len(remarks) == 2
    assert remarks[0] == f"{tmp_path / 'b'} is the same run as {tmp_path / 'a'}"


def test_runs_on_the_sample_and_on_real_data_do_not_mix(tmp_path, capsys):
    fake_run(tmp_path / "real" / "run", 1.0)
    fake_run(tmp_path / "sample" / "run", 1.0, sample=True)
    assert results.main(["--sample", str(tmp_path / "sample")]) == 0
    capsys.readouterr()
    for words in ([str(tmp_path / "sample")], [str(tmp_path / "real"), "--sample"]):
        assert results.main(words) == 2
        assert "nothing to show" in capsys.readouterr().err


def test_the_papers_errors_stand_beside_its_data_only(tmp_path, capsys):
    fake_run(tmp_path / "sample", 80.0, epochs=20, sample=True)
    own = {"data": {"t10k-images-idx3-ubyte": "another sum"}}
    fake_run(tmp_path / "own", 10.0, config=own)
    fake_run(tmp_path / "paper", 1.0)
    assert results.main([str(tmp_path), "--sample"]) == 0
    out = capsys.readouterr().out
    assert "main.py PI_MNIST FLP --epochs 20 --sample" in out and "20 (published: 800)" in out
    assert "paper: left empty beside runs on the generated sample" in out
    assert "1.05" not in out and "missing: " not in out
    assert results.main([str(tmp_path), "--csv", str(tmp_path / "t.csv")]) == 0
    out = capsys.readouterr().out
    assert "paper: left empty beside runs on the own data" in out
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    found = [(row["command"], row["error"], row["paper"], row["runs"]) for row in rows]
    assert found == [
        ("main.py PI_MNIST FLP", "1.0", "1.05", "1"),
        ("main.py PI_MNIST FLP (own data)", "10.0", "", "1"),
    ]


def test_different_data_of_one_kind_are_told_apart(tmp_path):
    for name, digits in (("one", "1"), ("two", "2")):
        data = {"t10k-images-idx3-ubyte": digits}
        fake_run(tmp_path / name, 10.0, sample=True, config={"data": data})
    collected, _ = outcomes.collect([tmp_path], sample=True)
    names = {outcome.data for outcome in collected}
    assert len(names) == 2 and all(name.startswith("generated sample ") for name in names)
    assert len(results_table.table(collected)[0]) == 2
