"""datasets/mnist.py: what the reader returns; no wrong, damaged or unasked-for file is ever used.

The rules of datasets/source.py are tested here, too: manifests, and what is downloaded when.
"""

import gzip
import json
import os
import shutil
import socket
import struct
import threading
import time
import tracemalloc

import numpy as np
import pytest
from data_files import flip, put, read_cifar10, real, refused, serving, set_official

from datasets import load, mnist, source
from datasets.sample import gz_bytes, idx_bytes
from files import md5

TRAIN_X, TRAIN_Y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_X, TEST_Y = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture
def copy(generated, tmp_path):
    """A copy of the sample that a test may damage."""
    shutil.copytree(generated / "mnist", tmp_path / "copy" / "mnist")
    return tmp_path / "copy"


@pytest.fixture
def closed(monkeypatch):
    """The address of a port at which nothing listens; proxies are left out of it."""
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.fixture
def official(generated, monkeypatch):
    """Files that count as the official ones, so that a small download can succeed."""
    manifest = json.loads((generated / "mnist" / "manifest.json").read_text())
    set_official(monkeypatch, mnist, sums=manifest["files"], split=manifest["split"])
    return {path.name: path.read_bytes() for path in (generated / "mnist").glob("*.gz")}


def test_mnist_sample(generated):
    data = load("mnist", generated, sample=True)
    images = np.frombuffer(
        gzip.decompress((generated / f"mnist/{TRAIN_X}.gz").read_bytes())[16:], np.uint8
    )
    labels = gzip.decompress((generated / f"mnist/{TRAIN_Y}.gz").read_bytes())[8:]
    assert [len(part) for part in (data.train, data.valid, data.test)] == [2000, 500, 500]
    x = np.concatenate([data.train.x, data.valid.x])
    assert x.dtype == np.float32 and data.train.n_features == 784
    assert np.array_equal(x, (images.astype(np.float32) / np.float32(255)).reshape(-1, 784))
    assert np.concatenate([data.train.y, data.valid.y]).argmax(1).tolist() == list(labels)
    assert 0 == x.min() < x.max() == 1
    assert set(data.identity) == {TRAIN_X, TRAIN_Y, TEST_X, TEST_Y}
    assert data.identity[TRAIN_Y] == md5(
        gzip.decompress((generated / f"mnist/{TRAIN_Y}.gz").read_bytes())
    )


def test_mnist_plain_or_compressed_again_is_the_same_data(generated, copy):
    folder, expected = copy / "mnist", mnist.load(generated, sample=True)
    for name in (TRAIN_X, TEST_Y):
        (folder / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
        (folder / f"{name}.gz").unlink()
    again = gzip.compress(gzip.decompress((folder / f"{TEST_X}.gz").read_bytes()), 1)
    assert again != (folder / f"{TEST_X}.gz").read_bytes()
    (folder / f"{TEST_X}.gz").write_bytes(again)
    found = mnist.load(copy, sample=True)
    assert found.identity == expected.identity
    assert np.array_equal(found.train.x, expected.train.x) and np.array_equal(
        found.test.x, expected.test.x
    )


def test_mnist_takes_whichever_of_gz_and_plain_is_right(copy):
    folder = copy / "mnist"
    good = gzip.decompress((folder / f"{TEST_Y}.gz").read_bytes())
    (folder / TEST_Y).write_bytes(b"junk")
    mnist.load(copy, sample=True)
    (folder / TEST_Y).write_bytes(good)
    (folder / f"{TEST_Y}.gz").write_bytes(b"junk")
    mnist.load(copy, sample=True)


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
        mnist.load(copy, sample=True)


def test_a_packed_file_is_not_unpacked_without_end(copy, monkeypatch):
    """A file of 200 kB, which holds 200 MB of zeros."""
    path = copy / "mnist" / f"{TEST_X}.gz"
    path.write_bytes(gz_bytes(bytes(200_000_000)))
    read = []
    unpacked = mnist._unpacked

    def noted(path, most):
        content = unpacked(path, most)
        read.append(len(content))
        return content

    monkeypatch.setattr(mnist, "_unpacked", noted)
    tracemalloc.start()
    try:
        with refused(f"{TEST_X}.gz", "MD5 differs"):
            mnist.load(copy, sample=True)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert max(read) < 10_000_000


def test_mnist_swapped_files_are_named(copy):
    folder = copy / "mnist"
    a, b = folder / f"{TRAIN_X}.gz", folder / f"{TEST_X}.gz"
    contents = a.read_bytes(), b.read_bytes()
    b.write_bytes(contents[0])
    a.write_bytes(contents[1])
    with refused(f"{TRAIN_X}.gz has the content of {TEST_X}"):
        mnist.load(copy, sample=True)


def test_mnist_unreadable_file_is_named(copy):
    (copy / "mnist" / f"{TEST_X}.gz").unlink()
    (copy / "mnist" / f"{TEST_X}.gz").mkdir()
    with refused("cannot read", f"{TEST_X}.gz"):
        mnist.load(copy, sample=True)


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
        mnist.load(copy, sample=True)


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
        mnist.load(copy, sample=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "\ud800"])
def test_manifest_that_is_none(copy, text):
    (copy / "mnist" / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with refused("manifest.json is damaged"):
        mnist.load(copy, sample=True)


def test_sample_file_missing(copy, monkeypatch):
    monkeypatch.setattr(source, "reachable", lambda *_: pytest.fail("the network was asked"))
    (copy / "mnist" / f"{TEST_X}.gz").unlink()
    with refused(TEST_X, "missing from the generated sample"):
        mnist.load(copy, sample=True)


def test_sample_is_never_used_unasked(generated, copy):
    for reader in (mnist.load, read_cifar10):
        with refused("generated sample", "--sample"):
            reader(generated)
    # with its manifest gone it is still not the official data
    (copy / "mnist" / "manifest.json").unlink()
    with refused(f"{TRAIN_X}.gz is not the official file", "--sample"):
        mnist.load(copy)


def test_sample_asked_for_where_there_is_none(tmp_path, copy):
    (copy / "mnist" / "manifest.json").unlink()
    for folder in (tmp_path / "empty", copy):
        with refused("no generated sample", "sample_data"):
            mnist.load(folder, sample=True)


def test_offline_is_one_line_within_seconds(closed, monkeypatch, tmp_path, capfd):
    set_official(monkeypatch, mnist, mirrors=(closed, closed))
    start = time.monotonic()
    with refused(
        *(f"{name}.gz" for name in mnist.OFFICIAL.names), str(tmp_path / "mnist"), "--sample"
    ):
        mnist.load(tmp_path)
    assert time.monotonic() - start < 4
    assert capfd.readouterr() == ("", "")
    assert not any(tmp_path.rglob("*.gz"))


def test_mirror_that_never_answers(closed, monkeypatch, tmp_path):
    monkeypatch.setattr(source, "CONNECT_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        set_official(
            monkeypatch, mnist, mirrors=(f"http://127.0.0.1:{silent.getsockname()[1]}/",) * 2
        )
        start = time.monotonic()
        with refused("no mirror answered", "--sample"):
            mnist.load(tmp_path)
    assert time.monotonic() - start < 4


def test_name_look_up_that_hangs(closed, monkeypatch, tmp_path):
    monkeypatch.setattr(source, "CONNECT_SECONDS", 0.5)
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20) and [])
    start = time.monotonic()
    with refused("no mirror answered", "--sample"):
        mnist.load(tmp_path)
    assert time.monotonic() - start < 4
    over.set()


def test_no_download_without_mirrors(monkeypatch, tmp_path):
    set_official(monkeypatch, mnist, mirrors=())
    monkeypatch.setattr(source, "reachable", lambda *_: pytest.fail("the network was asked"))
    with refused("missing", "--sample"):
        mnist.load(tmp_path)


def test_download_goes_from_a_wrong_file_to_the_next_mirror(
    closed, official, monkeypatch, tmp_path, capfd
):
    wrong = dict(official, **{f"{TRAIN_X}.gz": b"not this"})
    del wrong[f"{TEST_Y}.gz"]
    with serving(wrong) as (first, one), serving(official) as (second, other):
        set_official(monkeypatch, mnist, mirrors=(closed, first, second))
        data = mnist.load(tmp_path)
    assert len(data.train) == 2000 and data.name == "MNIST"
    assert sorted(one.names) == sorted(official)
    assert sorted(other.names) == sorted([f"{TRAIN_X}.gz", f"{TEST_Y}.gz"])
    kept = {path.name: path.read_bytes() for path in (tmp_path / "mnist").iterdir()}
    assert kept == official  # and no leftovers
    out, err = capfd.readouterr()
    assert out == "" and "B/s" in err and "Downloading" not in err
    set_official(monkeypatch, mnist, mirrors=())
    mnist.load(tmp_path)


def test_download_keeps_nothing_with_a_wrong_sum(closed, official, monkeypatch, tmp_path):
    with serving(dict.fromkeys(official, b"a login page")) as (url, _):
        set_official(monkeypatch, mnist, mirrors=(url,))
        with refused("wrong MD5", *official):
            mnist.load(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_download_gets_only_what_is_missing(closed, official, monkeypatch, tmp_path):
    (tmp_path / "mnist").mkdir()
    for name, content in official.items():
        if name != f"{TEST_X}.gz":
            (tmp_path / "mnist" / name).write_bytes(content)
    with serving(official) as (url, state):
        set_official(monkeypatch, mnist, mirrors=(url,))
        mnist.load(tmp_path)
    assert state.names == [f"{TEST_X}.gz"]


def test_download_never_replaces_a_file_that_is_there(closed, official, monkeypatch, tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / f"{TEST_X}.gz").write_bytes(b"mine")
    with serving(official) as (url, _):
        set_official(monkeypatch, mnist, mirrors=(url,))
        with refused(f"{TEST_X}.gz"):
            mnist.load(tmp_path)
    assert (tmp_path / "mnist" / f"{TEST_X}.gz").read_bytes() == b"mine"


def test_download_into_what_is_no_folder(closed, official, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    with serving(official) as (url, _):
        set_official(monkeypatch, mnist, mirrors=(url,))
        with refused("cannot write"):
            mnist.load(tmp_path / "file")


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
    assert data.identity == {name: mnist.OFFICIAL.sums[name] for name in mnist.OFFICIAL.names}


def test_real_mnist_damaged_or_as_sample(tmp_path):
    folder = real(f"mnist/{TRAIN_X}.gz")
    for name in mnist.OFFICIAL.names:
        os.makedirs(tmp_path / "mnist", exist_ok=True)
        (tmp_path / "mnist" / f"{name}.gz").symlink_to(folder / "mnist" / f"{name}.gz")
    with refused("no generated sample"):
        mnist.load(tmp_path, sample=True)
    (tmp_path / "mnist" / f"{TEST_X}.gz").unlink()
    shutil.copy(folder / "mnist" / f"{TRAIN_X}.gz", tmp_path / "mnist" / f"{TEST_X}.gz")
    with refused(f"{TEST_X}.gz has the content of {TRAIN_X}", "--sample"):
        mnist.load(tmp_path)
