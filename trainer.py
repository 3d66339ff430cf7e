"""Training: epochs, range initialisation, selection, and snapshots of where it stands.

Source: docs/published_program.md, "Overflow statistics" to "Random streams".
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from datasets import Dataset
from errors import Diverged
from evaluation import Evaluation, measures
from files import Arrays
from model import Network
from records.metrics import Record
from settings import Settings
from snapshots import BEST, Position, Snapshot, check_arrays, check_best, check_network
from steps import Segment, Steps, Whole, driven, result
from streams import Feed, Masks, Order, mask_source
from tasks import TASKS
from xla.device import device_failures, to_device, to_host
from xla.finite import not_finite
from xla.masks import mask_state
from xla.programs import TestProgram, TrainingProgram
from xla.rounding import rounding_state

RANGE_INITIALISATION_BITS = 31


class Trainer:
    """One run, from untrained weights (or a snapshot) to the last epoch.

    Parameters
    ----------
    settings
        Of the run.
    data
        The parts `train`, `valid`, `test` have len() and read(start, stop) -> x float32
        (n, inputs), t one-hot float32.
    batch_size, segment, masks
        Instead of the task's, and of the mask source that settings.streams names.
    like
        One of the same task, format, streams and data: its compiled programs and its data on
        the device are used.
    **size
        Passed to the network.
    """

    training: TrainingProgram
    evaluation: Evaluation
    feed: Feed

    def __init__(
        self,
        settings: Settings,
        data: Dataset,
        batch_size: int | None = None,
        segment: int | None = None,
        masks: Masks | None = None,
        like: "Trainer | None" = None,
        **size: int,
    ) -> None:
        self.settings = settings
        self.data = data
        self.task = TASKS[settings.task]
        self.batch_size = batch_size or self.task.batch_size
        self.segment = segment or self.task.segment
        rng = np.random.RandomState(settings.seed)
        self.network = Network(settings.task, settings.format, rng, settings.initial_range, **size)
        layers = self.network.layers
        seeds = [rng.randint(999999) for _ in layers]
        self.masks = masks or mask_source(settings.streams, seeds, layers, self.batch_size)
        self.order = Order(rng, len(data.train))
        self.epochs = settings.last_epoch
        self.schedule = self.task.schedule(self.epochs)
        self.position = Position()
        self.best: dict[str, Any] | None = None
        self.best_network: Arrays = {}
        self._untrained: Arrays = {}  # what the range initialisation will put back
        self._before: Arrays = {}  # the order as it was before the pass that has begun
        self._clock: float | None = None  # when the epoch began, as time.perf_counter has it
        sizes = self.network, self.batch_size
        self.training = (
            like.training if like else TrainingProgram(*sizes, self.segment, self.masks.kind)
        )
        testing = like.evaluation.program if like else TestProgram(*sizes)
        on_device = like.feed.on_device if like else {}
        self.feed = Feed(data.train, self.order, self.task, self.batch_size, on_device)
        self.evaluation = Evaluation(testing, data, settings.prop_bits, self.segment, on_device)
        state = {v.name: v.get_value() for v in self.network.state}
        draws = rounding_state(settings.seed) if self.network.draws else {}
        self.state = to_device(state | mask_state(settings.seed) | draws)

    # Runs.

    def run(self, last_epoch: int | None = None) -> Iterator[Record]:
        """Train, epoch after epoch, from where it stands; yields a record after each.

        The record of epoch 0 is that of the untrained network. last_epoch: if not that of the
        schedule.
        """
        return driven(self.steps(last_epoch), self.training)

    def steps(self, last_epoch: int | None = None) -> Steps:
        """`run`, for somebody else to drive.

        Yields a Segment whenever one is to be trained, and takes the state that is sent back;
        a Whole whenever a snapshot may be taken: after each segment and between the pieces of
        an evaluation; and the record of each epoch.
        """
        last = self.epochs if last_epoch is None else min(last_epoch, self.epochs)
        with device_failures():
            while self.position.epoch < last:
                yield from self._epoch(self.position.epoch + 1)

    def _epoch(self, epoch: int) -> Steps:
        began: float = self._clock or time.perf_counter()
        self._clock = began
        LR, M = self.schedule[max(epoch, 1) - 1]
        if epoch:
            bits = self.settings.prop_bits, self.settings.up_bits
            yield from self._train(LR, M, bits, shuffled=True)
        trained = time.perf_counter()
        if not self.position.initialising:
            valid_error = yield from self.evaluation.pieces(self.state, "valid")
            test_error = yield from self.evaluation.pieces(self.state, "test")
            self._select(epoch, valid_error, test_error)
        else:  # a range initialisation that was resumed: the untrained network is the best so far
            assert self.best is not None
            _, valid_error, test_error = (self.best[name] for name in BEST)
        if epoch == 0 and self.network.format.follows_overflow:
            yield from self._initialise_ranges()
        self.position = Position(epoch)
        self._clock = None
        record: Record = {"epoch": epoch, "LR": LR, "M": M}
        record |= {"validation_error": valid_error, "test_error": test_error}
        record |= self.best or {}
        trained_batches = self.batches_per_epoch if epoch else 0
        record |= measures(self.network, self.state, trained_batches, self.batch_size)
        record["seconds"] = round(time.perf_counter() - began, 3)
        images = self.batches_per_epoch * self.batch_size
        record["images_per_second"] = round(images / (trained - began), 1) if epoch else None
        yield record

    def _initialise_ranges(self) -> Steps:
        """Train with 31 bits to find the ranges, then put the parameters back."""
        if not self.position.initialising:
            self._untrained = self.parameters()
            self.position = replace(self.position, init_epochs=0)
        LR, M = self.schedule[0]
        bits = RANGE_INITIALISATION_BITS, RANGE_INITIALISATION_BITS
        while (done := self.position.init_epochs or 0) < self.settings.init_epochs:
            yield from self._train(LR, M, bits, shuffled=False)
            self.position = replace(self.position, init_epochs=done + 1, batches=None)
        self.state |= to_device(self._untrained)
        self._untrained = {}
        self.position = replace(self.position, init_epochs=None)

    def error(self, part: str) -> float:
        """Test-time error on "valid" or "test", in percent of all its examples."""
        return result(self.evaluation.pieces(self.state, part))

    def _select(self, epoch: int, valid_error: float, test_error: float) -> None:
        if self.best is None or valid_error < self.best["best_validation_error"]:
            self.best = dict(zip(BEST, (epoch, valid_error, test_error), strict=True))
            self.best_network = self.network_arrays()

    # One pass over the training set.

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches only."""
        return self.feed.batches

    def batches_until(self, epoch: int) -> int:
        """Batches from the untrained network to the end of an epoch, with the initialisation's."""
        first = self.settings.init_epochs if self.network.format.follows_overflow else 0
        return (first + epoch) * self.batches_per_epoch

    @property
    def batches_done(self) -> int:
        """Of those, the ones that are trained."""
        here = self.position
        if here.epoch < 0:
            before = (here.init_epochs or 0) * self.batches_per_epoch
        else:
            before = self.batches_until(here.epoch)
        return before + (here.batches or 0)

    def _train(self, LR: float, M: float, bits: tuple[int, int], shuffled: bool) -> Steps:
        if self.position.batches is None:
            self._before = self.order.snapshot()
            self.position = replace(self.position, batches=0)
            counts = [f"{layer.name}/epoch_overflow" for layer in self.network.layers]
            for name in (*counts, "training/errors", "training/loss"):
                zeros = np.zeros(self.state[name].shape, self.state[name].dtype)
                self.state[name] = to_device(zeros)
        constants = self._constants(LR, M, *bits)
        done = self.position.batches or 0
        for x, t, rows in self.feed.chunks(shuffled, done):
            for start in range(0, len(rows), self.segment):
                segment = rows[start : start + self.segment]
                masks = self.masks.draw(len(segment))
                self.state = yield Segment((self.state, constants, x, t, segment, done, masks))
                done += len(segment)
                self.position = replace(self.position, batches=done)
                self._check_finite()
                yield Whole(len(segment))

    def _constants(self, LR: float, M: float, prop_bits: int, up_bits: int) -> dict[str, Any]:
        with np.errstate(over="ignore"):  # the weights will tell
            rates = {"LR": np.float32(LR), "M": np.float32(M)}
        return rates | {
            "prop_bits": np.int32(prop_bits),
            "up_bits": np.int32(up_bits),
            "frequency": np.int32(self.settings.range_update_frequency),
            "max_overflow": np.float64(self.settings.max_overflow),
        }

    def _check_finite(self) -> None:
        trained = [(a.W, a.b, a.update_W, a.update_b) for a in self.network.layers]
        watched = [str(v.name) for variables in trained for v in variables]
        if bad := not_finite(self.state, watched):
            layer = bad[0].split("/")[0]
            raise Diverged(
                f"epoch {self.position.epoch + 1}, {layer}: {', '.join(bad)} became NaN or "
                f"infinite after {self.position.batches} batches; training stopped"
            )

    # Snapshots.

    def snapshot(self) -> Snapshot:
        """All that the rest of the run depends on; `restore` continues from it bit for bit.

        It may be taken whenever `steps` has yielded a Whole or a record, or `run` a record.
        """
        arrays = to_host(self.state) | self.masks.snapshot()
        arrays |= self.order.snapshot() if self.position.batches is None else self._before
        arrays |= {f"best/{name}": value for name, value in self.best_network.items()}
        arrays |= {f"untrained/{name}": value for name, value in self._untrained.items()}
        seconds = None if self._clock is None else round(time.perf_counter() - self._clock, 3)
        return Snapshot(arrays, {**self.position.as_json(), "best": self.best, "seconds": seconds})

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of the same settings and data.

        OtherNetwork if its layers differ; ValueError, TypeError or KeyError if it is none.
        """
        arrays, facts = snapshot.arrays, snapshot.facts
        limits = Position(self.epochs, self.settings.init_epochs, self.batches_per_epoch)
        position = Position.from_json(facts, limits)
        best = facts["best"]
        check_best(best, self.epochs)
        names = self.parameter_names
        check_network(arrays, {str(v.name): self.state[str(v.name)] for v in self.network.state})
        like = dict(self.state) | self.masks.snapshot() | self.order.snapshot()
        saved = self.network_names if best else []
        like |= {f"best/{name}": self.state[name] for name in saved}
        like |= {f"untrained/{name}": self.state[name] for name in names if position.initialising}
        check_arrays(arrays, like)
        seconds = facts["seconds"]
        self._clock = None if seconds is None else time.perf_counter() - seconds
        self.order.restore(arrays)
        self.masks.restore(arrays)
        self.state = to_device({name: arrays[name] for name in self.state})
        self.position = position
        self.best = best
        self.best_network = {name: arrays[f"best/{name}"] for name in saved}
        self._untrained = {n: arrays[f"untrained/{n}"] for n in names if position.initialising}
        self._before = {} if position.batches is None else self.order.snapshot()

    def words(self) -> str:
        """How far the run is, for the user."""
        return self.position.words(self.batches_per_epoch)

    @property
    def parameter_names(self) -> list[str]:
        return [str(v.name) for layer in self.network.layers for v in (layer.W, layer.b)]

    def parameters(self) -> Arrays:
        """The layers' weights and biases: layer0/W, layer0/b, ..."""
        return to_host({name: self.state[name] for name in self.parameter_names})

    @property
    def network_names(self) -> list[str]:
        """The arrays without which the network would be another: parameters, and ranges."""
        ranges = [f"{layer.name}/ranges" for layer in self.network.layers]
        return self.parameter_names + (ranges if self.network.format.has_ranges else [])

    def network_arrays(self) -> Arrays:
        """Their values now."""
        return to_host({name: self.state[name] for name in self.network_names})
