"""Random rounding: what it does to numbers, and where its draws come from."""

from functools import cache

import numpy as np
import pytest
from compiling import EVERYWHERE, run, run_vectorized
from pytensor.graph.traversal import ancestors

import format as number_formats
import model
from datasets import ArrayPart, Dataset
from format import FORMATS, SIGNALS
from layers import Softmax
from model import FIRST, Network
from settings import Settings
from snapshots import Snapshot
from steps import Segment, Whole
from trainer import Trainer
from utilities.team import train_together
from xla.graphs import compiled
from xla.rounding import RoundAtRandom, round_at_random

f4 = np.float32
MANY = 200_000
KEY = np.array([17, 2**31 + 5], "uint32")


def stored(x, nob, noib, key):
    """Fixed point, rounded at random."""
    return number_formats.quantize(x, nob, noib, lambda steps: round_at_random(steps, key))


def key(n):
    return np.random.RandomState(n).randint(0, 2**32, 2, "uint32")


@pytest.mark.parametrize("fraction", [0.0, 2.0**-10, 0.1, 0.25, 0.5, 0.75, 0.9, 1 - 2.0**-10])
@pytest.mark.parametrize("steps", [-513, -1, 0, 3, 100])
def test_mean_and_variance(steps, fraction):
    """Between two neighbours on a grid: mean x, variance f (1 - f) of a step squared."""
    nob, noib = np.int32(11), np.int32(1)
    x = f4((steps + fraction) * 2.0**-10)
    found = run(stored, np.full(MANY, x), nob, noib, key(abs(steps))).astype("f8") * 2.0**10
    assert set(np.unique(found)) <= {float(steps), float(steps + 1)}
    f = float(x) * 2.0**10 - steps
    deviation = np.sqrt(f * (1 - f) / MANY)
    assert abs(found.mean() - (steps + f)) <= 4.5 * deviation
    assert abs(found.var() - f * (1 - f)) <= 4.5 * deviation * abs(1 - 2 * f) + 1e-4


def draws(shape, key):
    """The hash in NumPy: of 2^-24 to 1."""
    with np.errstate(over="ignore"):
        place = np.arange(np.prod(shape), dtype="uint32").reshape(shape) ^ key[0]
        words = (place ^ (place >> 16)) * np.uint32(0x7FEB352D) ^ key[1]
        words = (words ^ (words >> 15)) * np.uint32(0x846CA68B)
    return (((words ^ (words >> 16)) >> 8) + 1) / 2.0**24


@EVERYWHERE
def test_what_is_on_the_grid_or_no_number_stays(run):
    x = f4([0, -0.0, 1, -1, 2047, -2047, 3000, -3000, 1e30, np.inf, -np.inf, np.nan])
    found = run(stored, x, np.int32(11), np.int32(11), KEY)
    expected = f4([0, 0, 1, -1, 2047, -2047, 2047, -2047, 2047, 2047, -2047, np.nan])
    np.testing.assert_array_equal(found, expected)
    wide = f4([2**23 + 1, -(2**24) - 2, 2.0**31, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(run(round_at_random, wide, KEY), wide)
    tiny = run(round_at_random, np.full(MANY, -1e-30, f4), KEY)
    assert not tiny.any()  # -1 is less probable than can be drawn
    for place, lowest in ((2107596, True), (25851868, False)):  # its draw is 2^-24, or 1
        rare = np.array([place, 5], "uint32")
        assert draws((1,), rare) == (2.0**-24 if lowest else 1)
        found = [run(round_at_random, f4([x]), rare)[0] for x in (2.0**-25, 2.0**-24, 1 - 2.0**-24)]
        assert found == [0, lowest, lowest]


@EVERYWHERE
def test_the_draws_follow_from_the_key_alone(run):
    """Against the hash in NumPy: equal alone, in a loop and vectorized."""
    x = np.random.RandomState(0).normal(size=(40, 50)).astype(f4) * 10
    expected = np.floor(x) + (draws(x.shape, KEY) <= x - np.floor(x))
    np.testing.assert_array_equal(run(round_at_random, x, KEY), expected)
    assert (run(round_at_random, x, key(1)) != expected).any()
    alone, other = run_vectorized(round_at_random, x, KEY)
    np.testing.assert_array_equal(alone, expected)
    np.testing.assert_array_equal(other, run(round_at_random, np.flip(x), np.flip(KEY)))


def test_draws_are_independent():
    """Of neighbours, of rows, of other keys; low probabilities are met, too."""
    rows, columns = 400, 500
    half = np.full((rows, columns), 0.5, f4)
    first = run(round_at_random, half, KEY).astype("f8") * 2 - 1
    others = [run(round_at_random, half, key(n)) * 2 - 1 for n in range(20)]
    limit = 4.5 / np.sqrt(rows * columns)
    assert all(abs((first * other).mean()) < limit for other in others)
    for lag in [1, 2, 3, 16, 256, columns, 512, 2 * columns, 65_536]:
        flat = first.ravel()
        assert abs((flat[lag:] * flat[:-lag]).mean()) < limit, lag
    for bit in range(1, 11):
        level = f4(2.0**-bit)
        share = run(round_at_random, half * 2 * level, KEY).mean()
        assert abs(share - level) < 4.5 * np.sqrt(level / (rows * columns)), bit
    assert abs(first.mean(axis=0)).max() < 5 / np.sqrt(rows)
    assert abs(first.mean(axis=1)).max() < 5 / np.sqrt(columns)


# --- in a network

RANDOM = ("FXPR", "DFXPR")
USES = [("update_w", 0), ("update_b", 0), ("b", 0), ("w", 0), ("w", 1)]
NUMBERS = {"initial_range": 2, "prop_bits": 9, "up_bits": 11, "init_epochs": 1}
NUMBERS |= {"range_update_frequency": 2, "max_overflow": 0.01, "epochs": 2}
SIZE = {"units": 4, "pieces": 2}


@cache
def network(number_format):
    made = Network("PI_MNIST", number_format, np.random.RandomState(0), 2, **SIZE)
    return made, made.training_step(4)[1]


def random_nodes(updates):
    nodes = {v.owner for v in ancestors(updates.values()) if v.owner}
    return [node for node in nodes if isinstance(node.op, RoundAtRandom)]


@pytest.mark.parametrize("number_format", RANDOM)
def test_each_draw_is_used_once(number_format):
    """Parameters and updates are rounded at random, each time by a key of its own."""
    made, updates = network(number_format)
    nodes = random_nodes(updates)
    keys = [node.inputs[1] for node in nodes]
    read = compiled({}, made.state, [updates[made.draws.key], made.draws.keys, *keys])
    state = {v.name: v.get_value() for v in made.state} | {"rounding/key": KEY}
    seen = {tuple(KEY)}
    for _ in range(3):
        state["rounding/key"], every, *used = map(np.asarray, read({}, state))
        seen.add(tuple(state["rounding/key"]))
        places = [(k, SIGNALS.index(s), use) for k in range(len(made.layers)) for s, use in USES]
        assert sorted(map(tuple, used)) == sorted(tuple(every[place]) for place in places)
        seen |= set(map(tuple, used))
    assert len(seen) == 3 * len(nodes) + 4  # the keys of the batches are no other's, too


@pytest.mark.parametrize("number_format", [name for name in FORMATS if name not in RANDOM])
def test_other_formats_draw_nothing(number_format):
    made, updates = network(number_format)
    assert not FORMATS[number_format].random and made.draws is None
    assert not [v for v in made.state if v.name.startswith("rounding/")]
    assert not random_nodes(updates)


@cache
def data():
    rng = np.random.RandomState(0)
    templates = (rng.uniform(size=(10, 784)) < 0.2).astype(f4)

    def part(n):
        labels = rng.randint(0, 10, n)
        return ArrayPart(np.maximum(templates[labels], rng.uniform(size=(n, 784)) < 0.05), labels)

    return Dataset("small", part(35), part(10), part(10), {})


def softmax(**common):
    """A network of one layer, which is compiled soon."""
    return [Softmax("layer0", inputs=784, classes=10, **FIRST, **common)]


def make(number_format="DFXPR", like=None, **options):
    settings = Settings("PI_MNIST", number_format, **(NUMBERS | options))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model.NETWORKS, "PI_MNIST", softmax)
        return Trainer(settings, data(), 5, 3, like=like)


@pytest.fixture(scope="module")
def whole():
    """A run that nobody interrupts, its records and its end."""
    trainer = make()
    return trainer, *ended(trainer)


def ended(trainer):
    times = ("seconds", "images_per_second")
    records = [{n: v for n, v in r.items() if n not in times} for r in trainer.run()]
    return records, trainer.snapshot()


def assert_same(first, second):
    assert first[0][-1] == second[0][-1]
    assert first[1].facts == second[1].facts
    assert first[1].arrays.keys() == second[1].arrays.keys()
    for name, array in first[1].arrays.items():
        np.testing.assert_array_equal(array, second[1].arrays[name], err_msg=name)


@pytest.mark.parametrize("segments", [1, 4, 5])
def test_an_interrupted_run_is_the_same_run(whole, segments):
    """Within the range initialisation, within an epoch: the same bits from there on."""
    like, *expected = whole
    first = make(like=like)
    steps = first.steps()
    answer = None
    while True:
        step = steps.send(answer)
        if isinstance(step, Whole) and not segments:
            break
        answer = None
        if isinstance(step, Segment):
            answer = first.training(*step.arguments)
            segments -= 1
    taken = first.snapshot()
    again = make(like=like)
    again.restore(Snapshot({n: np.array(a) for n, a in taken.arrays.items()}, taken.facts))
    assert_same(ended(again), expected)


def test_the_draws_are_those_of_the_seed(whole):
    """Equal with it, others with another, and others in each batch."""
    like, *expected = whole
    assert_same(ended(make(like=like)), expected)
    arrays = expected[1].arrays
    assert (make(like=like).state["rounding/key"] != arrays["rounding/key"]).any()
    changed = make(like=like)
    changed.state["rounding/key"] = changed.state["rounding/key"] ^ np.uint32(1)
    other = ended(changed)[1].arrays
    assert (other["layer0/W"] != arrays["layer0/W"]).mean() > 0.1
    assert (make(seed=5).state["rounding/key"] != arrays["rounding/key"]).any()
    assert (arrays["rounding/key"] != arrays["masks/key"]).any()


def test_together_as_alone(whole):
    """As a sweep trains them: each with its own draws."""
    like, *expected = whole
    pair = {seed: make(like=like, seed=seed) for seed in (1234, 7)}
    members = {seed: trainer.steps() for seed, trainer in pair.items()}
    assert not [e for _, e in train_together(like.training, members) if isinstance(e, Exception)]
    alone = ended(make(like=like, seed=7))
    for seed, single in ((1234, expected[1]), (7, alone[1])):
        for name, array in pair[seed].snapshot().arrays.items():
            np.testing.assert_array_equal(array, single.arrays[name], err_msg=name)


@pytest.mark.parametrize("streams", ["device", "published"])
def test_masks_and_weights_are_those_of_the_nearest_twin(streams):
    """Random rounding takes nothing from the published streams, nor from the masks' generator."""
    plain, random = (make(name, streams=streams) for name in ("DFXP", "DFXPR"))
    assert set(random.state) - set(plain.state) == {"rounding/key"}
    for name, value in plain.state.items():
        np.testing.assert_array_equal(value, random.state[name], err_msg=name)
    np.testing.assert_equal(plain.order.snapshot(), random.order.snapshot())
    np.testing.assert_equal(plain.masks.snapshot(), random.masks.snapshot())
