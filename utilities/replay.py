"""Replaying a trace step by step: what utilities.replay_trace does."""

import hashlib
from typing import Any

import numpy as np

from errors import FileError
from files import Arrays, load_npz
from model import Network
from utilities.judging import Judge
from utilities.replay_inside import Intermediates
from utilities.trace import (
    ANY,
    EQUAL,
    NOT_STORED,
    SIGNAL_OF,
    STATE,
    Report,
    Tolerance,
    Trace,
    Values,
    sample_indices,
    sample_of,
    statistics,
)
from xla.device import to_device, to_host
from xla.graphs import compiled
from xla.masks import mask_state
from xla.programs import TrainingProgram

WARM_FACTORS = {
    "PI_MNIST": (2, 2),
    "MNIST": (2, 4, 4),
    "CIFAR10": (2, 4, 4, 2),
    "SVHN": (2, 4, 4, 2),
}
NEVER = np.int32(2**30)  # a range update frequency that no trace reaches


def replay(trace: Trace, report: Report, resync: bool = False) -> None:
    """Replay a trace; KeyError or ValueError if it is damaged, FileError without inputs."""
    network, initial = build(trace)
    B = trace.meta["batch_size"]
    inputs = read_inputs(trace)
    program = TrainingProgram(network, B, 1, masks="given")
    examples = inputs["x_train"], inputs["y_train"]
    x, t = to_device(examples)
    constants = constants_of(trace)
    look_inside = Intermediates(network, B)
    judge = Judge(trace, report, network, initial) if resync or trace.flips else None
    state = to_device(initial | mask_state(0))
    for batch in range(trace.meta["n_batches"]):
        rows = np.arange(batch * B, (batch + 1) * B, dtype="int32")
        masks = [mask[batch] for mask in trace.masks]
        before = to_host(state)
        passed: Values = {}
        if judge or batch in trace.meta["intermediates_at_batches"]:
            values = constants | {"x": inputs["x_train"][rows], "t": inputs["y_train"][rows]}
            passed = look_inside.of(state, values | {"batches": np.int32(batch)}, masks)
        arguments = (x, t, rows[None], batch, [mask[None] for mask in masks])
        moves = bool(trace["range_update_called_with"][batch])
        state, host, counted = trained(program, state, constants, arguments, moves)
        if judge:
            here = inputs["x_train"][rows], inputs["y_train"][rows]
            judge.batch(batch, here, masks, (before, host, counted), passed)
            put_recorded(trace, batch, host)
            state = to_device(host)
        else:
            compare_intermediates(trace, report, batch, passed)
            compare_state(trace, report, batch, host)
            compare_ranges(trace, report, batch, host, counted)
    outputs = tested(trace, network, state, inputs["x_test"])
    if judge:
        judge.test(inputs["x_test"], inputs["y_test"], outputs)
    else:
        compare_test(trace, report, outputs, inputs["y_test"])
    tensors = [(k, tensor) for k in trace.layers for tensor in STATE]
    if absent := [f"L{k}/{tensor}" for k, tensor in tensors if (k, tensor) not in report.seen]:
        raise KeyError(f"no recorded {', '.join(absent)}")


def trained(
    program: TrainingProgram, state: Any, constants: dict, arguments: tuple, moves: bool
) -> tuple[Any, Arrays, Arrays]:
    """The state after a batch, on the device and here, and as it was before a range update."""
    counted: Arrays = {}
    if moves:
        without = constants | {"frequency": NEVER}
        counted = to_host(program(to_device(to_host(state)), without, *arguments))
    state = program(state, constants, *arguments)
    host = to_host(state)
    return state, host, counted or host


def read_inputs(trace: Trace) -> Arrays:
    """The examples, from the file beside the trace."""
    m = trace.meta
    name = f"inputs_{m['task']}_{m['x']}_b{m['batch_size']}_n{m['n_batches']}.npz"
    path = trace.folder / name
    if not path.exists():
        raise FileError(f"{path} is missing; it belongs beside the trace")
    return load_npz(path, compressed=True)


def constants_of(trace: Trace) -> dict[str, np.generic]:
    """What the training program is told of the trace's settings."""
    m = trace.meta
    return {
        "LR": np.float32(m["LR"]),
        "M": np.float32(m["M"]),
        "prop_bits": np.int32(m["comp_precision"]),
        "up_bits": np.int32(m["update_precision"]),
        "frequency": np.int32(m["range_update_frequency"] or NEVER),
        "max_overflow": np.float64(m["max_overflow"]),
    }


def build(trace: Trace) -> tuple[Network, Arrays]:
    """The network of a trace, and its state before the first batch."""
    m = trace.meta
    size = {}
    if m["task"] == "PI_MNIST":
        size = {"units": m["n_hidden"], "pieces": m["W_shapes"][0][1] // m["n_hidden"]}
    rng = np.random.RandomState(m["seed"])
    network = Network(m["task"], m["format"], rng, m["initial_range"], **size)
    state = {str(v.name): v.get_value() for v in network.state}
    if m["warm"]:
        warm_up(state, WARM_FACTORS[m["task"]])
    for k in trace.layers:
        state[f"layer{k}/ranges"] = np.array(m["initial_ranges"][k], "int32")
        if hashlib.sha256(state[f"layer{k}/W"].tobytes()).hexdigest() != m["init_W_sha256"][k]:
            raise ValueError(f"the initial weights of layer {k} are not the recorded ones")
    return network, state


def warm_up(state: Arrays, factors: tuple[int, ...]) -> None:
    """Give every layer the active weights, biases and momentum of a warm trace."""
    rng = np.random.RandomState(2024)
    for k in range(len(factors) + 1):
        W = state[f"layer{k}/W"]
        biases = state[f"layer{k}/b"].shape
        if k < len(factors):
            state[f"layer{k}/W"] = W * np.float32(factors[k])
        else:
            state[f"layer{k}/W"] = rng.uniform(-0.5, 0.5, W.shape).astype("float32")
        state[f"layer{k}/b"] = rng.uniform(-0.25, 0.25, biases).astype("float32")
        for name, shape in (("update_W", W.shape), ("update_b", biases)):
            steps = np.rint(rng.normal(0, 0.01, shape) * 1024)
            state[f"layer{k}/{name}"] = (steps / 1024).astype("float32")


def compare_state(trace: Trace, report: Report, batch: int, host: Arrays) -> None:
    """Parameters and momentum after a batch, and their statistics, where they are recorded."""
    recorded = trace.recorded(f"after{batch:02d}")
    tolerance = trace.tolerance(batch)
    for k, tensor in [(k, tensor) for k in trace.layers for tensor in STATE]:
        computed = host[f"layer{k}/{tensor}"]
        label = f"batch {batch} layer {k} {tensor}"
        if (k, tensor) in recorded:  # of wide formats in some batches only
            theirs = recorded[k, tensor]
            step = grid_step(trace, batch, k, tensor) if trace.on_grid else None
            report.seen.add((k, tensor))
            report.compare(label, sample_of(computed, theirs), theirs, tolerance, step)
        elif trace.narrow:
            raise KeyError(f"no recorded {label}")
        name = f"after{batch:02d}/L{k}/{tensor}/stats"
        if name in trace and trace.narrow:
            compare_statistics(report, label, statistics(computed), trace[name], computed.size)


def compare_statistics(
    report: Report, label: str, ours: np.ndarray, theirs: np.ndarray, size: int
) -> None:
    """What `statistics` gives of a tensor of so many entries."""
    scale = np.maximum(np.abs(theirs), [1e-3 * theirs[5] / size, *[0] * 5])
    if not (np.abs(ours - theirs) <= 1e-6 * scale + 1e-12).all():
        report.line(f"{label} statistics: {ours} instead of {theirs}", ok=False)


def grid_step(trace: Trace, batch: int, layer: int, tensor: str) -> float:
    """The distance of two stored values of a tensor."""
    m = trace.meta
    nob = m["update_precision"] if tensor in ("W", "b") else m["comp_precision"]
    noib = trace["ranges_used"][batch, layer, m["range_names"].index(SIGNAL_OF[tensor])]
    return 2.0 ** int(noib - nob)


def compare_ranges(trace: Trace, report: Report, batch: int, host: Arrays, counted: Arrays) -> None:
    """Ranges after a batch, and the accumulators that were `counted` before they moved."""
    ranges = np.stack([host[f"layer{k}/ranges"] for k in trace.layers])
    overflow = np.stack([counted[f"layer{k}/overflow"] for k in trace.layers], axis=1)
    recorded = np.stack([trace["overflow"][batch], trace["overflow_1"][batch]])
    near = Tolerance(absolute=1) if batch < 2 else ANY
    limits = (EQUAL, Tolerance(absolute=1e-6)) if trace.narrow else (near, ANY)
    report.compare(f"batch {batch} ranges", ranges, trace["ranges_after"][batch], limits[0])
    report.compare(f"batch {batch} accumulators", overflow, recorded, limits[1])


def put_recorded(trace: Trace, batch: int, host: Arrays) -> None:
    """Replace what was computed by what is recorded after a batch."""
    for (k, tensor), recorded in trace.recorded(f"after{batch:02d}").items():
        entries = host[f"layer{k}/{tensor}"].reshape(-1)
        whole = recorded.size == entries.size
        entries[slice(None) if whole else sample_indices(entries.size)] = recorded.ravel()
    for k in trace.layers:
        host[f"layer{k}/ranges"] = trace["ranges_after"][batch, k].astype("int32")
        cleared = bool(trace["range_update_called_with"][batch])
        recorded = np.stack([trace["overflow"][batch, k], trace["overflow_1"][batch, k]])
        host[f"layer{k}/overflow"] = recorded * (not cleared)


def compare_intermediates(trace: Trace, report: Report, batch: int, passed: Values) -> None:
    """What is recorded of what passed through a batch."""
    judged = batch < 2 or trace.narrow
    recorded = trace.recorded(f"inter{batch:02d}")
    for (k, name), computed in passed.items():
        if (k, name) in recorded:
            theirs = recorded[k, name]
            tolerance = trace.intermediate_tolerance(name) if judged else ANY
            label = f"batch {batch} layer {k} inside: {name}"
            stored = name not in NOT_STORED
            report.compare(label, sample_of(computed, theirs), theirs, tolerance, None, stored)


def tested(trace: Trace, network: Network, state: Any, x: np.ndarray) -> list[np.ndarray]:
    """The outputs of all layers at test time, flat."""
    B = trace.meta["batch_size"]
    inputs, outputs = network.test_step(B)
    test = compiled(inputs, network.state, outputs)
    bits = np.int32(trace.meta["comp_precision"])
    passes = [test({"x": half, "prop_bits": bits}, state) for half in (x[:B], x[B : 2 * B])]
    return [np.concatenate([np.asarray(one[k]) for one in passes]) for k in range(len(outputs))]


def compare_test(trace: Trace, report: Report, ys: list[np.ndarray], t: np.ndarray) -> None:
    """The test-time pass after the last batch: outputs of all layers, and errors."""
    close = Tolerance(absolute=1e-6) if not trace.meta["warm"] else ANY
    tolerance = EQUAL if trace.narrow else close
    # Sums of hundreds of products, of any size: as for what passes through a training step.
    inside = tolerance if trace.narrow or close is ANY else Tolerance(relative=1e-5)
    for (k, _), recorded in trace.recorded("test").items():
        report.compare(f"test layer {k} y", sample_of(ys[k], recorded), recorded, inside)
    report.compare("test y", ys[-1], trace["test/y"], tolerance)
    wrong = (ys[-1].argmax(axis=1) != t.argmax(axis=1)).reshape(2, -1).sum(axis=1)
    report.line(
        f"test errors: {wrong.tolist()}, recorded {trace['test/errors'].tolist()}",
        tolerance is ANY or bool((wrong == trace["test/errors"]).all()),
    )
