"""The pixels of examples are found again in the official files."""

from pathlib import Path

import numpy as np
import pytest

import datasets
from datasets import cifar10, svhn
from datasets.contrast import global_contrast_normalize, local_contrast_normalize
from datasets.sample import ensure_sample
from errors import DataError
from utilities import original_pixels


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A data folder with the samples of CIFAR-10 and SVHN."""
    folder = tmp_path_factory.mktemp("colours")
    ensure_sample(folder, ["cifar10", "svhn"])
    return folder


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_svhn_pixels_are_those_that_its_inputs_were_made_of(part, colours):
    data = datasets.load("svhn", colours, True)
    rows = np.array([3, 77])
    shown, remark = original_pixels.pixels("svhn", data, part, rows, colours, True)
    assert remark is None and shown.shape == (2, 32, 32, 3)
    pixels = np.round(255 * shown).astype("uint8").transpose(0, 3, 1, 2).reshape(2, -1)
    x = local_contrast_normalize(global_contrast_normalize(pixels, svhn.GCN_SCALE))
    expected = np.concatenate([getattr(data, part).read(row, row + 1)[0] for row in rows])
    assert np.allclose(x, expected, atol=1e-5)


def cifar10_like(folder):
    """What the official pixels must be, without whitening them."""
    x, labels, test_x, test_labels, _ = cifar10.read(cifar10.OFFICIAL.under(folder, True))
    parts = {
        "train": datasets.ArrayPart(x[:900], labels[:900]),
        "valid": datasets.ArrayPart(x[900:], labels[900:]),
        "test": datasets.ArrayPart(test_x, test_labels),
    }
    return datasets.Dataset("CIFAR10 sample", identity={}, **parts)


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_cifar10_pixels_are_those_of_the_part(part, colours):
    data = cifar10_like(colours)
    shown, remark = original_pixels.pixels("cifar10", data, part, np.array([7]), colours, True)
    right = getattr(data, part).read(7, 8)[0].reshape(3, 32, 32)
    assert remark is None and np.allclose(255 * shown[0].transpose(2, 0, 1), right)


def test_without_the_official_files_scaled_inputs_are_shown(colours, monkeypatch):
    def gone(*arguments):
        raise DataError("they are gone")

    data = cifar10_like(colours)
    monkeypatch.setattr(original_pixels, "cifar10_pixels", gone)
    shown, remark = original_pixels.pixels("cifar10", data, "test", np.arange(3), colours, True)
    assert "they are gone" in remark and shown.min() == 0 and shown.max() == 1


def test_pixels_of_other_examples_are_not_shown(colours, monkeypatch):
    data = cifar10_like(colours)
    rows = np.arange(20)
    source = cifar10.OFFICIAL.under(colours, True)
    other = original_pixels.cifar10_pixels(source, "test", 100, rows + 20)
    monkeypatch.setattr(original_pixels, "cifar10_pixels", lambda *arguments: other)
    _, remark = original_pixels.pixels("cifar10", data, "test", rows, colours, True)
    assert "other labels" in remark


def test_mnist_is_shown_as_it_is(sample):
    data = datasets.load("mnist", Path(sample), True)
    shown, remark = original_pixels.pixels("mnist", data, "valid", np.array([4]), sample, True)
    assert remark is None
    assert np.array_equal(shown[0, :, :, 0].ravel(), data.valid.read(4, 5)[0][0])
