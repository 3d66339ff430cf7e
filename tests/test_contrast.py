"""datasets/contrast.py, against float64 formulations of the same that share nothing with it."""

import numpy as np
import pytest
import scipy.linalg
from data_files import read_cifar10, real

from datasets import contrast
from datasets.contrast import ZCA, global_contrast_normalize, local_contrast_normalize


@pytest.fixture(scope="module")
def images(generated):
    """uint8 (1000, 3072)."""
    return read_cifar10(generated, sample=True)[0]


@pytest.fixture(scope="module")
def real_images():
    """uint8 (1000, 3072): the first training images of CIFAR-10, or a skip that says why not."""
    return read_cifar10(real("cifar10/cifar-10-batches-py/data_batch_1"))[0][:1000]


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


def test_gcn_of_real_images(real_images):
    x = real_images[:600]
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


def reference_zca(x, others):
    """`others` whitened by the statistics of x, through a matrix's square root."""
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


def test_zca_of_real_images(real_images):
    found = check_zca(global_contrast_normalize(real_images, 55))
    whitened = np.diag(found)
    assert (
        0.05 < whitened.min()
        and whitened.max() < 0.8
        and np.abs(found - np.diag(whitened)).max() < 0.35
    )


def test_zca_shows_progress(images):
    steps = []
    zca = ZCA.fit(images[:, :5], 0.1, progress=steps.append)
    zca.apply(images[:, :5], progress=steps.append)
    assert sum(steps) == 2000


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
    x = global_contrast_normalize(images[:300], 1)
    before = x.copy()
    out = check_lcn(x)
    assert np.array_equal(x, before)
    # local means are gone, and the local contrast is of one size whatever the image's is
    middle = out.reshape(-1, 3, 32, 32)[..., 4:-4, 4:-4]
    assert np.abs(middle.mean((1, 2, 3))).max() < 0.15 and 0.2 < middle.std() < 0.8
    assert np.abs(local_contrast_normalize(7 * x) - out).max() < 1e-4


def test_lcn_of_real_images(real_images):
    check_lcn(global_contrast_normalize(real_images[:300], 1))


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
