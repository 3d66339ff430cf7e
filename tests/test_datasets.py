"""datasets.py: what the readers return, and that no wrong, damaged or unasked-for file is ever used."""

import contextlib
import gzip
import hashlib
import http.server
import json
import os
import pickle
import shutil
import socket
import struct
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from datasets import ArrayPart, cifar10, load, mnist, source
from datasets.cifar10 import read_cifar10_pickles
from datasets.mat import read_svhn_mat
from datasets.mnist import load_mnist
from datasets.parts import check_finite, one_hot
from datasets.sample import ensure_sample, gz_bytes, idx_bytes, pickle_bytes
from errors import DataError

TRAIN_X, TRAIN_Y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_X, TEST_Y = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    ensure_sample(folder)
    return folder


@pytest.fixture
def copy(sample, tmp_path):
    """A copy of the sample that a test may damage."""
    return shutil.copytree(sample, tmp_path / "copy")


@contextlib.contextmanager
def refused(*parts):
    """A DataError of one line that has all these parts."""
    with pytest.raises(DataError) as error:
        yield
    assert len(str(error.value).splitlines()) == 1
    for part in parts:
        assert part in str(error.value)


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def put(folder, name, content, announce=True):
    """Write a file into a sample set; announce: with its sum in the manifest."""
    (folder / name).write_bytes(content)
    if announce:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = md5(content)
        (folder / "manifest.json").write_text(json.dumps(manifest))


# ----------------------------------------------------------------------------------------------- parts


def test_one_hot():
    y = one_hot(np.array([0, 9, 3], np.uint8))
    assert y.dtype == np.float32 and y.tolist() == [
        [1] + [0] * 9,
        [0] * 9 + [1],
        [0, 0, 0, 1] + [0] * 6,
    ]
    assert one_hot(np.zeros(0, int)).shape == (0, 10)


@pytest.mark.parametrize("labels", [[10], [-1], [0.5], [[1, 2]]])
def test_one_hot_refuses_what_is_no_label(labels):
    with refused("label"):
        one_hot(labels)


def test_array_part():
    x = np.arange(12, dtype=np.float64).reshape(4, 3)
    part = ArrayPart(x, [1, 2, 3, 4])
    assert len(part) == 4 and part.n_features == 3
    rows, y = part.read(1, 3)
    assert rows.dtype == y.dtype == np.float32
    assert np.array_equal(rows, x[1:3]) and y.argmax(1).tolist() == [2, 3]
    assert np.array_equal(ArrayPart(x, part.y).y, part.y)
    for labels in ([1, 2, 3], np.zeros((4, 9)), np.zeros((3, 10))):
        with refused("do not fit"):
            ArrayPart(x, labels)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_check_finite(bad):
    x = np.zeros((3, 4), np.float32)
    check_finite("train", x)
    x[1, 2] = bad
    with refused("train", "1 of 12"):
        check_finite("train", x)


def test_data_error_is_always_one_line():
    assert str(DataError("a\nb\r\nc")) == "a b c"


# ----------------------------------------------------------------------------------------------- MNIST


def test_mnist_sample(sample):
    data = load("mnist", sample, sample=True)
    images = np.frombuffer(
        gzip.decompress((sample / f"mnist/{TRAIN_X}.gz").read_bytes())[16:], np.uint8
    )
    labels = gzip.decompress((sample / f"mnist/{TRAIN_Y}.gz").read_bytes())[8:]
    assert [len(part) for part in (data.train, data.valid, data.test)] == [2000, 500, 500]
    x = np.concatenate([data.train.x, data.valid.x])
    assert x.dtype == np.float32 and data.train.n_features == 784
    assert np.array_equal(x, (images.astype(np.float32) / np.float32(255)).reshape(-1, 784))
    assert np.concatenate([data.train.y, data.valid.y]).argmax(1).tolist() == list(labels)
    assert 0 == x.min() < x.max() == 1
    assert set(data.identity) == {TRAIN_X, TRAIN_Y, TEST_X, TEST_Y}
    assert data.identity[TRAIN_Y] == md5(
        gzip.decompress((sample / f"mnist/{TRAIN_Y}.gz").read_bytes())
    )


def test_mnist_plain_or_compressed_again_is_the_same_data(sample, copy):
    folder, expected = copy / "mnist", load_mnist(sample, sample=True)
    for name in (TRAIN_X, TEST_Y):
        (folder / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
        (folder / f"{name}.gz").unlink()
    again = gzip.compress(gzip.decompress((folder / f"{TEST_X}.gz").read_bytes()), 1)
    assert again != (folder / f"{TEST_X}.gz").read_bytes()
    (folder / f"{TEST_X}.gz").write_bytes(again)
    found = load_mnist(copy, sample=True)
    assert found.identity == expected.identity
    assert np.array_equal(found.train.x, expected.train.x) and np.array_equal(
        found.test.x, expected.test.x
    )


def test_mnist_takes_whichever_of_gz_and_plain_is_right(copy):
    folder = copy / "mnist"
    good = gzip.decompress((folder / f"{TEST_Y}.gz").read_bytes())
    (folder / TEST_Y).write_bytes(b"junk")
    load_mnist(copy, sample=True)
    (folder / TEST_Y).write_bytes(good)
    (folder / f"{TEST_Y}.gz").write_bytes(b"junk")
    load_mnist(copy, sample=True)


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:5],
        lambda data: b"",
        lambda data: flip(data, 1000),
        lambda data: flip(data, len(data) - 6),
        lambda data: gz_bytes(flip(gzip.decompress(data), 999)),
        lambda data: gz_bytes(gzip.decompress(data)[:-1]),
        lambda data: data + b"more",
    ],
    ids=["half", "5 bytes", "empty", "bit", "checksum", "pixel", "short inside", "longer"],
)
@pytest.mark.parametrize("name", [TRAIN_X, TEST_X])
def test_mnist_damaged_file_is_named(copy, name, damage):
    path = copy / "mnist" / f"{name}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with refused(f"{name}.gz", "sample_data"):
        load_mnist(copy, sample=True)


def test_mnist_swapped_files_are_named(copy):
    folder = copy / "mnist"
    a, b = folder / f"{TRAIN_X}.gz", folder / f"{TEST_X}.gz"
    contents = a.read_bytes(), b.read_bytes()
    b.write_bytes(contents[0])
    a.write_bytes(contents[1])
    with refused(f"{TRAIN_X}.gz has the content of {TEST_X}"):
        load_mnist(copy, sample=True)


def test_mnist_unreadable_file_is_named(copy):
    (copy / "mnist" / f"{TEST_X}.gz").unlink()
    (copy / "mnist" / f"{TEST_X}.gz").mkdir()
    with refused("cannot read", f"{TEST_X}.gz"):
        load_mnist(copy, sample=True)


IMAGES, LABELS = np.zeros((500, 28, 28), np.uint8), np.zeros(500, np.uint8)


@pytest.mark.parametrize(
    "name, content, parts",
    [
        (TEST_Y, idx_bytes(LABELS[:499]), ("500 images", "499 labels")),
        (TEST_Y, idx_bytes(LABELS + 10), (TEST_Y, "label 10")),
        (TEST_Y, idx_bytes(LABELS)[:-1], (TEST_Y, "499 bytes")),
        (TEST_Y, idx_bytes(IMAGES), (TEST_Y, "2049")),
        (TEST_X, idx_bytes(LABELS), (TEST_X, "2051")),
        (TEST_X, idx_bytes(IMAGES.reshape(-1, 14, 56)), (TEST_X, "(14, 56)")),
        (TEST_X, struct.pack(">4i", 2051, -1, 28, 28), (TEST_X, "-1 items")),
        (TEST_X, idx_bytes(IMAGES) + b"x", (TEST_X, "392001 bytes")),
        (TEST_X, b"\0\0\x08\x03\0", (TEST_X, "2051")),
        (TEST_X, b"", (TEST_X, "2051")),
    ],
)
def test_mnist_wrong_content_is_named_even_with_its_sum_announced(copy, name, content, parts):
    (copy / "mnist" / f"{name}.gz").unlink()
    put(copy / "mnist", name, content)
    with refused(*parts):
        load_mnist(copy, sample=True)


@pytest.mark.parametrize(
    "change, parts",
    [
        (lambda m: m["split"].update(train=1999), (TRAIN_X, "2500 images", "2499")),
        (lambda m: m["split"].update(test=0), ("manifest.json is damaged",)),
        (lambda m: m["split"].pop("valid"), ("manifest.json is damaged",)),
        (lambda m: m["split"].update(valid="500"), ("manifest.json is damaged",)),
        (lambda m: m.update(sample=False), ("manifest.json is damaged",)),
        (lambda m: m.update(files=[]), ("manifest.json is damaged",)),
        (
            lambda m: [m["files"].pop(name) for name in (TEST_X, f"{TEST_X}.gz")],
            (f"{TEST_X}.gz", "not the sample file"),
        ),
    ],
)
def test_mnist_manifest_mismatch(copy, change, parts):
    path = copy / "mnist" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with refused(*parts):
        load_mnist(copy, sample=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "\ud800"])
def test_manifest_that_is_none(copy, text):
    (copy / "mnist" / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with refused("manifest.json is damaged"):
        load_mnist(copy, sample=True)


def test_sample_file_missing(copy, monkeypatch):
    monkeypatch.setattr(
        mnist, "_fetch_mnist", lambda *_: pytest.fail("a sample file is never downloaded")
    )
    (copy / "mnist" / f"{TEST_X}.gz").unlink()
    with refused(TEST_X, "missing from the generated sample"):
        load_mnist(copy, sample=True)


def test_sample_is_never_used_unasked(sample, copy):
    for reader in (load_mnist, read_cifar10_pickles):
        with refused("generated sample", "--sample"):
            reader(sample)
    # with its manifest gone it is still not the official data
    (copy / "mnist" / "manifest.json").unlink()
    with refused(f"{TRAIN_X}.gz is not the official file", "--sample"):
        load_mnist(copy, download=False)


def test_sample_asked_for_where_there_is_none(tmp_path, copy):
    (copy / "mnist" / "manifest.json").unlink()
    for folder in (tmp_path / "empty", copy):
        with refused("no generated sample", "sample_data"):
            load_mnist(folder, sample=True)


@pytest.mark.parametrize("data_set", ["CIFAR100", "MNIST", ""])
def test_unknown_data_set(data_set, tmp_path):
    with refused("is none of"):
        load(data_set, tmp_path)


# -------------------------------------------------------------------------------------------- download


@contextlib.contextmanager
def mirror(files):
    """An HTTP server on this machine: (address, list of the paths asked for with GET)."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.lstrip("/")
            asked.append(name) if self.command == "GET" else None
            self.send_response(200 if name in files else 404)
            self.send_header("Content-Length", str(len(files.get(name, b""))))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(files.get(name, b""))

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", asked
        server.shutdown()


@pytest.fixture
def closed(monkeypatch):
    """The address of a port at which nothing listens; proxies are left out of it."""
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.fixture
def official(sample, monkeypatch):
    """Files that count as the official ones, so that a small download can succeed: name -> bytes."""
    manifest = json.loads((sample / "mnist" / "manifest.json").read_text())
    monkeypatch.setattr(mnist, "MNIST_MD5", manifest["files"])
    monkeypatch.setattr(mnist, "MNIST_SPLIT", manifest["split"])
    return {path.name: path.read_bytes() for path in (sample / "mnist").glob("*.gz")}


def test_offline_is_one_line_within_seconds(closed, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(mnist, "MNIST_MIRRORS", (closed, closed))
    start = time.monotonic()
    with refused(
        *(f"{name}.gz" for name in mnist.MNIST_NAMES), str(tmp_path / "mnist"), "--sample"
    ):
        load_mnist(tmp_path)
    assert time.monotonic() - start < 4
    assert capfd.readouterr() == ("", "")
    assert not any(tmp_path.rglob("*.gz"))


def test_mirror_that_never_answers(closed, monkeypatch, tmp_path):
    monkeypatch.setattr(source, "CONNECT_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(
            mnist, "MNIST_MIRRORS", (f"http://127.0.0.1:{silent.getsockname()[1]}/",) * 2
        )
        start = time.monotonic()
        with refused("no mirror answered", "--sample"):
            load_mnist(tmp_path)
    assert time.monotonic() - start < 4


def test_name_look_up_that_hangs(closed, monkeypatch, tmp_path):
    monkeypatch.setattr(source, "CONNECT_SECONDS", 0.5)
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20) and [])
    start = time.monotonic()
    with refused("no mirror answered", "--sample"):
        load_mnist(tmp_path)
    assert time.monotonic() - start < 4
    over.set()


def test_no_download_unless_allowed(monkeypatch, tmp_path):
    monkeypatch.setattr(source, "_reachable", lambda *_: pytest.fail("the network was asked"))
    with refused("missing", "--sample"):
        load_mnist(tmp_path, download=False)


def test_download_goes_from_a_wrong_file_to_the_next_mirror(
    closed, official, monkeypatch, tmp_path, capfd
):
    wrong = dict(official, **{f"{TRAIN_X}.gz": b"not this"})
    del wrong[f"{TEST_Y}.gz"]
    with mirror(wrong) as (first, asked_first), mirror(official) as (second, asked_second):
        monkeypatch.setattr(mnist, "MNIST_MIRRORS", (closed, first, second))
        data = load_mnist(tmp_path)
    assert len(data.train) == 2000 and data.name == "MNIST"
    assert sorted(asked_first) == sorted(official)
    assert sorted(asked_second) == sorted([f"{TRAIN_X}.gz", f"{TEST_Y}.gz"])
    kept = {path.name: path.read_bytes() for path in (tmp_path / "mnist").iterdir()}
    assert kept == official  # and no leftovers
    out, err = capfd.readouterr()
    assert out == "" and "B/s" in err and "Downloading" not in err
    load_mnist(tmp_path, download=False)


def test_download_keeps_nothing_with_a_wrong_sum(closed, official, monkeypatch, tmp_path):
    with mirror(dict.fromkeys(official, b"a login page")) as (url, _):
        monkeypatch.setattr(mnist, "MNIST_MIRRORS", (url,))
        with refused("wrong MD5", *official):
            load_mnist(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_download_gets_only_what_is_missing(closed, official, monkeypatch, tmp_path):
    (tmp_path / "mnist").mkdir()
    for name, content in official.items():
        if name != f"{TEST_X}.gz":
            (tmp_path / "mnist" / name).write_bytes(content)
    with mirror(official) as (url, asked):
        monkeypatch.setattr(mnist, "MNIST_MIRRORS", (url,))
        load_mnist(tmp_path)
    assert asked == [f"{TEST_X}.gz"]


def test_download_never_replaces_a_file_that_is_there(closed, official, monkeypatch, tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / f"{TEST_X}.gz").write_bytes(b"mine")
    with mirror(official) as (url, _):
        monkeypatch.setattr(mnist, "MNIST_MIRRORS", (url,))
        with refused(f"{TEST_X}.gz"):
            load_mnist(tmp_path)
    assert (tmp_path / "mnist" / f"{TEST_X}.gz").read_bytes() == b"mine"


def test_download_into_what_is_no_folder(closed, official, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    with mirror(official) as (url, _):
        monkeypatch.setattr(mnist, "MNIST_MIRRORS", (url,))
        with refused("cannot write"):
            load_mnist(tmp_path / "file")


# -------------------------------------------------------------------------------------- CIFAR-10, SVHN

CIFAR = Path("cifar10", "cifar-10-batches-py")


def batch(n=200, labels=None, width=3072):
    return {
        b"batch_label": b"testing batch 1 of 1",
        b"filenames": [b"a"] * n,
        b"labels": [k % 10 for k in range(n)] if labels is None else labels,
        b"data": np.resize(np.arange(256).astype(np.uint8), (n, width)),
    }


def test_cifar10_sample(sample):
    x, labels, test_x, test_labels, identity = read_cifar10_pickles(sample, sample=True)
    assert (
        x.shape == (1000, 3072)
        and test_x.shape == (200, 3072)
        and x.dtype == test_x.dtype == np.uint8
    )
    assert labels.shape == (1000,) and labels.dtype == test_labels.dtype == np.int64
    assert set(labels) == set(test_labels) == set(range(10))
    assert identity == {
        name: md5((sample / CIFAR / name).read_bytes()) for name in cifar10.CIFAR10_MD5
    }
    for k, found in (
        (1, x[:200]),
        (5, x[800:]),
    ):  # files in order; and what any pickle reader finds in them
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy.core has moved since
            whole = pickle.loads(
                (sample / CIFAR / f"data_batch_{k}").read_bytes(), encoding="bytes"
            )
        assert np.array_equal(whole[b"data"], found)
        assert whole[b"labels"] == labels[200 * (k - 1) : 200 * k].tolist()


def test_cifar10_reader_takes_a_batch_written_by_this_numpy(copy):
    data = batch()
    data[b"labels"] = list(range(10)) * 20
    content = pickle.dumps({"x": 1, **data}, protocol=4)
    put(copy / CIFAR, "test_batch", content)
    assert np.array_equal(read_cifar10_pickles(copy, sample=True)[2], data[b"data"])


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        (os.mkdir, "HERE"),
        (eval, "__import__('os').mkdir('HERE')"),
        (np.save, "HERE", 1),
        (np.memmap, "HERE"),
        (exec, "open('HERE', 'w')"),
        (getattr, np.ndarray, "dump"),
    ],
)
def test_hostile_pickle_is_refused_unrun(copy, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    for value in (Hostile(*call), dict(batch(), more=Hostile(*call))):
        put(copy / CIFAR, "data_batch_3", pickle.dumps(value, protocol=2))
        with refused("data_batch_3", "it asks for"):
            read_cifar10_pickles(copy, sample=True)
    assert not list(tmp_path.glob("HERE*"))


@pytest.mark.parametrize(
    "content",
    [
        pickle_bytes(batch())[:-1],
        pickle_bytes(batch())[:1000],
        b"",
        b"junk",
        pickle.dumps(None),
        pickle_bytes([]),
        pickle_bytes({b"data": b"x", b"labels": [1]}),
        pickle_bytes(batch(width=3071)),
        pickle_bytes(batch(labels=[0] * 199)),
        pickle_bytes(batch(labels=[10] * 200)),
        pickle_bytes(batch(labels=[-1] * 200)),
        pickle_bytes(batch(labels=[b"1"] * 200)),
        pickle_bytes(batch()).replace(b"u1", b"O8"),
        pickle.dumps({**batch(), b"data": np.asfortranarray(batch()[b"data"])}, protocol=4),
        pickle_bytes(batch(400, [0] * 400)).replace(b"J\x90\1", b"J\x91\1"),
    ],
    ids=[
        "no end",
        "1000 bytes",
        "empty",
        "junk",
        "None",
        "list",
        "no array",
        "width",
        "199 labels",
        "label 10",
        "label -1",
        "text label",
        "objects",
        "Fortran order",
        "shape",
    ],
)
def test_cifar10_wrong_content_is_named_even_with_its_sum_announced(copy, content):
    put(copy / CIFAR, "test_batch", content)
    with refused("test_batch"):
        read_cifar10_pickles(copy, sample=True)


def test_cifar10_damaged_swapped_missing(copy):
    folder = copy / CIFAR
    original = (folder / "data_batch_2").read_bytes()
    put(folder, "data_batch_2", flip(original, 5000), announce=False)
    with refused("data_batch_2", "corrupted"):
        read_cifar10_pickles(copy, sample=True)
    put(folder, "data_batch_2", (folder / "test_batch").read_bytes(), announce=False)
    with refused("data_batch_2 has the content of test_batch"):
        read_cifar10_pickles(copy, sample=True)
    (folder / "data_batch_2").unlink()
    with refused("data_batch_2", "missing"):
        read_cifar10_pickles(copy, sample=True)
    put(folder, "data_batch_2", pickle_bytes(batch(199)))
    with refused("999 images", "1000"):
        read_cifar10_pickles(copy, sample=True)


def test_cifar10_missing_official_files(tmp_path):
    with refused("data_batch_1", "test_batch", str(tmp_path / CIFAR), "--sample"):
        read_cifar10_pickles(tmp_path)


def mat(path, **variables):
    scipy.io.savemat(path, variables, do_compression=True)  # as the official files are
    return path


X = np.random.RandomState(0).randint(256, size=(32, 32, 3, 20)).astype(np.uint8)
Y = np.arange(20)[:, None] % 10 + 1


def test_svhn_sample(sample):
    for name, n in (("train", 600), ("test", 200), ("extra", 600)):
        x, labels = read_svhn_mat(sample / f"SVHN/format2/{name}_32x32.mat")
        assert x.shape == (n, 3072) and x.dtype == np.uint8
        assert np.bincount(labels, minlength=11).tolist() == [0] + [n // 10] * 10


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int32])
def test_svhn_order_is_channel_row_column(tmp_path, dtype):
    x, labels = read_svhn_mat(mat(tmp_path / "a.mat", X=X, y=Y.astype(dtype)))
    assert labels.dtype == np.int64 and np.array_equal(labels, Y[:, 0]) and x.flags.c_contiguous
    for image, channel, row, column in ((0, 0, 0, 1), (7, 2, 31, 5), (19, 1, 4, 30)):
        assert x[image, 1024 * channel + 32 * row + column] == X[row, column, channel, image]


@pytest.mark.parametrize(
    "variables",
    [
        {"X": X},
        {"y": Y},
        {"X": X, "y": Y[:-1]},
        {"X": X, "y": Y - 1},
        {"X": X, "y": Y + 1},
        {"X": X, "y": Y + 0.5},
        {"X": X, "y": Y * np.nan},
        {"X": X, "y": Y + 0j},
        {"X": X, "y": scipy.sparse.eye(20, 1)},
        {"X": X.astype(float), "y": Y},
        {"X": X[:31], "y": Y},
        {"X": X[:, :, :2], "y": Y},
        {"X": X[..., 0], "y": Y},
        {"X": {"a": 1}, "y": Y},
        {"X": "X", "y": "y"},
    ],
)
def test_svhn_wrong_content_is_named(tmp_path, variables):
    with refused("wrong.mat", "replace it"):
        read_svhn_mat(mat(tmp_path / "wrong.mat", **variables))


@pytest.mark.parametrize("compressed", [True, False])
def test_svhn_truncated_file_is_named(tmp_path, compressed):
    path = tmp_path / "cut.mat"
    scipy.io.savemat(path, {"X": X, "y": Y}, do_compression=compressed)
    whole = path.read_bytes()
    n = len(whole)
    for length in [*range(0, n, n // 15), 127, 128, 130, 140, n - 50, n - 9]:
        path.write_bytes(whole[:length])
        with refused("cut.mat"):
            read_svhn_mat(path)


def test_svhn_missing_or_no_mat_file(tmp_path):
    with refused("train_32x32.mat missing", str(tmp_path), "--sample"):
        read_svhn_mat(tmp_path / "train_32x32.mat")
    for head in (b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM", b""):
        content = head + bytes(600)
        (tmp_path / "a.mat").write_bytes(content)
        with refused("a.mat"):
            read_svhn_mat(tmp_path / "a.mat")


# ------------------------------------------------------------------------------------------- real data


def real(part):
    """The data folder with the real file `part`: PYLEARN2_DATA_PATH, or shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folders = [Path(folder) for folder in (os.environ.get("PYLEARN2_DATA_PATH"), beside) if folder]
    for folder in folders:
        if (folder / part).exists() and not (folder / part).with_name("manifest.json").exists():
            return folder
    pytest.skip(f"no real {part} in {' or '.join(map(str, folders))} (PYLEARN2_DATA_PATH)")


def test_real_mnist():
    data = load("mnist", real(f"mnist/{TRAIN_X}.gz"))
    assert [len(part) for part in (data.train, data.valid, data.test)] == [50_000, 10_000, 10_000]
    assert [part.y[:5].argmax(1).tolist() for part in (data.train, data.valid, data.test)] == [
        [5, 0, 4, 1, 9],
        [3, 8, 6, 9, 6],
        [7, 2, 1, 0, 4],
    ]  # known from every publication of MNIST
    x = np.concatenate([data.train.x, data.valid.x])
    assert x.mean(dtype=np.float64) == pytest.approx(0.1306604, abs=1e-7)
    assert data.identity == {name: mnist.MNIST_MD5[name] for name in mnist.MNIST_NAMES}


def test_real_mnist_damaged_or_as_sample(tmp_path):
    folder = real(f"mnist/{TRAIN_X}.gz")
    for name in mnist.MNIST_NAMES:
        os.makedirs(tmp_path / "mnist", exist_ok=True)
        (tmp_path / "mnist" / f"{name}.gz").symlink_to(folder / "mnist" / f"{name}.gz")
    with refused("no generated sample"):
        load_mnist(tmp_path, sample=True)
    (tmp_path / "mnist" / f"{TEST_X}.gz").unlink()
    shutil.copy(folder / "mnist" / f"{TRAIN_X}.gz", tmp_path / "mnist" / f"{TEST_X}.gz")
    with refused(f"{TEST_X}.gz has the content of {TRAIN_X}", "--sample"):
        load_mnist(tmp_path)


def test_real_cifar10():
    x, labels, test_x, test_labels, identity = read_cifar10_pickles(
        real(str(CIFAR / "data_batch_1"))
    )
    assert x.shape == (50_000, 3072) and test_x.shape == (10_000, 3072)
    assert labels[:5].tolist() == [6, 9, 9, 4, 1] and test_labels[:5].tolist() == [3, 8, 8, 0, 6]
    assert np.bincount(labels).tolist() == [5000] * 10
    assert x.reshape(-1, 3, 1024).mean((0, 2)) == pytest.approx(
        [125.307, 122.950, 113.865], abs=1e-3
    )
    assert identity == cifar10.CIFAR10_MD5
