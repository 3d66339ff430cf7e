"""trainer.py: whole small runs through the compiled programs, and the order of what is
fed to them.
"""

import contextlib
import copy
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import numpy_reference as ref
import pytensor
import pytensor.tensor as pt
import pytest

import model
from datasets import ArrayPart, Dataset
from errors import Diverged
from layers import DenseMaxout, Softmax
from settings import Settings
from snapshots import Snapshot
from steps import Segment, Whole
from tasks import TASKS
from trainer import Trainer
from xla.device import to_device, to_host
from xla.masks import mask_state
from xla.programs import TestProgram, TrainingProgram

f4 = np.float32
PIXELS, UNITS, PIECES, B = 50, 4, 2, 5
STATE = ("W", "b", "update_W", "update_b")
BITS = {
    "initial_range": 3,
    "prop_bits": 9,
    "up_bits": 11,
    "range_update_frequency": 2,
    "max_overflow": 0.01,
    "init_epochs": 2,
}
INPUT, HIDDEN = {"p": 0.8, "scale": 1.0}, {"p": 0.5, "scale": 0.5}


def network(number_format, rng, initial_range):
    """50 -> maxout, 4 units of 2 pieces -> softmax."""
    options = {"initial_range": initial_range}
    return [
        DenseMaxout("layer0", number_format, rng, PIXELS, UNITS, PIECES, **INPUT, **options),
        Softmax("layer1", number_format, rng, UNITS, 10, **HIDDEN, **options),
    ]


def plain_network(rng, initial_range=BITS["initial_range"]):
    """The same of the reference's layers."""
    layers = [ref.dense(rng, PIXELS, UNITS, PIECES, **INPUT), ref.softmax_layer(UNITS, **HIDDEN)]
    for layer in layers:
        layer.ranges = dict.fromkeys(ref.SIGNALS, initial_range)
    return layers


@pytest.fixture(scope="module", autouse=True)
def small_tasks():
    """A task for this network, and SVHN's way of feeding with it: chunks of three
    batches of four.
    """
    task = replace(TASKS["PI_MNIST"], batch_size=B, epochs=8, LR_start=0.5, LR_sat=4, M_sat=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "SMALL", task)
        patch.setitem(TASKS, "SVHN", replace(TASKS["SVHN"], batch_size=4, chunk_batches=3))
        patch.setitem(model.NETWORKS, "SMALL", network)
        patch.setitem(model.NETWORKS, "SVHN", network)
        yield


@cache
def data(n_train=38, n_valid=13, n_test=11, seed=0):
    """Random images of which the class is to be seen: dyadic, k/256; x[:, 0] is the
    number of the example.
    """
    rng = np.random.RandomState(seed)
    templates = (rng.uniform(size=(10, PIXELS)) < 0.3) * rng.randint(64, 256, (10, PIXELS))

    def part(n):
        labels = rng.randint(0, 4, n)
        noise = (rng.uniform(size=(n, PIXELS)) < 0.05) * rng.randint(0, 256, (n, PIXELS))
        x = (np.maximum(templates[labels], noise) / 256).astype(f4)
        x[:, 0] = np.arange(n) / 256
        return ArrayPart(x, labels)

    return Dataset("small", part(n_train), part(n_valid), part(n_test), {})


def make(number_format="DFXP", dataset=None, segment=3, task="SMALL", **options):
    settings = Settings(task, number_format, **(BITS | {"epochs": 3} | options))
    return Trainer(settings, dataset or data(), segment=segment)


def without_times(record):
    return {
        name: value
        for name, value in record.items()
        if name not in ("seconds", "images_per_second")
    }


def run(trainer, **options):
    return [without_times(record) for record in trainer.run(**options)]


def assert_same_arrays(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


class Fed:
    """In place of the compiled training program: keeps what it is fed with."""

    def __init__(self, trainer):
        self.examples, self.batches, self.masks, self.constants = [], [], [], []
        trainer.training = self

    def __call__(self, state, constants, x, t, rows, batches, masks=None):
        x, t = np.asarray(x), np.asarray(t)
        self.batches += [batches + i for i in range(len(rows))]
        self.examples += [(x[r], t[r]) for r in rows]
        self.masks += [[m[i] for m in masks] for i in range(len(rows))] if masks else []
        self.constants += [constants] * len(rows)
        return state

    @property
    def order(self):
        """Numbers of the examples, in the order in which they were fed."""
        return [int(i) for x, _ in self.examples for i in np.rint(x[:, 0] * 256)]


# -------------------------------------------------------------------- against the NumPy evaluation


@pytest.fixture(scope="module")
def followed():
    """A DFXP run with published streams, and the same computed from docs/published_program.md
    alone; states by epoch.
    """
    trainer = make(streams="published", epochs=2)
    records, program, facts = [], {}, {}
    for record in trainer.run():
        records.append(without_times(record))
        program[record["epoch"]], facts[record["epoch"]] = trainer.snapshot()

    rng = np.random.RandomState(1234)
    layers = plain_network(rng)
    streams = ref.Streams(rng, layers, B)
    x, y, plain, errors = data().train.x, data().train.y, {}, []

    def evaluate():
        errors.append(
            [
                100
                * np.mean(
                    ref.test_pass(layers, "DFXP", part.x, 9)[-1].argmax(1) != part.y.argmax(1)
                )
                for part in (data().valid, data().test)
            ]
        )

    def train(x, y, LR, M, prop_bits, up_bits):
        for b in range(len(x) // B):
            rows = slice(b * B, (b + 1) * B)
            ref.training_step(
                layers,
                "DFXP",
                x[rows],
                y[rows],
                streams.masks(),
                LR,
                M,
                prop_bits,
                up_bits,
                BITS["max_overflow"],
                2 if (b + 1) % 2 == 0 else None,
            )

    schedule = [
        (0.5, 0.5),
        (0.5 + (0.05 - 0.5), 0.5 + (0.7 - 0.5)),
    ]  # two epochs: LR falls over one, M rises over one
    evaluate()
    kept = [(layer.W.copy(), layer.b.copy()) for layer in layers]
    for _ in range(BITS["init_epochs"]):
        train(x, y, *schedule[0], 31, 31)
    for layer, (W, b) in zip(layers, kept, strict=True):
        layer.W, layer.b = W, b
    plain[0] = snapshot_of(layers)
    for epoch, (LR, M) in enumerate(schedule, 1):
        order = streams.fresh_list(len(x))
        x, y = x[order], y[order]
        train(x, y, LR, M, 9, 11)
        evaluate()
        plain[epoch] = snapshot_of(layers)
    return SimpleNamespace(
        trainer=trainer, records=records, program=program, facts=facts, plain=plain, errors=errors
    )


def snapshot_of(layers):
    state = {
        f"layer{k}/{name}": getattr(layer, name).copy()
        for k, layer in enumerate(layers)
        for name in STATE
    }
    for k, layer in enumerate(layers):
        state[f"layer{k}/ranges"] = np.array([layer.ranges[s] for s in ref.SIGNALS])
        state[f"layer{k}/overflow"] = np.array([layer.overflow[s] for s in ref.SIGNALS]).T
    return state


def test_range_initialisation_as_specified(followed):
    """W and b are put back; ranges, momentum and accumulators carry over."""
    program, plain = followed.program, followed.plain
    for k in range(2):
        for name in ("W", "b"):
            start = getattr(
                followed.trainer.network.layers[k], name
            ).get_value()  # what the run began with
            np.testing.assert_array_equal(program[0][f"layer{k}/{name}"], start)
        for name in ("update_W", "update_b"):  # of 31 bits: float32 sums of B products
            mine, expected = program[0][f"layer{k}/{name}"], plain[0][f"layer{k}/{name}"]
            units = np.abs(mine - expected).max() / (2.0**-24 * np.abs(expected).max())
            assert units <= B and expected.any()
        np.testing.assert_array_equal(program[0][f"layer{k}/ranges"], plain[0][f"layer{k}/ranges"])
        np.testing.assert_array_equal(
            program[0][f"layer{k}/overflow"], plain[0][f"layer{k}/overflow"]
        )
    assert plain[0][
        "layer0/overflow"
    ].any()  # 7 batches an epoch, an update every second: something carries over
    assert (plain[0]["layer1/ranges"] != BITS["initial_range"]).any()


def test_epochs_as_specified(followed):
    """Shuffles, masks, schedule, steps, updates of ranges: the state after each epoch, exactly."""
    program, plain = followed.program, followed.plain
    for epoch in (1, 2):
        for name, expected in plain[epoch].items():
            np.testing.assert_array_equal(
                program[epoch][name], expected, err_msg=f"epoch {epoch} {name}"
            )
    assert (plain[1]["layer0/W"] != plain[2]["layer0/W"]).any()


def test_records_as_specified(followed):
    records, program, errors = followed.records, followed.program, followed.errors
    best = None
    for record, (valid, test) in zip(records, errors, strict=True):
        epoch = record["epoch"]
        assert [record["validation_error"], record["test_error"]] == pytest.approx(
            [valid, test], abs=1e-9
        )
        best = (epoch, valid, test) if best is None or valid < best[1] else best
        reported = [
            record[name] for name in ("best_epoch", "best_validation_error", "best_test_error")
        ]
        assert reported == pytest.approx(best)
        W = [program[epoch][f"layer{k}/W"].astype("f8") for k in range(2)]
        assert record["W_l2"] == pytest.approx([np.sqrt((w * w).sum()) for w in W], rel=1e-12)
        assert record["ranges"] == [program[epoch][f"layer{k}/ranges"].tolist() for k in range(2)]
        assert ("overflow_rates" in record) == (epoch > 0)
    assert [record["epoch"] for record in records] == [0, 1, 2]
    assert [record["LR"] for record in records] == pytest.approx([0.5, 0.5, 0.05])
    assert len({errors[i][0] for i in range(3)}) > 1  # something was learned


def test_nothing_recompiles(followed):
    """One program for all bit-widths, ranges, rates, frequencies and lengths of
    segments; each matters.
    """
    program = followed.trainer.training
    assert (
        program.compilations == 1
    )  # though the widths, LR, M and the ranges have changed in the run
    usual = {
        "LR": f4(0.25),
        "M": f4(0.5),
        "prop_bits": np.int32(9),
        "up_bits": np.int32(11),
        "frequency": np.int32(2),
        "max_overflow": np.float64(0.01),
    }
    changes = [
        {},
        {"prop_bits": np.int32(7)},
        {"up_bits": np.int32(20)},
        {"LR": f4(0.125)},
        {"M": f4(0.75)},
        {"max_overflow": np.float64(0.5)},
        {"frequency": np.int32(1)},
        {"ranges": 1},
        {"batches": 1},
        {"rows": 1},
    ]
    rng = np.random.RandomState(0)
    masks = [(rng.uniform(size=(2, B, n)) < 0.7).astype("uint8") for n in (PIXELS, UNITS)]
    x, t = to_device(data().train.read(0, 38))
    results = []
    for change in changes:
        start = followed.program[2]
        state = {name: start[name] for name in followed.trainer.state}
        state |= {
            f"layer{k}/ranges": np.full(10, change.get("ranges", 2), "int32") for k in range(2)
        }
        count = change.get("rows", 2)
        state = program(
            to_device(state),
            usual | {name: change[name] for name in usual if name in change},
            x,
            t,
            np.arange(B * count, dtype="int32").reshape(count, B),
            change.get("batches", 0),
            [m[:count] for m in masks],
        )
        results.append(
            np.concatenate(
                [np.ravel(v) for name, v in to_host(state).items() if name.startswith("layer")]
            )
        )
    assert program.compilations == 1
    for i, a in enumerate(results):
        for j, b in enumerate(results[:i]):
            assert not np.array_equal(a, b), f"{changes[i]} {changes[j]}"


# ---------------------------------------------------------------------------- how segments are cut


@cache
def float_run(segment):
    """Records and final snapshot of a float32 run with device masks, in segments of this length."""
    t = make("FLP", segment=segment, epochs=2)
    records = run(t)
    assert t.training.compilations == 1
    return records, t.snapshot()[0]


@pytest.mark.parametrize("segment", [1, 100])
def test_results_do_not_depend_on_how_segments_are_cut(segment):
    records, snapshot = float_run(segment)
    usual_records, usual = float_run(7)
    assert records == usual_records
    assert_same_arrays(snapshot, usual)
    assert len(records) == 3 and any(snapshot["layer1/W"].ravel())


def test_ranges_and_published_streams_do_not_either(followed):
    t = make(segment=100, streams="published", epochs=2)
    assert run(t) == followed.records
    assert_same_arrays(t.snapshot()[0], followed.program[2])


# -------------------------------------------------------------------------------------- evaluation


def test_all_examples_are_evaluated(followed):
    """13 and 11 examples in batches of 5: the last partial batch counts as well, each
    example once.
    """
    for record in followed.records:
        for name, n in (("validation_error", 13), ("test_error", 11)):
            wrong = record[name] / 100 * n
            assert wrong == pytest.approx(round(wrong), abs=1e-9) and 0 <= wrong <= n


def test_errors_are_counted_in_the_last_partial_batch_alone():
    """An untrained network answers 0: with zeros as labels but in the last rows, only
    those are wrong.
    """
    t, labels = make("FXP"), np.zeros(13, int)
    labels[-2:] = 4
    testing = TestProgram(t.network, B)
    x = data().valid.x
    assert testing(t.state, np.int32(9), *testing.arrange(x, np.eye(10, dtype=f4)[labels])) == 2
    assert (
        testing(t.state, np.int32(9), *testing.arrange(x, np.eye(10, dtype=f4)[(labels == 0) * 3]))
        == 11
    )
    assert (
        testing(t.state, np.int32(9), *testing.arrange(x[:B], np.eye(10, dtype=f4)[labels[:B]]))
        == 0
    )


# --------------------------------------------------------------------------------------- snapshots


@pytest.mark.parametrize(
    ("number_format", "streams", "fresh"),
    [
        ("FLP", "device", True),
        ("FLP", "published", True),
        ("HFLP", "device", False),
        ("FXP", "published", False),
    ],
)
def test_going_on_from_a_snapshot_is_the_same_run(number_format, streams, fresh):
    """In a new object, as the program does, or in the one that has gone on meanwhile,
    which has more to forget.
    """
    options = {"streams": streams}
    whole = make(number_format, **options)
    first = run(whole, last_epoch=1)
    arrays, facts = whole.snapshot()
    kept, kept_facts = {name: np.array(a) for name, a in arrays.items()}, copy.deepcopy(facts)
    rest = run(whole)
    assert_same_arrays(arrays, kept)  # what was taken does not go on with the run
    assert facts == kept_facts
    assert [record["epoch"] for record in first + rest] == [0, 1, 2, 3]
    end, end_facts = whole.snapshot()
    assert (end["layer1/W"] != arrays["layer1/W"]).any()

    again = make(number_format, **options) if fresh else whole
    again.restore(Snapshot(kept, kept_facts))
    assert run(again) == rest
    end_again, facts_again = again.snapshot()
    assert_same_arrays(end_again, end)
    assert facts_again == end_facts


def test_going_on_with_ranges_and_published_streams(followed):
    for epoch in (1, 0):
        followed.trainer.restore(Snapshot(followed.program[epoch], followed.facts[epoch]))
        assert run(followed.trainer) == followed.records[epoch + 1 :]
        assert_same_arrays(followed.trainer.snapshot()[0], followed.program[2])


# ---------------------------------------------------------------- streams of the published program


def without_evaluation(trainer):
    """Let it find 50 % errors without a look at the data."""

    def pieces(state, part):
        return 50.0
        yield

    trainer.evaluation.pieces = pieces


def fed_run(trainer, last_epoch=None):
    fed = Fed(trainer)
    without_evaluation(trainer)
    list(trainer.run(last_epoch))
    return fed


def test_published_masks_and_shuffled_examples():
    """ "Random streams", computed anew: masks batch after batch, orders composed epoch
    after epoch.
    """
    t = make("FXP", streams="published", segment=4)
    fed = fed_run(t)
    rng = np.random.RandomState(1234)
    layers = plain_network(rng)
    for layer, mine in zip(layers, t.network.layers, strict=True):
        np.testing.assert_array_equal(layer.W, mine.W.get_value())
    streams = ref.Streams(rng, layers, B)
    for masks in fed.masks:
        for mine, expected in zip(masks, streams.masks(), strict=True):
            np.testing.assert_array_equal(mine, expected)
    assert len(fed.masks) == 3 * 7 and fed.batches == [*range(7)] * 3
    reordered, expected = list(range(38)), []
    for _ in range(3):
        reordered = [reordered[i] for i in streams.fresh_list(38)]
        expected += reordered[:35]
    assert fed.order == expected
    for x, y in fed.examples:
        numbers = np.rint(x[:, 0] * 256).astype(int)
        np.testing.assert_array_equal(x, data().train.x[numbers])
        np.testing.assert_array_equal(y, data().train.y[numbers])


def test_another_seed_gives_other_weights_masks_and_orders():
    a, b = (make("FXP", streams="published", seed=seed) for seed in (1234, 5))
    fed_a, fed_b = (fed_run(t, 1) for t in (a, b))
    assert fed_a.order != fed_b.order and sorted(fed_a.order) != fed_a.order
    assert (fed_a.masks[0][0] != fed_b.masks[0][0]).any()
    assert (a.network.layers[0].W.get_value() != b.network.layers[0].W.get_value()).any()


def test_range_initialisation_draws_nothing_for_examples():
    t = make("DFXP", streams="published", epochs=1)
    fed = fed_run(t)
    assert fed.order[:70] == [*range(35)] * 2
    rng = np.random.RandomState(1234)
    streams = ref.Streams(rng, plain_network(rng), B)
    assert fed.order[70:] == streams.fresh_list(38)[:35]
    assert [int(c["prop_bits"]) for c in fed.constants] == [31] * 14 + [9] * 7
    assert [int(c["up_bits"]) for c in fed.constants] == [31] * 14 + [11] * 7
    assert {(float(c["LR"]), float(c["M"])) for c in fed.constants} == {(0.5, 0.5)}


def svhn(number_format="FXP", n=46, dataset=None, **options):
    options = {"streams": "published"} | options
    return make(number_format, dataset or data(n_train=n), segment=2, task="SVHN", **options)


def svhn_order(streams, chunks, left):
    """ "Random streams": the whole chunks shuffled, each one's batches when its turn
    comes, what is left over last.
    """
    numbers = []
    for chunk in [*streams.fresh_list(chunks), *([chunks] if left else [])]:
        for batch in streams.fresh_list(3 if chunk < chunks else left):
            start = (chunk * 3 + batch) * 4
            numbers += range(start, start + 4)
    return numbers


@pytest.mark.parametrize(("n", "chunks", "left"), [(46, 3, 2), (36, 3, 0), (10, 0, 2), (62, 5, 0)])
def test_shuffled_chunks_and_batches(n, chunks, left):
    fed = fed_run(svhn(n=n))
    rng = np.random.RandomState(1234)
    streams = ref.Streams(rng, plain_network(rng), 4)
    expected = [svhn_order(streams, chunks, left) for _ in range(3)]
    assert fed.order == sum(expected, [])
    assert all(sorted(epoch) == list(range((chunks * 3 + left) * 4)) for epoch in expected)
    assert fed.batches == [*range(chunks * 3 + left)] * 3
    for x, y in fed.examples:
        numbers = np.rint(x[:, 0] * 256).astype(int)
        np.testing.assert_array_equal(y, data(n_train=n).train.y[numbers])


def test_chunks_are_shuffled_during_range_initialisation_as_well():
    fed = fed_run(svhn("DFXP", epochs=1))
    rng = np.random.RandomState(1234)
    streams = ref.Streams(rng, plain_network(rng), 4)
    assert fed.order == sum(
        [svhn_order(streams, 3, 2) for _ in range(3)], []
    )  # two epochs at 31 bits, then one


def test_orders_go_on_from_a_snapshot_of_a_chunked_run():
    t = svhn(streams="device")
    fed_run(t, 1)
    snapshot = t.snapshot()
    orders = []
    for _ in range(2):
        t.restore(snapshot)
        orders.append(fed_run(t).order)
    assert orders[0] == orders[1] and len(orders[0]) == 2 * 44


class Unreadable:
    """A part whose examples cannot be read from row 24 on."""

    def __init__(self, part, error):
        self.part, self.error, self.n_features = part, error, part.n_features

    def __len__(self):
        return len(self.part)

    def read(self, start, stop):
        if stop > 24:
            raise self.error
        return self.part.read(start, stop)


def test_errors_of_reading_ahead_reach_the_caller():
    error = OSError("the disk is gone")
    whole = data(n_train=46)
    t = svhn(dataset=Dataset("broken", Unreadable(whole.train, error), whole.valid, whole.test, {}))
    fed = Fed(t)
    without_evaluation(t)
    with pytest.raises(OSError, match="the disk is gone"):
        list(t.run())
    assert t.position.epoch == 0 and set(fed.order) <= set(range(24))


# ------------------------------------------------------------------------------------ device masks


class MaskRecorder:
    """In place of a network: its training step writes its masks into its state."""

    description = ("recorder",)

    class Layer:
        def __init__(self, k, p, input_size):
            self.p, self.input_size, self.W = p, input_size, None
            self.seen = pytensor.shared(
                np.zeros((B, input_size), f4), name=f"layer{k}/seen", shape=(B, input_size)
            )

    def __init__(self, *layers):
        self.layers = [self.Layer(k, p, size) for k, (p, size) in enumerate(layers)]
        self.state = [layer.seen for layer in self.layers]

    def training_step(self, batch_size, tf32):
        masks = {
            f"mask{k}": pt.tensor(f"mask{k}", shape=(batch_size, layer.input_size), dtype="float32")
            for k, layer in enumerate(self.layers)
        }
        return masks, {
            layer.seen: 1 * mask for layer, mask in zip(self.layers, masks.values(), strict=True)
        }


RATES = ((0.8, 3001), (0.5, 3001), (0.5, 3001), (0.25, 500))


@cache
def device_masks(seed, batches, segment=1):
    """The masks of some batches, layer by layer: a list of (batches, B, inputs)."""
    recorder = MaskRecorder(*RATES)
    program = TrainingProgram(recorder, B, segment)
    state = to_device({v.name: v.get_value() for v in recorder.state} | mask_state(seed))
    x, t = to_device((np.zeros((B, 3), f4), np.zeros((B, 10), f4)))
    seen = []
    for b in range(0, batches, segment):
        state = program(state, {}, x, t, np.tile(np.arange(B, dtype="int32"), (segment, 1)), b)
        seen.append(to_host([state[f"layer{k}/seen"] for k in range(len(RATES))]))
    return [np.stack(layer) for layer in zip(*seen, strict=True)]


def test_device_masks_have_the_right_rates():
    for (p, size), masks in zip(RATES, device_masks(3, 6), strict=True):
        assert masks.shape == (6, B, size) and set(np.unique(masks)) == {0, 1}
        deviation = np.sqrt(p * (1 - p))
        assert abs(masks.mean() - p) < 5 * deviation / np.sqrt(masks.size)
        assert np.abs(masks.mean(axis=(0, 2)) - p).max() < 5 * deviation / np.sqrt(
            6 * size
        )  # each row
        assert np.abs(masks.mean(axis=(0, 1)) - p).max() < 6 * deviation / np.sqrt(
            6 * B
        )  # each input


def test_device_masks_are_independent():
    """Neighbours, rows, batches and layers agree as often as independent draws do."""
    first = device_masks(3, 6)
    for (p, _), masks in zip(RATES, first, strict=True):
        by_chance = p * p + (1 - p) * (1 - p)
        for a, b in (
            (masks[:-1], masks[1:]),
            (masks[:, :-1], masks[:, 1:]),
            (masks[..., :-1], masks[..., 1:]),
            (masks[..., :-32], masks[..., 32:]),
        ):
            assert abs((a == b).mean() - by_chance) < 6 * np.sqrt(
                by_chance * (1 - by_chance) / a.size
            )
    for a, b in ((first[1], first[2]), (first[1], device_masks(4, 6)[1])):
        assert abs((a == b).mean() - 0.5) < 6 * 0.5 / np.sqrt(a.size)


def test_device_masks_do_not_depend_on_the_segment():
    """What is seen after segments of three batches is what the third batches saw."""
    for alone, segments in zip(device_masks(3, 6), device_masks(3, 6, segment=3), strict=True):
        np.testing.assert_array_equal(segments, alone[2::3])


# -------------------------------------------------------------------------------------- divergence


def test_divergence_is_named():
    parts = {}
    for name in ("train", "valid", "test"):
        part = getattr(data(), name)
        parts[name] = ArrayPart(np.full_like(part.x, 3.4e38), part.y)
    t = make("FLP", Dataset("enormous", **parts, identity={}), epochs=5)
    with pytest.raises(
        Diverged, match=r"epoch \d+, layer\d: .*layer\d/W.* NaN or infinite"
    ) as raised:
        list(t.run())
    assert (
        t.position.epoch >= 0
        and f"epoch {t.position.epoch + 1}, " in str(raised.value)
        and "\n" not in str(raised.value)
    )
    bad = {
        name
        for name in STATE
        for k in range(2)
        if not np.isfinite(to_host(t.state)[f"layer{k}/{name}"]).all()
    }
    assert "W" in bad


@pytest.mark.parametrize("name", ["layer0/b", "layer1/update_W"])
def test_divergence_names_the_layer(name):
    t = make("FLP")
    Fed(t)
    without_evaluation(t)
    spoiled = to_host(t.state)
    spoiled[name].flat[-1] = -np.inf
    t.state = to_device(spoiled)
    with pytest.raises(
        Diverged,
        match=f"epoch 1, {name.split('/')[0]}: {name} became NaN or infinite after 3 batches",
    ):
        list(t.run())


def test_the_state_is_whole_after_each_segment():
    t = make("FXP", epochs=1, segment=3)
    fed = Fed(t)
    without_evaluation(t)
    answer, seen, steps = None, [], t.steps()
    with contextlib.suppress(StopIteration):
        while True:
            step = steps.send(answer)
            answer = fed(*step.arguments) if isinstance(step, Segment) else None
            seen += [step.batches] if isinstance(step, Whole) else []
    assert seen == [3, 3, 1]  # no evaluation in it


def test_reading_ahead_of_nothing_ends():
    assert list(svhn().feed._read_ahead(iter([]), 3)) == []
