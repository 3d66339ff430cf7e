"""Replaying a small recorded run with range initialisation, event by event."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from datasets import ArrayPart, Dataset
from files import Arrays
from settings import Settings
from steps import Segment, Whole
from streams import DeviceMasks, Feed
from trainer import Trainer
from utilities.trace import EQUAL, STATE, Report, Tolerance, Trace
from xla.device import to_host


class RecordedMasks(DeviceMasks):
    """Dropout masks of a trace, in the order in which its batches were trained."""

    kind = "given"

    def __init__(self, masks: list[np.ndarray]) -> None:
        self.masks = masks
        self.drawn = 0

    def draw(self, count: int) -> Any:
        start = self.drawn
        self.drawn += count
        return [mask[start : self.drawn] for mask in self.masks]

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        raise NotImplementedError("a replay is not resumed")


def replay_run(trace: Trace, report: Report) -> None:
    """Replay the run; KeyError or ValueError if it is damaged."""
    events = json.loads(trace["events_json"].item())
    trainer = build(trace)
    compare_state(trace, report, trainer, "state_before_init_range", EQUAL)
    ends = {info["epoch"]: info for kind, info in events if kind == "epoch_end"}
    ends[0] = next(info for kind, info in events if kind == "init_end")
    trained = iter([row for row, (kind, _) in enumerate(events) if kind == "train_batch"])
    steps = trainer.steps(max(ends))
    answer = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration:
            break
        answer = None
        if isinstance(step, Segment):
            answer = trainer.training(*step.arguments)
        elif isinstance(step, Whole):
            if step.batches:
                compare_batch(trace, report, trainer, events, next(trained))
        else:
            compare_epoch(trace, report, trainer, step, ends[step["epoch"]])
    total = sum(kind == "train_batch" for kind, _ in events)
    report.line(f"{total} batches recorded, all replayed", next(trained, None) is None)


def build(trace: Trace) -> Trainer:
    """The trainer of the run, at its beginning."""
    m = trace.meta
    parts = {}
    for name in ("train", "valid", "test"):
        part = ArrayPart(trace[f"x_{name}"], trace[f"y_{name}"])
        if name != "train":  # the published evaluation drops the last partial batch
            part = ArrayPart(*part.read(0, len(part) // m["batch_size"] * m["batch_size"]))
        parts[name] = part
    numbers = (m["initial_range"], m["comp"], m["upd"], m["freq"], m["max_overflow"])
    trainer = Trainer(
        Settings("PI_MNIST", "DFXP", *numbers, m["range_init_epoch"]),
        Dataset("trace", **parts, identity={}),
        batch_size=m["batch_size"],
        segment=1,
        masks=RecordedMasks(trace.masks),
        units=m["n_hidden"],
        pieces=m["n_pieces"],
    )
    if m["shuffle_batches"]:  # as SVHN, and not the examples
        task = replace(trainer.task, shuffle="batches", chunk_batches=m["gpu_batches"])
        trainer.feed = Feed(parts["train"], trainer.order, task, m["batch_size"], {})
    return trainer


def compare_batch(trace: Trace, report: Report, trainer: Trainer, events: list, row: int) -> None:
    """Ranges and accumulators after the batch of an event, and its range update if any."""
    if row + 1 < len(events) and events[row + 1][0] == "update_range":
        row += 1
    state: Arrays = to_host(trainer.state)
    label = f"event {row} {events[row][0]}"
    layers = range(len(trainer.network.layers))
    ranges = np.stack([state[f"layer{k}/ranges"] for k in layers])
    overflow = np.stack([state[f"layer{k}/overflow"] for k in layers], axis=1)
    recorded = np.stack([trace["event/ov"][row], trace["event/ov1"][row]])
    report.compare(f"{label}: ranges", ranges, trace["event/rng"][row], EQUAL)
    report.compare(f"{label}: accumulators", overflow, recorded, Tolerance(absolute=1e-6))


def compare_epoch(
    trace: Trace, report: Report, trainer: Trainer, record: dict[str, Any], end: dict[str, float]
) -> None:
    """The state after an epoch, where it is recorded, and its errors."""
    epoch = record["epoch"]
    stage = f"state_after_epoch{epoch}" if epoch else "state_after_init_range"
    if f"{stage}/L0/W" in trace:
        # What 31 bits have left in the momentum is rounded.
        compare_state(trace, report, trainer, stage, EQUAL if epoch else Tolerance(absolute=1e-8))
    report.compare(
        f"epoch {epoch} errors",
        [record["validation_error"], record["test_error"]],
        [end["valid_ER"], end["test_ER"]],
        Tolerance(absolute=1e-9),
    )


def compare_state(
    trace: Trace, report: Report, trainer: Trainer, stage: str, momentum: Tolerance
) -> None:
    """Parameters, which must be equal, and momentum."""
    state: Arrays = to_host(trainer.state)
    for k in range(len(trainer.network.layers)):
        for tensor in STATE:
            report.compare(
                f"{stage} layer {k} {tensor}",
                state[f"layer{k}/{tensor}"],
                trace[f"{stage}/L{k}/{tensor}"],
                momentum if tensor.startswith("update") else EQUAL,
            )
