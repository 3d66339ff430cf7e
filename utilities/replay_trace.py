"""Replay a trace recorded from the published program through the compiled training step, and compare.

    python -m utilities.replay_trace ../shared/reference/PI48warm_FXPmixed_9_11.npz
    python -m utilities.replay_trace ../shared/reference/initrange_shuffle_examples.npz

The files of inputs lie beside the trace. For every batch and tensor: how many entries are equal, and the largest
difference, in grid steps where there is a grid. Exit status 0 if everything is within the documented tolerance, 1 if not.
With --resync the recorded entries replace the computed ones after every batch, so that each batch is judged alone: for
devices that add up float32 numbers in another order.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from errors import FileError
from files import load_npz
from settings import Settings

STATE = ("W", "b", "update_W", "update_b")
SIGNAL_OF = {"W": "w", "b": "b", "update_W": "update_w", "update_b": "update_b"}
WARM_FACTORS = {
    "PI_MNIST": (2, 2),
    "MNIST": (2, 4, 4),
    "CIFAR10": (2, 4, 4, 2),
    "SVHN": (2, 4, 4, 2),
}
NEVER = np.int32(2**30)  # a range update frequency that no trace reaches


@dataclass(frozen=True)
class Tolerance:
    """Limits on a difference; None is no limit. `steps` counts half-precision steps, for HFLP."""

    fraction: float | None = None
    absolute: float | None = None
    relative: float | None = None
    steps: float | None = None


EQUAL = Tolerance(fraction=0.0)
LOOSE = Tolerance(relative=1e-2)
ANY = Tolerance()


class Trace:
    """A recorded trace: its metadata and arrays."""

    def __init__(self, path):
        self.arrays = load_npz(path, compressed=True)
        self.folder, self.meta = Path(path).parent, json.loads(self.arrays["meta_json"].item())

    def __contains__(self, name):
        return name in self.arrays

    def __getitem__(self, name):
        return self.arrays[name]

    @property
    def on_grid(self):
        return self.meta["format"] in ("FXP", "DFXP")

    @property
    def narrow(self):
        """Whether the numbers have at most 11 bits: then dot products are exact in float32, whatever their order."""
        return (
            self.on_grid and max(self.meta["comp_precision"], self.meta["update_precision"]) <= 11
        )

    @property
    def exact(self):
        """Whether the state must agree exactly after every batch."""
        return self.narrow or (
            self.on_grid and self.meta["task"] == "PI_MNIST" and not self.meta["warm"]
        )

    def tolerance(self, batch, layer, tensor):
        """What the state after `batch` is allowed to be off by (README of the recorded numbers, "Tolerances")."""
        m = self.meta
        convolutional = m["task"] != "PI_MNIST"
        if self.exact:
            return EQUAL
        if m["format"] == "FLP":
            if m["warm"]:
                return Tolerance(relative=1e-5) if batch < (1 if convolutional else 3) else ANY
            return Tolerance(absolute=5e-8 if convolutional else 2e-7)
        if batch > 0:
            return LOOSE if batch == 1 else ANY
        if m["format"] == "HFLP":
            if not convolutional:
                return EQUAL
            softmax = (
                m["task"] != "MNIST"
                and layer == len(m["W_shapes"]) - 1
                and tensor in ("W", "update_W")
            )
            return (
                Tolerance(fraction=0.15, absolute=2e-5)
                if softmax
                else Tolerance(fraction=0.002, steps=2)
            )
        return Tolerance(absolute=1e-6 if convolutional else 2e-5)

    def intermediate_tolerance(self, layer, name):
        last = layer == len(self.meta["W_shapes"]) - 1
        if not self.narrow:
            return Tolerance(relative=1e-5) if self.meta["format"] == "FLP" else LOOSE
        if name == "y" and last:
            return Tolerance(absolute=1.2e-7)
        if name in ("z", "u"):  # sums beyond 24 bits, before their quantizer
            return Tolerance(absolute=2.5e-4)
        return EQUAL


def sample_of(array, reference):
    """The entries of `array` that a recorded sample of it holds."""
    flat = array.ravel()
    return flat if flat.size == reference.size else flat[sample_indices(flat.size)]


def sample_indices(size):
    return (
        np.arange(size)
        if size <= 2000
        else np.sort(np.random.RandomState(777).randint(0, size, 2000))
    )


def statistics(array):
    a = array.astype("float64")
    return np.array([a.mean(), a.std(), np.sqrt((a * a).sum()), a.min(), a.max(), np.abs(a).sum()])


class Report:
    """Prints comparisons and remembers whether one of them was out of tolerance."""

    def __init__(self, quiet=False):
        self.quiet, self.failures, self.flips, self.compared, self.seen = quiet, 0, 0, 0, set()

    def compare(self, label, computed, recorded, tolerance, step=None):
        computed, recorded = np.asarray(computed).ravel(), np.asarray(recorded).ravel()
        equal = (computed == recorded) | (np.isnan(computed) & np.isnan(recorded))
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.where(equal, 0, np.abs(computed.astype("float64") - recorded))
        difference = np.where(np.isnan(difference), np.inf, difference)
        largest, fraction = difference.max(initial=0.0), 1 - equal.mean()
        ok = tolerance.fraction is None or fraction <= tolerance.fraction
        ok &= tolerance.absolute is None or largest <= tolerance.absolute
        if tolerance.relative is not None:
            size = np.sqrt(np.square(np.nan_to_num(recorded.astype("float64"))).sum())
            ok &= bool(
                np.sqrt(np.square(difference).sum()) <= tolerance.relative * max(size, 1e-30)
            )
        if tolerance.steps is not None:
            ok &= bool(
                (
                    difference <= tolerance.steps * np.spacing(np.abs(recorded).astype("float16"))
                ).all()
            )
        self.flips, self.compared = self.flips + int((~equal).sum()), self.compared + equal.size
        steps = f" = {largest / step:g} steps" if step else ""
        self.line(
            f"{label}: {100 * (1 - fraction):.2f} % equal, largest difference {largest:g}{steps}",
            ok,
        )

    def line(self, text, ok):
        self.failures += not ok
        if not ok or not self.quiet:
            print(text + ("" if ok else "   OUT OF TOLERANCE"))


def build(trace):
    """The network of a trace in the state before its first batch: (network, state as NumPy arrays)."""
    from model import Network

    m = trace.meta
    size = (
        {"units": m["n_hidden"], "pieces": m["W_shapes"][0][1] // m["n_hidden"]}
        if m["task"] == "PI_MNIST"
        else {}
    )
    network = Network(
        m["task"], m["format"], np.random.RandomState(m["seed"]), m["initial_range"], **size
    )
    state = {v.name: v.get_value() for v in network.state}
    layers = range(len(network.layers))
    if m["warm"]:
        rng = np.random.RandomState(2024)
        for k in layers:
            shape, biases = state[f"layer{k}/W"].shape, state[f"layer{k}/b"].shape
            if k == layers[-1]:
                state[f"layer{k}/W"] = rng.uniform(-0.5, 0.5, shape).astype("float32")
            else:
                state[f"layer{k}/W"] = state[f"layer{k}/W"] * np.float32(WARM_FACTORS[m["task"]][k])
            state[f"layer{k}/b"] = rng.uniform(-0.25, 0.25, biases).astype("float32")
            for name, of in (("update_W", shape), ("update_b", biases)):
                state[f"layer{k}/{name}"] = (np.rint(rng.normal(0, 0.01, of) * 1024) / 1024).astype(
                    "float32"
                )
    for k in layers:
        state[f"layer{k}/ranges"] = np.array(m["initial_ranges"][k], "int32")
        if hashlib.sha256(state[f"layer{k}/W"].tobytes()).hexdigest() != m["init_W_sha256"][k]:
            raise SystemExit(
                f"replay_trace: the initial weights of layer {k} are not the recorded ones"
            )
    return network, state


def replay(trace, report, resync=False):
    """Replay a step by step trace."""
    from xla.device import to_device, to_host
    from xla.masks import mask_state
    from xla.programs import TrainingProgram

    m = trace.meta
    network, state = build(trace)
    B, layers = m["batch_size"], range(len(network.layers))
    with np.load(trace.folder / f"inputs_{m['task']}_{m['x']}_b{B}_n{m['n_batches']}.npz") as file:
        inputs = {name: file[name] for name in file.files}
    masks = [
        np.unpackbits(trace[f"mask/L{k}/packed"], axis=1)[:, :width].reshape(-1, B, width)
        for k, width in enumerate(m["mask_widths"])
    ]
    program = TrainingProgram(network, B, 1, masks="given")
    x, t = to_device((inputs["x_train"], inputs["y_train"]))
    constants = {
        "LR": np.float32(m["LR"]),
        "M": np.float32(m["M"]),
        "prop_bits": np.int32(m["comp_precision"]),
        "up_bits": np.int32(m["update_precision"]),
        "frequency": np.int32(m["range_update_frequency"] or NEVER),
        "max_overflow": np.float64(m["max_overflow"]),
    }
    look_inside = Intermediates(network, B)
    state = to_device(state | mask_state(0))
    for batch in range(m["n_batches"]):
        rows = np.arange(batch * B, (batch + 1) * B, dtype="int32")[None]
        batch_masks = [mask[batch : batch + 1] for mask in masks]
        if batch in m["intermediates_at_batches"]:
            values = {"x": inputs["x_train"][rows[0]], "t": inputs["y_train"][rows[0]]}
            look_inside.compare(
                trace, report, batch, state, values, constants, [mask[0] for mask in batch_masks]
            )
        used, counted = state, None
        if trace["range_update_called_with"][
            batch
        ]:  # the accumulators as they are before the update
            counted = program(
                to_device(used),
                constants | {"frequency": NEVER},
                x,
                t,
                rows,
                batch,
                batch_masks,
            )
        state = program(used, constants, x, t, rows, batch, batch_masks)
        host = to_host(state)
        compare_state(trace, report, batch, host, resync)
        compare_ranges(trace, report, batch, host, to_host(counted or state), layers)
        if resync:
            put_recorded(trace, batch, host)
            state = to_device(host)
    compare_test(trace, report, network, state, inputs)
    if absent := [
        f"L{k}/{tensor}" for k in layers for tensor in STATE if (k, tensor) not in report.seen
    ]:
        raise KeyError(f"no recorded {', '.join(absent)}")


def compare_state(trace, report, batch, host, resync):
    m = trace.meta
    for k in range(len(m["W_shapes"])):
        for tensor in STATE:
            name, computed = f"after{batch:02d}/L{k}/{tensor}", host[f"layer{k}/{tensor}"]
            label, step, tolerance = (
                f"batch {batch} layer {k} {tensor}",
                None,
                trace.tolerance(batch, k, tensor),
            )
            if trace.on_grid:
                nob = m["update_precision"] if tensor in ("W", "b") else m["comp_precision"]
                noib = trace["ranges_used"][batch, k, m["range_names"].index(SIGNAL_OF[tensor])]
                step = 2.0 ** (noib - nob)
            if resync and tolerance == EQUAL:
                tolerance = (
                    Tolerance(fraction=0.01, absolute=2 * step)
                    if step
                    else Tolerance(fraction=0.01, steps=2)
                )
            if (
                f"{name}/sample" in trace or trace.narrow
            ):  # the others are recorded in some batches only
                recorded = trace[f"{name}/sample"]
                report.seen.add((k, tensor))
                report.compare(label, sample_of(computed, recorded), recorded, tolerance, step)
            if f"{name}/full" in trace:
                report.compare(f"{label} (whole)", computed, trace[f"{name}/full"], tolerance, step)
            if f"{name}/stats" in trace and trace.exact and not resync:
                ours, theirs = statistics(computed), trace[f"{name}/stats"]
                scale = np.maximum(np.abs(theirs), [1e-3 * theirs[5] / computed.size, *[0] * 5])
                if not (np.abs(ours - theirs) <= 1e-6 * scale + 1e-12).all():
                    report.line(f"{label} statistics: {ours} instead of {theirs}", ok=False)


def compare_ranges(trace, report, batch, host, counted, layers):
    ranges = np.stack([host[f"layer{k}/ranges"] for k in layers])
    overflow = np.stack([counted[f"layer{k}/overflow"] for k in layers], axis=1)
    recorded = np.stack([trace["overflow"][batch], trace["overflow_1"][batch]])
    report.compare(
        f"batch {batch} ranges",
        ranges,
        trace["ranges_after"][batch],
        EQUAL if trace.exact else Tolerance(absolute=1) if batch < 2 else ANY,
    )
    report.compare(
        f"batch {batch} accumulators",
        overflow,
        recorded,
        Tolerance(absolute=1e-6) if trace.exact else ANY,
    )


def put_recorded(trace, batch, host):
    for k in range(len(trace.meta["W_shapes"])):
        for tensor in STATE:
            if (name := f"after{batch:02d}/L{k}/{tensor}/sample") in trace:
                flat = host[f"layer{k}/{tensor}"].reshape(-1)
                flat[sample_indices(flat.size)] = trace[name]
        host[f"layer{k}/ranges"] = trace["ranges_after"][batch, k].astype("int32")
        cleared = bool(trace["range_update_called_with"][batch])
        recorded = np.stack([trace["overflow"][batch, k], trace["overflow_1"][batch, k]])
        host[f"layer{k}/overflow"] = recorded * (not cleared)


def intermediates(seen, gradients):
    """What passed through a layer, by the names and in the shapes of the recorded traces."""
    from xla.layout import batch_first, flat

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

    def __init__(self, network, batch_size):
        self.network, self.batch_size, self.function = network, batch_size, None

    def compare(self, trace, report, batch, state, values, constants, masks):
        from xla.programs import compiled

        if self.function is None:
            inputs = self.network.training_inputs(self.batch_size)
            named = {
                (k, name): v
                for k, passed in enumerate(self.network.passes(inputs))
                for name, v in intermediates(*passed).items()
            }
            self.names = list(named)
            self.function = compiled(inputs, self.network.state, list(named.values()))
        values = values | constants | {"batches": np.int32(batch)}
        values |= {f"mask{k}": mask.astype("float32") for k, mask in enumerate(masks)}
        for (k, name), computed in zip(self.names, self.function(values, state), strict=True):
            for suffix in ("", "/sample"):
                if (key := f"inter{batch:02d}/L{k}/{name}{suffix}") in trace:
                    recorded = trace[key]
                    report.compare(
                        f"batch {batch} layer {k} inside: {name}",
                        sample_of(np.asarray(computed), recorded),
                        recorded,
                        trace.intermediate_tolerance(k, name) if batch < 2 or trace.narrow else ANY,
                    )


def compare_test(trace, report, network, state, inputs):
    from xla.programs import compiled

    m = trace.meta
    B = m["batch_size"]
    test_inputs, outputs = network.test_step(B)
    test = compiled(test_inputs, network.state, outputs)
    bits = np.int32(m["comp_precision"])
    batches = [
        test({"x": inputs["x_test"][i * B : (i + 1) * B], "prop_bits": bits}, state) for i in (0, 1)
    ]
    ys = [np.concatenate([np.asarray(batch[k]) for batch in batches]) for k in range(len(outputs))]
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
        tolerance is ANY or (wrong == trace["test/errors"]).all(),
    )


class RecordedMasks:
    """Dropout masks of a trace, in the order in which its batches were trained."""

    kind = "given"

    def __init__(self, masks):
        self.masks, self.drawn = masks, 0

    def draw(self, count):
        start, self.drawn = self.drawn, self.drawn + count
        return [mask[start : self.drawn] for mask in self.masks]

    def snapshot(self):
        return {}


def replay_run(trace, report):
    """Replay a small run with range initialisation, event by event."""
    from datasets import ArrayPart, Dataset
    from trainer import Trainer
    from xla.device import to_host

    m, events, B = trace.meta, json.loads(trace["events_json"].item()), trace.meta["batch_size"]
    parts = {
        name: ArrayPart(trace[f"x_{name}"], trace[f"y_{name}"])
        for name in ("train", "valid", "test")
    }
    for name in ("valid", "test"):  # the published evaluation drops the last partial batch
        whole = len(parts[name]) // B * B
        parts[name] = ArrayPart(*parts[name].read(0, whole))
    masks = [
        np.unpackbits(trace[f"mask/L{k}/packed"], axis=1)[:, :width].reshape(-1, B, width)
        for k, width in enumerate(m["mask_widths"])
    ]
    settings = Settings(
        "PI_MNIST",
        "DFXP",
        m["initial_range"],
        m["comp"],
        m["upd"],
        m["freq"],
        m["max_overflow"],
        m["range_init_epoch"],
    )
    rows = [i for i, (kind, _) in enumerate(events) if kind == "train_batch"]
    batches = iter(rows)

    def after_batch(trained):
        if not trained:
            return
        row = next(batches)
        if row + 1 < len(events) and events[row + 1][0] == "update_range":
            row += 1
        state, label = to_host(trainer.state), f"event {row} {events[row][0]}"
        layers = range(len(trainer.network.layers))
        report.compare(
            f"{label}: ranges",
            np.stack([state[f"layer{k}/ranges"] for k in layers]),
            trace["event/rng"][row],
            EQUAL,
        )
        overflow = np.stack([state[f"layer{k}/overflow"] for k in layers], axis=1)
        report.compare(
            f"{label}: accumulators",
            overflow,
            np.stack([trace["event/ov"][row], trace["event/ov1"][row]]),
            Tolerance(absolute=1e-6),
        )

    trainer = Trainer(
        settings,
        Dataset("trace", **parts, identity={}),
        batch_size=B,
        segment=1,
        masks=RecordedMasks(masks),
        progress=after_batch,
        units=m["n_hidden"],
        pieces=m["n_pieces"],
    )

    def compare_state(stage, momentum=EQUAL):
        state = to_host(trainer.state)
        for k in range(len(trainer.network.layers)):
            for tensor in STATE:
                report.compare(
                    f"{stage} layer {k} {tensor}",
                    state[f"layer{k}/{tensor}"],
                    trace[f"{stage}/L{k}/{tensor}"],
                    momentum if tensor.startswith("update") else EQUAL,
                )

    compare_state("state_before_init_range")
    ends = {info["epoch"]: info for kind, info in events if kind == "epoch_end"}
    ends[0] = next(info for kind, info in events if kind == "init_end")
    for record in trainer.run(max(ends)):
        epoch, stage = (
            record["epoch"],
            f"state_after_epoch{record['epoch']}" if record["epoch"] else "state_after_init_range",
        )
        if f"{stage}/L0/W" in trace:
            compare_state(stage, EQUAL if epoch else Tolerance(absolute=1e-8))
        report.compare(
            f"epoch {epoch} errors",
            [record["validation_error"], record["test_error"]],
            [ends[epoch]["valid_ER"], ends[epoch]["test_ER"]],
            Tolerance(absolute=1e-9),
        )
    report.line(f"{len(rows)} batches recorded, all replayed", next(batches, None) is None)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m utilities.replay_trace",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trace", type=Path, help="a recorded trace, .npz")
    parser.add_argument(
        "--resync", action="store_true", help="go on from the recorded entries after every batch"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print only what is out of tolerance, and the summary"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "gpu"), default="cpu", help="default cpu"
    )
    a = parser.parse_args(arguments)
    try:
        trace = Trace(a.trace)
    except (FileError, ValueError, KeyError) as error:
        print(f"replay_trace: {a.trace} is not a recorded trace ({error})", file=sys.stderr)
        return 2
    from xla.device import select_device

    select_device(a.device)
    report = Report(a.quiet)
    try:
        if "events_json" in trace:
            replay_run(trace, report)
        else:
            replay(trace, report, a.resync)
    except FileNotFoundError as error:
        print(
            f"replay_trace: {error.filename} is missing; it belongs beside the trace",
            file=sys.stderr,
        )
        return 2
    except (KeyError, ValueError, IndexError, TypeError, StopIteration) as error:
        print(
            f"replay_trace: {a.trace} is damaged ({type(error).__name__}: {error})", file=sys.stderr
        )
        return 2
    print(
        f"{a.trace.name}: {report.flips} of {report.compared} compared entries differ; "
        + (
            f"{report.failures} comparisons out of tolerance"
            if report.failures
            else "everything within tolerance"
        )
    )
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
