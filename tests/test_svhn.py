"""SVHN from .mat files to HDF5 files that are right, reproducible, and never half-made."""

import contextlib
import fcntl
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tables
from data_files import contents, flip_file, preprocess, put, refused, serving, set_official
from endings import status_of
from test_contrast import reference_gcn, reference_lcn
from test_svhn_split import reference_split

from datasets import downloads, load, source, svhn
from datasets.hdf5 import HDF5Part
from datasets.mat import read_mat
from errors import DataError
from files import md5
from utilities import svhn_preprocessing

H5 = Path("SVHN", "h5")
FILES = {"train": "splitted_train_32x32.h5", "valid": "valid_32x32.h5", "test": "test_32x32.h5"}
SIZES = {"train": 1050, "valid": 150, "test": 200}


@pytest.fixture(scope="module")
def sample(generated, tmp_path_factory):
    """The sample with its HDF5 files made, by the first load."""
    folder = tmp_path_factory.mktemp("svhn")
    shutil.copytree(generated / "SVHN" / "format2", folder / "SVHN" / "format2")
    load("svhn", folder, sample=True)
    return folder


@pytest.fixture
def copy(sample, tmp_path):
    return shutil.copytree(sample, tmp_path / "copy")


def count_as_official(sample, monkeypatch):
    manifest = json.loads((sample / "SVHN" / "format2" / "manifest.json").read_text())
    set_official(
        monkeypatch,
        svhn,
        sums=manifest["files"],
        split=manifest["split"],
        per_class=manifest["valid_per_class"],
    )


@pytest.fixture(scope="module")
def made(sample, tmp_path_factory):
    """The sample's files as if they were official: data/, and HDF5 files of them in local/."""
    folder = tmp_path_factory.mktemp("official")
    shutil.copytree(sample / "SVHN" / "format2", folder / "data" / "SVHN" / "format2")
    (folder / "data" / "SVHN" / "format2" / "manifest.json").unlink()
    with pytest.MonkeyPatch.context() as monkeypatch:
        count_as_official(sample, monkeypatch)
        preprocess(folder / "data", folder / "local")
    return folder


@pytest.fixture
def official(sample, made, tmp_path, monkeypatch):
    """A copy of them that a test may damage: (data folder, the h5/ with the HDF5 files)."""
    folder, local = (shutil.copytree(made / name, tmp_path / name) for name in ("data", "local"))
    count_as_official(sample, monkeypatch)
    monkeypatch.setenv("SVHN_LOCAL_PATH", str(local))
    monkeypatch.setenv("PYLEARN2_DATA_PATH", str(folder))
    return folder, local / "h5"


def test_sample_is_ready_on_first_use(sample):
    data = load("svhn", sample, sample=True)
    assert data.name == "SVHN sample" and sorted(contents(sample / H5)) == sorted(FILES.values())
    for part, n in SIZES.items():
        x, y = getattr(data, part).read(0, n)
        assert len(getattr(data, part)) == n and getattr(data, part).n_features == 3072
        assert x.shape == (n, 3072) and y.shape == (n, 10) and x.dtype == y.dtype == np.float32
        assert set(y.ravel()) == {0, 1} and (y.sum(1) == 1).all()


@pytest.fixture(scope="module")
def raw(sample):
    """name -> (float64 (n, 3072), labels 1..10), read without datasets.py."""
    mats = {}
    for name in ("train", "test", "extra"):
        mat = scipy.io.loadmat(sample / "SVHN" / "format2" / f"{name}_32x32.mat")
        x = [mat["X"][:, :, channel].reshape(1024, -1).T for channel in range(3)]
        mats[name] = (
            np.concatenate(x, axis=1).astype(np.float64),
            [int(label) for label in mat["y"].ravel()],
        )
    return mats


@pytest.mark.parametrize("part", FILES)
def test_content(sample, raw, part):
    if part == "test":
        x, labels = raw["test"]
        rows = list(range(200))
        np.random.RandomState(322).shuffle(rows)
    else:
        x, labels = (
            np.concatenate([raw["train"][0], raw["extra"][0]]),
            raw["train"][1] + raw["extra"][1],
        )
        rows = reference_split(raw["train"][1], raw["extra"][1], (10, 5), part)
    expected = reference_lcn(reference_gcn(x[rows], 1))
    found, y = getattr(load("svhn", sample, sample=True), part).read(0, len(rows))
    assert np.abs(found - expected).max() < 3e-5
    assert y.argmax(1).tolist() == [labels[row] - 1 for row in rows]


def test_digit_0_is_class_9(sample, raw):
    """Label 10 in the .mat."""
    data = load("svhn", sample, sample=True)
    counts = [
        sum(
            getattr(data, part).read(0, n)[1].sum(0)[9] for part, n in SIZES.items() if part in some
        )
        for some in (["train", "valid"], ["test"])
    ]
    assert counts == [
        sum(raw[name][1].count(10) for name in names) for names in (["train", "extra"], ["test"])
    ]
    assert data.valid.read(0, 150)[1].sum(0).tolist() == [15] * 10


def test_no_image_is_in_two_parts(sample):
    data = load("svhn", sample, sample=True)
    x = np.concatenate([getattr(data, part).read(0, n)[0] for part, n in SIZES.items()])
    assert len(np.unique(x.round(3), axis=0)) == 1400


def test_file_format(sample):
    for part, name in FILES.items():
        with tables.open_file(str(sample / H5 / name)) as file:
            for array, width in ((file.root.Data.X, 3072), (file.root.Data.y, 10)):
                assert array.shape == (SIZES[part], width) and array.dtype == np.float32
                assert array.filters.complib.startswith("blosc") and array.filters.fletcher32
            identity = json.loads(file.root.Data._v_attrs.identity)
            assert file.root.Data._v_attrs.finished == 1
        assert identity == load("svhn", sample, sample=True).identity
        mat = sample / "SVHN" / "format2" / "extra_32x32.mat"
        assert identity["extra_32x32.mat"] == md5(mat.read_bytes())
        assert identity["lcn_channels"] == "all" and identity["sample"] == "yes"


def test_read_gives_the_rows_asked_for(sample, monkeypatch):
    open_file = tables.open_file

    def one_at_a_time(*arguments, **more):
        assert not tables.file._open_files.filenames  # PyTables is for one thread
        time.sleep(0.001)
        return open_file(*arguments, **more)

    monkeypatch.setattr(tables, "open_file", one_at_a_time)
    part = load("svhn", sample, sample=True).train
    x, y = part.read(0, 1050)
    ranges = [(0, 1), (124, 126), (1000, 1050), (300, 300), (7, 700)]
    with ThreadPoolExecutor(4) as threads:  # also at the same time
        for (start, stop), (some, targets) in zip(
            ranges * 4, threads.map(lambda r: part.read(*r), ranges * 4), strict=True
        ):
            assert np.array_equal(some, x[start:stop]) and np.array_equal(targets, y[start:stop])
    assert not tables.file._open_files.filenames  # nothing stays open


def test_first_channel_alone(copy, sample):
    preprocess(copy, copy / "SVHN", sample=True, channels="first")
    first, every = load("svhn", copy, sample=True), load("svhn", sample, sample=True)
    assert first.identity == every.identity | {"lcn_channels": "first"}
    (x, _), (expected, _) = first.test.read(0, 200), every.test.read(0, 200)
    assert np.abs(x[:, :1024] - expected[:, :1024]).max() < 1e-5
    # the others are as GCN left them: the whole image then has length 1, and with it the mean 0
    pixels = read_mat(copy / "SVHN" / "format2" / "test_32x32.mat")[0]
    rows = np.arange(200)
    np.random.RandomState(322).shuffle(rows)
    assert np.abs(x[:, 1024:] - reference_gcn(pixels[rows], 1)[:, 1024:]).max() < 1e-7


def test_block_size_does_not_matter(copy, sample, monkeypatch):
    monkeypatch.setattr(svhn, "BLOCK", 375)
    preprocess(copy, copy / "b", sample=True)
    for name in FILES.values():
        with (
            tables.open_file(str(copy / "b" / "h5" / name)) as a,
            tables.open_file(str(sample / H5 / name)) as b,
        ):
            assert np.abs(a.root.Data.X[:] - b.root.Data.X[:]).max() < 1e-5
            assert np.array_equal(a.root.Data.y[:], b.root.Data.y[:])


ROOT = Path(__file__).parents[1]


KILLED = """
import os, signal, sys
from datasets import svhn
from utilities import svhn_preprocessing
svhn.BLOCK = 250
name, count = sys.argv[1], int(sys.argv[2])
module = os if name == "replace" else svhn
real = getattr(module, name)
def killing(*arguments, **more):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **more)
setattr(module, name, killing)
svhn_preprocessing.main(["--sample", "--data", sys.argv[3], "--local", sys.argv[4]])
"""


def run(name, count, folder, local):
    return subprocess.run(
        [sys.executable, "-c", KILLED, name, str(count), str(folder), str(local)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_killed_and_started_again_gives_the_same_bytes(sample, tmp_path):
    whole, local = tmp_path / "whole" / "h5", tmp_path / "killed"
    done = run("one_hot", 0, sample, whole.parent)
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 3
    expected, began = contents(whole), time.time()
    # in the middle of a file; when all is written but the name; in the last file (test, valid,
    # train: 1, 1, 5 blocks)
    for name, count, finished in (
        ("local_contrast_normalize", 1, 0),
        ("replace", 2, 1),
        ("one_hot", 5, 2),
    ):
        killed = run(name, count, sample, local)
        assert killed.returncode == -signal.SIGKILL
        there = contents(local / "h5")
        assert (
            sum(file in there for file in FILES.values()) == finished and len(there) == finished + 1
        )
        for part, file in FILES.items():
            if file not in there:
                with refused(f"{file} missing"):
                    HDF5Part(local / "h5" / file, SIZES[part], "")
    (partial,) = (name for name in there if name.endswith(".partial"))
    os.rename(local / "h5" / partial, tmp_path / "partial.h5")
    with refused("partial.h5"):  # nor would it look finished under its name
        HDF5Part(tmp_path / "partial.h5", SIZES["train"], "")
    (local / "h5" / ".test_32x32.h5.partial").write_bytes(b"left")
    stamps = {
        file: os.stat(local / "h5" / file).st_mtime_ns
        for file in ("test_32x32.h5", "valid_32x32.h5")
    }
    while (
        time.time() < began + 1.1
    ):  # past the resolution of the times that HDF5 could have recorded
        time.sleep(0.1)
    done = run("one_hot", 0, sample, local)
    assert done.returncode == 0
    assert [line.endswith(", kept") for line in done.stdout.splitlines()] == [True, True, False]
    assert contents(local / "h5") == expected
    assert stamps == {file: os.stat(local / "h5" / file).st_mtime_ns for file in stamps}


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def unfinish(path):
    with tables.open_file(str(path), "a") as file:
        file.root.Data._f_delattr("finished")


def shorten(path):
    with tables.open_file(str(path), "a") as file:
        file.root.Data.X._f_remove()
        file.create_array("/Data", "X", np.zeros((9, 3072), np.float32))


def rename(path):
    with tables.open_file(str(path), "a") as file:
        file.root.Data._f_rename("data")


def forget(path):
    """As pylearn2 wrote these files: they do not say what they are made from."""
    with tables.open_file(str(path), "a") as file:
        file.root.Data._f_delattr("identity")
        file.root.Data._f_delattr("finished")


def claim(**more):
    def change(path):
        with tables.open_file(str(path), "a") as file:
            attributes = file.root.Data._v_attrs
            attributes.identity = json.dumps(json.loads(attributes.identity) | more)

    return change


def of_other_code(path):
    with tables.open_file(str(path), "a") as file:
        file.root.Data._v_attrs.code = "0" * 16


DAMAGE = {
    "cut": cut,
    "empty": lambda path: os.truncate(path, 0),
    "no HDF5": lambda path: path.write_text("hello"),
    "gone": os.unlink,
    "head": lambda path: flip_file(path, 2),
    "unfinished": unfinish,
    "short": shorten,
    "version": claim(preprocessing="0"),
    "sums": claim(**{"test_32x32.mat": "0" * 32}),
    "LCN": claim(lcn_channels="first"),
    "code": of_other_code,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("part", ["train", "valid"])
def test_damaged_file_is_named_and_made_again(official, capsys, part, damage):
    folder, h5 = official
    expected, path = contents(h5), h5 / FILES[part]
    DAMAGE[damage](path)
    with refused(FILES[part], "python -m utilities.svhn_preprocessing"):
        load("svhn", folder)
    assert svhn_preprocessing.main([]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count(", kept") == 2
    assert contents(h5) == expected
    load("svhn", folder)


@pytest.mark.parametrize("change", [rename, forget])
def test_an_hdf5_file_of_another_form_is_never_replaced(official, capsys, change):
    folder, h5 = official
    change(h5 / FILES["valid"])
    before = contents(h5)
    with refused("of another form", "move it away"):
        load("svhn", folder)
    assert status_of(svhn_preprocessing.main, []) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "move it away" in err
    assert contents(h5) == before


def test_an_hdf5_file_that_is_no_readable_one_is_never_replaced(official, capsys, monkeypatch):
    folder, h5 = official
    path = h5 / FILES["valid"]

    def forbidden(path, flags):
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as inside:  # the superuser may read everything
        inside.setattr("datasets.hdf5.plain", forbidden)
        with refused("cannot read", "Permission denied", "make it a readable file"):
            load("svhn", folder)
        assert status_of(svhn_preprocessing.main, []) == 2
    path.unlink()
    os.mkfifo(path)
    with refused(str(path)):
        load("svhn", folder)


def test_an_hdf5_file_that_another_program_has_locked(official, capsys):
    folder, h5 = official
    before = contents(h5)
    with open(h5 / FILES["valid"], "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with refused("locked by another program"):
            load("svhn", folder)
        assert status_of(svhn_preprocessing.main, []) == 2
    assert "locked" in capsys.readouterr().err and contents(h5) == before
    load("svhn", folder)


class Evil:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pieces_packed_by_zlib_are_refused(official):
    """However large they are unpacked: a thousand times as large as the file."""
    folder, h5 = official
    with tables.open_file(str(h5 / FILES["train"]), "a") as file:
        n = len(file.root.Data.X)
        file.root.Data.X._f_remove()
        packed = tables.Filters(complevel=5, complib="zlib")
        x = file.create_carray(
            "/Data", "X", tables.Float32Atom(), (n, 3072), filters=packed, chunkshape=(125, 3072)
        )
        x.write_chunk((0, 0), zlib.compress(bytes(1 << 24)))
    with refused("damaged"):
        load("svhn", folder)


@pytest.mark.parametrize("place", ["/Data", "finished", "identity", "/", "X", "FILTERS", "array"])
def test_nothing_in_an_hdf5_file_is_unpickled(official, tmp_path, place):
    folder, h5 = official
    made = tmp_path / "made"
    with tables.open_file(str(h5 / FILES["train"]), "a") as file:
        if place == "array":
            n = len(file.root.Data.X)
            file.root.Data.X._f_remove()
            x = file.create_vlarray("/Data", "X", tables.ObjectAtom())
            for _ in range(n):
                x.append(Evil(made))
        elif place in ("finished", "identity"):
            file.root.Data._v_attrs[place] = Evil(made)
        elif place == "FILTERS":  # as PyTables 1 wrote them
            file.root._v_attrs["PYTABLES_FORMAT_VERSION"] = "1.6"
            attributes = file.root.Data._v_attrs
            attributes._g_setattr(file.root.Data, "FILTERS", np.bytes_(pickle.dumps(Evil(made), 0)))
        else:
            node = file.root.Data.X if place == "X" else file.get_node(place)
            node._v_attrs["more"] = Evil(made)
    made.unlink(missing_ok=True)  # PyTables itself has a look at what it writes
    with contextlib.suppress(DataError):
        load("svhn", folder).train.read(0, 10)
    status_of(svhn_preprocessing.main, [])
    assert not made.exists()


def test_pieces_that_unpack_to_anything_are_refused(official):
    folder, h5 = official
    with tables.open_file(str(h5 / FILES["train"]), "a") as file:
        n = len(file.root.Data.X)
        file.root.Data.X._f_remove()
        file.create_carray("/Data", "X", tables.Float32Atom(), (n, 3072), chunkshape=(20_000, 3072))
    with refused("damaged"):
        load("svhn", folder)


def test_a_file_of_before_code_was_in_it_is_taken(official):
    folder, h5 = official
    with tables.open_file(str(h5 / FILES["test"]), "a") as file:
        file.root.Data._f_delattr("code")
    load("svhn", folder)


def test_only_own_leftovers_are_removed(official):
    folder, h5 = official
    strangers = {".mine.partial": b"mine", ".test_32x32.h5.partial": b"left"}
    for name, content in strangers.items():
        (h5 / name).write_bytes(content)
    preprocess(folder, h5.parent)
    assert (h5 / ".mine.partial").exists() and not (h5 / ".test_32x32.h5.partial").exists()


@pytest.mark.parametrize("name", [".lock", ".test_32x32.h5.partial", "test_32x32.h5"])
def test_no_link_is_followed_when_it_is_written(official, tmp_path, capsys, name):
    folder, h5 = official
    (tmp_path / "precious").write_text("kept")
    (h5 / FILES["test"]).unlink()
    (h5 / name).unlink(missing_ok=True)
    (h5 / name).symlink_to(tmp_path / "precious")
    status_of(svhn_preprocessing.main, [])
    err = capsys.readouterr().err
    assert ("is a link" in err) == (name == ".lock") and err.count("\n") == (name == ".lock")
    assert (tmp_path / "precious").read_text() == "kept"


def test_damage_inside_is_found_when_it_is_read(official, capsys):
    folder, h5 = official
    path, expected = h5 / FILES["train"], contents(h5)
    data = load("svhn", folder)
    data.train.read(0, 1050)
    stat = path.stat()
    flip_file(path, stat.st_size // 2)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with refused(str(path), "damaged", "python -m utilities.svhn_preprocessing"):
        data.train.read(0, 1050)
    assert svhn_preprocessing.main([]) == 0  # does not keep what cannot be read to its end
    assert "damaged" in capsys.readouterr().out and contents(h5) == expected


def test_sample_files_that_are_damaged_or_stale_are_made_again_unasked(copy):
    expected = contents(copy / H5)
    for damage in (cut, os.unlink, claim(preprocessing="0")):
        damage(copy / H5 / FILES["valid"])
        load("svhn", copy, sample=True)
        assert contents(copy / H5) == expected


def test_file_replaced_while_it_is_in_use(copy):
    part = load("svhn", copy, sample=True).test
    part.read(0, 5)
    shutil.copy(part.path, copy / "new.h5")
    os.replace(copy / "new.h5", part.path)
    with refused("replaced"):
        part.read(0, 5)


def test_official_and_sample_files_are_told_apart(official, sample, monkeypatch):
    folder, h5 = official
    assert load("svhn", folder).name == "SVHN"
    assert load("svhn", folder).identity["sample"] == "no"
    monkeypatch.setenv("SVHN_LOCAL_PATH", str(sample / "SVHN"))
    with refused("not made of the official files"):
        load("svhn", folder)
    with refused("use --sample"):
        load("svhn", sample)


def test_local_path(official, monkeypatch, tmp_path):
    folder, _ = official
    shutil.rmtree(folder)
    load("svhn", folder)  # the HDF5 files are enough
    for value, parts in (
        (str(tmp_path / "empty"), (str(tmp_path / "empty"), "missing")),
        ("", ("SVHN_LOCAL_PATH is not set", "--sample")),
    ):
        monkeypatch.setenv("SVHN_LOCAL_PATH", value)
        with refused(*parts, "python -m utilities.svhn_preprocessing"):
            load("svhn", folder)
    monkeypatch.delenv("SVHN_LOCAL_PATH")
    with refused("SVHN_LOCAL_PATH is not set"):
        load("svhn", folder)


def test_finished_files_need_no_mat_files(official, capsys):
    folder, h5 = official
    shutil.rmtree(folder)
    assert svhn_preprocessing.main([]) == 0 and capsys.readouterr().out.count(", kept") == 3


@pytest.mark.parametrize("name", ["train", "test", "extra"])
def test_damaged_mat(copy, name):
    shutil.rmtree(copy / H5)
    path = copy / "SVHN" / "format2" / f"{name}_32x32.mat"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with refused(path.name, "MD5 differs"):
        load("svhn", copy, sample=True)
    put(path.parent, path.name, content[:-100])  # with the sum announced
    with refused(path.name, "truncated"):
        load("svhn", copy, sample=True)
    path.unlink()
    with refused(path.name, "lacks"):
        load("svhn", copy, sample=True)
    path.mkdir()
    with refused(path.name, "cannot read"):
        load("svhn", copy, sample=True)
    assert not list((copy / H5).glob("*.partial")) and not list((copy / H5).glob("splitted*"))


@pytest.mark.parametrize(
    "change, parts",
    [
        (
            lambda m: m.update(valid_per_class={"train": 61, "extra": 5}),
            ("train has 60 images with label 1",),
        ),
        (lambda m: m.update(valid_per_class={"train": 10}), ("manifest.json is damaged",)),
        (lambda m: m.update(valid_per_class=[1, 2]), ("manifest.json is damaged",)),
        (
            lambda m: m.update(valid_per_class={"train": "1", "extra": 5}),
            ("manifest.json is damaged",),
        ),
        (lambda m: m["files"].pop("test_32x32.mat"), ("manifest.json is damaged",)),
        (lambda m: m["split"].update(train=1051), ("train would have 1050 images", "1051")),
        (lambda m: m["split"].update(test=199), ("test would have 200 images", "199")),
    ],
)
def test_manifest(copy, change, parts):
    shutil.rmtree(copy / H5)
    path = copy / "SVHN" / "format2" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with refused(*parts):
        load("svhn", copy, sample=True)


def test_other_sizes_of_a_generated_set(copy):
    path = copy / "SVHN" / "format2" / "manifest.json"
    manifest = json.loads(path.read_text()) | {
        "valid_per_class": {"train": 1, "extra": 0},
        "split": {"train": 1190, "valid": 10, "test": 200},
    }
    path.write_text(json.dumps(manifest))
    data = load("svhn", copy, sample=True)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [1190, 10, 200]


def test_too_little_disk(sample, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=17 * 10**6))
    with refused("0.02 GB free", "SVHN_LOCAL_PATH"):
        preprocess(sample, tmp_path / "local", sample=True)
    assert contents(tmp_path / "local" / "h5") == {}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=18 * 10**6))
    preprocess(sample, tmp_path / "local", sample=True)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), tables.HDF5ExtError("no space")]
)
def test_disk_that_fills_up_meanwhile(sample, tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(tables.CArray, "__setitem__", full)
    with refused("cannot write", "room"):
        preprocess(sample, tmp_path / "local", sample=True)
    assert contents(tmp_path / "local" / "h5") == {}


def test_program(copy, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("SVHN_LOCAL_PATH", raising=False)
    monkeypatch.setenv("PYLEARN2_DATA_PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(source, "reachable", lambda *_: [])
    assert svhn_preprocessing.main(["--sample", "--data", str(copy)]) == 0
    assert capsys.readouterr().out.count("kept") == 3
    local, file = str(tmp_path / "local"), str(copy / H5 / FILES["test"])
    for arguments, part in (
        ([], "SVHN_LOCAL_PATH is not set"),
        (["--lcn-channels", "second"], "--lcn-channels"),
        (["--nothing"], "--nothing"),
        (["here"], "here"),
        (["--local", local], "train_32x32.mat, extra_32x32.mat"),
        (["--data", str(copy), "--local", local], "use --sample"),
        (["--sample", "--data", str(copy), "--local", file], "cannot write"),
    ):
        assert status_of(svhn_preprocessing.main, arguments) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1
        assert part in err and err.startswith("svhn_preprocessing: ")
    with pytest.raises(SystemExit) as stop:
        svhn_preprocessing.main(["-h"])
    assert stop.value.code == 0 and "--lcn-channels" in capsys.readouterr().out


def test_interrupted_program(copy, capsys, monkeypatch):
    shutil.rmtree(copy / H5)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(svhn, "one_hot", interrupt)
    with monkeypatch.context() as inside:
        inside.setattr(Path, "unlink", lambda *_, **__: None)
        assert svhn_preprocessing.main(["--sample", "--data", str(copy)]) == 130
    assert "interrupted" in capsys.readouterr().err
    (left,) = contents(copy / H5)
    with refused("never finished"):  # though HDF5 can read it
        HDF5Part(copy / H5 / left, 200, "")
    assert svhn_preprocessing.main(["--sample", "--data", str(copy)]) == 130
    assert contents(copy / H5) == {}


def fetch(source, names):
    source.fetch(source.missing([f"{name}_32x32.mat" for name in names]))


def test_svhn_gets_what_is_missing(sample, monkeypatch, tmp_path):
    mats = {path.name: path.read_bytes() for path in (sample / "SVHN" / "format2").glob("*.mat")}
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(downloads, "RETRY_SECONDS", 0)
    with serving(mats) as (url, state):
        sums = {name: md5(content) for name, content in mats.items()}
        set_official(monkeypatch, svhn, sums=sums, mirrors=(url,))
        found = svhn.OFFICIAL.under(tmp_path)
        fetch(found, ["train", "extra"])
        assert contents(found.folder) == {
            name: mats[name] for name in ("train_32x32.mat", "extra_32x32.mat")
        }
        state.drop = [50_000]
        fetch(found, ["train", "test"])
        assert contents(found.folder) == mats and len(state.asked) == 4
        (tmp_path / "SVHN" / "format2" / "test_32x32.mat").unlink()
        state.files["test_32x32.mat"] = b"another"
        with refused("test_32x32.mat missing", "wrong MD5", str(tmp_path)):
            fetch(found, ["test"])


def test_svhn_offline(monkeypatch, tmp_path):
    set_official(monkeypatch, svhn, mirrors=("http://127.0.0.1:1/",))
    start = time.monotonic()
    with refused(
        "extra_32x32.mat", str(tmp_path / "SVHN" / "format2"), "no mirror answered", "--sample"
    ):
        fetch(svhn.OFFICIAL.under(tmp_path), ["train", "extra"])
    assert time.monotonic() - start < 4


def test_sample_is_never_downloaded(sample, monkeypatch, tmp_path):
    monkeypatch.setattr(source, "reachable", lambda *_: pytest.fail("the network was asked"))
    folder = tmp_path / "SVHN" / "format2"
    folder.mkdir(parents=True)
    manifest = json.loads((sample / "SVHN" / "format2" / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with refused("test_32x32.mat missing from the generated sample"):
        fetch(svhn.OFFICIAL.under(tmp_path, sample=True), ["test"])
    with pytest.raises(DataError, match="use --sample"):
        svhn.OFFICIAL.under(tmp_path)


def test_official_addresses():
    assert svhn.OFFICIAL.mirrors == ("http://ufldl.stanford.edu/housenumbers/",)
    assert set(svhn.OFFICIAL.sums) == {f"{name}_32x32.mat" for name in ("train", "test", "extra")}
