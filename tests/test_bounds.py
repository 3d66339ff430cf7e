"""utilities/bounds.py and judging.py: what a sum in another order may change, and no more."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from test_traces import OWN, arrays_of

from utilities import replay
from utilities.bounds import Interval, Sums, exactly, fixed_point, half_precision, shares, softmax
from utilities.replay_bounds import Bounds
from utilities.replay_trace import main
from utilities.trace import Report, Trace
from xla.products import Product

WIDE = "PI4warm_FXPmixed_19_19"
STEP = 2.0**-14  # of 19 bits in the range 5
rng = np.random.RandomState(5)


def grid(shape, bits, noib, scale=1.0):
    values = exactly((rng.normal(size=shape) * scale).astype("f4"))
    return fixed_point(values, bits, noib).lo.astype("f4")


def one_after_the_other(terms):
    total = np.zeros(terms.shape[1:], "f4")
    for term in terms:
        total = total + term
    return total


def in_pairs(terms):
    while len(terms) > 1:
        terms = np.concatenate([terms[:-1:2] + terms[1::2], terms[len(terms) // 2 * 2 :]])
    return terms[0]


def sums_in_many_orders(x, W):
    """x W in float32, added up in ten orders: (orders, rows, columns)."""
    terms = np.moveaxis(x[:, :, None] * W, 1, 0)
    by_size = np.take_along_axis(terms, np.argsort(np.abs(terms), axis=0), axis=0)
    by_sign = np.sort(terms, axis=0)
    orders = [terms, terms[::-1], by_size, by_size[::-1], by_sign, by_sign[::-1]]
    orders += [terms[rng.permutation(len(terms))] for _ in range(2)]
    return np.stack([*map(one_after_the_other, orders), in_pairs(terms), in_pairs(by_sign)])


@pytest.mark.parametrize("nearest", [lambda a: fixed_point(a, 19, 7), half_precision])
def test_sums_in_any_order_lie_within_their_bounds(nearest):
    x = rng.uniform(size=(200, 300)).astype("f4") * (rng.uniform(size=(200, 300)) < 0.3)
    W = grid((300, 15), 19, 5, 0.1)
    bounds = Sums.of_products(exactly(x), exactly(W)).interval()
    sums = sums_in_many_orders(x, W)
    assert (sums.min(axis=0) != sums.max(axis=0)).mean() > 0.9
    assert all(bounds.holds(one).all() for one in sums)
    stored = nearest(bounds)
    values = nearest(Interval(sums, sums)).lo
    flipped = values.min(axis=0) != values.max(axis=0)
    assert flipped.any()
    assert all(stored.holds(one).all() for one in values)
    assert not (flipped & stored.known).any()
    assert stored.known.mean() > 0.2  # it does say something


def test_a_value_one_step_off_is_outside_unless_a_half_step_is_near():
    x = rng.uniform(size=(20, 300)).astype("f4") * (rng.uniform(size=(20, 300)) < 0.2)
    W = grid((300, 15), 19, 5, 0.05)
    exact = x.astype("f8") @ W.astype("f8")
    bounds = Sums.of_products(exactly(x), exactly(W)).interval()
    stored = fixed_point(bounds, 19, 5)
    rounded = np.round(exact / STEP) * STEP
    for off in (-STEP, STEP):
        boundary = rounded + off / 2
        near = (bounds.lo <= boundary) & (boundary <= bounds.hi)
        np.testing.assert_array_equal(stored.holds(rounded + off), near)


def test_sums_of_few_bits_have_one_value():
    x = grid((20, 300), 9, 1, 0.3)
    W = grid((300, 15), 9, 0, 0.2)
    bounds = Sums.of_products(exactly(x), exactly(W)).plus(exactly(grid(15, 9, 1))).interval()
    assert bounds.known.all()
    assert bounds.step == STEP / 8  # 2^-8 of x, 2^-9 of W
    wider = Sums.of_products(exactly(x), exactly(W * np.float32(1 / 3))).interval()
    assert not wider.known.any()


def test_bounds_grow_with_those_of_the_operands():
    x = grid((4, 50), 19, 5)
    W = grid((50, 3), 19, 5)
    steps = rng.randint(-1, 2, x.shape)
    moved = Interval(x + np.minimum(steps, 0) * STEP, x + np.maximum(steps, 0) * STEP, STEP)
    bounds = Sums.of_products(moved, exactly(W)).interval()
    for _ in range(20):
        some = x + steps * STEP * (rng.uniform(size=x.shape) < 0.5)
        assert bounds.holds(some.astype("f8") @ W).all()
    assert not bounds.holds((x + 2 * STEP * np.sign(W[:, 0])).astype("f8") @ W)[:, 0].any()


def test_a_tie_that_may_be_none_gives_all_or_nothing():
    u = Interval(
        np.array([[1.0, 1, 0], [1, 0, 0], [0, 2, 2]]), np.array([[1.0, 1, 0], [1, 1, 0], [0, 2, 2]])
    )
    got = shares(u, exactly(np.array([[3.0], [-3], [2]], "f4")), axis=1)
    np.testing.assert_array_equal(got.lo, [[3, 3, 0], [-3, -3, 0], [0, 2, 2]])
    np.testing.assert_array_equal(got.hi, [[3, 3, 0], [-3, 0, 0], [0, 2, 2]])


def test_the_softmax_of_known_numbers_is_known():
    z = (rng.normal(size=(200, 10)) * 5).astype("f4")
    bounds = softmax(exactly(z))
    assert bounds.known.mean() > 0.999
    near = softmax(Interval(z.astype("f8"), z + 2.0**-20))
    assert near.holds(bounds.lo).all() and (near.hi - near.lo).max() < 2.0**-17


# --- a whole replay


def first_step():
    """The trace WIDE, and the bounds of its first batch."""
    trace = Trace(OWN / f"{WIDE}.npz")
    bounds = Bounds(trace, *replay.build(trace))
    inputs = replay.read_inputs(trace)
    B = trace.meta["batch_size"]
    masks = [mask[0] for mask in trace.masks]
    return trace, bounds.step(inputs["x_train"][:B], inputs["y_train"][:B], masks)


def test_a_recorded_entry_one_step_off_is_found(capsys):
    trace, step = first_step()
    recorded = trace["after00/L1/W/sample"].copy()
    bounds = step.bounds(1, "W")
    known = np.flatnonzero(bounds.known)
    assert len(known) > recorded.size / 2
    report = Report(quiet=True)
    report.judge("as recorded", bounds, recorded, recorded)
    assert report.failures == 0
    off = recorded.copy()
    off[known[3]] += np.float32(replay.grid_step(trace, 0, 1, "W"))
    report.judge("recorded", bounds, recorded, off)
    report.judge("computed", bounds, off, recorded)
    assert report.failures == 2
    assert capsys.readouterr().out.count("1 outside their bounds") == 2


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize(("wrong", "status"), [(0.0, 0), (1.0, 1)])
def test_another_order_of_sums_passes_and_a_wrong_sum_does_not(
    everywhere, wrong, status, monkeypatch, capsys
):
    """In both programs, or in the training program only."""
    calls = []
    plainly = Product.apply
    shown = replay.Intermediates.of

    def backwards(self, x, W):
        calls.append(x.shape)
        size = -(-len(W) // 4)
        parts = [x[:, i : i + size] @ W[i : i + size] for i in range(0, len(W), size)]
        total = sum(reversed(parts))
        step = wrong * np.float32(2.0**-10) * (W.shape[1] == 8)  # of z's grid, first layer
        return total + jnp.zeros_like(total).at[4, 5].set(step)

    def shown_plainly(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(Product, "apply", plainly)
            return shown(*arguments)

    monkeypatch.setattr(Product, "apply", backwards)
    if not everywhere:
        monkeypatch.setattr(replay.Intermediates, "of", shown_plainly)
    assert main([str(OWN / f"{WIDE}.npz"), "--quiet"]) == status
    out = capsys.readouterr().out
    assert calls and ("outside their bounds" in out) == bool(status)
    assert (", trained, layer" in out) == (status and not everywhere)
    assert json.loads(arrays_of(OWN / f"{WIDE}.npz")["meta_json"].item())["comp_precision"] == 19
