"""What a run knows of its code, and what happens when that has changed."""

import dataclasses
import functools
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from small_network import SIZE, small_pi_mnist

import main
import model
from files import load_npz, write_npz
from records import code
from tasks import TASKS
from utilities import sweep

# What training imports besides, in which a change can change no result: errors, files and words,
# the records, and settings, which are compared by their values.
NO_MATTER = (
    "datasets/array_cache.py",
    "datasets/digits.py",
    "datasets/downloads.py",
    "datasets/manifest.py",
    "datasets/progress.py",
    "datasets/reading.py",
    "datasets/sample.py",
    "datasets/source.py",
    "errors.py",
    "files.py",
    "locks.py",
    "paths.py",
    "settings.py",
    "xla/program_cache.py",
    "xla/program_files.py",
)
IMPORTED = """
import json, sys
import trainer
from records import follow
print(json.dumps([getattr(m, "__file__", None) for m in list(sys.modules.values())]))
"""
MODULE = b'''"""About it."""

import numpy as np
from xla import ops as o

RATE = 0.5  # published


def step(x, *, by: int = 1) -> int:
    """What it does."""
    # one more
    return x + by * RATE


class Layer:
    """A layer."""

    units = 3
'''


@pytest.fixture(autouse=True, scope="module")
def small():
    with small_pi_mnist():
        yield


@pytest.fixture
def line(sample, tmp_path):
    """line(epochs): the command line of a small run of four epochs."""

    def words(stop, *more):
        options = f"--epochs 4 --data {sample} --sample --out {tmp_path / 'run'}"
        return ["PI_MNIST", "FLP", *options.split(), "--stop-after", str(stop), *more]

    return words


def changed(monkeypatch, name, old, new):
    """As if a source had another text."""
    text = code.TEXTS[name]
    assert old in text
    monkeypatch.setattr(code, "TEXTS", {**code.TEXTS, name: text.replace(old, new)})
    code.texts_digest.cache_clear()
    code.definitions.cache_clear()


@pytest.fixture(autouse=True)
def own_texts(monkeypatch):
    yield
    monkeypatch.undo()
    code.texts_digest.cache_clear()
    code.definitions.cache_clear()


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def records_of(folder):
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_sources_are_what_training_imports():
    """A module that is missing from SOURCES would let changed code pass for the old."""
    output = subprocess.check_output([sys.executable, "-c", IMPORTED], cwd=ROOT, text=True)
    files = [Path(name) for name in json.loads(output) if name]
    names = {
        str(path.relative_to(ROOT))
        for path in files
        if path.is_relative_to(ROOT) and ".venv" not in path.parts
    }
    others = {name for name in names if name.startswith("records/")} | set(NO_MATTER)
    assert names - others == set(code.SOURCES)
    assert not set(code.SOURCES) & others and others <= names


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"  # published", b""),
        (b'    """What it does."""\n    # one more\n', b""),
        (b"x + by * RATE", b"(x\n        + by * RATE)"),
        (b"by: int = 1) -> int", b"by=1)"),
        (b"\n\nclass", b"class"),
        (b"from xla import ops as o", b"from xla.other import ops as o"),
        (b'"""About it."""', b""),
    ],
)
def test_comments_words_and_layout_are_no_change(old, new):
    assert old in MODULE
    there = code.definitions_of("a.py", MODULE)
    assert set(there) == {"a.np", "a.o", "a.RATE", "a.step", "a.Layer"}
    here = {"task": {}, "definitions": code.definitions_of("b/c.py", MODULE.replace(old, new))}
    assert code.difference({"task": {}, "definitions": there}, here) == ""
    assert code.digest(here) == code.digest({"definitions": there})


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        (b"0.5", b"0.25", "RATE"),
        (b"x + by", b"x - by", "step"),
        (b"by: int = 1", b"by: int = 2", "step"),
        (b"units = 3", b"units = 4", "Layer"),
        (b"import numpy as np", b"import jax.numpy as np", "np"),
        (b"import ops as o", b"import others as o", "o"),
        (b"RATE = 0.5", b"RATE = 0.5\nprint(RATE)", "statements"),
    ],
)
def test_a_change_is_named(old, new, name):
    assert old in MODULE
    there = {"task": {}, "definitions": code.definitions_of("a.py", MODULE)}
    here = {"task": {}, "definitions": code.definitions_of("a.py", MODULE.replace(old, new, 1))}
    assert code.difference(there, here) == f"changed: a.{name}"
    assert code.digest(there) != code.digest(here)


def test_layers_are_described_by_all_that_they_are_made_of():
    rng = model.np.random.RandomState(0)
    common = {"name", "number_format", "rng", "initial_range", "self", "options"}
    for layer in model.Network("CIFAR10", "FLP", rng).layers_described():
        kind = getattr(model, layer["kind"])
        made_of = {*inspect.signature(kind.__init__).parameters}
        made_of |= {*inspect.signature(model.Layer.__init__).parameters} - {"W", "n_biases"}
        missing = made_of - common - set(layer)
        assert missing <= {"inputs"} and "input_size" in layer


def test_changed_code_is_refused_accepted_and_remembered(line, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    assert main.main(line(1)) == 0
    result = capsys.readouterr().out.splitlines()[-1]
    first = config_of(run)["code"]
    assert first["task"]["LR_start"] == 0.05 and first["layers"][0]["units"] == SIZE["units"]
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    monkeypatch.setitem(TASKS, "PI_MNIST", dataclasses.replace(TASKS["PI_MNIST"], LR_start=0.1))
    changed(monkeypatch, "layers.py", b"u - u.max", b"u - 2 * u.max")
    assert main.main(line(1)) == 0  # it is finished
    out, err = capsys.readouterr()
    words = "LR_start 0.05 there, 0.1 here; changed: layers.Softmax"
    assert out.splitlines() == [result]
    assert err == f"main.py: the code has changed since this was trained ({words})\n"
    assert main.main(line(2)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"({words})" in err
    assert "--accept-changed-code" in err
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before

    for stop, *accept in ((2, "--accept-changed-code"), (3,), (3,)):
        assert main.main(line(stop, *accept)) == 0
        assert capsys.readouterr().err == ""
    notes = [record.get("note") for record in records_of(run)]
    assert notes == [None, None, f"the code changed: {words}", None]
    config = config_of(run)
    assert config["code"]["task"]["LR_start"] == 0.1
    assert [earlier["code"] for earlier in config["earlier_code"]] == [first]


def test_a_note_survives_a_stop_before_its_epoch_is_done(line, tmp_path, capsys, monkeypatch):
    assert main.main(line(1)) == 0
    changed(monkeypatch, "layers.py", b"u - u.max", b"u - 2 * u.max")
    monkeypatch.setattr("records.follow.CHECKPOINT_SECONDS", 0)
    with monkeypatch.context() as patched:

        def stop(self, batches):
            if batches:
                raise main.Stopped

        patched.setattr(main.Progress, "trained", stop)
        assert main.main(line(2, "--accept-changed-code")) == 128
    assert main.main(line(2)) == 0
    notes = [record.get("note") for record in records_of(tmp_path / "run")]
    assert notes == [None, None, "the code changed: changed: layers.Softmax"]


def test_a_config_that_changed_is_no_changed_code(line, tmp_path, capsys):
    """It is not accepted as such, and stays as it is."""
    assert main.main(line(1)) == 0
    config = config_of(tmp_path / "run")
    config["code"]["task"]["LR_start"] = 0.06
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    capsys.readouterr()
    assert main.main(line(2, "--accept-changed-code")) == 2
    err = capsys.readouterr().err
    assert "config.json has changed since final.npz" in err and err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == kept


def test_a_sweep_does_as_main(sample, tmp_path, capsys, monkeypatch):
    def swept(stop, *more):
        words = f"PI_MNIST FLP --data {sample} --sample --out {tmp_path} --stop-after {stop}"
        status = sweep.main([*words.split(), *more])
        return status, "".join(capsys.readouterr())

    assert swept(1)[0] == 0
    changed(monkeypatch, "layers.py", b"u - u.max", b"u - 2 * u.max")
    status, text = swept(1)
    assert status == 0 and "changed since 1 of the finished runs were trained" in text
    status, text = swept(2)
    assert status == 1 and "with other code (changed: layers.Softmax)" in text
    assert swept(2, "--accept-changed-code")[0] == 0
    (folder,) = (path.parent for path in tmp_path.glob("*/config.json"))
    assert records_of(folder)[-1]["note"] == "the code changed: changed: layers.Softmax"


def test_comments_and_the_papers_figures_are_no_other_code(line, capsys, monkeypatch):
    assert main.main(line(1)) == 0
    changed(monkeypatch, "layers.py", b"class Softmax", b"# It is one.\nclass Softmax")
    task = dataclasses.replace(TASKS["PI_MNIST"], paper={})
    monkeypatch.setitem(TASKS, "PI_MNIST", task)
    assert main.main(line(2)) == 0
    assert capsys.readouterr().err == ""


def test_another_network_is_no_damage(line, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    assert main.main(line(1)) == 0
    capsys.readouterr()
    kept = (run / "checkpoint.npz").read_bytes()
    other = functools.partial(model.pi_mnist, units=8, pieces=2)
    monkeypatch.setitem(model.NETWORKS, "PI_MNIST", other)
    assert main.main(line(2)) == 2
    assert "(layer0: units 16 there, 8 here; " in capsys.readouterr().err
    assert main.main(line(2, "--accept-changed-code")) == 2
    err = capsys.readouterr().err
    assert "is that of another network (layer0/W is" in err
    assert "damage" not in err and err.count("\n") == 1
    assert (run / "checkpoint.npz").read_bytes() == kept


def test_runs_from_before_code_was_recorded_go_on(line, tmp_path, capsys):
    run = tmp_path / "run"
    assert main.main(line(1)) == 0
    config = config_of(run)
    del config["code"]
    (run / "config.json").write_text(json.dumps(config))
    arrays = load_npz(run / "checkpoint.npz")
    facts = json.loads(arrays["facts"].item())
    for name in ("code", "task", "layers", "sums", "note"):
        del facts[name]
    write_npz(
        run / "checkpoint.npz", arrays | {"facts": model.np.array(json.dumps(facts).encode())}
    )
    final = load_npz(run / "final.npz")
    del final["sums"]
    write_npz(run / "final.npz", final)
    for stop in (1, 2, 2):
        assert main.main(line(stop)) == 0
        assert capsys.readouterr().err == ""
    config = config_of(run)
    assert config["code"]["task"]["LR_start"] == 0.05
    assert [set(earlier) for earlier in config["earlier_code"]] == [{"config_sum"}]
    assert "note" not in records_of(run)[-1]


@pytest.mark.parametrize(
    "spoilt", [3, {}, {"texts": 1}, {"task": [], "layers": [{}], "texts": "", "definitions": {}}]
)
def test_damaged_code_in_a_config_is_named(spoilt, line, tmp_path, capsys):
    assert main.main(line(0)) == 0
    capsys.readouterr()
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(config_of(tmp_path / "run") | {"code": spoilt}))
    assert main.main(line(1)) == 2
    err = capsys.readouterr().err
    assert "config.json cannot be read" in err and err.count("\n") == 1
