"""model.py: networks, schedules, and what their compiled steps are made of."""

import hashlib
import json
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from pytensor.graph.traversal import ancestors

import compilation
import model
import ops
from compilation import to_device, to_jax
from format import FORMATS, SIGNALS
from model import Network
from ops import ColumnNorm, PartialCounts
from tasks import TASKS

UNIT = Path(__file__).parent.parent.parent / "shared" / "reference" / "unit.npz"
f4 = np.float32
CONSTANTS = {
    "LR": f4(0.1),
    "M": f4(0.5),
    "prop_bits": np.int32(9),
    "up_bits": np.int32(11),
    "frequency": np.int32(2),
    "max_overflow": np.float64(0),
}


@cache
def recorded():
    if not UNIT.exists():
        pytest.skip(
            "the recorded numbers are not here (unit.npz); they lie in shared/reference beside the project"
        )
    with np.load(UNIT) as file:
        return {name: file[name] for name in file.files if name.startswith(("schedule", "init"))}


# ----------------------------------------------------------------------------------------------------- networks

# Output shapes of the layers, shapes of W, and p, scale, max_col_norm, LR scale of each (SPEC section 10).
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
# First weights of the first layer, sums of |W| of the layers and the stream seeds with RandomState(1234).
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
EVERY_TASK = pytest.mark.parametrize("task", TASKS)


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


# ---------------------------------------------------------------------------------------------------- schedules

# epochs, LR start, epochs over which LR falls, over which M rises, batch size, shuffle (the table of SPEC section 9)
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
    LR, M = start, 0.5
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


# ------------------------------------------------------------------------------------------- graphs and their dtypes

SMALL = {"units": 4, "pieces": 3}
EVERY_GRAPH = [(task, number_format) for task in TASKS for number_format in FORMATS]


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
    dynamic = ("ranges", "overflow", "epoch_overflow") if number_format == "DFXP" else ()
    assert {v.name for v in updates} == {
        f"layer{k}/{name}"
        for k in range(len(widths))
        for name in ("W", "b", "update_W", "update_b", *dynamic)
    }
    assert types_of(jaxpr.outvars) == [(v.get_value().shape, v.type.dtype) for v in updates]


@pytest.mark.parametrize(("task", "number_format"), EVERY_GRAPH)
def test_every_task_in_every_format_has_a_test_pass(task, number_format):
    network = Network(task, number_format, np.random.RandomState(0), 5)
    inputs, outputs = network.test_step(2)
    jaxpr = jaxpr_of(network, inputs, outputs)
    assert types_of(jaxpr.outvars) == [
        ((2, int(np.prod(layer.output_shape))), "float32") for layer in network.layers
    ]
    assert not any(
        wide(v) and v.aval.size > 1 for e in equations(jaxpr) for v in e.outvars
    )  # 1: Python constants


def test_svhn_has_the_network_of_cifar10():
    assert model.NETWORKS["SVHN"] is model.NETWORKS["CIFAR10"]
    inputs, updates = Network("SVHN", "FXP", np.random.RandomState(0), 5).training_step(2)
    assert len(updates) == 5 * 4 and inputs["x"].type.shape == (2, 3072)


def equations(jaxpr):
    """Every equation of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def wide(variable):
    return hasattr(variable, "aval") and str(variable.aval.dtype) == "float64"


@pytest.mark.parametrize(
    ("task", "number_format"), [pair for pair in EVERY_GRAPH if pair[0] != "SVHN"]
)
def test_float64_is_where_it_belongs(task, number_format):
    """In the column norms, and in DFXP in ten overflow rates a layer and what adds them up; nowhere else."""
    network, inputs, updates, jaxpr = training_graph(task, number_format)
    assert [name for name, v in inputs.items() if v.type.dtype == "float64"] == ["max_overflow"]
    computed = [v for v in ancestors(list(updates.values())) if v.owner]
    in_graph = [v for v in computed if v.type.dtype == "float64"]
    assert all(np.prod(v.type.shape) <= 20 for v in in_graph) and bool(in_graph) == (
        number_format == "DFXP"
    )
    assert not {v.type.dtype for v in computed} & {"float16", "complex64", "complex128"}
    norms = [v for v in computed if isinstance(v.owner.op, ColumnNorm)]
    counts = [v for v in computed if isinstance(v.owner.op, PartialCounts)]
    assert len(norms) == len(network.layers)
    assert len(counts) == (len(network.layers) * len(SIGNALS) if number_format == "DFXP" else 0)

    arrays = [(e, v) for e in equations(jaxpr) for v in e.outvars if wide(v) and v.aval.size > 20]
    origins = [(e.primitive.name, v.aval.shape) for e, v in arrays if not any(map(wide, e.invars))]
    W_shapes = [layer.W.get_value().shape for layer in network.layers]
    assert sorted(origins) == sorted(
        ("convert_element_type", shape) for shape in W_shapes
    )  # weights, to be squared


def test_a_size_belongs_to_the_network(monkeypatch):
    """Network finds a task's function by its name, and hands it what it is given."""
    monkeypatch.setitem(model.NETWORKS, "SVHN", model.pi_mnist)
    network = Network("SVHN", "FXP", np.random.RandomState(0), 2, units=2, pieces=3)
    assert [layer.W.get_value().shape for layer in network.layers] == [(784, 6), (2, 6), (2, 10)]


def test_evaluation_counts_ties_as_argmax_does():
    """An untrained softmax gives all classes the same: the first counts as the answer."""
    network = Network("PI_MNIST", "FXP", np.random.RandomState(0), 5, **SMALL)
    program = compilation.TestProgram(network, 4)
    state = to_device({v.name: v.get_value() for v in network.state})
    x, t = np.ones((10, 784), f4), np.eye(10, dtype=f4)[[0, 1, 0, 2, 0, 0, 3, 4, 0, 5]]
    assert program(state, np.int32(9), *program.arrange(x, t)) == 5


def refuse(*arguments, **options):
    raise PermissionError


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only a CPU's programs are kept")
def test_kept_programs_need_no_tracing(monkeypatch, tmp_path):
    """They give the same bits; another network, batch size or kind of arguments has a program of its own.

    Damage is noticed.
    """
    monkeypatch.setattr(compilation, "_kept", tmp_path)

    def train(number_format="DFXP", batch_size=4, units=2):
        network = Network(
            "PI_MNIST", number_format, np.random.RandomState(0), 5, units=units, pieces=2
        )
        program = compilation.TrainingProgram(network, batch_size, 2)
        state = to_device(
            {v.name: v.get_value() for v in network.state} | compilation.mask_state(1)
        )
        rng = np.random.RandomState(3)
        x, t = rng.uniform(size=(8, network.input_size)).astype(f4), np.eye(10, dtype=f4)[:8]
        rows = np.arange(2 * batch_size, dtype="int32").reshape(2, batch_size) % 8
        return compilation.to_host(program(state, CONSTANTS, *to_device((x, t)), rows, 0)), program

    def traced(*arguments, **options):
        return train(*arguments, **options)[1].compilations

    first, program = train()
    assert program.compilations == 1
    again, program = train()
    assert program.compilations == 0
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert traced("FXP") == traced(batch_size=3) == traced(units=3) == 1
    assert traced("FXP") == traced(batch_size=3) == traced(units=3) == 0
    for path in tmp_path.glob("program-*"):
        path.write_bytes(path.read_bytes()[:-1])
    assert traced() == 1 and traced() == 0
    with monkeypatch.context() as patched:  # somebody else's folder
        patched.setattr(compilation.Path, "touch", refuse)
        assert traced() == 0
    for name in (
        "JAX_THREEFRY_PARTITIONABLE",
        "XLA_FLAGS",
        "PYTENSOR_FLAGS",
    ):  # read at the start: nothing else changes here
        with monkeypatch.context() as patched:
            patched.setenv(name, "")
            assert traced("FLP") == 1


def test_segments_of_another_data_set():
    """A second kind of arguments is traced again, with the same graph."""
    network = Network("PI_MNIST", "DFXP", np.random.RandomState(0), 5, **SMALL)
    program = compilation.TrainingProgram(network, 4, 2)
    rng = np.random.RandomState(3)
    x, t = (
        rng.uniform(size=(12, network.input_size)).astype(f4),
        np.eye(10, dtype=f4)[rng.randint(10, size=12)],
    )
    rows = np.arange(8, dtype="int32").reshape(2, 4)
    results = []
    for n in (8, 12):  # the same rows of both
        state = to_device(
            {v.name: v.get_value() for v in network.state} | compilation.mask_state(1)
        )
        results.append(
            compilation.to_host(program(state, CONSTANTS, *to_device((x[:n], t[:n])), rows, 0))
        )
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name])


def test_only_so_many_programs_are_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(compilation, "_kept", tmp_path)
    monkeypatch.setattr(compilation, "KEPT_PROGRAMS", 2)
    for n in range(4):
        program = compilation.Program(lambda v: v + 1, lambda n=n: (n,))
        assert program(f4(n)) == n + 1
        assert len(list(tmp_path.iterdir())) == min(n + 1, 2)


# ------------------------------------------------------------------------------------------- what a segment is made of


@cache
def compiled_segment(task, number_format, **size):
    """(network, jaxpr, XLA's compiled text) of a segment of two batches of four examples."""
    network = Network(task, number_format, np.random.RandomState(0), 5, **size)
    program = compilation.TrainingProgram(network, 4, 2)
    state = to_device({v.name: v.get_value() for v in network.state} | compilation.mask_state(1))
    arguments = (
        state,
        CONSTANTS,
        *to_device((np.zeros((8, network.input_size), f4), np.zeros((8, 10), f4))),
        np.zeros((2, 4), "int32"),
        np.int32(0),
        np.int32(2),
        None,
    )
    traced = program._program.jitted.trace(*arguments)
    return network, traced.jaxpr.jaxpr, traced.lower().compile().as_text()


def test_a_segment_stays_on_the_device():
    """No callback, no transfer, and one loop over the batches, which is the last thing that happens."""
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
    """What `ops.keep` is for: XLA would quantize a signal again in everything that uses it.

    In each layer w and b as they are used, eight other signals, and w twice and b once as they are stored: 13.
    """
    network, jaxpr, text = compiled_segment("PI_MNIST", number_format, **SMALL)
    written = sum(e.primitive.name == "round" for e in equations(jaxpr))
    compiled = text.count(" round-nearest-afz(")
    assert written == 13 * len(network.layers)
    assert compiled == written


def test_images_are_not_rearranged_between_convolutions():
    """Convolutional layers hand on (rows, maps, columns, batch); only masks, images and the last one's output are turned."""
    _, jaxpr, _ = compiled_segment("CIFAR10", "FXP")
    turned = [e.params["permutation"] for e in equations(jaxpr) if e.primitive.name == "transpose"]
    assert (
        turned.count((2, 1, 3, 0)) == 1 + 3 + 1
    )  # the images, the masks of three layers, the last one's gradient
    assert turned.count((3, 1, 0, 2)) == 1  # what the last one hands to a dense layer


# ------------------------------------------------------------------------------------------- TF32


def step_in_tf32(monkeypatch, number_format, prop_bits, narrow, task="PI_MNIST", **size):
    """State after two batches where products marked as on a narrow grid round their operands to TF32, as a GPU would."""

    def product(a, b, precision=jax.lax.Precision.HIGHEST, multiply=ops._product):
        if precision == jax.lax.Precision.DEFAULT:
            a, b = (jax.lax.reduce_precision(v, exponent_bits=8, mantissa_bits=10) for v in (a, b))
        return multiply(a, b)

    def convolve(a, b, pads, dimensions, precision, multiply=ops._convolve):
        if precision == jax.lax.Precision.DEFAULT:
            a, b = (jax.lax.reduce_precision(v, exponent_bits=8, mantissa_bits=10) for v in (a, b))
        return multiply(a, b, pads, dimensions, jax.lax.Precision.HIGHEST)

    monkeypatch.setattr(ops, "_product", product)
    monkeypatch.setattr(ops, "_convolve", convolve)
    monkeypatch.setattr(ops, "_explicit_products", lambda: False)
    monkeypatch.setattr(compilation, "tf32_pays", lambda: narrow)
    rng = np.random.RandomState(3)
    network = Network(task, number_format, rng, 3, **size)
    program = compilation.TrainingProgram(network, 4, 2)
    state = {v.name: v.get_value() for v in network.state}
    for name, value in state.items():
        if name.endswith(("/W", "/b")):
            state[name] = rng.normal(size=value.shape).astype(f4)
    x, t = (
        rng.uniform(size=(8, network.input_size)).astype(f4),
        np.eye(10, dtype=f4)[rng.randint(10, size=8)],
    )
    constants = CONSTANTS | {"prop_bits": np.int32(prop_bits), "up_bits": np.int32(15)}
    state = program(
        to_device(state | compilation.mask_state(1)),
        constants,
        *to_device((x, t)),
        np.arange(8, dtype="int32").reshape(2, 4),
        0,
    )
    return {name: np.asarray(v) for name, v in state.items()}


@pytest.mark.parametrize(
    ("number_format", "prop_bits", "narrow"),
    [
        ("FXP", 11, True),
        ("DFXP", 11, True),
        ("DFXP", 8, True),
        ("HFLP", 31, True),
        ("FXP", 12, False),
        ("FLP", 4, False),
    ],
)
def test_narrow_formats_lose_nothing_in_tf32(monkeypatch, number_format, prop_bits, narrow):
    """Up to 11 bits every operand but the data is a TF32 number; wider formats ask for full precision."""
    with monkeypatch.context() as patch:
        full = step_in_tf32(patch, number_format, prop_bits, False, **SMALL)
    with monkeypatch.context() as patch:
        tf32 = step_in_tf32(patch, number_format, prop_bits, True, **SMALL)
    for name, value in full.items():
        np.testing.assert_array_equal(tf32[name], value, err_msg=name)
    assert np.abs(full["layer1/update_W"]).max() > 0
    assert (FORMATS[number_format].significant_bits(prop_bits) <= ops.TF32_BITS) == narrow


def test_tf32_would_show_in_wider_formats(monkeypatch):
    with monkeypatch.context() as patch:
        full = step_in_tf32(patch, "FXP", 14, False, **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(ops, "TF32_BITS", 14)
        tf32 = step_in_tf32(patch, "FXP", 14, True, **SMALL)
    assert any(not np.array_equal(tf32[name], full[name]) for name in full)


def test_convolutions_lose_nothing_in_tf32(monkeypatch):
    with monkeypatch.context() as patch:
        full = step_in_tf32(patch, "DFXP", 11, False, task="MNIST")
    with monkeypatch.context() as patch:
        tf32 = step_in_tf32(patch, "DFXP", 11, True, task="MNIST")
    for name, value in full.items():
        np.testing.assert_array_equal(tf32[name], value, err_msg=name)


def test_data_are_multiplied_in_full_precision():
    """Of a network's products, only those of the images are never narrow: forward, and the gradient of the first W."""
    for task, products in (
        ("PI_MNIST", 3 + 3 + 2),
        ("CIFAR10", 5 + 5 + 2),
    ):  # CIFAR10: and two gradients of images
        network = Network(
            task, "FXP", np.random.RandomState(0), 5, **(SMALL if task == "PI_MNIST" else {})
        )
        computed = ancestors(list(network.training_step(2)[1].values()))
        marked = [v.owner.op for v in computed if v.owner and hasattr(v.owner.op, "on_grid")]
        assert len(marked) == products and [op.on_grid for op in marked].count(False) == 2
