"""docs/formats.md: its example, from its own text, and its formats through every program."""

import re

import numpy as np
import pytensor.tensor as pt
import pytest
from compiling import run
from conftest import ROOT
from endings import status_of

import format as number_formats
import main
import model
import settings
from files import load_npz
from format import FORMATS
from layers import Softmax
from settings import FORMAT_ARGUMENTS, PAPER
from utilities import evaluate, export, integer_network
from xla.program_cache import PROGRAMS

PAGE = (ROOT / "docs/formats.md").read_text()
LINES = {
    "DFXPR": "5 9 11 2 0.0001 1",
    "E5M2S": "5 - - 2 0.0001 1",
    "E4M3": "",
    "TFXP": "5 9 11 2 0.0001 1",
}


def softmax(**common):
    """A network of one layer, which is compiled soon."""
    return [Softmax("layer0", inputs=784, classes=10, **model.FIRST, **common)]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The page's two pieces of code, as if they stood where it puts them."""
    pieces = re.findall(r"In `(\w+)\.py`.*?```python\n(.*?)```", PAGE, re.DOTALL)
    assert [name for name, _ in pieces] == ["format", "settings"]
    with pytest.MonkeyPatch.context() as patch:
        # No program that is cached under the modules as they are.
        patch.setattr(PROGRAMS, "folder", tmp_path_factory.mktemp("programs"))
        patch.setitem(FORMATS, "TFXP", None)
        patch.setitem(FORMAT_ARGUMENTS, "TFXP", None)
        patch.setitem(model.NETWORKS, "PI_MNIST", softmax)
        for (_, text), module in zip(pieces, (number_formats, settings), strict=True):
            exec(text, dict(vars(module)))
        assert len(pieces[0][1].splitlines()) <= 20
        yield FORMATS["TFXP"]


def test_the_example_cuts_bits_off(example):
    x = np.random.RandomState(0).normal(size=500).astype("float32") * 3
    x = np.concatenate([x, np.float32([np.inf, -np.inf, np.nan, 2, -2, 1.999])])
    expected = np.clip(np.floor(x * 2.0**8), -(2.0**9), 2.0**9 - 1) / 2.0**8
    nob, noib = np.int32(9), np.int32(1)
    np.testing.assert_array_equal(run(example.quantize, x, nob, noib), expected)
    largest = run(lambda nob, noib: example.largest(pt.stack([nob]), pt.stack([[noib]])), nob, noib)
    assert largest == np.nanmax(expected) == 2 - 2.0**-8


@pytest.fixture(scope="module")
def runs(example, sample, tmp_path_factory):
    """A run of two epochs in each format."""
    folder = tmp_path_factory.mktemp("runs")
    for name, numbers in LINES.items():
        words = ["PI_MNIST", name, *numbers.split(), "--epochs", "2", "--sample"]
        assert main.main([*words, "--data", str(sample), "--out", str(folder / name)]) == 0
    return folder


@pytest.mark.parametrize("name", LINES)
def test_a_run_is_stored_in_its_format_and_evaluated(name, runs, sample, capsys):
    arrays = load_npz(runs / name / "final.npz")
    W = arrays["layer0/W"]
    if name == "E4M3":
        np.testing.assert_array_equal(run(lambda x: FORMATS[name].quantize(x, None, None), W), W)
        assert "layer0/ranges" not in arrays
    else:
        noib = arrays["layer0/ranges"][4]
        assert (arrays["layer0/ranges"] != 5).any()
        if name == "E5M2S":
            scaled = W * 2.0 ** (16.0 - noib)
            quantize = FORMATS["E5M2"].quantize
            np.testing.assert_array_equal(run(lambda x: quantize(x, None, None), scaled), scaled)
        else:
            steps = W * 2.0 ** (12.0 - noib)  # the range may have moved after the last batch
            np.testing.assert_array_equal(steps, np.rint(steps))
    assert evaluate.main([str(runs / name), "--data", str(sample)]) == 0
    assert "in every digit the recorded one" in capsys.readouterr().out


def test_random_fixed_point_is_exported(runs, sample, tmp_path, capsys):
    out = tmp_path / "out"
    assert export.main([str(runs / "DFXPR"), "-o", str(out), "--data", str(sample)]) == 0
    read = integer_network.read(out)
    W = load_npz(runs / "DFXPR" / "best.npz")["layer0/W"]
    exponent = read.manifest["layers"][0]["tensors"]["W"]["exponent"]
    np.testing.assert_array_equal(read.weights["layer0/W"] * 2.0**exponent, W)
    z, y = (off for _, off in integer_network.differences(read))
    assert abs(z).max() <= 1 and (z == 0).mean() > 0.99 and abs(y).max() <= 1


@pytest.mark.parametrize("name", ["E4M3", "E5M2S", "TFXP"])
def test_export_says_what_it_does_not_serve(name, runs, tmp_path, capsys):
    capsys.readouterr()
    assert status_of(export.main, [str(runs / name), "-o", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert f"is in {name}: only FXP, DFXP, FXPR, DFXPR, HFLP" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_page_has_every_format():
    table = [line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| ")]
    assert set(table) >= set(FORMATS) - {"TFXP"}
    assert list(FORMATS)[:4] == list(PAPER) and set(FORMATS) == set(FORMAT_ARGUMENTS)
    for line in re.findall(r"    python (main.py PI_MNIST (?!TFXP).*)", PAGE):
        words = line.split()[1:]
        assert main.parse(words).settings.command() == ["main.py", *words]
