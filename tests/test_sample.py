"""datasets/sample.py, digits.py: a sample reproducible, learnable, in official formats."""

import errno
import gzip
import hashlib
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from data_files import contents, read_cifar10
from endings import status_of
from hypothesis import given
from hypothesis import strategies as st

import main
from datasets import mnist
from datasets import sample as samples
from datasets.digits import draw, grey
from datasets.mat import read_mat
from datasets.sample import ensure_sample, gz_bytes, idx_bytes, pickle_bytes
from errors import DataError, TooLittleRoom
from utilities import sample_data, sweep

FOLDERS = {"mnist": "mnist", "cifar10": "cifar10/cifar-10-batches-py", "svhn": "SVHN/format2"}


def test_manifests(generated):
    for folder in FOLDERS.values():
        manifest = json.loads((generated / folder / "manifest.json").read_text())
        assert manifest["sample"] is True and manifest["seed"] == 0 and manifest["generator"] >= 1
        files = [path for path in (generated / folder).iterdir() if path.name != "manifest.json"]
        assert files
        for path in files:
            assert manifest["files"][path.name] == hashlib.md5(path.read_bytes()).hexdigest()
    assert manifest["valid_per_class"] == {
        "train": 10,
        "extra": 5,
    }  # of SVHN, in the paper's 400 : 200
    assert manifest["split"] == {"train": 1050, "valid": 150, "test": 200}
    assert not list(generated.rglob(".*"))


def test_same_seed_same_files_and_another_seed_others(generated, tmp_path):
    ensure_sample(tmp_path / "again", ["mnist", "svhn"], seed=0)
    again = contents(tmp_path / "again")
    assert len(again) == 9 and again == {name: contents(generated)[name] for name in again}
    ensure_sample(tmp_path / "other", ["mnist"], seed=1)
    other = contents(tmp_path / "other")
    assert all(other[name] != again[name] for name in other)


def test_content_does_not_depend_on_versions(generated):
    data = mnist.load(generated, sample=True)
    assert data.train.y[:10].argmax(1).tolist() == LABELS
    # not the exact bytes: another machine's sine may differ in its last bit and so move a
    # pixel by one
    assert float(data.train.x.sum(dtype=np.float64)) == pytest.approx(INK, rel=1e-5)


LABELS, INK = [2, 4, 2, 0, 7, 8, 0, 8, 5, 2], 181203.59563866258  # of GENERATOR 1, seed 0


def test_digits_can_be_learned_but_not_trivially(generated):
    data = mnist.load(generated, sample=True)
    x, y, test = data.train.x, data.train.y, data.test
    nearest = ((x**2).sum(1) - 2 * test.x @ x.T).argmin(1)
    assert 0 < (y[nearest].argmax(1) != test.y.argmax(1)).mean() < 0.06
    linear = np.linalg.solve(x.T @ x + 100 * np.eye(784), x.T @ y)
    assert 0.05 < ((test.x @ linear).argmax(1) != test.y.argmax(1)).mean() < 0.35


def test_every_part_has_every_digit_and_no_two_images_are_equal(generated):
    data = mnist.load(generated, sample=True)
    for part in (data.train, data.valid, data.test):
        assert part.y.sum(0).min() > 0.08 * len(part)
    x, _, test_x, _, _ = read_cifar10(generated, sample=True)
    svhn = [read_mat(path)[0] for path in (generated / FOLDERS["svhn"]).glob("*.mat")]
    grey = [part.x for part in (data.train, data.valid, data.test)]
    for images in (np.concatenate(grey), np.concatenate([x, test_x, *svhn])):
        assert len(np.unique(images, axis=0)) == len(images)


def test_digit_zero_is_label_10_in_svhn(generated):
    x, labels = read_mat(generated / FOLDERS["svhn"] / "train_32x32.mat")
    grey = x.reshape(-1, 3, 32, 32).mean(1)
    zeros, eights = grey[labels == 10], grey[labels == 8]
    middle = [images[:, 14:18, 14:18].mean() - images.mean() for images in (zeros, eights)]
    assert middle[0] < 0 < middle[1]  # a 0 is empty in its middle, an 8 is not


def test_draw():
    ink = draw(np.arange(10), 20, np.random.RandomState(3))
    assert ink.shape == (10, 20, 20) and ink.dtype == np.float32
    assert ink.min() == 0 and ink.max() == 1
    assert (
        ink[:, [0, -1]].mean() < 0.05 and ((ink > 0.5).mean((1, 2)) > 0.03).all()
    )  # in the frame, and visible


def test_gzip_header_has_no_time():
    assert gz_bytes(b"x") == gz_bytes(b"x") and gz_bytes(b"x")[4:8] == bytes(4)
    assert gzip.decompress(gz_bytes(b"xyz" * 999)) == b"xyz" * 999


def test_idx_bytes():
    assert (
        idx_bytes(np.array([[1, 2, 3]], np.uint8))
        == b"\0\0\x08\x02\0\0\0\x01\0\0\0\x03\x01\x02\x03"
    )


@given(
    st.recursive(
        st.integers(-(2**31), 2**31 - 1) | st.binary(max_size=300),
        lambda inner: (
            st.lists(inner, max_size=5) | st.dictionaries(st.binary(max_size=5), inner, max_size=5)
        ),
    )
)
def test_pickle_bytes_says_what_it_was_given(value):
    assert pickle.loads(pickle_bytes(value), encoding="bytes") == value


def test_pickle_bytes_has_only_the_names_of_the_official_batches():
    text = pickle_bytes({b"data": np.arange(6, dtype=np.uint8).reshape(2, 3)})
    assert [text.count(b"\n"), text.count(b"cnumpy.core.multiarray\n_reconstruct\n")] == [6, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core has moved since
        assert pickle.loads(text, encoding="bytes")[b"data"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.fixture
def quick(monkeypatch):
    """A sample of MNIST with few images: where it is made does not depend on how many."""
    monkeypatch.setattr(samples, "grey", lambda n, rng: grey(20, rng))


def test_existing_sample_is_left_as_it_is(quick, tmp_path):
    ensure_sample(tmp_path, ["mnist"], seed=7)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    ensure_sample(tmp_path, ["mnist"])  # without a seed any will do
    ensure_sample(tmp_path, ["mnist"], seed=7)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(DataError, match="has the sample of seed 7"):
        ensure_sample(tmp_path, ["mnist"], seed=8)


@pytest.mark.parametrize(
    "name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte.gz", "notes.txt", "manifest.json"]
)
def test_other_files_are_never_touched(tmp_path, name):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / name).write_text("mine")
    with pytest.raises(DataError, match="other files") as error:
        ensure_sample(tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert contents(tmp_path) == {f"mnist/{name}": b"mine"}  # nor was any other set made


@pytest.mark.parametrize(
    "text", ['{"sample": true, "seed": 0, "files": [1, 2]}', "5", "null", "[" * 200_000]
)
def test_a_manifest_of_anything_else_is_other_files(tmp_path, text):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="other files"):
        ensure_sample(tmp_path, ["mnist"])


def test_incomplete_sample_is_named(quick, tmp_path):
    ensure_sample(tmp_path, ["mnist"])
    (tmp_path / "mnist" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="lacks train-labels"):
        ensure_sample(tmp_path, ["mnist"])


def test_empty_folder_is_filled(quick, tmp_path):
    (tmp_path / "mnist").mkdir()
    ensure_sample(tmp_path, ["mnist"])
    assert len(contents(tmp_path)) == 5


def test_failure_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(TooLittleRoom, match="disk full"):
        ensure_sample(tmp_path, ["svhn"])
    assert contents(tmp_path) == {} and not list((tmp_path / "SVHN").iterdir())


def test_somebody_else_being_faster_is_no_error(quick, tmp_path, monkeypatch):
    make = samples.SETS["mnist"][1]

    def slow(rng):
        monkeypatch.setitem(samples.SETS, "mnist", (Path("mnist"), make))
        ensure_sample(tmp_path, ["mnist"])  # the other process
        return make(rng)

    monkeypatch.setitem(samples.SETS, "mnist", (Path("mnist"), slow))
    ensure_sample(tmp_path, ["mnist"])
    assert len(contents(tmp_path)) == 5


def test_a_full_disk_is_the_machines_failure(tmp_path, monkeypatch, capsys):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    line = ["PI_MNIST", "FLP", "--sample", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    for program in (main, sweep):
        assert status_of(program.main, line) == 1
        assert f"{os.strerror(errno.ENOSPC)}: {tmp_path} " in capsys.readouterr().err
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"seed": 2**32}, {"data_sets": ["MNIST"]}])
def test_bad_arguments(tmp_path, arguments):
    with pytest.raises(DataError, match=r"seed|no sample"):
        ensure_sample(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def program(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "utilities.sample_data", *map(str, arguments)],
        text=True,
        capture_output=True,
        cwd=Path(__file__).parents[1],
        timeout=60,
    )


def test_program(tmp_path, generated):
    done = program(tmp_path / "new")
    assert done.returncode == 0 and str(tmp_path / "new") in done.stdout and done.stderr == ""
    assert contents(tmp_path / "new") == contents(generated)  # in another process, too
    again = program(tmp_path / "new", "--seed", 3)
    assert (
        again.returncode == 2 and len(again.stderr.splitlines()) == 1 and "seed 0" in again.stderr
    )


def test_program_bad_input_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "file").touch()
    new, file = str(tmp_path / "x"), str(tmp_path / "file")
    for arguments in (
        [],
        ["a", "b"],
        [new, "--seed", "q"],
        [new, "--seed", "-1"],
        [file],
        [new, "--nothing"],
    ):
        assert status_of(sample_data.main, arguments) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_program_help(capsys):
    with pytest.raises(SystemExit) as stop:
        sample_data.main(["-h"])
    assert stop.value.code == 0 and "manifest.json" in capsys.readouterr().out
