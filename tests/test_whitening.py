"""datasets/cifar10.py after the reading, and array_cache.py: GCN, ZCA, and their result on disk."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from data_files import flip_file, read_cifar10, refused
from endings import status_of
from test_contrast import reference_gcn

from datasets import array_cache, cifar10, load, source
from errors import DataError
from utilities import cifar10_preprocessing


@pytest.fixture(scope="module")
def whitened(generated, tmp_path_factory):
    """The sample with its cache made."""
    folder = tmp_path_factory.mktemp("whitened")
    shutil.copytree(generated / "cifar10", folder / "cifar10")
    return folder, load("cifar10", folder, sample=True)


def cache(folder):
    (path,) = (folder / "cifar10").glob("preprocessed-*")
    return path


def test_cifar10(whitened):
    folder, data = whitened
    images, labels, test_x, test_labels, identity = read_cifar10(folder, sample=True)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [900, 100, 200]
    x = np.concatenate([part.read(0, len(part))[0] for part in (data.train, data.valid, data.test)])
    y = np.concatenate([part.read(0, len(part))[1] for part in (data.train, data.valid, data.test)])
    fit = reference_gcn(images, 55)
    # x = W C^-1/2 exactly if x C x^T = W W^T, and x W^T is symmetric and positive: on every
    # sixth image
    W = np.concatenate([fit, reference_gcn(test_x, 55)])[::6] - fit.mean(0)
    out, across = np.float64(x[::6]), np.float64(x[::6]) @ (fit - fit.mean(0)).T
    assert (
        np.abs(across @ across.T / 1000 + 0.1 * out @ out.T - W @ W.T).max()
        < 1e-5 * (W**2).sum(1).max()
    )
    S = out @ W.T
    assert np.abs(S - S.T).max() < 1e-6 * np.abs(S).max() and np.linalg.eigvalsh(S).min() > 0
    assert x.dtype == np.float32
    assert y.argmax(1).tolist() == [*labels, *test_labels]
    assert identity.items() < data.identity.items() and data.name == "CIFAR10 sample"
    assert isinstance(np.load(cache(folder) / "train.npy", mmap_mode="r"), np.memmap)


def test_cache_is_used(whitened, monkeypatch, capfd):
    monkeypatch.setattr(cifar10, "_whitened", lambda *_: pytest.fail("made again"))
    data = load("cifar10", whitened[0], sample=True)
    assert (
        np.array_equal(data.train.x, whitened[1].train.x) and data.identity == whitened[1].identity
    )
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def cheap(whitened, tmp_path, monkeypatch):
    """A copy of the cached sample whose making costs nothing: its folder, a list of the makings."""
    folder, made = shutil.copytree(whitened[0], tmp_path / "copy"), []
    content = whitened[1]
    train, test = np.concatenate([content.train.x, content.valid.x]), content.test.x
    monkeypatch.setattr(cifar10, "_whitened", lambda *_: made.append(1) or [train, test])
    return folder, made


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip_file(path / "train.npy", 7_000_001),
        lambda path: flip_file(path / "test.npy", 8),
        lambda path: flip_file(path / "test.npy", 70),
        lambda path: os.truncate(path / "train.npy", 5_000_000),
        lambda path: os.truncate(path / "test.npy", 0),
        lambda path: (path / "test.npy").unlink(),
        lambda path: ((path / "test.npy").unlink(), os.mkfifo(path / "test.npy")),
        lambda path: (path / "sums.json").write_text("{"),
        lambda path: (path / "sums.json").write_text("[]"),
        lambda path: (path / "sums.json").unlink(),
        lambda path: np.save(path / "test.npy", np.zeros((200, 3072))),
        lambda path: np.save(path / "test.npy", np.zeros((199, 3072), np.float32)),
    ],
    ids=[
        "bit",
        "version",
        "header",
        "half",
        "empty",
        "gone",
        "a pipe",
        "sums cut",
        "sums",
        "no sums",
        "float64",
        "short",
    ],
)
def test_damaged_cache_is_made_again(cheap, whitened, capfd, damage):
    folder, made = cheap
    damage(cache(folder))
    for _ in range(2):
        data = load("cifar10", folder, sample=True)
        assert made == [1] and np.array_equal(data.test.x, whitened[1].test.x)
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "damaged" in err and "made again" in err
    assert sorted(os.listdir(cache(folder))) == ["sums.json", "test.npy", "train.npy"]


def test_stale_cache_is_made_again_and_the_old_one_deleted(cheap, monkeypatch, capfd):
    folder, made = cheap
    old = cache(folder)
    monkeypatch.setattr(cifar10, "PREPROCESSING_VERSION", 2)
    data = load("cifar10", folder, sample=True)
    assert made == [1] and data.identity["preprocessing"] == "2"
    assert cache(folder) != old and not old.exists()
    assert "another version: made again" in capfd.readouterr().err
    monkeypatch.setattr(cifar10, "ZCA_BIAS", 0.2)
    load("cifar10", folder, sample=True)
    assert made == [1, 1]


def test_a_cache_of_other_code_is_made_again(cheap, monkeypatch, capfd):
    """What a run says of its code holds for its data, too; of caches of old nothing is known."""
    folder, made = cheap
    sums = cache(folder) / "sums.json"
    with monkeypatch.context() as changed:
        changed.setattr(array_cache, "CODE", "0" * 16)
        for _ in range(2):
            load("cifar10", folder, sample=True)
            assert made == [1]
    assert "was made by other code: made again" in capfd.readouterr().err
    known = json.loads(sums.read_text())
    assert known.pop("code") == "0" * 16
    sums.write_text(json.dumps(known))
    load("cifar10", folder, sample=True)
    assert made == [1] and capfd.readouterr().err == ""


def test_interrupted_cache_write(cheap, monkeypatch, capfd):
    folder, made = cheap
    shutil.rmtree(cache(folder))
    save, calls = np.save, []

    def interrupt(file, x):
        calls.append(file)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save(file, x)

    monkeypatch.setattr(np, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("cifar10", folder, sample=True)
    assert not list((folder / "cifar10").glob("*preprocessed-*"))
    left = (
        folder / "cifar10" / (".preprocessed-" + 16 * "0" + ".partial")
    )  # as a killed process leaves it
    left.mkdir()
    (left / "train.npy").write_bytes(b"half")
    load("cifar10", folder, sample=True)
    assert made == [1, 1] and not left.exists() and cache(folder)
    assert capfd.readouterr().err.count("first use") == 2


def test_cache_in_a_folder_that_cannot_be_written(cheap, whitened, monkeypatch, capfd):
    folder, made = cheap
    shutil.rmtree(cache(folder))

    def refuse(path):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cifar10, "locked", refuse)
    data = load("cifar10", folder, sample=True)
    assert made == [1] and np.array_equal(data.train.x, whitened[1].train.x)
    assert "not writable" in capfd.readouterr().err
    shutil.copytree(cache(whitened[0]), folder / "cifar10" / cache(whitened[0]).name)
    load("cifar10", folder, sample=True)  # nor need it be written
    assert made == [1]


def test_no_room_for_the_cache(cheap, monkeypatch):
    folder, _ = cheap
    shutil.rmtree(cache(folder))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match="No space left.*make room for 15 MB"):
        load("cifar10", folder, sample=True)
    assert not list((folder / "cifar10").glob("*preprocessed-*"))


def test_damaged_pickle_is_not_hidden_by_the_cache(cheap):
    folder, made = cheap
    flip_file(folder / "cifar10" / "cifar-10-batches-py" / "data_batch_4", 5000)
    with pytest.raises(DataError, match="data_batch_4"):
        load("cifar10", folder, sample=True)
    assert made == []


def test_program(cheap, capsys, monkeypatch):
    folder, made = cheap
    assert cifar10_preprocessing.main(["--sample", "--data", str(folder)]) == 0
    assert "900 train, 100 valid, 200 test" in capsys.readouterr().out and made == []
    monkeypatch.setattr(source, "reachable", lambda *_: [])
    monkeypatch.setenv("PYLEARN2_DATA_PATH", str(folder / "nothing"))
    for arguments, part in (
        ([], "cifar-10-python.tar.gz missing"),
        (["--data", str(folder)], "use --sample"),
        (["--nothing"], "--nothing"),
        (["DIR"], "DIR"),
        (["--sample", "--data", str(cache(folder) / "train.npy")], "no sample"),
    ):
        assert status_of(cifar10_preprocessing.main, arguments) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and part in err
        assert err.startswith("cifar10_preprocessing: ")
    with pytest.raises(SystemExit) as stop:
        cifar10_preprocessing.main(["-h"])
    assert stop.value.code == 0 and "ZCA" in capsys.readouterr().out


def test_folders_of_others_beside_the_cache_stay(cheap):
    folder, _ = cheap
    made_before = cache(folder)
    place = folder / "cifar10"
    names = ["preprocessed-mine", "preprocessed-" + "0" * 16, ".preprocessed-mine.partial"]
    for name in names:
        (place / name).mkdir()
        (place / name / "thesis.tex").write_text("precious")
    (place / f".preprocessed-{'1' * 16}.old").symlink_to(place / names[0])
    shutil.rmtree(made_before)
    load("cifar10", folder, sample=True)
    assert all((place / name / "thesis.tex").exists() for name in names)
    assert not (place / f".preprocessed-{'1' * 16}.old").is_symlink()


def test_a_lock_of_the_cache_that_is_a_link_is_not_followed(cheap, tmp_path):
    folder, _ = cheap
    (tmp_path / "precious").write_text("kept")
    lock = folder / "cifar10" / ".preprocessed.lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(tmp_path / "precious")
    with refused(".preprocessed.lock is a link"):
        load("cifar10", folder, sample=True)
    assert (tmp_path / "precious").read_text() == "kept"
