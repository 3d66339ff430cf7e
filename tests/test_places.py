"""Official files where people have them: found in a documented order, and never touched.

Where nothing is found, one line says what is there and what would help.
"""

import gzip
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_files import contents, flip_file, preprocess, refused, set_official, tar_gz
from endings import status_of
from fake_runs import fake_run

from datasets import cifar10, mnist, source, svhn
from datasets.sample import gz_bytes
from files import md5
from main import main

ROOT = Path(__file__).resolve().parent.parent
DOTTED = {name: name.replace("-idx", ".idx") for name in mnist.OFFICIAL.names}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Nothing is downloaded: what is there must do."""
    monkeypatch.setattr(source, "reachable", lambda *_: [])


@pytest.fixture
def idx(generated, monkeypatch):
    """Name -> content of the sample's idx files, which count as the official ones."""
    manifest = json.loads((generated / "mnist" / "manifest.json").read_text())
    set_official(monkeypatch, mnist, sums=manifest["files"], split=manifest["split"])
    return {
        name: gzip.decompress((generated / "mnist" / f"{name}.gz").read_bytes())
        for name in mnist.OFFICIAL.names
    }


@pytest.fixture
def pickles(generated, monkeypatch):
    """Name -> content of the sample's batches, which count as the official ones."""
    folder = generated / cifar10.OFFICIAL.folder
    found = {name: (folder / name).read_bytes() for name in cifar10.OFFICIAL.names}
    sums = {name: md5(content) for name, content in found.items()}
    split = json.loads((folder / "manifest.json").read_text())["split"]
    set_official(monkeypatch, cifar10, sums=sums, split=split)
    monkeypatch.setattr(cifar10, "_whitened", lambda *images: [np.float32(x) for x in images])
    return found


def put_all(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


LAYOUTS = {
    "the usual one": lambda files: {f"mnist/{n}.gz": gz_bytes(c) for n, c in files.items()},
    "torchvision": lambda files: {f"MNIST/raw/{n}": c for n, c in files.items()},
    "torchvision, only .gz": lambda files: {
        f"MNIST/raw/{n}.gz": gz_bytes(c) for n, c in files.items()
    },
    "torchvision in mnist": lambda files: {f"mnist/MNIST/raw/{n}": c for n, c in files.items()},
    "Kaggle": lambda files: {f"mnist/{DOTTED[n]}": c for n, c in files.items()},
    "Kaggle, folders": lambda files: {f"mnist/{n}/{n}": c for n, c in files.items()},
    "Kaggle, both": lambda files: {
        path: c for n, c in files.items() for path in (f"MNIST/{DOTTED[n]}", f"MNIST/{n}/{n}")
    },
    "the folder itself": lambda files: {f"{n}.gz": gz_bytes(c) for n, c in files.items()},
    "gzip without its suffix": lambda files: {f"mnist/{n}": gz_bytes(c) for n, c in files.items()},
    "suffix without gzip": lambda files: {f"mnist/{n}.gz": c for n, c in files.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mnist_is_found(layout, idx, generated, tmp_path, capfd):
    put_all(tmp_path, LAYOUTS[layout](idx))
    before = contents(tmp_path)
    data = mnist.load(tmp_path)
    expected = mnist.load(generated, sample=True)
    assert data.identity == expected.identity and np.array_equal(data.test.x, expected.test.x)
    assert contents(tmp_path) == before
    said = capfd.readouterr().err
    if next(iter(before)).startswith("mnist/") and "MNIST" not in next(iter(before)):
        assert said == ""
    else:
        folder = re.fullmatch("MNIST: the files in (.*) are taken\n", said)[1]
        assert Path(folder) in {
            tmp_path / parent for path in before for parent in Path(path).parents
        }


def test_the_first_place_that_has_all_files_is_taken(idx, tmp_path, capfd):
    put_all(tmp_path / "MNIST" / "raw", idx)
    put_all(tmp_path, {"mnist/t10k-labels-idx1-ubyte": b"mine"})  # one of four
    mnist.load(tmp_path)
    assert f"{tmp_path / 'MNIST' / 'raw'} are taken" in capfd.readouterr().err
    put_all(tmp_path / "mnist", idx)
    mnist.load(tmp_path)
    assert capfd.readouterr().err == ""


def test_what_is_missing_goes_where_most_files_are(idx, tmp_path):
    put_all(tmp_path / "MNIST" / "raw", idx)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with refused("t10k-labels-idx1-ubyte.gz missing", f"into {tmp_path / 'MNIST' / 'raw'}"):
        mnist.load(tmp_path)


def test_a_sample_in_another_place_is_not_taken_for_the_official_files(generated, tmp_path):
    shutil.copytree(generated / "mnist", tmp_path / "MNIST" / "raw")
    with refused("holds the generated sample", "--sample"):
        mnist.load(tmp_path)


def test_a_link_that_leads_nowhere_is_not_lost(idx, tmp_path):
    """The disk that it leads to may not be there at the moment."""
    put_all(tmp_path / "mnist", idx)
    link = tmp_path / "mnist" / "t10k-labels-idx1-ubyte"
    link.unlink()
    link.symlink_to("/nowhere/labels")
    with refused(str(link), "is a link to /nowhere/labels, which is not there"):
        mnist.load(tmp_path)
    assert link.is_symlink()


def test_a_folder_that_cannot_be_looked_into(idx, tmp_path):
    put_all(tmp_path / "data" / "mnist", idx)
    (tmp_path / "data").chmod(0)
    root = os.geteuid() == 0
    if root:  # who can look into everything
        os.seteuid(65534)
    try:
        with refused("missing", "cannot be looked into (Permission denied)", "--data"):
            mnist.load(tmp_path / "data")
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "data").chmod(0o700)


def test_no_folder(idx, tmp_path):
    (tmp_path / "data.zip").touch()
    with refused(str(tmp_path / "data.zip"), "is no folder", "--data"):
        mnist.load(tmp_path / "data.zip")


def test_a_manifest_of_something_else_says_nothing(idx, tmp_path):
    put_all(tmp_path / "mnist", {**idx, "manifest.json": b'{"name": "a web page"}'})
    assert mnist.load(tmp_path).name == "MNIST"


BATCHES = (
    "cifar10/cifar-10-batches-py",
    "cifar-10-batches-py",
    "cifar10",
    "cifar10/cifar-10-python/cifar-10-batches-py",
    "cifar-10-python/cifar-10-batches-py",
    "CIFAR10/cifar-10-batches-py",
    "cifar-10-batches-py/cifar-10-batches-py",
    ".",
)


@pytest.mark.parametrize("place", BATCHES)
def test_cifar10_is_found(place, pickles, tmp_path, capfd):
    put_all(tmp_path / place, pickles)
    data = cifar10.load(tmp_path)
    assert {name: data.identity[name] for name in pickles} == cifar10.OFFICIAL.sums
    said = capfd.readouterr().err
    assert (f"CIFAR10: the files in {tmp_path / place} are taken" in said) == (place != BATCHES[0])
    assert {str(Path(place, name)) for name in pickles} <= set(contents(tmp_path))
    assert list((tmp_path / "cifar10").glob("preprocessed-*"))


@pytest.mark.parametrize(
    "place", ["cifar10", ".", "cifar10/cifar-10-batches-py", "cifar-10-python", "CIFAR10"]
)
@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py.tar.gz"])
def test_cifar10_archive_is_found_and_stays(place, name, pickles, tmp_path, monkeypatch, capfd):
    archive = tar_gz([(f"cifar-10-batches-py/{name}", c) for name, c in pickles.items()])
    sums = {"cifar-10-python.tar.gz": md5(archive)}
    set_official(monkeypatch, cifar10, "ARCHIVE", sums=sums)
    put_all(tmp_path / place, {name: archive})
    cifar10.load(tmp_path)
    said = capfd.readouterr().err
    assert (f"the files in {tmp_path / place} are taken" in said) == (place != "cifar10")
    assert (tmp_path / place / name).read_bytes() == archive
    assert (tmp_path / cifar10.OFFICIAL.folder / "test_batch").exists()


@pytest.mark.parametrize("place", ["SVHN", "svhn/format2", "svhn", "format2", "."])
def test_svhn_is_found(place, generated, tmp_path, monkeypatch, capfd):
    folder = generated / "SVHN" / "format2"
    manifest = json.loads((folder / "manifest.json").read_text())
    more = {"split": manifest["split"], "per_class": manifest["valid_per_class"]}
    set_official(monkeypatch, svhn, sums=manifest["files"], **more)
    monkeypatch.setattr(svhn, "local_contrast_normalize", lambda x, channels: x)
    put_all(tmp_path / place, {path.name: path.read_bytes() for path in folder.glob("*.mat")})
    preprocess(tmp_path, tmp_path / "local")
    assert f"SVHN: the files in {tmp_path / place} are taken" in capfd.readouterr().err
    assert len(list((tmp_path / "local" / "h5").glob("*.h5"))) == 3


@pytest.mark.parametrize(
    "there, words",
    [
        ({}, "data is not there:"),
        ({"mnist.npz": b""}, "has mnist.npz:"),
        ({"mnist/mnist.pkl.gz": b"", "mnist.npz": b""}, "mnist has mnist.pkl.gz:"),
        ({f"MNIST/processed/{k}.pt": b"" for k in range(9)}, "has MNIST:"),
        (
            {f"mnist/{k}.png": b"" for k in range(9)},
            "has 0.png, 1.png, 2.png, 3.png, 4.png and 4 more:",
        ),
    ],
)
def test_what_is_there_instead_is_said(there, words, idx, tmp_path):
    put_all(tmp_path / "data", there)
    with refused("train-images-idx3-ubyte.gz", "no mirror answered", words, "--data", "--sample"):
        mnist.load(tmp_path / "data")
    assert contents(tmp_path / "data") == there


def test_cifar10_in_another_form_is_named(pickles, tmp_path):
    put_all(tmp_path, {"cifar-10-batches-bin/data_batch_1.bin": b"", "cifar-10-matlab.tar.gz": b""})
    words = "has cifar-10-batches-bin, cifar-10-matlab.tar.gz:"
    with refused("cifar-10-python.tar.gz missing", words, "--data"):
        cifar10.load(tmp_path)


def test_files_of_another_set_are_said_to_be_such(idx, pickles, tmp_path):
    """Fashion-MNIST's are: of MNIST's form and names."""
    others = {f"mnist/{name}": content[:-1] + b"\1" for name, content in idx.items()}
    put_all(tmp_path, others)
    with refused("train-images-idx3-ubyte", "another set's", f"--data-set {tmp_path / 'mnist'}"):
        mnist.load(tmp_path)
    put_all(tmp_path / cifar10.OFFICIAL.folder, pickles)
    flip_file(tmp_path / cifar10.OFFICIAL.folder / "data_batch_3", 5000)
    with refused("data_batch_3", "another set's", "--data-set", "--data"):
        cifar10.load(tmp_path)


def test_a_resumed_run_without_its_data_names_the_option(idx, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYLEARN2_DATA_PATH", raising=False)
    fake_run(tmp_path / "run", 1.0, epoch=3)
    assert status_of(main, ["--resume", "--out", "run"]) == 2
    err = capsys.readouterr().err
    assert "missing" in err and "with --data," in err and err.count("\n") == 1


def test_the_documented_places_are_those_of_the_program():
    page = (ROOT / "docs" / "running.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|") and "`.`" in line]
    found = [re.findall(r"`([^`]+)`", row.split("|")[2]) for row in rows]
    sources = (mnist.OFFICIAL, cifar10.OFFICIAL, cifar10.ARCHIVE, svhn.OFFICIAL)
    assert found == [[str(place) for place in (s.folder, *s.places)] for s in sources]


def test_nobody_is_told_to_delete_data():
    texts = {path.name: path.read_text() for path in (ROOT / "datasets").glob("*.py")}
    messages = [
        (name, line) for name, text in texts.items() for line in re.findall('f?"(.*)"', text)
    ]
    assert messages and not [
        m for m in messages if re.search(r"\b(delete|remove|replace it)\b", m[1])
    ]
