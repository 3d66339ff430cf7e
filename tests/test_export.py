"""Networks in integers: exported, read with NumPy alone, computed again."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import numpy_reference
import pytest
from conftest import ROOT
from endings import status_of

import datasets
import main
from files import load_npz, write_npz
from format import SIGNALS
from model import Network
from records import saved
from records.networks import read as read_saved
from settings import Settings
from utilities import export, integer_network

DFXP = "DFXP 5 9 11 5 0.0001 1"


def exported(network, out, *arguments):
    assert export.main([str(network), "-o", str(out), *arguments]) == 0
    return integer_network.read(out)


def write_sealed(path, arrays):
    """With the sum of these arrays."""
    write_npz(path, arrays | {"sum": np.array(saved.sum_of(arrays).encode())})


def words_of(path):
    return np.array([int(line, 16) for line in path.read_text().split()])


@pytest.fixture(scope="module")
def trained(sample, tmp_path_factory):
    """A run whose ranges move after the last batch of every epoch."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    line = f"PI_MNIST {DFXP} --data {sample} --sample --stop-after 2 --out {folder}"
    assert main.main(line.split()) == 0
    return folder


@pytest.fixture
def network(sample, tmp_path):
    """network("MNIST", "FXP", 5, 9, 11): the file of a network that looks as if it were trained."""

    def make(task, number_format, *numbers):
        there = Settings.parse(task, number_format, [str(n) for n in numbers])
        rng = np.random.RandomState(3)
        layers = Network(task, number_format, rng).layers
        arrays = {}
        for layer in layers:
            ranges = np.array([3, 0, 3, 0, 0, -1, 0, 0, 0, 0], "int32")
            W, b = layer.W.get_value(), rng.uniform(-0.3, 0.3, layer.b.get_value().shape)
            W = W if W.any() else rng.uniform(-0.5, 0.5, W.shape)
            q = {"W": numpy_reference.half(W), "b": numpy_reference.half(b)}
            if number_format != "HFLP":
                arrays[f"{layer.name}/ranges"] = ranges
                # Stored before the range of W went down and that of b went up.
                q["W"] = numpy_reference.fixed_point(W, there.up_bits, ranges[4] + 1)
                q["b"] = numpy_reference.fixed_point(b, there.up_bits, ranges[5] - 1)
            arrays |= {f"{layer.name}/{name}": value for name, value in q.items()}
        identity = datasets.load("mnist", sample, sample=True).identity
        config = {"settings": there.as_json(), "data": identity, "sample": True}
        path = tmp_path / f"{number_format}.npz"
        saved.write(path, arrays, saved.about(config, []), 1, 50.0, 51.0)
        return path

    return make


# ------------------------------------------------------------------------------- the whole way


@pytest.mark.parametrize("which", ["best", "final"])
def test_a_trained_network_is_the_same_in_integers(which, trained, sample, tmp_path, capsys):
    arguments = ["--which", which, "--vectors", "500", "--data", str(sample)]
    read = exported(trained, tmp_path / "out", *arguments)
    said = capsys.readouterr().out
    assert "12 bits (packed.bin): " in said and " 37." in said
    assert "500 test vectors" in said and "layer2/y: all 5,000 integers equal" in said
    off = dict(integer_network.differences(read))
    assert all(not off[f"layer{k}/{s}"].any() for k in (1, 2) for s in "zy")
    # From the first layer's output on, and from the images on: the recorded error.
    for y in (read.vectors["layer0/y"].astype("int64"), read.layers[0].first(read.vectors["x"])):
        for layer in read.layers[1:]:
            y = layer.y(layer.z(y))
        wrong = (y.argmax(axis=1) != read.vectors["labels"]).mean()
        assert 100 * wrong == pytest.approx(read_saved(trained / f"{which}.npz").test_error)


def test_stored_parameters_are_exact(trained, sample, tmp_path):
    read = exported(trained, tmp_path / "out", "--vectors", "0")
    there = load_npz(trained / "best.npz")
    assert not read.vectors and read.manifest["vectors"] is None
    assert not (tmp_path / "out/vectors.npz").exists()
    for said in read.manifest["layers"]:
        for name in ("W", "b"):
            entry = said["tensors"][name]
            integers = read.weights[f"{said['name']}/{name}"]
            assert integers.dtype == "int16" and entry["bits"] == 11 and entry["word_bits"] == 12
            values = integers * 2.0 ** entry["exponent"]
            assert np.array_equal(values, there[f"{said['name']}/{name}"])
            seen = read.weights[f"{said['name']}/{name}q"]
            noib = there[f"{said['name']}/ranges"][SIGNALS.index(name.lower())]
            expected = numpy_reference.fixed_point(values, 9, noib)
            assert np.array_equal(seen * 2.0 ** (noib - 9.0), expected)


def test_every_file_has_the_same_integers(trained, sample, tmp_path):
    out = tmp_path / "out"
    read = exported(trained, out, "--vectors", "3", "--data", str(sample))
    packed = (out / "packed.bin").read_bytes()
    found = 0
    for said in read.manifest["layers"]:
        tensors = {f"{said['name']}/{name}": entry for name, entry in said["tensors"].items()}
        tensors |= {f"{said['name']}/{name}": entry for name, entry in said["signals"].items()}
        for name, entry in tensors.items():
            integers = (read.weights | read.vectors)[name].ravel()
            masked = integers.astype("int64") & (2 ** entry["word_bits"] - 1)
            assert np.array_equal(words_of(out / entry["hex"]), masked)
            if "packed" in entry:
                place = entry["packed"]
                content = packed[place["offset"] : place["offset"] + place["bytes"]]
                unpacked = integer_network.unpack(content, integers.size, entry["word_bits"])
                assert np.array_equal(unpacked, integers)
                found += place["bytes"]
    assert found == len(packed)
    x = words_of(out / "hex/x.hex").astype("uint32").view("float32")
    assert np.array_equal(x, read.vectors["x"].ravel())
    on_disk = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert on_disk == {*read.manifest["files"], "manifest.json"}


def test_convolutional_layers(network, sample, tmp_path):
    read = exported(
        network("MNIST", "DFXP", 5, 9, 11, 100, 0.0001, 2), tmp_path / "out", "--data", str(sample)
    )
    off = dict(integer_network.differences(read))
    assert len(off) == 8 and off["layer0/z"].shape == (16, 96, 10, 10)
    assert all(not off[f"layer{k}/{s}"].any() for k in (1, 2, 3) for s in "zy")
    assert abs(off["layer0/z"]).max() <= 1 and (off["layer0/z"] == 0).mean() > 0.99
    assert len(np.unique(read.vectors["layer3/z"])) > 5  # there is something to compare


@pytest.mark.parametrize("bits", [(6, 9), (20, 12), (19, 19), (31, 31)])
def test_other_widths(bits, network, sample, tmp_path):
    """Sums beyond float32's 24 bits are rounded by the program; the integers are not."""
    path = network("PI_MNIST", "FXP", 5, *bits)
    read = exported(path, tmp_path / "out", "--data", str(sample))
    steps = {6: 0, 20: 2**4, 19: 2**3, 31: 2**16}[bits[0]]
    for name, off in integer_network.differences(read):
        if not name.startswith("layer0"):
            assert abs(off).max() <= steps, name
    exact = [said["sums"]["exact_in_float32"] for said in read.manifest["layers"][1:]]
    assert exact == [bits[0] == 6] * 2


def test_half_precision_is_patterns(network, sample, tmp_path):
    path = network("PI_MNIST", "HFLP")
    out = tmp_path / "out"
    read = exported(path, out, "--vectors", "4", "--data", str(sample))
    there = load_npz(path)
    assert read.layers == [] and read.manifest["numbers"] == "binary16"
    for name, patterns in read.weights.items():
        assert np.array_equal(patterns.view("float16"), there[name])
        assert np.array_equal(words_of(out / f"hex/{name.replace('/', '_')}.hex"), patterns.ravel())
    assert (out / "packed.bin").stat().st_size == 2 * sum(v.size for v in read.weights.values())
    y = read.vectors["layer2/y"].view("float16")
    assert y.shape == (4, 10) and np.allclose(y.sum(axis=1), 1, atol=0.01)
    assert integer_network.main([str(out)]) == 2


# ------------------------------------------------------------------------------------- refusals


def refused(capsys, *arguments):
    """What export says when it refuses."""
    try:
        status = export.main([str(a) for a in arguments])
    except SystemExit as stop:
        status = stop.code
    said, line = capsys.readouterr()
    assert status == 2 and not said
    assert line.startswith("export: ") and line.count("\n") == 1
    return line


def test_what_has_no_integers_is_refused(trained, network, sample, tmp_path, capsys):
    out = tmp_path / "out"
    config = {"settings": Settings("PI_MNIST", "FLP").as_json(), "data": {}}
    path = tmp_path / "flp.npz"
    saved.write(path, {"layer0/W": np.zeros(1)}, saved.about(config, []), 3, 1.0, 2.0)
    assert "is in FLP" in refused(capsys, path, "-o", out)
    config["settings"] = Settings("PI_MNIST", "HFLP").as_json()
    saved.write(path, {}, saved.about(config, []), 0, 1.0, 2.0)
    assert "untrained" in refused(capsys, path, "-o", out)
    saved.write(path, {}, saved.about(config, []), 1, 1.0, 2.0)
    assert "layer0/W" in refused(capsys, path, "-o", out, "--vectors", 0)
    path.write_bytes(b"no network")
    assert "cannot be read" in refused(capsys, path, "-o", out)
    assert "there is no" in refused(capsys, tmp_path / "nowhere", "-o", out)
    assert "has no best.npz" in refused(capsys, tmp_path, "-o", out)
    assert "no more than 500" in refused(
        capsys, trained, "-o", out, "--data", sample, "--vectors", 501
    )
    assert not out.exists()


@pytest.mark.parametrize("fault", ["missing", "shape", "type", "nan", "ranges", "grid"])
def test_foreign_arrays_are_refused(fault, network, tmp_path, capsys):
    path = network("PI_MNIST", "FXP", 5, 9, 11)
    arrays = load_npz(path)
    W = arrays["layer1/W"].copy()
    if fault == "missing":
        del arrays["layer1/W"]
    elif fault == "ranges":
        arrays["layer1/ranges"] = arrays["layer1/ranges"][:9]
    else:
        W[3, 4] = {"nan": np.nan, "grid": 1e-5}.get(fault, 0)
        W = W[1:] if fault == "shape" else W.astype("float64") if fault == "type" else W
        arrays["layer1/W"] = W
    write_sealed(path, arrays)
    assert "layer1/" in refused(capsys, path, "-o", tmp_path / "out", "--vectors", "0")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_other_data_are_refused(trained, tmp_path, capsys):
    from utilities.sample_data import ensure_sample

    other = tmp_path / "other"
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    arrays = load_npz(run / "best.npz")
    about = json.loads(arrays["about"].item())
    about["data"] = {name: "0" * 32 for name in about["data"]}
    write_sealed(run / "best.npz", arrays | {"about": np.array(json.dumps(about).encode())})
    ensure_sample(other, ["mnist"])
    line = refused(capsys, run, "-o", tmp_path / "out", "--data", other)
    assert "other data" in line and not (tmp_path / "out").exists()


def test_a_folder_of_something_else_stays(trained, tmp_path, capsys):
    out = tmp_path / "out"
    out.write_text("mine")
    assert "no folder" in refused(capsys, trained, "-o", out, "--vectors", "0")
    assert out.read_text() == "mine"
    out.unlink()
    out.mkdir()
    exported(trained, out, "--vectors", "0")  # an empty one is taken
    capsys.readouterr()
    for stranger in (out / "notes.txt", out / "hex/notes.txt"):
        stranger.write_text("mine")
        assert "notes.txt" in refused(capsys, trained, "-o", out, "--vectors", "0")
        assert stranger.read_text() == "mine"
        stranger.unlink()
    (out / "manifest.json").write_text("{}")
    assert "no export" in refused(capsys, trained, "-o", out, "--vectors", "0")
    assert "not empty" in refused(capsys, trained, "-o", trained, "--vectors", "0")


def test_an_earlier_export_is_replaced_whole_or_not_at_all(trained, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    exported(trained, out, "--vectors", "0")
    (tmp_path / ".out.partial").mkdir()  # left by a killed process
    exported(trained, out, "--vectors", "0", "--which", "final")
    before = (out / "manifest.json").read_bytes()
    capsys.readouterr()
    rename = os.rename

    def failing(source, target):
        if str(source).endswith(".partial"):
            raise OSError(28, "No space left on device", str(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    assert status_of(export.main, [trained, "-o", out, "--vectors", "0"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert (out / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("where", ["test_images", "report"])
def test_a_signal_says_what_there_is(where, trained, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "out"
    monkeypatch.setattr(export, where, interrupted)
    assert export.main([str(trained), "-o", str(out), "--vectors", "0"]) == 128 + signal.SIGTERM
    line = capsys.readouterr().err
    if where == "report":
        assert line == f"export: interrupted; {out} is written\n"
        integer_network.read(out)
    else:
        assert line == "export: interrupted; nothing was written\n"
        assert list(tmp_path.iterdir()) == []


def test_bad_arguments_come_before_the_heavy_imports(tmp_path):
    code = (
        "import sys\nfrom utilities import export\n"
        "try:\n    print(export.main(sys.argv[1:]))\nexcept SystemExit as stop: print(stop.code)\n"
        "print(sorted({'jax', 'pytensor', 'scipy'} & set(sys.modules)))"
    )
    (tmp_path / "x.npz").write_bytes(b"")
    lines = ["", "x.npz", "x.npz -o", "-o out", "x.npz -o out --vectors -1", "x.npz -o out"]
    lines += ["x.npz -o out --which best", ". -o out --which other", "gone -o out", "-h"]
    for line in lines:
        done = subprocess.run(
            [sys.executable, "-c", code, *line.split()],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.endswith("0\n[]\n" if line == "-h" else "2\n[]\n"), (line, done)
        assert done.stderr.count("\n") == (line != "-h"), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_the_documented_lines(trained, sample, tmp_path, monkeypatch):
    """docs/networks.md: the float file and the folder, in NumPy, give the recorded classes."""
    text = (ROOT / "docs" / "networks.md").read_text()
    blocks = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    monkeypatch.chdir(tmp_path)
    read = exported(trained, tmp_path / "exported", "--vectors", "100", "--data", str(sample))
    shutil.copy(trained / "best.npz", tmp_path)
    y = read.vectors["layer2/y"]
    names = {"x": read.vectors["x"]}
    ran = 0
    for block in blocks:
        code = compile(block, "networks.md", "exec")
        if "torch" not in block:
            exec(code, names)
        if "classes" in names:
            assert np.array_equal(names.pop("classes"), y.argmax(axis=1))
            ran += 1
    assert ran == 2
    W = read.weights["layer0/W"] * 2.0 ** names["said"]["exponent"]
    assert np.array_equal(names["W"], W)
