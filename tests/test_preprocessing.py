"""preprocessing.py on arrays, against float64 formulations of SPEC section 12 that share nothing with it; the cache."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from datasets import array_cache, cifar10, contrast, load, source
from datasets.cifar10 import read_cifar10_pickles
from datasets.contrast import ZCA, global_contrast_normalize, local_contrast_normalize
from datasets.sample import ensure_sample
from datasets.svhn import split_svhn
from errors import DataError
from utilities import cifar10_preprocessing


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    ensure_sample(folder, ["cifar10"])
    return folder


@pytest.fixture(scope="module")
def images(sample):
    """uint8 (1000, 3072)."""
    return read_cifar10_pickles(sample, sample=True)[0]


def real_images(n):
    """The first n training images of CIFAR-10, or a skip that says why not."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    for folder in filter(None, (os.environ.get("PYLEARN2_DATA_PATH"), beside)):
        with contextlib.suppress(DataError):
            return read_cifar10_pickles(folder)[0][:n]
    pytest.skip("no real CIFAR-10 under PYLEARN2_DATA_PATH")


# ------------------------------------------------------------------------------------------------- GCN


def reference_gcn(x, scale):
    """Image by image in float64."""
    rows = []
    for row in np.asarray(x, np.float64):
        row = row - np.sum(row) / 3072
        length = np.linalg.norm(row) / scale
        rows.append(row / (length if length >= 1e-8 else 1))
    return np.array(rows)


@pytest.mark.parametrize("scale", [1, 55])
def test_gcn(images, scale):
    x = global_contrast_normalize(images, scale)
    assert x.dtype == np.float32 and x.shape == images.shape
    assert np.abs(x - reference_gcn(images, scale)).max() < 2e-7 * np.abs(x).max()
    assert np.linalg.norm(x, axis=1) == pytest.approx(np.full(1000, scale), rel=1e-6)


def test_gcn_of_real_images():
    x = real_images(600)
    assert np.abs(global_contrast_normalize(x, 55) - reference_gcn(x, 55)).max() < 2e-6


def test_gcn_of_hardly_any_contrast():
    x = np.full((5, 3072), 77, np.uint8)
    x[1, 5] += 1
    out = global_contrast_normalize(x, 55)
    assert not out[[0, 2, 3, 4]].any()
    assert np.abs(out - reference_gcn(x, 55)).max() < 1e-5 and out[1, 5] == pytest.approx(
        55, rel=1e-3
    )
    faint = np.zeros((2, 3072))
    faint[:, 0] = 1e-9, 1e-7  # divisors with scale 1: below and above 1e-8
    out = global_contrast_normalize(faint, 1)
    assert out[0, 0] == pytest.approx(1e-9, rel=1e-3) and out[1, 0] == pytest.approx(1, rel=1e-3)


# ------------------------------------------------------------------------------------------------- ZCA


def reference_zca(x, others):
    """`others` whitened by the statistics of x, through the square root of a matrix instead of eigenvalues."""
    x, others = np.asarray(x, np.float64), np.asarray(others, np.float64)
    C = np.cov(x.T, ddof=0) + 0.1 * np.eye(x.shape[1])
    return np.linalg.solve(scipy.linalg.sqrtm(C), (others - x.sum(0) / len(x)).T).T


def check_zca(x, n=700):
    x = x[:, 1000:1100].astype(np.float32)
    fit, other = x[:n], x[n:]
    zca = ZCA.fit(fit, bias=0.1)
    assert zca.mean.dtype == zca.P.dtype == np.float64 and np.allclose(zca.P, zca.P.T)
    out = zca.apply(fit)
    assert out.dtype == np.float32
    tolerance = 1e-5 * out.std()
    assert np.abs(out - reference_zca(fit, fit)).max() < 10 * tolerance
    assert np.abs(zca.apply(other) - reference_zca(fit, other)).max() < 10 * tolerance
    # whitened, up to what the bias holds back: C (C + 0.1 I)^-1
    C = np.cov(fit.astype(np.float64).T, ddof=0)
    predicted = C @ np.linalg.inv(C + 0.1 * np.eye(100))
    found = np.cov(out.astype(np.float64).T, ddof=0)
    assert np.abs(found - predicted).max() < 1e-5
    assert np.abs(out.mean(0, dtype=np.float64)).max() < tolerance
    return found


@pytest.mark.parametrize("block", [10**6, 700, 333])
def test_zca(images, monkeypatch, block):
    monkeypatch.setattr(contrast, "BLOCK", block)
    check_zca(global_contrast_normalize(images, 55))


@pytest.mark.parametrize("n", [50, 99, 100])
def test_zca_of_fewer_images_than_features(images, n):
    check_zca(global_contrast_normalize(images, 55), n)


def test_zca_of_real_images():
    found = check_zca(global_contrast_normalize(real_images(1000), 55))
    whitened = np.diag(found)
    assert (
        0.05 < whitened.min()
        and whitened.max() < 0.8
        and np.abs(found - np.diag(whitened)).max() < 0.35
    )


def test_zca_shows_progress(images):
    steps = []
    zca = ZCA.fit(images[:, :5], progress=steps.append)
    zca.apply(images[:, :5], progress=steps.append)
    assert sum(steps) == 2000


# ------------------------------------------------------------------------------------------------- LCN


def reference_lcn(x, channels=3):
    """49 shifted copies of each channel, in float64."""
    i, j = np.mgrid[-3:4, -3:4]
    K = np.exp(-(i**2 + j**2) / 8.0)
    K /= K.sum()

    def convolve(X):
        padded = np.pad(X, [(0, 0), (0, 0), (3, 3), (3, 3)])
        return sum(
            K[a, b] * padded[:, :, a : a + 32, b : b + 32] for a in range(7) for b in range(7)
        )

    X = np.array(x, np.float64).reshape(-1, 3, 32, 32)
    v, d = X - convolve(X), np.sqrt(convolve(X**2))
    X[:, :channels] = (v / np.maximum(np.maximum(d, d.mean((2, 3))[:, :, None, None]), 1e-4))[
        :, :channels
    ]
    return X.reshape(-1, 3072)


def check_lcn(x):
    out, expected = local_contrast_normalize(x), reference_lcn(x)
    assert out.dtype == np.float32 and np.abs(out - expected).max() < 2e-5
    first = local_contrast_normalize(x, "first")
    # The last bits of a matrix product depend on how many rows it has, on some processors.
    assert np.abs(first[:, :1024] - out[:, :1024]).max() < 1e-5 and np.array_equal(
        first[:, 1024:], x[:, 1024:]
    )
    return out


def test_lcn(images):
    x = global_contrast_normalize(images, 1)
    before = x.copy()
    out = check_lcn(x)
    assert np.array_equal(x, before)
    # local means are gone, and the local contrast is of one size whatever the image's is
    middle = out.reshape(-1, 3, 32, 32)[..., 4:-4, 4:-4]
    assert np.abs(middle.mean((1, 2, 3))).max() < 0.15 and 0.2 < middle.std() < 0.8
    assert np.abs(local_contrast_normalize(7 * x) - out).max() < 1e-4


def test_lcn_of_real_images():
    check_lcn(global_contrast_normalize(real_images(300), 1))


def test_lcn_border_and_constant_image():
    i, j = np.mgrid[-3:4, -3:4]
    K = np.exp(-(i**2 + j**2) / 8.0) / np.exp(-(i**2 + j**2) / 8.0).sum()
    x = np.full((1, 3, 32, 32), 2, np.float32)
    out = local_contrast_normalize(x.reshape(1, -1)).reshape(3, 32, 32)
    assert np.abs(out[:, 3:-3, 3:-3]).max() < 1e-6  # the window is inside: v = 0
    d = np.sqrt(
        [
            [4 * K[max(3 - r, 0) : 35 - r, max(3 - c, 0) : 35 - c].sum() for c in range(32)]
            for r in range(32)
        ]
    )
    for row, column in (
        (0, 0),
        (0, 31),
        (31, 31),
        (2, 15),
        (15, 30),
    ):  # beyond the border there are zeros
        weight = d[row, column] ** 2 / 4
        expected = 2 * (1 - weight) / max(d[row, column], d.mean())
        assert out[:, row, column] == pytest.approx(np.full(3, expected), abs=1e-5)
    assert out[0, 0, 0] > 0.5


def test_lcn_floor():
    x = np.zeros((3, 3072), np.float32)
    x[0, 600], x[1, 600] = 1e-6, 1
    out = local_contrast_normalize(x)
    assert not out[2].any()
    assert out[0, 600] == pytest.approx(
        1e-6 * out[1, 600] * reference_divisor(x[1]) / 1e-4, rel=1e-4
    )
    assert np.abs(out - reference_lcn(x)).max() < 1e-6


def reference_divisor(x):
    """What the pixel 600 of x is divided by."""
    out = reference_lcn(x[None])[0, 600]
    i, j = np.mgrid[-3:4, -3:4]
    return (1 - 1 / np.exp(-(i**2 + j**2) / 8.0).sum()) / out


def test_lcn_wrong_option():
    with pytest.raises(ValueError, match="'all' or 'first'"):
        local_contrast_normalize(np.zeros((1, 3072)), "second")


# ---------------------------------------------------------------------------------------- split of SVHN


def reference_split(labels, more, counts, part):
    """With lists, as the text of SPEC section 12 goes."""
    rng, taken = np.random.RandomState(322), []
    for first, of, count in ((0, labels, counts[0]), (len(labels), more, counts[1])):
        for label in range(1, 11):
            indices = [k for k, one in enumerate(of) if one == label]
            rng.shuffle(indices)
            taken += [first + k for k in indices[:count]]
    rows = taken if part == "valid" else sorted(set(range(len(labels) + len(more))) - set(taken))
    order = list(range(len(rows)))
    rng.shuffle(order)
    return [rows[k] for k in order]


def test_split():
    rng = np.random.RandomState(0)
    labels, more = rng.randint(1, 11, 7000), rng.randint(1, 11, 5000)
    rows = split_svhn(labels, more, {"train": 400, "extra": 200})
    assert len(rows["valid"]) == 6000 and len(rows["train"]) == 6000
    assert sorted([*rows["valid"], *rows["train"]]) == list(range(12000))
    both = np.concatenate([labels, more])
    of_train = rows["valid"] < 7000
    assert np.bincount(both[rows["valid"][of_train]]).tolist() == [0] + [400] * 10
    assert np.bincount(both[rows["valid"][~of_train]]).tolist() == [0] + [200] * 10
    for part in rows:
        assert rows[part].tolist() == reference_split(labels, more, (400, 200), part)


def test_split_with_too_few_images():
    labels = np.repeat(np.arange(1, 11), 3)
    split_svhn(labels, labels, {"train": 3, "extra": 0})
    with pytest.raises(DataError, match="extra has 2 images with label 7"):
        split_svhn(
            labels, labels[labels.cumsum() != labels[labels <= 7].sum()], {"train": 3, "extra": 3}
        )


# ------------------------------------------------------------------------------------- CIFAR-10, its cache


@pytest.fixture(scope="module")
def whitened(sample):
    """The sample with its cache made."""
    return sample, load("cifar10", sample, sample=True)


def cache(folder):
    (path,) = (folder / "cifar10").glob("preprocessed-*")
    return path


def test_cifar10(whitened, images):
    folder, data = whitened
    _, labels, test_x, test_labels, identity = read_cifar10_pickles(folder, sample=True)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [900, 100, 200]
    x = np.concatenate([part.read(0, len(part))[0] for part in (data.train, data.valid, data.test)])
    y = np.concatenate([part.read(0, len(part))[1] for part in (data.train, data.valid, data.test)])
    fit = reference_gcn(images, 55)
    # x = W C^-1/2 exactly if x C x^T = W W^T, and x W^T is symmetric and positive: on every sixth image
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
    """A copy of the cached sample whose making costs nothing: (folder, list of the times that it was made)."""
    folder, made = shutil.copytree(whitened[0], tmp_path / "copy"), []
    content = whitened[1]
    train, test = np.concatenate([content.train.x, content.valid.x]), content.test.x
    monkeypatch.setattr(cifar10, "_whitened", lambda *_: made.append(1) or [train, test])
    return folder, made


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path / "train.npy", 7_000_001),
        lambda path: flip(path / "test.npy", 8),
        lambda path: flip(path / "test.npy", 70),
        lambda path: os.truncate(path / "train.npy", 5_000_000),
        lambda path: os.truncate(path / "test.npy", 0),
        lambda path: (path / "test.npy").unlink(),
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


def test_interrupted_cache_write(cheap, monkeypatch, capfd):
    folder, made = cheap
    shutil.rmtree(cache(folder))
    sync, calls = array_cache._sync, []

    def interrupt(file):
        calls.append(file)
        if len(calls) == 2:
            raise KeyboardInterrupt
        sync(file)

    monkeypatch.setattr(array_cache, "_sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("cifar10", folder, sample=True)
    assert not list((folder / "cifar10").glob("*preprocessed-*"))
    left = folder / "cifar10" / ".preprocessed-0.partial"  # as a killed process leaves it
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

    monkeypatch.setattr(cifar10, "_lock", refuse)
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
    flip(folder / "cifar10" / "cifar-10-batches-py" / "data_batch_4", 5000)
    with pytest.raises(DataError, match="data_batch_4"):
        load("cifar10", folder, sample=True)
    assert made == []


# ---------------------------------------------------------------------------------------- command line


def test_program(cheap, capsys, monkeypatch):
    folder, made = cheap
    assert cifar10_preprocessing.main(["--sample", "--data", str(folder)]) == 0
    assert "900 train, 100 valid, 200 test" in capsys.readouterr().out and made == []
    monkeypatch.setattr(source, "_reachable", lambda *_: [])
    monkeypatch.setenv("PYLEARN2_DATA_PATH", str(folder / "nothing"))
    for arguments, part in (
        ([], "cifar-10-python.tar.gz missing"),
        (["--data", str(folder)], "use --sample"),
        (["--nothing"], "--nothing"),
        (["DIR"], "DIR"),
        (["--sample", "--data", str(cache(folder) / "train.npy")], "no sample"),
    ):
        with pytest.raises(SystemExit) as stop:
            cifar10_preprocessing.main(arguments)
        out, err = capsys.readouterr()
        assert stop.value.code == 2 and out == "" and len(err.splitlines()) == 1 and part in err
        assert err.startswith("cifar10_preprocessing: ")
    with pytest.raises(SystemExit) as stop:
        cifar10_preprocessing.main(["-h"])
    assert stop.value.code == 0 and "ZCA" in capsys.readouterr().out
