"""Training: epochs, range initialisation, schedules, random streams and selection (SPEC sections 6-9 and 11)."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from errors import Diverged
from model import Network
from settings import TASKS
from xla.device import not_finite, to_device, to_host
from xla.masks import mask_state
from xla.programs import TestProgram, TrainingProgram

RANGE_INITIALISATION_BITS = 31
BEST = ("best_epoch", "best_validation_error", "best_test_error")
EVALUATION_SEGMENTS = 3  # training costs about three times as much


class DeviceMasks:
    """Dropout masks from the device's generator, drawn inside the compiled step; their state is part of the run's."""

    kind = "device"

    def draw(self, count):
        return None

    def snapshot(self):
        return {}

    def restore(self, arrays):
        pass


class PublishedMasks:
    """Dropout masks from the published NumPy streams, one RandomState a layer (SPEC section 11)."""

    kind = "given"

    def __init__(self, seeds, layers, batch_size):
        self.rngs = [np.random.RandomState(np.random.RandomState(s).randint(2**30)) for s in seeds]
        self.layers, self.batch_size = layers, batch_size

    def draw(self, count):
        """Masks of the next `count` batches: a list of uint8 (count, batch_size, inputs), one a layer."""
        masks = []
        for rng, layer in zip(self.rngs, self.layers, strict=True):
            shape = (self.batch_size, layer.input_size)
            masks.append(
                np.stack(
                    [rng.binomial(n=1, p=layer.p, size=shape).astype("uint8") for _ in range(count)]
                )
            )
        return masks

    def snapshot(self):
        return {f"streams/{k}": pack_rng(rng) for k, rng in enumerate(self.rngs)}

    def restore(self, arrays):
        for k, rng in enumerate(self.rngs):
            unpack_rng(rng, arrays[f"streams/{k}"])


def pack_rng(rng):
    """The state of a legacy RandomState as uint32 (625,): its 624 words and its position."""
    _, words, position, _, _ = rng.get_state()
    return np.append(words, position).astype("uint32")


def unpack_rng(rng, packed):
    """Put a RandomState into a state that `pack_rng` gave; ValueError if it is none."""
    if packed[-1] > len(packed) - 1:  # it would be read beyond its words
        raise ValueError(f"a random stream is at word {packed[-1]} of {len(packed) - 1}")
    rng.set_state(("MT19937", packed[:-1], int(packed[-1])))


class Trainer:
    """One run, from untrained weights (or a snapshot) to the last epoch.

    Parameters
    ----------
    settings : runs.Settings
    data : datasets.Dataset
        Its parts `train`, `valid`, `test` have len() and read(start, stop) -> x float32 (n, inputs), t one-hot float32.
    batch_size, segment, masks : optional
        Instead of the task's, and of the mask source that settings.streams names: an object like the two above.
    like : Trainer, optional
        One of the same task, format, streams and data: its compiled programs and its data on the device are used.
    progress : optional
        Called with the number of batches just trained whenever the state is whole: after each segment, and with 0 between
        pieces of an evaluation. It may take a snapshot, and may raise to end the run.
    **size
        Passed to the network.
    """

    def __init__(
        self,
        settings,
        data,
        batch_size=None,
        segment=None,
        masks=None,
        progress=None,
        like=None,
        **size,
    ):
        self.settings, self.data, self.task = settings, data, TASKS[settings.task]
        self.batch_size, self.segment = (
            batch_size or self.task.batch_size,
            segment or self.task.segment,
        )
        self.progress = progress or (lambda batches: None)
        self.rng = np.random.RandomState(settings.seed)
        self.network = Network(
            settings.task, settings.format, self.rng, settings.initial_range, **size
        )
        seeds = [self.rng.randint(999999) for _ in self.network.layers]
        if masks is None:
            published = settings.streams == "published"
            masks = (
                PublishedMasks(seeds, self.network.layers, self.batch_size)
                if published
                else DeviceMasks()
            )
        self.masks = masks
        self.order = np.arange(len(data.train))
        self.epoch, self.best, self.best_parameters = -1, None, {}
        # Within an epoch: its start (`time.perf_counter`), the pass over the training set that has begun ({"rng", "order":
        # as they were before it, "batches": trained so far}), and of the range initialisation the epochs that are done
        # and the parameters that it will put back.
        self._started = self._pass = self._initialised = self._untrained = None
        self.epochs = settings.last_epoch
        self.schedule = self.task.schedule(self.epochs)
        if like is None:
            self.training = TrainingProgram(self.network, self.batch_size, self.segment, masks.kind)
            self.testing = TestProgram(self.network, self.batch_size)
            self._parts = {}
        else:
            self.training, self.testing, self._parts = like.training, like.testing, like._parts
        self.state = to_device(
            {v.name: v.get_value() for v in self.network.state} | mask_state(settings.seed)
        )

    # Runs.

    def run(self, stop_after=None):
        """Train, epoch after epoch, from where it stands; yields a record (a dict, see `_record`) after each.

        The record of epoch 0 is that of the untrained network. stop_after: last epoch, if not that of the schedule.
        """
        last = self.epochs if stop_after is None else min(stop_after, self.epochs)
        while self.epoch < last:
            epoch = self.epoch + 1
            started = self._started = self._started or time.perf_counter()
            LR, M = self.schedule[max(epoch, 1) - 1]
            if epoch:
                self._train(
                    epoch, LR, M, self.settings.prop_bits, self.settings.up_bits, shuffled=True
                )
            trained = time.perf_counter()
            if self._untrained is None:
                errors = [self.error(name) for name in ("valid", "test")]
                self._select(epoch, *errors)
            else:  # a resumed range initialisation
                errors = [self.best[name] for name in BEST[1:]]
            if epoch == 0 and self.network.format.follows_overflow:
                self.initialise_ranges()
            self.epoch, self._started, self._pass = epoch, None, None
            images = self.batches_per_epoch * self.batch_size
            yield self._record(
                LR,
                M,
                *errors,
                time.perf_counter() - started,
                images / (trained - started) if epoch else None,
            )

    def initialise_ranges(self):
        """Train with 31 bits to find the ranges, then put the parameters back (SPEC section 7)."""
        if self._untrained is None:
            self._initialised, self._untrained = 0, self.parameters()
        LR, M = self.schedule[0]
        while self._initialised < self.settings.init_epochs:
            self._train(
                0, LR, M, RANGE_INITIALISATION_BITS, RANGE_INITIALISATION_BITS, shuffled=False
            )
            self._initialised, self._pass = self._initialised + 1, None
        self.state |= to_device(self._untrained)
        self._initialised = self._untrained = None

    def error(self, part):
        """Test-time error on "valid" or "test", in percent of all its examples."""
        if part not in self._parts:
            examples = getattr(self.data, part)
            self._parts[part] = self.testing.arrange(*examples.read(0, len(examples)))
        x, classes = self._parts[part]
        wrong, bits = 0, np.int32(self.settings.prop_bits)
        for first in range(0, len(x), EVALUATION_SEGMENTS * self.segment):
            self.progress(0)
            wrong += self.testing(
                self.state, bits, x, classes, first, first + EVALUATION_SEGMENTS * self.segment
            )
        return 100.0 * wrong / len(getattr(self.data, part))

    def _select(self, epoch, valid_error, test_error):
        if self.best is None or valid_error < self.best["best_validation_error"]:
            self.best = dict(zip(BEST, (epoch, valid_error, test_error), strict=True))
            self.best_parameters = self.parameters()

    def _record(self, LR, M, valid_error, test_error, seconds, images_per_second):
        """What is known after an epoch: rates used in it, errors in percent, norms, and DFXP's ranges and overflow."""
        W, b, ranges, overflow = (
            to_host([self.state[f"{layer.name}/{what}"] for layer in self.network.layers])
            for what in ("W", "b", "ranges", "epoch_overflow")
        )
        record = {
            "epoch": self.epoch,
            "LR": LR,
            "M": M,
            "validation_error": valid_error,
            "test_error": test_error,
            **self.best,
            "W_l2": [_norm(w) for w in W],
            "b_l2": [_norm(v) for v in b],
        }
        if self.network.format.follows_overflow:
            record["ranges"] = [r.tolist() for r in ranges]
            if self.epoch:
                record["overflow_rates"] = [(o / self.batches_per_epoch).tolist() for o in overflow]
        return record | {
            "seconds": round(seconds, 3),
            "images_per_second": images_per_second and round(images_per_second, 1),
        }

    # One pass over the training set.

    @property
    def ranges_never_move(self):
        """Whether an epoch is too short for an update of the ranges."""
        return (
            self.network.format.follows_overflow
            and self.settings.range_update_frequency > self.batches_per_epoch
        )

    @property
    def batches_per_epoch(self):
        """Whole batches only."""
        return len(self.data.train) // self.batch_size

    def batches_until(self, epoch):
        """Batches from the untrained network to the end of an epoch, those of the range initialisation among them."""
        first = self.settings.init_epochs if self.network.format.follows_overflow else 0
        return (first + epoch) * self.batches_per_epoch

    @property
    def batches_done(self):
        """Of those, the ones that are trained."""
        before = (
            (self._initialised or 0) * self.batches_per_epoch
            if self.epoch < 0
            else self.batches_until(self.epoch)
        )
        return before + (self._pass["batches"] if self._pass else 0)

    def _train(self, epoch, LR, M, prop_bits, up_bits, shuffled):
        s = self.settings
        constants = {
            "LR": np.float32(LR),
            "M": np.float32(M),
            "prop_bits": np.int32(prop_bits),
            "up_bits": np.int32(up_bits),
            "frequency": np.int32(s.range_update_frequency),
            "max_overflow": np.float64(s.max_overflow),
        }
        if self._pass is None:
            self._pass = {"rng": pack_rng(self.rng), "order": self.order, "batches": 0}
            for layer in self.network.layers:
                name = f"{layer.name}/epoch_overflow"
                self.state[name] = to_device(np.zeros(self.state[name].shape))
        watched = [v.name for layer in self.network.layers for v in layer.state[:4]]
        for x, t, rows in self._chunks(shuffled, self._pass["batches"]):
            for start in range(0, len(rows), self.segment):
                segment, done = rows[start : start + self.segment], self._pass["batches"]
                masks = self.masks.draw(len(segment))
                self.state = self.training(self.state, constants, x, t, segment, done, masks)
                self._pass["batches"] = done = done + len(segment)
                if bad := not_finite(self.state, watched):
                    raise Diverged(
                        f"epoch {epoch}, {bad[0].split('/')[0]}: {', '.join(bad)} became NaN or infinite after "
                        f"{done} batches; training stopped"
                    )
                self.progress(len(segment))

    def _chunks(self, shuffled, skip):
        """What to train on, in order: (x, t, rows), x and t on the device, rows int32 (batches, batch_size) of them.

        The first `skip` batches are left out, but their order is drawn.
        """
        batches = np.arange(self.batches_per_epoch * self.batch_size, dtype="int32").reshape(
            -1, self.batch_size
        )
        if self.task.shuffle == "batches":
            yield from self._read_ahead(self._shuffled_batches(skip))
            return
        if shuffled:
            self.order = self.order[self._permutation(len(self.order))]
            batches = self.order[batches].astype("int32")
        if "train" not in self._parts:
            self._parts["train"] = to_device(self.data.train.read(0, len(self.data.train)))
        yield *self._parts["train"], batches[skip:]

    def _shuffled_batches(self, skip):
        """(start, stop, batch order) of each chunk, drawn when its turn comes, but for the first `skip` batches."""
        per_chunk = self.task.chunk_batches
        chunks, left = divmod(self.batches_per_epoch, per_chunk)
        for chunk in [*self._permutation(chunks), *([chunks] if left else [])]:
            order = self._permutation(per_chunk if chunk < chunks else left)
            start = int(chunk) * per_chunk
            if skip < len(order):
                yield start * self.batch_size, (start + len(order)) * self.batch_size, order[skip:]
            skip = max(0, skip - len(order))

    def _read_ahead(self, plan):
        """Chunks of a plan, the next being read and sent to the device while the caller trains on this one."""

        def load(start, stop, order):
            rows = np.arange(stop - start, dtype="int32").reshape(-1, self.batch_size)
            return *to_device(self.data.train.read(start, stop)), rows[order]

        with ThreadPoolExecutor(1) as reader:
            coming = [reader.submit(load, *first) for first in [next(plan, None)] if first]
            while coming:
                chunk = coming.pop().result()
                coming += [reader.submit(load, *after) for after in [next(plan, None)] if after]
                yield chunk

    def _permutation(self, n):
        order = np.arange(n)
        self.rng.shuffle(order)
        return order

    # Snapshots: all that the rest of the run depends on.

    def snapshot(self):
        """(arrays: dict of name -> NumPy array, facts: JSON-able dict); `restore` continues from it bit for bit.

        It may be taken after `run` has yielded, and whenever `progress` is called, or has raised.
        """
        before = self._pass or {"rng": pack_rng(self.rng), "order": self.order, "batches": None}
        arrays = (
            to_host(self.state)
            | self.masks.snapshot()
            | {"order": before["order"], "rng": before["rng"]}
        )
        for prefix, parameters in (
            ("best", self.best_parameters),
            ("untrained", self._untrained or {}),
        ):
            arrays |= {f"{prefix}/{name}": value for name, value in parameters.items()}
        return arrays, {
            "epoch": self.epoch,
            "best": self.best,
            "batches": before["batches"],
            "initialised": self._initialised,
            "seconds": self._started and round(time.perf_counter() - self._started, 3),
        }

    def restore(self, arrays, facts):
        """Continue from a snapshot of the same settings and data; ValueError or KeyError if it cannot be one of those."""
        names = [v.name for layer in self.network.layers for v in (layer.W, layer.b)]
        self._check(arrays, facts, names)
        self.state = to_device({name: arrays[name] for name in self.state})
        self.masks.restore(arrays)
        unpack_rng(self.rng, arrays["rng"])
        self.order, self.epoch, self.best = arrays["order"], facts["epoch"], facts["best"]
        self.best_parameters = {name: arrays[f"best/{name}"] for name in names if self.best}
        self._initialised = facts["initialised"]
        self._untrained = (
            None
            if self._initialised is None
            else {name: arrays[f"untrained/{name}"] for name in names}
        )
        self._pass = (
            None
            if facts["batches"] is None
            else {"rng": arrays["rng"], "order": arrays["order"], "batches": facts["batches"]}
        )
        self._started = None if facts["seconds"] is None else time.perf_counter() - facts["seconds"]

    def _check(self, arrays, facts, names):
        """That `restore` can use a snapshot: every array there, and of the right kind."""
        like = dict(self.state) | self.masks.snapshot()
        like |= {"order": np.arange(len(self.data.train)), "rng": pack_rng(self.rng)}
        like |= {f"best/{name}": self.state[name] for name in names if facts["best"]}
        like |= {
            f"untrained/{name}": self.state[name]
            for name in names
            if facts["initialised"] is not None
        }
        for name, value in like.items():
            if arrays[name].shape != value.shape or arrays[name].dtype != value.dtype:
                raise ValueError(
                    f"{name} is {arrays[name].dtype} {arrays[name].shape}, not {value.dtype} {value.shape}"
                )
        if not np.array_equal(np.sort(arrays["order"]), like["order"]):
            raise ValueError("order is no order of the training examples")
        limits = {
            "epoch": self.epochs,
            "batches": self.batches_per_epoch,
            "initialised": self.settings.init_epochs,
        }
        best = facts["best"]
        if best is not None and not (
            type(best["best_epoch"]) is int
            and 0 <= best["best_epoch"] <= self.epochs
            and all(
                type(best[name]) in (int, float) and 0 <= best[name] <= 100 for name in BEST[1:]
            )
        ):
            raise ValueError("the best epoch is damaged")
        for name, limit in limits.items():
            value, low = facts[name], -1 if name == "epoch" else 0
            if not (
                type(value) is int and low <= value <= limit or value is None and name != "epoch"
            ):
                raise ValueError(f"{name} is {value}")

    def position(self):
        """How far the run is, in words."""
        if self._pass is None or not self._pass["batches"]:
            if not self._initialised:
                return "at the beginning" if self.epoch < 0 else f"after epoch {self.epoch}"
            return f"after epoch {self._initialised} of the range initialisation"
        where = (
            f"epoch {self.epoch + 1}"
            if self._initialised is None
            else f"epoch {self._initialised + 1} of the range initialisation"
        )
        return f"after {self._pass['batches']} of {self.batches_per_epoch} batches of {where}"

    def parameters(self):
        """The layers' weights and biases, as NumPy arrays: layer0/W, layer0/b, ..."""
        return to_host(
            {
                v.name: self.state[v.name]
                for layer in self.network.layers
                for v in (layer.W, layer.b)
            }
        )


def _norm(v):
    return float(np.sqrt(np.sum(np.square(v.astype("float64")))))
