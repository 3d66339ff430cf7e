"""Replaying a trace step by step: what utilities.replay_trace does."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from errors import FileError
from files import Arrays, load_npz
from layer import Gradients, Seen
from model import Network
from utilities.trace import (
    ANY,
    EQUAL,
    SIGNAL_OF,
    STATE,
    Report,
    Tolerance,
    Trace,
    sample_indices,
    sample_of,
    statistics,
)
from xla.device import to_device, to_host
from xla.graphs import compiled
from xla.layout import batch_first, flat
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
    x, t = to_device((inputs["x_train"], inputs["y_train"]))
    constants = constants_of(trace)
    look_inside = Intermediates(network, B)
    state = to_device(initial | mask_state(0))
    for batch in range(trace.meta["n_batches"]):
        rows = np.arange(batch * B, (batch + 1) * B, dtype="int32")[None]
        masks = [mask[batch : batch + 1] for mask in trace.masks]
        if batch in trace.meta["intermediates_at_batches"]:
            values = constants | {"x": inputs["x_train"][rows[0]], "t": inputs["y_train"][rows[0]]}
            look_inside.compare(trace, report, batch, state, values, masks)
        counted = None
        if trace["range_update_called_with"][batch]:  # the accumulators as they were before it
            without = constants | {"frequency": NEVER}
            copied = to_device(state)
            counted = to_host(program(copied, without, x, t, rows, batch, masks))
        state = program(state, constants, x, t, rows, batch, masks)
        host = to_host(state)
        compare_state(trace, report, batch, host, resync)
        compare_ranges(trace, report, batch, host, counted or host)
        if resync:
            put_recorded(trace, batch, host)
            state = to_device(host)
    compare_test(trace, report, network, state, inputs)
    tensors = [(k, tensor) for k in trace.layers for tensor in STATE]
    if absent := [f"L{k}/{tensor}" for k, tensor in tensors if (k, tensor) not in report.seen]:
        raise KeyError(f"no recorded {', '.join(absent)}")


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


def compare_state(trace: Trace, report: Report, batch: int, host: Arrays, resync: bool) -> None:
    """Parameters and momentum after a batch."""
    for k in trace.layers:
        for tensor in STATE:
            computed = host[f"layer{k}/{tensor}"]
            compare_tensor(trace, report, batch, (k, tensor), computed, resync)


def compare_tensor(
    trace: Trace,
    report: Report,
    batch: int,
    which: tuple[int, str],
    computed: np.ndarray,
    resync: bool,
) -> None:
    """One of them: its sample, the whole of it and its statistics, where they are recorded."""
    k, tensor = which
    name = f"after{batch:02d}/L{k}/{tensor}"
    label = f"batch {batch} layer {k} {tensor}"
    step = grid_step(trace, batch, k, tensor) if trace.on_grid else None
    tolerance = trace.tolerance(batch, k, tensor)
    if resync and tolerance == EQUAL:
        limit = {"absolute": 2 * step} if step else {"steps": 2.0}
        tolerance = Tolerance(fraction=0.01, **limit)
    if f"{name}/sample" in trace or trace.narrow:  # the others are recorded in some batches only
        recorded = trace[f"{name}/sample"]
        report.seen.add(which)
        report.compare(label, sample_of(computed, recorded), recorded, tolerance, step)
    if f"{name}/full" in trace:
        report.compare(f"{label} (whole)", computed, trace[f"{name}/full"], tolerance, step)
    if f"{name}/stats" in trace and trace.exact and not resync:
        ours = statistics(computed)
        theirs = trace[f"{name}/stats"]
        scale = np.maximum(np.abs(theirs), [1e-3 * theirs[5] / computed.size, *[0] * 5])
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
    limits = (EQUAL, Tolerance(absolute=1e-6)) if trace.exact else (near, ANY)
    report.compare(f"batch {batch} ranges", ranges, trace["ranges_after"][batch], limits[0])
    report.compare(f"batch {batch} accumulators", overflow, recorded, limits[1])


def put_recorded(trace: Trace, batch: int, host: Arrays) -> None:
    """Replace what was computed by what is recorded after a batch."""
    for k in trace.layers:
        for tensor in STATE:
            if (name := f"after{batch:02d}/L{k}/{tensor}/sample") in trace:
                entries = host[f"layer{k}/{tensor}"].reshape(-1)
                entries[sample_indices(entries.size)] = trace[name]
        host[f"layer{k}/ranges"] = trace["ranges_after"][batch, k].astype("int32")
        cleared = bool(trace["range_update_called_with"][batch])
        recorded = np.stack([trace["overflow"][batch, k], trace["overflow_1"][batch, k]])
        host[f"layer{k}/overflow"] = recorded * (not cleared)


def intermediates(seen: Seen, gradients: Gradients) -> dict[str, Any]:
    """What passed through a layer, by the names and in the shapes of the recorded traces."""
    named = {
        "fixed_W": seen.W,
        "fixed_b": seen.b,
        "fixed_x": flat(seen.x),
        "z": batch_first(seen.pre.before_z),
        "fixed_z": batch_first(seen.pre.z),
        "y": flat(seen.before_y),
        "fixed_y": flat(seen.y),
        "fixed_dEdy": batch_first(gradients.dEdy),
        "fixed_dEdz": batch_first(gradients.dEdz),
        "fixed_dEdW": gradients.dEdW,
        "fixed_dEdb": gradients.dEdb,
    }
    if seen.pre.u is not seen.pre.z:  # something lies between them
        named["u"] = batch_first(seen.pre.before_u)
        named["fixed_u"] = batch_first(seen.pre.u)
    return named


class Intermediates:
    """What happens inside a step, compiled from the same graph with more outputs."""

    def __init__(self, network: Network, batch_size: int) -> None:
        self.network = network
        self.batch_size = batch_size
        self.names: list[tuple[int, str]] = []
        self.function: Callable | None = None

    def compare(
        self,
        trace: Trace,
        report: Report,
        batch: int,
        state: Any,
        values: dict[str, Any],
        masks: list[np.ndarray],
    ) -> None:
        """Compare what is recorded of a batch; masks as the training program takes them."""
        if self.function is None:
            self.function = self._compiled()
        values = values | {"batches": np.int32(batch)}
        values |= {f"mask{k}": mask[0].astype("float32") for k, mask in enumerate(masks)}
        for (k, name), computed in zip(self.names, self.function(values, state), strict=True):
            for suffix in ("", "/sample"):
                if (key := f"inter{batch:02d}/L{k}/{name}{suffix}") in trace:
                    judged = batch < 2 or trace.narrow
                    report.compare(
                        f"batch {batch} layer {k} inside: {name}",
                        sample_of(np.asarray(computed), trace[key]),
                        trace[key],
                        trace.intermediate_tolerance(k, name) if judged else ANY,
                    )

    def _compiled(self) -> Callable:
        inputs = self.network.training_inputs(self.batch_size)
        named = {
            (k, name): v
            for k, passed in enumerate(self.network.passes(inputs))
            for name, v in intermediates(*passed).items()
        }
        self.names = list(named)
        return compiled(inputs, self.network.state, list(named.values()))


def compare_test(
    trace: Trace, report: Report, network: Network, state: Any, inputs: Arrays
) -> None:
    """The test-time pass after the last batch: outputs of all layers, and errors."""
    m = trace.meta
    B = m["batch_size"]
    test_inputs, outputs = network.test_step(B)
    test = compiled(test_inputs, network.state, outputs)
    bits = np.int32(m["comp_precision"])
    halves = [inputs["x_test"][i * B : (i + 1) * B] for i in (0, 1)]
    values: list[dict[str, Any]] = [{"x": x, "prop_bits": bits} for x in halves]
    passes = [test(one, state) for one in values]
    ys = [np.concatenate([np.asarray(one[k]) for one in passes]) for k in range(len(outputs))]
    close = m["format"] == "FLP" and not m["warm"]
    tolerance = EQUAL if trace.narrow else Tolerance(absolute=1e-6) if close else ANY
    # Sums of hundreds of products, of any size: as for what passes through a training step.
    inside = Tolerance(relative=1e-5) if close else tolerance
    for k, y in enumerate(ys):
        for suffix in ("", "/sample"):
            if (name := f"test/L{k}/y{suffix}") in trace:
                report.compare(f"test layer {k} y", sample_of(y, trace[name]), trace[name], inside)
    report.compare("test y", ys[-1], trace["test/y"], tolerance)
    wrong = (ys[-1].argmax(axis=1) != inputs["y_test"].argmax(axis=1)).reshape(2, B).sum(axis=1)
    report.line(
        f"test errors: {wrong.tolist()}, recorded {trace['test/errors'].tolist()}",
        tolerance is ANY or bool((wrong == trace["test/errors"]).all()),
    )
