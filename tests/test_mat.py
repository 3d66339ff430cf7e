"""datasets/mat.py: official .mat files in the order of pixels that training expects."""

import struct
import zlib

import numpy as np
import pytest
import scipy.io
from data_files import refused

from datasets.mat import count, read_mat
from files import md5

X = np.random.RandomState(0).randint(256, size=(32, 32, 3, 20)).astype(np.uint8)


Y = np.arange(20)[:, None] % 10 + 1


def mat(path, **variables):
    scipy.io.savemat(path, variables, do_compression=True)  # as the official files are
    return path


def test_svhn_sample(generated):
    for name, n in (("train", 600), ("test", 200), ("extra", 600)):
        x, labels = read_mat(generated / f"SVHN/format2/{name}_32x32.mat")
        assert x.shape == (n, 3072) and x.dtype == np.uint8
        assert np.bincount(labels, minlength=11).tolist() == [0] + [n // 10] * 10


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int32])
def test_svhn_order_is_channel_row_column(tmp_path, dtype):
    x, labels = read_mat(mat(tmp_path / "a.mat", X=X, y=Y.astype(dtype)))
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
        {"X": np.array([[np.array([[1]], object)]], object), "y": Y},
    ],
)
def test_svhn_wrong_content_is_named(tmp_path, variables, monkeypatch):
    if getattr(variables.get("X"), "dtype", None) == "O":  # cells may be as deep as they like
        monkeypatch.setattr(scipy.io, "loadmat", None)
    with refused("wrong.mat", "give "):
        read_mat(mat(tmp_path / "wrong.mat", **variables))


@pytest.mark.parametrize("compressed", [True, False])
def test_svhn_truncated_file_is_named(tmp_path, compressed):
    path = tmp_path / "cut.mat"
    scipy.io.savemat(path, {"X": X, "y": Y}, do_compression=compressed)
    whole = path.read_bytes()
    n = len(whole)
    for length in [*range(0, n, n // 15), 127, 128, 130, 140, n - 50, n - 9]:
        path.write_bytes(whole[:length])
        with refused("cut.mat"):
            read_mat(path)


def element(kind, content):
    return struct.pack("<2I", kind, len(content)) + content + bytes(-len(content) % 8)


@pytest.mark.parametrize("what", ["a name", "numbers"])
def test_a_mat_file_that_unpacks_to_anything_is_refused(tmp_path, monkeypatch, what):
    """Before SciPy looks at it, which takes as much memory as a size in the file says."""
    much = 1 << 26
    shape = element(6, struct.pack("<2I", 9, 0)) + element(5, struct.pack("<4i", 32, 32, 3, 10))
    name = struct.pack("<2I", 1, much) if what == "a name" else element(1, b"X")
    matrix = struct.pack("<2I", 14, much) + shape + name + struct.pack("<2I", 2, much) + bytes(much)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    (tmp_path / "bomb.mat").write_bytes(head + element(15, zlib.compress(matrix, 1)))
    monkeypatch.setattr(scipy.io, "whosmat", lambda *_: pytest.fail("SciPy reads it"))
    for read in (count, read_mat):
        with refused("bomb.mat is truncated, corrupted or no MATLAB 5 file"):
            read(tmp_path / "bomb.mat")


def test_svhn_missing_or_no_mat_file(tmp_path):
    with refused("train_32x32.mat missing", str(tmp_path), "--sample"):
        read_mat(tmp_path / "train_32x32.mat")
    for head in (b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM", b""):
        content = head + bytes(600)
        (tmp_path / "a.mat").write_bytes(content)
        with refused("a.mat"):
            read_mat(tmp_path / "a.mat")


def test_mat_reader_keeps_one_copy(generated):
    path = generated / "SVHN" / "format2" / "train_32x32.mat"
    x, _ = read_mat(path, md5(path.read_bytes()))
    base = x
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert base.nbytes == x.nbytes and x.flags.c_contiguous
    with refused("MD5 differs"):
        read_mat(path, "0" * 32)


def test_more_images_than_anybody_has_are_not_read(tmp_path, monkeypatch):
    path = mat(tmp_path / "many.mat", X=X, y=Y)
    monkeypatch.setattr("datasets.mat.MOST_EXAMPLES", 19)
    monkeypatch.setattr("scipy.io.loadmat", None)
    with refused("many.mat", "ValueError"):
        read_mat(path)
