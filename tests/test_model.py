"""model.py: networks, schedules, and what their compiled steps are made of."""

import hashlib
import json
from collections import Counter
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from compiling import equations
from pytensor.graph.traversal import ancestors

import model
from format import FORMATS, SIGNALS
from model import Network
from settings import PAPER
from tasks import TASKS
from xla.graphs import to_jax
from xla.statistics import ColumnNorm, PartialCounts

UNIT = Path(__file__).parent.parent.parent / "shared" / "reference" / "unit.npz"
f4 = np.float32


@cache
def recorded():
    if not UNIT.exists():
        pytest.skip(
            "the recorded numbers are not here (unit.npz); "
            "they lie in shared/reference beside the project"
        )
    with np.load(UNIT) as file:
        return {name: file[name] for name in file.files if name.startswith(("schedule", "init"))}


# --- networks

# Output shapes of the layers, shapes of W, and p, scale, max_col_norm, LR scale of
# each.
PUBLISHED = {
    "PI_MNIST": (
        [(240,), (240,), (10,)],
        [(784, 1200), (240, 1200), (240, 10)],
        [(0.8, 1, 1.9365, 1), (0.5, 0.5, 1.9365, 1), (0.5, 0.5, 1.9365, 1)],
    ),
    "MNIST": (
        [(48, 10, 10), (48, 4, 4), (24, 3, 3), (10,)],
        [(96, 1, 8, 8), (96, 48, 8, 8), (96, 48, 5, 5), (216, 10)],
        [(0.8, 1, 0.9, 1), (0.5, 0.5, 1.9365, 1), (0.5, 0.5, 1.9365, 1), (0.5, 0.5, 1.9365, 1)],
    ),
    "CIFAR10": (
        [(64, 16, 16), (128, 8, 8), (128, 4, 4), (400,), (10,)],
        [(128, 3, 5, 5), (256, 64, 5, 5), (256, 128, 5, 5), (2048, 2000), (400, 10)],
        [
            (0.8, 1, 0.9, 0.2),
            (0.5, 0.5, 1.9365, 0.2),
            (0.5, 0.5, 1.9365, 0.2),
            (0.5, 0.5, 1.9365, 1),
            (0.5, 0.5, 1.9365, 1),
        ],
    ),
}
PUBLISHED["SVHN"] = PUBLISHED["CIFAR10"]
# With RandomState(1234): the first layer's first weights, sums of |W|, the stream
# seeds.
OWN = {
    "PI_MNIST": (
        [-0.033928338, 0.013430174, -0.006849036],
        [25865.21, 9291.288, 0],
        [446387, 377556, 449232],
    ),
    "MNIST": (
        [-0.09445249, 0.03738802, -0.01906691],
        [472.9952, 6308.588, 3846.641, 0],
        [676615, 768896, 11917, 467083],
    ),
    "CIFAR10": (
        [-0.09519917, 0.03768358, -0.01921764],
        [744.6906, 11333.51, 16828.80, 78843.27, 0],
        [701616, 81759, 212708, 907408, 561497],
    ),
}
OWN["SVHN"] = OWN["CIFAR10"]
EVERY_TASK = pytest.mark.parametrize("task", PUBLISHED)


@cache
def published_network(task):
    rng = np.random.RandomState(1234)
    network = Network(task, "FLP", rng, 5)
    return network, [int(rng.randint(999999)) for _ in network.layers]


def weights(task):
    return [layer.W.get_value() for layer in published_network(task)[0].layers]


@EVERY_TASK
def test_shapes_and_constants(task):
    layers = published_network(task)[0].layers
    outputs, W_shapes, constants = PUBLISHED[task]
    assert [layer.output_shape for layer in layers] == outputs
    assert [W.shape for W in weights(task)] == W_shapes
    assert [(c.p, c.scale, c.max_col_norm, c.w_LR_scale) for c in layers] == constants
    assert [layer.b_LR_scale for layer in layers] == [c[3] for c in constants]
    for before, layer in zip(layers, layers[1:], strict=False):
        assert layer.input_size == int(np.prod(before.output_shape))
    for layer, W in zip(layers, W_shapes, strict=True):
        state = {v.name.split("/")[1]: v.get_value() for v in layer.state}
        biases = W[0] if len(W) == 4 else W[1]
        assert state["b"].shape == state["update_b"].shape == (biases,)
        assert not any(
            state[name].any()
            for name in ("b", "update_W", "update_b", "overflow", "epoch_overflow")
        )
        assert state["ranges"].tolist() == [5] * len(SIGNALS)
        assert {str(v.type.dtype) for v in layer.state[:4]} == {"float32"}


@EVERY_TASK
def test_initial_weights_and_stream_seeds(task):
    first, sums, seeds = OWN[task]
    W = weights(task)
    np.testing.assert_allclose(W[0].ravel()[:3], first, rtol=1e-6)
    np.testing.assert_allclose([np.abs(w.astype("f8")).sum() for w in W], sums, rtol=1e-6)
    assert published_network(task)[1] == seeds


@EVERY_TASK
def test_initial_weights_and_stream_seeds_as_recorded(task):
    info = json.loads(recorded()["init_info_json"].item())[task]
    W = weights(task)
    assert [list(w.shape) for w in W] == info["W_shapes"]
    assert [hashlib.sha256(w.tobytes()).hexdigest() for w in W] == info["W_sha256"]
    assert published_network(task)[1] == info["stream_seeds"]
    rng = np.random.RandomState(1234)
    Network(task, "FLP", rng)
    [rng.randint(999999) for _ in W]
    order = np.arange(info["first_shuffle_n"])
    rng.shuffle(order)
    assert order[:20].tolist() == info["first_shuffle_head"]


# --- schedules

# The table of "Schedules and selection": epochs, LR start, epochs over which LR falls
# and over which M rises, batch size, shuffle.
TABLE = {
    "PI_MNIST": (800, 0.05, 400, 200, 100, "examples"),
    "MNIST": (800, 0.02, 400, 200, 128, "examples"),
    "CIFAR10": (400, 0.02, 200, 200, 128, "examples"),
    "SVHN": (200, 0.05, 100, 100, 128, "batches"),
}


@EVERY_TASK
def test_published_schedule_as_recorded(task):
    schedule = TASKS[task].schedule(TASKS[task].epochs)
    assert [LR for LR, _ in schedule] == recorded()[f"schedule/{task}/LR"].tolist()
    assert [M for _, M in schedule] == recorded()[f"schedule/{task}/M"].tolist()


@EVERY_TASK
def test_published_schedule(task):
    epochs, start, LR_sat, M_sat, batch_size, shuffle = TABLE[task]
    t = TASKS[task]
    assert (t.batch_size, t.shuffle, t.chunk_batches) == (
        batch_size,
        shuffle,
        79 if task == "SVHN" else None,
    )
    LR = start
    M = 0.5
    for used in t.schedule(epochs):
        assert used == (LR, M)
        LR = LR + (start / 10 - start) / LR_sat if LR > start / 10 else start / 10
        M = M + (0.7 - 0.5) / M_sat if M < 0.7 else 0.7
    assert t.schedule(epochs)[-1] == (start / 10, 0.7)


@EVERY_TASK
@pytest.mark.parametrize("epochs", [1, 2, 3, 8, 50, 333, 1600])
def test_scaled_schedules(task, epochs):
    published, start, LR_sat, M_sat, _, _ = TABLE[task]
    LR_sat, M_sat = (max(1, round(sat / published * epochs)) for sat in (LR_sat, M_sat))
    schedule = np.array(TASKS[task].schedule(epochs))
    assert schedule.shape == (epochs, 2)
    expected = [
        (start + min(e / LR_sat, 1) * (start / 10 - start), 0.5 + min(e / M_sat, 1) * 0.2)
        for e in range(epochs)
    ]
    np.testing.assert_allclose(schedule, expected, rtol=1e-11)
    assert (schedule[:, 0] >= start / 10).all() and (schedule[:, 1] <= 0.7).all()  # clamped
    if epochs >= 8:
        assert schedule[-1].tolist() == [start / 10, 0.7]


def test_no_epochs():
    assert TASKS["PI_MNIST"].schedule(0) == []


# --- graphs and their dtypes

SMALL = {"units": 4, "pieces": 3}
EVERY_GRAPH = [(task, name) for task in TASKS for name in PAPER]
EVERY_GRAPH += [("PI_MNIST", name) for name in FORMATS if name not in PAPER]


def shapes_of(inputs, shared):
    values = {name: jax.ShapeDtypeStruct(v.type.shape, v.type.dtype) for name, v in inputs.items()}
    return values, {v.name: jax.ShapeDtypeStruct(v.get_value().shape, v.type.dtype) for v in shared}


def jaxpr_of(network, inputs, outputs):
    return jax.make_jaxpr(to_jax(inputs, network.state, outputs))(
        *shapes_of(inputs, network.state)
    ).jaxpr


def types_of(variables):
    return [(v.aval.shape, str(v.aval.dtype)) for v in variables]


@cache
def training_graph(task, number_format):
    network = Network(task, number_format, np.random.RandomState(0), 5)
    inputs, updates = network.training_step(2)
    return network, inputs, updates, jaxpr_of(network, inputs, list(updates.values()))


@pytest.mark.parametrize(
    ("task", "number_format"), [pair for pair in EVERY_GRAPH if pair[0] != "SVHN"]
)
def test_every_task_in_every_format_has_a_training_step(task, number_format):
    network, inputs, updates, jaxpr = training_graph(task, number_format)
    widths = [layer.input_size for layer in network.layers]
    assert {name: v.type.shape for name, v in inputs.items() if v.type.ndim} == {
        "x": (2, widths[0]),
        "t": (2, 10),
        **{f"mask{k}": (2, width) for k, width in enumerate(widths)},
    }
    follows = FORMATS[number_format].follows_overflow
    dynamic = ("ranges", "overflow", "epoch_overflow") if follows else ()
    drawn = {"rounding/key"} if FORMATS[number_format].random else set()
    assert {v.name for v in updates} == {
        f"layer{k}/{name}"
        for k in range(len(widths))
        for name in ("W", "b", "update_W", "update_b", *dynamic)
    } | {"training/errors", "training/loss"} | drawn
    assert types_of(jaxpr.outvars) == [(v.get_value().shape, v.type.dtype) for v in updates]


SOFTMAX = {(2, 10), (2, 1)}  # of two examples: exponentials and quotients, and their sums


@pytest.mark.parametrize(("task", "number_format"), EVERY_GRAPH)
def test_every_task_in_every_format_has_a_test_pass(task, number_format):
    network = Network(task, number_format, np.random.RandomState(0), 5)
    inputs, outputs = network.test_step(2)
    jaxpr = jaxpr_of(network, inputs, outputs)
    assert types_of(jaxpr.outvars) == [
        ((2, int(np.prod(layer.output_shape))), "float32") for layer in network.layers
    ]
    arrays = [v.aval.shape for e in equations(jaxpr) for v in e.outvars if wide(v)]
    assert all(np.prod(shape) <= 20 for shape in arrays) and (2, 10) in arrays  # the softmax's


def test_svhn_has_the_network_of_cifar10():
    assert model.NETWORKS["SVHN"] is model.NETWORKS["CIFAR10"]
    inputs, updates = Network("SVHN", "FXP", np.random.RandomState(0), 5).training_step(2)
    assert len(updates) == 5 * 4 + 2 and inputs["x"].type.shape == (2, 3072)


def wide(variable):
    return hasattr(variable, "aval") and str(variable.aval.dtype) == "float64"


@pytest.mark.parametrize(
    ("task", "number_format"), [pair for pair in EVERY_GRAPH if pair[0] != "SVHN"]
)
def test_float64_is_where_it_belongs(task, number_format):
    """In the column norms and the softmax, and in DFXP in the overflow rates and their sums.

    Nowhere else, but for the loss that is told of a batch.
    """
    network, inputs, updates, jaxpr = training_graph(task, number_format)
    assert [name for name, v in inputs.items() if v.type.dtype == "float64"] == ["max_overflow"]
    trained = [new for v, new in updates.items() if not v.name.startswith("training/")]
    computed = [v for v in ancestors(trained) if v.owner]
    in_graph = {v.type.shape for v in computed if v.type.dtype == "float64"}
    follows = FORMATS[number_format].follows_overflow
    assert in_graph >= SOFTMAX and bool(in_graph - SOFTMAX) == follows
    assert all(np.prod(shape) <= 20 for shape in in_graph)
    assert not {v.type.dtype for v in computed} & {"float16", "complex64", "complex128"}
    norms = [v for v in computed if isinstance(v.owner.op, ColumnNorm)]
    counts = [v for v in computed if isinstance(v.owner.op, PartialCounts)]
    assert len(norms) == len(network.layers)
    assert len(counts) == (len(network.layers) * len(SIGNALS) if follows else 0)

    arrays = [(e, v) for e in equations(jaxpr) for v in e.outvars if wide(v) and v.aval.size > 20]
    origins = [(e.primitive.name, v.aval.shape) for e, v in arrays if not any(map(wide, e.invars))]
    assert {name for name, _ in origins} == {"convert_element_type"}
    squared: Counter[tuple[int, ...]] = Counter()  # rows by what a row is: weights, in blocks
    for _, (_, rows, *row) in origins:
        squared[tuple(row)] += rows
    W_shapes = [layer.W.get_value().shape for layer in network.layers]
    weights: Counter[tuple[int, ...]] = Counter()
    for rows, *row in W_shapes:
        weights[tuple(row)] += rows
    assert squared == weights


def test_a_size_belongs_to_the_network(monkeypatch):
    """Network finds a task's function by its name, and hands it what it is given."""
    monkeypatch.setitem(model.NETWORKS, "SVHN", model.pi_mnist)
    network = Network("SVHN", "FXP", np.random.RandomState(0), 2, units=2, pieces=3)
    assert [layer.W.get_value().shape for layer in network.layers] == [(784, 6), (2, 6), (2, 10)]
