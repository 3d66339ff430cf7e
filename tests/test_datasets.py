"""datasets/__init__.py: data sets by name, and no other data whatever happens to files."""

import random
import shutil

import numpy as np
import pytest
from damage import KINDS, damage
from data_files import refused

from datasets import cifar10, load, sample
from datasets.contrast import global_contrast_normalize
from datasets.digits import coloured, grey
from errors import DataError


@pytest.mark.parametrize("data_set", ["CIFAR100", "MNIST", ""])
def test_unknown_data_set(data_set, tmp_path):
    with refused("is none of"):
        load(data_set, tmp_path)


COUNTS = {"mnist": 120, "cifar10": 120, "svhn": 80}


@pytest.fixture
def small(monkeypatch):
    """A twentieth of the sample's images, so that a file is read and made in milliseconds."""
    monkeypatch.setattr(sample, "grey", lambda n, rng: grey(n // 20, rng))
    monkeypatch.setattr(sample, "coloured", lambda n, rng: coloured(n // 20, rng))
    splits = {
        "mnist": {"train": 100, "valid": 25, "test": 25},
        "cifar10": {"train": 45, "valid": 5, "test": 10},
        "svhn": {"train": 40, "valid": 20, "test": 10},
    }
    for name, (place, build) in sample.SETS.items():

        def smaller(rng, build=build, split=splits[name]):
            files, manifest = build(rng)
            per_class = {"valid_per_class": {"train": 1, "extra": 1}}
            return files, manifest | {"split": split} | per_class

        monkeypatch.setitem(sample.SETS, name, (place, smaller))
    # whitening takes as long for few images as for many; what is on disk does not depend on it
    monkeypatch.setattr(
        cifar10,
        "_whitened",
        lambda *images: [global_contrast_normalize(x, cifar10.GCN_SCALE) for x in images],
    )


@pytest.mark.parametrize("name", COUNTS)
def test_fuzzed_data_files(name, small, tmp_path, capfd):
    """320 of them: the same data, or one line that says what is wrong."""
    rng, outcomes = random.Random(3), {"same": 0, "refused": 0}

    def read():
        dataset = load(name, tmp_path / "data", True)
        parts = [getattr(dataset, part) for part in ("train", "valid", "test")]
        return dataset.identity, [array for part in parts for array in part.read(0, len(part))]

    whole = read()
    files = sorted(p for p in (tmp_path / "data").rglob("*") if p.is_file())
    backup = tmp_path / "backup"
    for i in range(COUNTS[name]):
        path = files[i % len(files)]
        shutil.copy(path, backup)
        damage(path, rng.choice(KINDS), rng)
        try:
            identity, arrays = read()
        except DataError as error:
            assert "\n" not in str(error) and error.args
            outcomes["refused"] += 1
        else:
            assert identity == whole[0]
            for a, b in zip(arrays, whole[1], strict=True):
                np.testing.assert_array_equal(a, b, err_msg=str(path))
            outcomes["same"] += 1
        shutil.copy(backup, path)
    assert outcomes["refused"] > COUNTS[name] // 4, outcomes
    assert "Traceback" not in capfd.readouterr().err
