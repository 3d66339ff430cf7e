"""datasets/__init__.py: data sets by name."""

import pytest
from data_files import refused

from datasets import load


@pytest.mark.parametrize("data_set", ["CIFAR100", "MNIST", ""])
def test_unknown_data_set(data_set, tmp_path):
    with refused("is none of"):
        load(data_set, tmp_path)
