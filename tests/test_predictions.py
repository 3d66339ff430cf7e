"""No damaged or foreign file passes for a saved network, and none gives a traceback."""

import json
from dataclasses import replace

import numpy as np
import pytest

import datasets
from errors import FileError
from files import load_npz
from records import networks, saved
from settings import Settings
from trainer import Trainer
from utilities import predictions

SETTINGS = Settings("PI_MNIST", "DFXP", 5, 9, 11, 10, 0.0001, 1)


@pytest.fixture(scope="module")
def trainer(sample):
    return Trainer(SETTINGS, datasets.load("mnist", sample, True))


@pytest.fixture(scope="module")
def source(trainer, tmp_path_factory):
    """The file of an untrained network."""
    path = tmp_path_factory.mktemp("network") / "best.npz"
    config = {"settings": SETTINGS.as_json(), "data": trainer.data.identity, "sample": True}
    said = saved.about(config, trainer.network.layers_described())
    saved.write(path, trainer.network_arrays(), said, 3, 10.0, 12.5)
    return path


WRONG = {
    "missing": {"without": ["layer1/b"]},
    "strange": {"arrays": {"layer3/W": np.zeros(2, "float32")}},
    "foreign": {"arrays": {"x": np.zeros(2, "float32")}},
    "small": {"arrays": {"layer2/W": np.zeros((240, 9), "float32")}},
    "wide": {"arrays": {"layer1/b": np.zeros(1200)}},
    "whole": {"arrays": {"layer1/b": np.zeros(1200, "int32")}},
    "swapped": {"arrays": {"layer1/b": np.zeros(1200, ">f4")}},
    "scalar": {"arrays": {"layer1/b": np.array(0, "float32")}},
    "NaN": {"arrays": {"layer1/b": np.full(1200, np.nan, "float32")}},
    "infinite": {"arrays": {"layer1/b": np.full(1200, -np.inf, "float32")}},
    "range": {"arrays": {"layer1/ranges": np.full(10, -(2**31), "int32")}},
    "ranges": {"arrays": {"layer1/ranges": np.full(11, 5, "int32")}},
    "text": {"arrays": {"layer1/b": np.array(["x"] * 1200)}},
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_are_not_the_networks_are_refused(name, source, trainer, tmp_path):
    change = WRONG[name]
    there = load_npz(source) | change.get("arrays", {})
    file = tmp_path / "wrong.npz"
    np.savez(
        file, **{n: v for n, v in there.items() if n not in ["sum", *change.get("without", [])]}
    )
    with pytest.raises(FileError, match="is no PI_MNIST network in DFXP"):
        predictions.check_network(networks.read(file), trainer)


@pytest.mark.parametrize("task,format", [("MNIST", "DFXP"), ("PI_MNIST", "FLP")])
def test_arrays_of_another_task_or_format_are_refused(task, format, source, trainer):
    network = networks.read(source)
    other = Trainer(replace(SETTINGS, task=task, format=format), trainer.data)
    with pytest.raises(FileError, match="is no .* network in"):
        predictions.check_network(network, other)


def test_damaged_files_are_refused_or_are_the_same_network(source, trainer, tmp_path):
    """120 files, cut or with bytes changed, half of them where the names and sizes are."""
    right = networks.read(source)
    whole = source.read_bytes()
    ends = [*range(600), *range(len(whole) - 900, len(whole))]
    rng = np.random.RandomState(1)
    file = tmp_path / "damaged.npz"
    refusals = 0
    for k in range(120):
        content = bytearray(whole)
        for place in rng.choice(ends if k % 2 else len(whole), 1 + k % 3):
            content[place] ^= 1 << rng.randint(8)
        file.write_bytes(content[: rng.randint(len(content))] if k % 5 == 0 else content)
        try:
            network = networks.read(file)
            predictions.check_network(network, trainer)
        except FileError as error:
            assert "\n" not in str(error)
            refusals += 1
        else:
            assert replace(network, path=source, arrays={}) == replace(right, arrays={})
            assert all(np.array_equal(v, right.arrays[n]) for n, v in network.arrays.items())
    assert refusals > 80


VALUES = [None, [], {}, "x", -1, 101, float("nan"), float("inf"), 10**400, [[]], {"a": []}]


def strange_texts(said):
    """Descriptions of networks that no program wrote, from a right one."""
    values = [
        said | {key: value}
        for key in ("form", "settings", "validation_error", "test_error", "epoch")
        for value in VALUES
    ]
    for key in ("task", "format", "streams", "initial_range", "prop_bits", "seed"):
        wrong = [value for value in VALUES if type(value) is not int or key == "task"]
        values += [said | {"settings": said["settings"] | {key: value}} for value in wrong]
    texts = [json.dumps(value).encode() for value in [*values, *VALUES]]
    return [*texts, b"", b"\xff", b"[" * 50_000, b"{}", json.dumps(said).encode()[:-1]]


def test_files_that_say_strange_things_are_refused(source, tmp_path):
    there = load_npz(source)
    arrays = {"layer0/W": np.zeros(1, "float32"), "about": there["about"], "epoch": there["epoch"]}
    changes = [
        {"about": np.array(text)} for text in strange_texts(json.loads(there["about"].item()))
    ]
    changes += [{"about": np.zeros(3)}, {"about": np.array(1.5)}]
    changes += [{"epoch": value} for value in (np.zeros(2), np.array("x"), np.array(np.nan))]
    assert len(changes) > 100
    file = tmp_path / "strange.npz"
    for change in changes:
        np.savez(file, **(arrays | change))
        with pytest.raises(FileError):
            networks.read(file)
