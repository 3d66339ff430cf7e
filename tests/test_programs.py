"""xla/programs.py: training and testing as compiled programs, and what these are made of."""

from functools import cache

import jax
import numpy as np
import pytest
from compiling import CONSTANTS, equations

from model import Network
from xla import device
from xla.device import to_device, to_host
from xla.masks import mask_state
from xla.programs import TestProgram, TrainingProgram

f4 = np.float32
SMALL = {"units": 4, "pieces": 3}


def test_evaluation_counts_ties_as_argmax_does():
    """An untrained softmax gives all classes the same: the first counts as the answer."""
    network = Network("PI_MNIST", "FXP", np.random.RandomState(0), 5, **SMALL)
    program = TestProgram(network, 4)
    state = to_device({v.name: v.get_value() for v in network.state})
    x = np.ones((10, 784), f4)
    t = np.eye(10, dtype=f4)[[0, 1, 0, 2, 0, 0, 3, 4, 0, 5]]
    assert program(state, np.int32(9), *program.arrange(x, t)) == 5


def test_segments_of_another_data_set():
    """A second kind of arguments is traced again, with the same graph."""
    network = Network("PI_MNIST", "DFXP", np.random.RandomState(0), 5, **SMALL)
    program = TrainingProgram(network, 4, 2)
    rng = np.random.RandomState(3)
    x = rng.uniform(size=(12, network.input_size)).astype(f4)
    t = np.eye(10, dtype=f4)[rng.randint(10, size=12)]
    rows = np.arange(8, dtype="int32").reshape(2, 4)
    results = []
    for n in (8, 12):  # the same rows of both
        state = to_device({v.name: v.get_value() for v in network.state} | mask_state(1))
        results.append(to_host(program(state, CONSTANTS, *to_device((x[:n], t[:n])), rows, 0)))
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name])


@cache
def compiled_segment(task, number_format, **size):
    """(network, jaxpr, XLA's compiled text) of a segment of two batches of four examples."""
    network = Network(task, number_format, np.random.RandomState(0), 5, **size)
    program = TrainingProgram(network, 4, 2)
    state = to_device({v.name: v.get_value() for v in network.state} | mask_state(1))
    arguments = (
        state,
        CONSTANTS,
        *to_device((np.zeros((8, network.input_size), f4), np.zeros((8, 10), f4))),
        np.zeros((2, 4), "int32"),
        np.int32(0),
        np.int32(2),
        None,
    )
    traced = program.program.jitted.trace(*arguments)
    return network, traced.jaxpr.jaxpr, traced.lower().compile().as_text()


def test_a_segment_stays_on_the_device():
    """No callback, no transfer, and one loop over the batches, which comes last."""
    _, jaxpr, text = compiled_segment("PI_MNIST", "DFXP", **SMALL)
    primitives = {e.primitive.name for e in equations(jaxpr)}
    assert not [
        name
        for name in primitives
        if "callback" in name or name in ("device_put", "infeed", "outfeed")
    ]
    assert not [
        word for word in ("infeed(", "outfeed(", "send(", "recv(", "callback") if word in text
    ]
    assert [e.primitive.name for e in jaxpr.eqns if e.primitive.name in ("while", "scan")] == [
        "while"
    ]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="GPUs fuse in other ways")
@pytest.mark.parametrize("number_format", ["FXP", "DFXP"])
def test_every_signal_is_quantized_once(number_format):
    """What `xla.ops.materialise` is for: XLA would do it again in everything that uses one.

    In each layer w and b as they are used, eight other signals, and w twice and b once
    as they are stored: 13.
    """
    network, jaxpr, text = compiled_segment("PI_MNIST", number_format, **SMALL)
    written = sum(e.primitive.name == "round" for e in equations(jaxpr))
    compiled = text.count(" round-nearest-afz(")
    assert written == 13 * len(network.layers)
    assert compiled == written


def test_images_are_not_rearranged_between_convolutions():
    """Convolutional layers hand on (rows, maps, columns, batch).

    Only masks, images and the last one's output are turned.
    """
    _, jaxpr, _ = compiled_segment("CIFAR10", "FXP")
    turned = [e.params["permutation"] for e in equations(jaxpr) if e.primitive.name == "transpose"]
    assert (
        turned.count((2, 1, 3, 0)) == 1 + 3 + 1
    )  # the images, the masks of three layers, the last one's gradient
    assert turned.count((3, 1, 0, 2)) == 1  # what the last one hands to a dense layer


def test_a_whole_segment_has_a_known_length_on_a_gpu(monkeypatch):
    """So it asks the host nothing between batches; what it computes is the same."""
    monkeypatch.setattr(device, "known_lengths_pay", lambda: True)
    network = Network("PI_MNIST", "FXP", np.random.RandomState(0), 5, **SMALL)
    x = np.random.RandomState(3).uniform(size=(8, network.input_size)).astype(f4)
    t = np.eye(10, dtype=f4)[:8]
    rows = np.arange(8, dtype="int32").reshape(2, 4)
    results = []
    for segment, count in ((2, 2), (3, 2)):  # the second is not whole
        program = TrainingProgram(network, 4, segment)
        state = {v.name: v.get_value() for v in network.state} | mask_state(1)
        static = program.static(CONSTANTS, np.int32(count))
        assert static["whole"] == (segment == count)
        filled = np.concatenate([rows, rows])[:segment]
        arguments = (state, CONSTANTS, x, t, filled, np.int32(0), np.int32(count), None)
        traced = program.program.jitted.trace(*arguments, **static).jaxpr.jaxpr
        loops = [e for e in traced.eqns if e.primitive.name in ("while", "scan")]
        assert [e.params.get("length") for e in loops] == [2 if segment == count else None]
        device_state, *data = to_device((state, x, t))
        results.append(to_host(program(device_state, CONSTANTS, *data, rows, 0)))
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name])
