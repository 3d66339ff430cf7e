"""datasets/cifar10.py and batches.py: pickles as they arrive, and as they are read."""

import os
import pickle
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    contents,
    flip,
    put,
    read_cifar10,
    real,
    refused,
    serving,
    set_official,
    tar_gz,
)

from datasets import cifar10, downloads, source
from datasets.batches import parse_batch
from datasets.sample import pickle_bytes
from files import md5

CIFAR = Path("cifar10", "cifar-10-batches-py")


@pytest.fixture
def copy(generated, tmp_path):
    """A copy of the sample that a test may damage."""
    shutil.copytree(generated / CIFAR, tmp_path / "copy" / CIFAR)
    return tmp_path / "copy"


def batch(n=200, labels=None, width=3072):
    return {
        b"batch_label": b"testing batch 1 of 1",
        b"filenames": [b"a"] * n,
        b"labels": [k % 10 for k in range(n)] if labels is None else labels,
        b"data": np.resize(np.arange(256).astype(np.uint8), (n, width)),
    }


def test_cifar10_sample(generated):
    x, labels, test_x, test_labels, identity = read_cifar10(generated, sample=True)
    assert (
        x.shape == (1000, 3072)
        and test_x.shape == (200, 3072)
        and x.dtype == test_x.dtype == np.uint8
    )
    assert labels.shape == (1000,) and labels.dtype == test_labels.dtype == np.int64
    assert set(labels) == set(test_labels) == set(range(10))
    assert identity == {
        name: md5((generated / CIFAR / name).read_bytes()) for name in cifar10.OFFICIAL.sums
    }
    for k, found in (
        (1, x[:200]),
        (5, x[800:]),
    ):  # files in order; and what any pickle reader finds in them
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy.core has moved since
            whole = pickle.loads(
                (generated / CIFAR / f"data_batch_{k}").read_bytes(), encoding="bytes"
            )
        assert np.array_equal(whole[b"data"], found)
        assert whole[b"labels"] == labels[200 * (k - 1) : 200 * k].tolist()


def test_cifar10_reader_takes_a_batch_written_by_this_numpy(copy):
    data = batch()
    data[b"labels"] = list(range(10)) * 20
    content = pickle.dumps({"x": 1, **data}, protocol=4)
    put(copy / CIFAR, "test_batch", content)
    assert np.array_equal(read_cifar10(copy, sample=True)[2], data[b"data"])


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
            read_cifar10(copy, sample=True)
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
        read_cifar10(copy, sample=True)


def test_cifar10_damaged_swapped_missing(copy):
    folder = copy / CIFAR
    original = (folder / "data_batch_2").read_bytes()
    put(folder, "data_batch_2", flip(original, 5000), announce=False)
    with refused("data_batch_2", "corrupted"):
        read_cifar10(copy, sample=True)
    put(folder, "data_batch_2", (folder / "test_batch").read_bytes(), announce=False)
    with refused("data_batch_2 has the content of test_batch"):
        read_cifar10(copy, sample=True)
    (folder / "data_batch_2").unlink()
    with refused("data_batch_2", "missing"):
        read_cifar10(copy, sample=True)
    put(folder, "data_batch_2", pickle_bytes(batch(199)))
    with refused("999 images", "1000"):
        read_cifar10(copy, sample=True)


def test_cifar10_missing_official_files(tmp_path):
    with refused("data_batch_1", "test_batch", str(tmp_path / CIFAR), "--sample"):
        read_cifar10(tmp_path)


def test_real_cifar10():
    x, labels, test_x, test_labels, identity = read_cifar10(real(str(CIFAR / "data_batch_1")))
    assert x.shape == (50_000, 3072) and test_x.shape == (10_000, 3072)
    assert labels[:5].tolist() == [6, 9, 9, 4, 1] and test_labels[:5].tolist() == [3, 8, 8, 0, 6]
    assert np.bincount(labels).tolist() == [5000] * 10
    assert x.reshape(-1, 3, 1024).mean((0, 2)) == pytest.approx(
        [125.307, 122.950, 113.865], abs=1e-3
    )
    assert identity == cifar10.OFFICIAL.sums


@pytest.fixture
def official(generated, monkeypatch):
    """The sample as if it were the official data on a server: (Server, pickles: name -> bytes)."""
    names = cifar10.OFFICIAL.names
    pickles = {name: (generated / CIFAR / name).read_bytes() for name in names}
    members = {"batches.meta": b"names", **pickles, "readme.html": b"hello"}
    archive = tar_gz([(f"cifar-10-batches-py/{name}", members[name]) for name in members])
    sums = {name: md5(content) for name, content in pickles.items()}
    split = {"train": 900, "valid": 100, "test": 200}
    set_official(monkeypatch, cifar10, sums=sums, split=split)
    monkeypatch.setattr(cifar10, "whiten", lambda folder, x, test_x, identity: (x, test_x))
    monkeypatch.setattr(downloads, "RETRY_SECONDS", 0)
    monkeypatch.setenv("NO_PROXY", "*")
    with serving({"cifar-10-python.tar.gz": archive}) as (url, state):
        sums = {"cifar-10-python.tar.gz": md5(archive)}
        set_official(monkeypatch, cifar10, "ARCHIVE", sums=sums, mirrors=(url,))
        yield state, pickles


def placed(pickles):
    """Where they are in a data folder."""
    return {str(CIFAR / name): content for name, content in pickles.items()}


def test_cifar10_is_downloaded_unpacked_and_tidied(official, tmp_path):
    state, pickles = official
    state.drop = [100_000]
    data = cifar10.load(tmp_path)
    assert len(data.train) == 900 and data.name == "CIFAR10" and len(state.asked) == 2
    assert contents(tmp_path) == placed(pickles)  # the archive is gone
    (tmp_path / "cifar10" / "cifar-10-batches-py" / "data_batch_2").unlink()
    cifar10.load(tmp_path)
    assert contents(tmp_path) == placed(pickles) and len(state.asked) == 3
    cifar10.load(tmp_path)
    assert len(state.asked) == 3


def test_cifar10_archive_that_is_there_is_unpacked_and_kept(official, tmp_path):
    state, pickles = official
    archive = tmp_path / "cifar10" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"half")
    with refused(str(archive), "MD5 differs"):
        cifar10.load(tmp_path)
    archive.write_bytes(state.files[archive.name])
    cifar10.load(tmp_path)
    kept = {f"cifar10/{archive.name}": state.files[archive.name]}
    assert state.asked == [] and contents(tmp_path) == placed(pickles) | kept


def test_cifar10_offline(tmp_path, monkeypatch, capfd):
    set_official(monkeypatch, cifar10, "ARCHIVE", mirrors=("http://127.0.0.1:1/",))
    start = time.monotonic()
    with refused(
        "cifar-10-python.tar.gz", str(tmp_path / "cifar10"), "no mirror answered", "--sample"
    ):
        cifar10.load(tmp_path)
    assert time.monotonic() - start < 4 and capfd.readouterr() == ("", "")
    monkeypatch.setattr(source, "reachable", lambda *_: pytest.fail("the network was asked"))
    set_official(monkeypatch, cifar10, "ARCHIVE", mirrors=())
    with refused("no download was tried"):
        cifar10.load(tmp_path)
    assert not contents(tmp_path)


def test_cifar10_pickles_that_are_there_are_never_replaced(official, tmp_path):
    state, pickles = official
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "test_batch").write_bytes(b"mine")
    with refused("test_batch"):
        cifar10.load(tmp_path)
    assert (folder / "test_batch").read_bytes() == b"mine"


def test_cifar10_where_nothing_can_be_written(official, tmp_path):
    (tmp_path / "cifar10").touch()
    with refused("cannot write"):
        cifar10.load(tmp_path)


def test_official_addresses():
    assert cifar10.ARCHIVE.mirrors[0] + cifar10.ARCHIVE.names[0] == (
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    )


@pytest.mark.parametrize("number", [2**31 - 1, 3, 1000])
def test_a_batch_that_makes_room_for_anything_is_refused(tmp_path, number):
    """An object with a number that no counting leads to, and room in the file for as many."""
    content = b"\x80\x02K\x01r" + number.to_bytes(4, "little") + b"X\xe8\3\0\0" + bytes(1000) + b"."
    with refused(f"the number {number}"):
        parse_batch(tmp_path / "data_batch_1", content)


def test_a_batch_of_many_small_objects_is_refused(tmp_path):
    """A dictionary for each byte takes sixty times as much memory."""
    with refused("more than 101,562 steps"):
        parse_batch(tmp_path / "data_batch_1", b"\x80\x02" + b"}" * 200_000 + b".")


def test_a_huge_file_in_the_place_of_a_batch(copy):
    path = copy / CIFAR / "data_batch_3"
    with open(path, "wb") as file:
        file.truncate(10**12)  # which takes no room
    with refused("data_batch_3", "more than"):
        read_cifar10(copy, sample=True)
