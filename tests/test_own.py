"""Sets of somebody's own: --data-set, and that none is ever taken for other data."""

import gzip
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from data_files import contents, refused, set_official
from endings import status_of
from fake_runs import fake_run
from small_network import small_pi_mnist

import datasets
from datasets import OwnSet, cifar10, load_own, mnist, svhn
from datasets.digits import coloured, grey
from datasets.own import is_own
from datasets.sample import gz_bytes, idx_bytes, mat_bytes, pickle_bytes
from files import md5
from main import main
from records import networks
from utilities import evaluate, original_pixels, results, sweep
from utilities.evaluation_report import words
from utilities.learning_curves import title
from utilities.outcomes import read

N, TESTS = 480, 60


@pytest.fixture(autouse=True, scope="module")
def small_network():
    """Nothing here depends on the size of the network."""
    with small_pi_mnist():
        yield


def idx_set(folder, n=N, tests=TESTS, seed=3):
    """Files of MNIST's names and form, as Fashion-MNIST has them."""
    folder.mkdir(parents=True)
    rng = np.random.RandomState(seed)
    for name, count in (("train", n), ("t10k", tests)):
        images, labels = grey(count, rng)
        files = {"images-idx3": 255 - images, "labels-idx1": labels.astype(np.uint8)}
        for what, array in files.items():
            (folder / f"{name}-{what}-ubyte.gz").write_bytes(gz_bytes(idx_bytes(array)))
    return folder


def batch_set(folder, batches=3, each=160, python=2):
    """Pickles of CIFAR-10's names and form."""
    folder.mkdir(parents=True)
    rng = np.random.RandomState(4)
    for name in [*(f"data_batch_{k + 1}" for k in range(batches)), "test_batch"]:
        images, labels = coloured(each, rng)
        batch = {b"data": images.reshape(each, -1), b"labels": labels.tolist()}
        if python == 3:
            batch = {key.decode(): value for key, value in batch.items()}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=4))
        else:
            (folder / name).write_bytes(pickle_bytes(batch))
    return folder


def mat_set(folder, names=("train", "test"), each=200):
    """.mat files of SVHN's names and form."""
    folder.mkdir(parents=True)
    rng = np.random.RandomState(5)
    for name in names:
        (folder / f"{name}_32x32.mat").write_bytes(mat_bytes(*coloured(each, rng)))
    return folder


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """As torchvision puts it; nothing is to be changed in it."""
    return idx_set(tmp_path_factory.mktemp("data") / "FashionMNIST" / "raw").parent


def sizes(data):
    return len(data.train), len(data.valid), len(data.test)


def test_a_set_in_mnists_form(fashion, capfd):
    data = load_own("mnist", OwnSet(fashion))
    assert sizes(data) == (400, 80, 60) and data.name == "own set FashionMNIST"
    images = gzip.decompress((fashion / "raw" / "train-images-idx3-ubyte.gz").read_bytes())
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784)
    assert np.array_equal(np.concatenate([data.train.x, data.valid.x]), x / np.float32(255))
    assert data.identity == {
        **{
            name: md5(gzip.decompress((fashion / "raw" / f"{name}.gz").read_bytes()))
            for name in mnist.OFFICIAL.names
        },
        "set": "own",
        "train_examples": "400",
        "valid_examples": "80",
    }
    assert f"the files in {fashion / 'raw'} are taken" in capfd.readouterr().err
    some = load_own("mnist", OwnSet(fashion, 200, 100))
    assert sizes(some) == (200, 100, 60) and some.identity != data.identity
    assert np.array_equal(some.train.x, data.train.x[:200])
    assert np.array_equal(some.valid.x[20:], data.valid.x)


def test_the_official_sizes_are_those_of_a_set_as_large():
    for module, n in ((mnist, 60_000), (cifar10, 50_000), (svhn, 604_388)):
        split = module.OFFICIAL.split
        assert OwnSet(Path()).split(split, n, split["test"]) == split


@pytest.mark.parametrize("python", [2, 3])
def test_a_set_in_cifar10s_form(python, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "_whitened", lambda *images: [np.float32(x) for x in images])
    folder = batch_set(tmp_path / "birds", python=python)
    before = contents(folder)
    data = load_own("cifar10", OwnSet(folder))
    assert sizes(data) == (432, 48, 160) and data.identity["data_batch_3"] == md5(
        (folder / "data_batch_3").read_bytes()
    )
    assert before.items() <= contents(folder).items()
    rows = np.array([2])
    for part in ("train", "valid", "test"):
        shown, remark = original_pixels.pixels(
            "cifar10", data, part, rows, folder, False, OwnSet(folder)
        )
        right = getattr(data, part).read(2, 3)[0].reshape(3, 32, 32)
        assert remark is None and np.allclose(255 * shown[0].transpose(2, 0, 1), right)
    (folder / "data_batch_2").unlink()
    with refused("data_batch_2 missing"):
        load_own("cifar10", OwnSet(folder))


@pytest.mark.parametrize("names", [("train", "test"), ("train", "test", "extra")])
def test_a_set_in_svhns_form(names, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("SVHN_LOCAL_PATH", raising=False)
    folder = mat_set(tmp_path / "plates", names)
    before = contents(folder)
    n = 200 * (len(names) - 1)
    own = OwnSet(folder, valid=40)
    data = load_own("svhn", own)
    assert sizes(data) == (n - 40, 40, 200) and is_own(data.identity)
    assert "extra_32x32.mat" in data.identity or len(names) == 2
    assert before.items() <= contents(folder).items()
    classes = [part.read(0, len(part))[1].argmax(1).tolist() for part in (data.train, data.valid)]
    mats = [scipy.io.loadmat(folder / f"{name}_32x32.mat") for name in names if name != "test"]
    labels = [int(label) - 1 for mat in mats for label in mat["y"].ravel()]
    assert sorted(classes[0] + classes[1]) == sorted(labels) and len(set(classes[1])) == 10
    made = sorted(folder.glob("preprocessed-*/h5/*.h5"))
    assert len(made) == 3 and "images" in capfd.readouterr().err
    load_own("svhn", own)
    assert capfd.readouterr().err == ""
    for part in ("valid", "test"):
        _, remark = original_pixels.pixels("svhn", data, part, np.arange(5), folder, False, own)
        assert remark is None
    load_own("svhn", replace(own, valid=30))  # another split has files of its own
    assert set(made) < set(folder.glob("preprocessed-*/h5/*.h5"))


def test_where_the_files_of_svhns_form_go(tmp_path, monkeypatch):
    folder = mat_set(tmp_path / "plates")
    monkeypatch.setenv("SVHN_LOCAL_PATH", str(tmp_path / "local"))
    (tmp_path / "local" / "h5").mkdir(parents=True)
    (tmp_path / "local" / "h5" / "splitted_train_32x32.h5").write_bytes(b"the official one")
    before = contents(folder)
    load_own("svhn", OwnSet(folder))
    assert contents(folder) == before and list((tmp_path / "local").glob("preprocessed-*/h5/*.h5"))
    official = tmp_path / "local" / "h5" / "splitted_train_32x32.h5"
    assert official.read_bytes() == b"the official one"


def test_labels_of_more_classes_are_refused(tmp_path):
    folder = idx_set(tmp_path / "letters")
    labels = np.arange(N).astype(np.uint8) % 26
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gz_bytes(idx_bytes(labels)))
    with refused("the label 25", "labels 0..9"):
        load_own("mnist", OwnSet(folder))
    folder = batch_set(tmp_path / "cifar")
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [3, 10]}
    (folder / "test_batch").write_bytes(pickle_bytes(batch))
    with refused("labels from 3 to 10", "labels 0..9"):
        load_own("cifar10", OwnSet(folder))
    folder = mat_set(tmp_path / "mat")
    labels = np.arange(200)[:, None] % 10
    zeros = {"X": np.zeros((32, 32, 3, 200), np.uint8), "y": labels}
    scipy.io.savemat(folder / "train_32x32.mat", zeros)
    with refused("labels other than 1..10"):
        load_own("svhn", OwnSet(folder))


@pytest.mark.parametrize(
    "own, parts",
    [
        ({"train": 401}, ("480", "401", "80", "--valid-examples")),
        ({"valid": 480}, ("480",)),
        ({"train": 127, "valid": 1}, ("127", "a batch takes 128")),
        ({"valid": 400}, ("80", "a batch takes 128")),
    ],
)
def test_sizes_that_cannot_be(own, parts, fashion):
    with refused(str(fashion), *parts):
        load_own("mnist", OwnSet(fashion, **own))


def test_a_part_without_examples_is_refused(tmp_path):
    with refused("a test at least 1"):
        load_own("mnist", OwnSet(idx_set(tmp_path / "untested", tests=0)))
    with refused("cannot be"):
        load_own("mnist", OwnSet(idx_set(tmp_path / "untrained", n=0)))


def test_a_set_of_another_form_is_refused(fashion, generated, tmp_path):
    with refused("data_batch_1", "missing", "not of CIFAR10's form", "has raw", "--data-set"):
        load_own("cifar10", OwnSet(fashion))
    with refused("train_32x32.mat", "missing", "not of SVHN's form"):
        load_own("svhn", OwnSet(fashion))
    with refused("is not there"):
        load_own("mnist", OwnSet(tmp_path / "none"))
    with refused("generated sample", "--sample"):
        load_own("mnist", OwnSet(generated / "mnist"))


@pytest.mark.parametrize(
    "folder, name",
    [
        ("data/FashionMNIST/raw", "FashionMNIST"),
        ("own", "own"),
        ("my digits (2)", "my-digits-2"),
        ("x/cifar-10-batches-py", "x"),
        ("/", "set"),
        ("x/é", "set"),
        ("x/y/..", "x"),
    ],
)
def test_names(folder, name):
    assert OwnSet(Path(folder)).name == name


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("labels", [list, np.array, lambda y: list(np.int64(y)), np.uint8])
def test_batches_as_somebody_writes_them(protocol, labels, tmp_path, monkeypatch):
    """With Python 3 and NumPy: lists, arrays and NumPy's numbers."""
    monkeypatch.setattr(cifar10, "_whitened", lambda *images: [np.float32(x) for x in images])
    x = np.arange(200 * 3072).astype(np.uint8).reshape(200, 3072)
    y = [k * 7 % 10 for k in range(200)]
    for name in ("data_batch_1", "test_batch"):
        (tmp_path / name).write_bytes(pickle.dumps({"data": x, "labels": labels(y)}, protocol))
    data = load_own("cifar10", OwnSet(tmp_path))
    assert np.array_equal(data.test.x, x) and data.test.y.argmax(1).tolist() == y


@pytest.mark.parametrize(
    "batch",
    [
        {"data": np.zeros((3, 3072)), "labels": [0] * 3},
        {"data": np.zeros((3, 3072), np.int64), "labels": [0] * 3},
        {"data": np.zeros((3, 3072), np.uint8).tolist(), "labels": [0] * 3},
        {"data": np.zeros((3, 3072), np.uint8), "labels": np.zeros(3)},
        {"data": np.zeros((3, 3072), np.uint8), "labels": np.zeros((3, 1), int)},
        {"data": np.zeros((3, 3072), np.uint8), "fine_labels": [0] * 3},
    ],
)
def test_batches_of_another_form_are_refused(batch, tmp_path):
    batch_set(tmp_path / "own")
    for protocol in (4, 5):
        (tmp_path / "own" / "data_batch_2").write_bytes(pickle.dumps(batch, protocol))
        with refused("data_batch_2", "give a "):
            load_own("cifar10", OwnSet(tmp_path / "own"))


def test_a_file_that_matlab_does_not_write_so(tmp_path):
    folder = mat_set(tmp_path / "plates")
    x = np.zeros((32, 32, 3, 200), np.uint8)
    scipy.io.savemat(folder / "train_32x32.mat", {"X": x, "y": np.ones((1, 200))})
    with refused("train_32x32.mat", "y (1, 200)", "(n, 1)"):
        load_own("svhn", OwnSet(folder))
    scipy.io.savemat(folder / "train_32x32.mat", {"X": x.T, "y": np.ones((200, 1))})
    with refused("train_32x32.mat", "X (200, 3, 32, 32)", "(32, 32, 3, n)"):
        load_own("svhn", OwnSet(folder))
    (folder / "train_32x32.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(600, b"\0"))
    with refused("train_32x32.mat", "no MATLAB 5 file", "-v7"):
        load_own("svhn", OwnSet(folder))


def test_the_folder_for_svhns_form_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SVHN_LOCAL_PATH", "~/local")
    monkeypatch.chdir(tmp_path)
    load_own("svhn", OwnSet(mat_set(tmp_path / "plates")))
    assert (tmp_path / "local").is_dir() and not (tmp_path / "~").exists()
    monkeypatch.setenv("SVHN_LOCAL_PATH", "$NOT_SET_AT_ALL/x")
    for load in (
        lambda: svhn.load(tmp_path),
        lambda: load_own("svhn", OwnSet(tmp_path / "plates")),
    ):
        with refused("SVHN_LOCAL_PATH", "is not set"):
            load()


def test_a_sorted_set_is_remarked_on(fashion, tmp_path, capfd):
    folder = idx_set(tmp_path / "sorted")
    labels = np.sort(np.arange(N) % 10).astype(np.uint8)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gz_bytes(idx_bytes(labels)))
    load_own("mnist", OwnSet(folder))
    said = capfd.readouterr().err
    assert "valid has no example of class 0, 1, 2, 3, 4, 5, 6, 7; are they sorted?" in said
    load_own("mnist", OwnSet(fashion))
    assert "no example" not in capfd.readouterr().err


def test_official_files_as_an_own_set_are_remarked_on(generated, tmp_path, monkeypatch, capfd):
    sums = json.loads((generated / "mnist" / "manifest.json").read_text())["files"]
    set_official(monkeypatch, mnist, sums=sums)
    monkeypatch.setitem(datasets.OFFICIAL, "mnist", mnist.OFFICIAL)
    for path in (generated / "mnist").glob("*.gz"):
        shutil.copy(path, tmp_path)
    assert is_own(load_own("mnist", OwnSet(tmp_path)).identity)
    assert "these are the official files, with --data they count as such" in capfd.readouterr().err


# Runs.

LINE = ["PI_MNIST", "FLP", "--epochs", "1"]


def said(capsys, status, main_program, line):
    """What a program says on stdout and stderr as it ends with a status."""
    capsys.readouterr()
    assert status_of(main_program, line) == status, capsys.readouterr().err
    return capsys.readouterr()


@pytest.fixture(scope="module")
def runs(fashion, sample, tmp_path_factory):
    """A folder with finished runs on the three kinds of data, OFFICIAL being a copy of the sample
    that counts as such: name -> (run folder, options of its data)."""
    folder = tmp_path_factory.mktemp("three")
    (folder / "official" / "mnist").mkdir(parents=True)
    for path in (sample / "mnist").glob("*.gz"):
        shutil.copy(path, folder / "official" / "mnist")
    manifest = json.loads((sample / "mnist" / "manifest.json").read_text())
    kinds = {
        "official": ["--data", folder / "official"],
        "sample": ["--data", sample, "--sample"],
        "own": ["--data-set", fashion],
        "copied": ["--data-set", folder / "official" / "mnist"],  # the same files, as an own set
    }
    with pytest.MonkeyPatch.context() as patch:
        set_official(patch, mnist, sums=manifest["files"], split=manifest["split"])
        for name, options in kinds.items():
            assert status_of(main, [*LINE, *options, "--out", folder / "runs" / name]) == 0
        yield {name: (folder / "runs" / name, options) for name, options in kinds.items()}


def test_a_run_says_what_it_was_trained_on(runs, fashion, capsys):
    run, options = runs["own"]
    config = json.loads((run / "config.json").read_text())
    identity = load_own("mnist", OwnSet(fashion)).identity
    assert config["data"] == identity and config["own_set"] == "FashionMNIST"
    for name in ("best", "final"):
        network = networks.read(run / f"{name}.npz")
        assert network.data == identity and network.own_set == "FashionMNIST"
        assert "(own data FashionMNIST)" in words(network)
    out, _ = said(capsys, 0, main, [*LINE, *options, "--out", run])
    assert "epochs on the set FashionMNIST; run folder" in out
    assert read(run, False).data == "own data FashionMNIST"
    assert "own_set" not in json.loads((runs["official"][0] / "config.json").read_text())
    assert ", own data FashionMNIST" in title([read(run, False)])
    out, _ = said(capsys, 0, results.main, [run])
    assert "(own data FashionMNIST)" in out and "nothing about the paper's" in out


PAIRS = [
    (run, data)
    for run in ("official", "sample", "own", "copied")
    for data in ("official", "sample", "own", "copied")
    if run != data
]


@pytest.mark.parametrize("run, data", PAIRS)
def test_no_run_goes_on_with_data_of_another_kind(run, data, runs, tmp_path, capsys):
    """Unfinished or not, with TASK or without."""
    folder, _ = runs[run]
    unfinished = shutil.copytree(folder, tmp_path / "run")
    (unfinished / "final.npz").unlink()
    options = runs[data][1]
    before = contents(unfinished)
    for line in (
        [*LINE, "--out", folder],
        [*LINE, "--out", unfinished],
        ["--resume", "--out", unfinished],
    ):
        if (run, data) == ("sample", "official") and "--resume" in line:
            continue  # that it is the sample is known from the run
        _, err = said(capsys, 2, main, [*line, *options])
        refusals = ("was trained on", "was not trained on", "generated sample", "cannot be 2000")
        assert any(words in err for words in refusals)
        assert err.count("main.py: ") == 1
    assert contents(unfinished) == before


@pytest.mark.parametrize("run, data", PAIRS)
def test_no_network_is_evaluated_on_data_of_another_kind(run, data, runs, capsys):
    _, err = said(capsys, 2, evaluate.main, [runs[run][0], *runs[data][1]])
    assert any(words in err for words in ("trained on", "sample", "cannot be 2000"))


def test_a_network_is_evaluated_on_its_own_data(runs, capsys, tmp_path):
    folder, options = runs["own"]
    picture = tmp_path / "mistakes.svg"
    out, _ = said(capsys, 0, evaluate.main, [folder, *options, "--mistakes", picture])
    assert "in every digit the recorded one" in out and picture.exists()
    assert "(own data FashionMNIST)" in out


@pytest.mark.parametrize("run, data", PAIRS)
def test_no_sweep_takes_runs_of_another_kind(run, data, runs, tmp_path, capsys):
    out = tmp_path / "sweep"
    names = {
        "official": "",
        "sample": "_sample",
        "own": "_own_FashionMNIST",
        "copied": "_own_mnist",
    }
    place = out / f"PI_MNIST_FLP_epochs1{names[data]}"
    shutil.copytree(runs[run][0], place)
    before = contents(place)
    capsys.readouterr()
    status = status_of(sweep.main, [*LINE, *runs[data][1], "--out", out])
    everything = "".join(capsys.readouterr())
    assert status == 2 and "was trained on" in everything
    assert contents(place) == before


def test_a_sweep_on_an_own_set(fashion, tmp_path, capsys):
    line = [*LINE, "--data-set", fashion, "--valid-examples", "100", "--out", tmp_path]
    out, _ = said(capsys, 0, sweep.main, line)
    folder = tmp_path / "PI_MNIST_FLP_epochs1_own_FashionMNIST"
    config = json.loads((folder / "config.json").read_text())
    assert config["data"]["valid_examples"] == "100" and config["own_set"] == "FashionMNIST"
    assert config["command"][-4:] == ["--data-set", str(fashion), "--valid-examples", "100"]
    capsys.readouterr()
    assert status_of(main, [*config["command"][1:], "--out", folder]) == 0


def test_resume_takes_the_sizes_from_the_run(fashion, tmp_path, capsys):
    line = ["PI_MNIST", "FLP", "--epochs", "2", "--stop-after", "1", "--out", tmp_path / "run"]
    options = ["--data-set", fashion, "--train-examples", "200"]
    assert status_of(main, [*line, *options]) == 0
    resume = ["--resume", "--out", tmp_path / "run"]
    _, err = said(capsys, 2, main, resume)
    assert "name its folder with --data-set" in err
    _, err = said(capsys, 2, main, [*resume, *options])
    assert "leave --train-examples out" in err
    _, err = said(capsys, 2, main, [*line[:-4], *options[:2], "--out", tmp_path / "run"])
    assert "other data (train_examples)" in err
    out, _ = said(capsys, 0, main, [*resume, "--data-set", fashion])
    assert "trained 2 of 2 epochs on the set FashionMNIST" in out


@pytest.mark.parametrize(
    "options, words",
    [
        (["--train-examples", "9"], "--train-examples is for a set of your own"),
        (["--data-set", "x", "--sample"], "another set than --sample"),
        (["--data-set", "x", "--data", "y"], "another set than --data"),
        (["--data-set", "x", "--valid-examples", "0"], "--valid-examples"),
        (["--data-set", "none"], "none is not there"),
        (["--data-set", __file__], "is no folder"),
    ],
)
def test_options_that_do_not_fit(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for program in (main, sweep.main):
        _, err = said(capsys, 2, program, [*LINE, *options])
        assert words in err and err.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.suffix != ".csv" and path.is_file()]


def test_two_own_sets_of_one_name_are_told_apart(tmp_path):
    from utilities.outcomes import collect

    for k in (1, 2):
        identity = {"train-images-idx3-ubyte": str(k), "set": "own"}
        fake_run(tmp_path / str(k), 1.0, config={"data": identity, "own_set": "digits"})
    outcomes, _ = collect([tmp_path])
    assert len({o.data for o in outcomes}) == 2
    assert all(o.data.startswith("own data digits ") for o in outcomes)
