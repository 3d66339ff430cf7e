"""format.py: quantizers, overflow rates, the range rule and its accumulators, compiled."""

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import numpy_reference as ref
import pytensor.tensor as pt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import format as number_formats
import ranges as signal_ranges
from format import FORMATS, SIGNALS
from ranges import Ranges
from xla.graphs import compiled
from xla.statistics import total_counts

ROOT = Path(__file__).parent.parent
UNIT = ROOT.parent / "shared" / "reference" / "unit.npz"
OWN = Path(__file__).parent / "reference" / "format.npz"
WIDTH = 64  # of the vectors in the property tests

f4 = np.float32


def arrays_of(path):
    if not path.exists():
        pytest.skip(
            f"the recorded numbers are not here ({path.name}); "
            "they lie in shared/reference beside the project"
        )
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@cache
def program(function, shape, *scalars):
    """A compiled function of a float32 tensor and of scalars, given as (name, dtype)."""
    x = pt.tensor("x", shape=shape, dtype="float32")
    values = [pt.scalar(name, dtype=dtype) for name, dtype in scalars]
    run = compiled({"x": x, **{v.name: v for v in values}}, [], [function(x, *values)])
    return lambda array, **named: np.asarray(run({"x": array, **named}, {})[0])


BITS = (("nob", "int32"), ("noib", "int32"))


def quantize(x, nob, noib):
    x = np.asarray(x, f4)
    return program(number_formats.quantize, x.shape, *BITS)(
        x, nob=np.int32(nob), noib=np.int32(noib)
    )


def rates_of(v, nob, noib):
    """The graph of one signal's overflow rates, as Signal and Ranges put it together."""
    thresholds = FORMATS["DFXP"].largest(pt.stack([nob]), pt.stack([[noib, noib - 1]]))
    signal = signal_ranges.Signal(FORMATS["DFXP"], noib, nob, nob, thresholds[0])
    assert signal.observe(v) is v
    return signal_ranges.overflow_rates(total_counts(signal.counts), [signal.shape])[0]


def overflow_rates(v, nob, noib):
    return program(rates_of, v.shape, *BITS)(v, nob=np.int32(nob), noib=np.int32(noib))


def half(x):
    function = FORMATS["HFLP"].quantize
    return program(lambda x: function(x, None, None), x.shape)(x) if x.size else x


# --- fixed point


@pytest.mark.parametrize("path", [UNIT, OWN], ids=["recorded", "own"])
def test_fixed_point_as_recorded(path):
    file = arrays_of(path)
    assert len(file["fixed_point/params_nob_noib"]) >= 20
    for i, (nob, noib) in enumerate(file["fixed_point/params_nob_noib"]):
        y = quantize(file["fixed_point/x"][i], nob, noib)
        np.testing.assert_array_equal(
            y, file["fixed_point/y_half_away_from_zero"][i], err_msg=f"{nob} {noib}"
        )
        assert y.dtype == "float32"


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
halves = st.builds(
    lambda n, e: float(f4((n + 0.5) * 2.0**e)), st.integers(-3000, 3000), st.integers(-40, 40)
)
vectors = st.lists(numbers | halves, min_size=1, max_size=WIDTH).map(
    lambda v: np.resize(np.array(v, "float32"), WIDTH)
)
nobs = st.integers(1, 31)
noibs = st.integers(-90, 64)


@settings(max_examples=200, deadline=None)
@given(x=vectors, nob=nobs, noib=noibs)
@example(x=np.full(WIDTH, 0.49999997, "float32"), nob=9, noib=9)
def test_fixed_point_properties(x, nob, noib):
    q = quantize(x, nob, noib)
    np.testing.assert_array_equal(q, ref.fixed_point(x, nob, noib))
    np.testing.assert_array_equal(quantize(q, nob, noib), q)  # idempotent
    np.testing.assert_array_equal(quantize(-x, nob, noib), -q)  # odd
    step = 2.0 ** (noib - nob)
    top = float(f4(f4(2.0**nob) - 1)) * 2.0 ** (noib - nob)
    assert (np.abs(q) <= top).all()
    inside = np.abs(x.astype("f8")) <= top
    error = q.astype("f8") - x
    assert (np.abs(error[inside]) <= step / 2).all()
    assert (np.abs(q[~inside]) == top).all()
    tie = inside & (np.abs(error) == step / 2)
    assert (np.abs(q[tie]) >= np.abs(x[tie])).all()  # halves go away from zero
    np.testing.assert_array_equal(q, np.rint(q / step) * step)  # on the grid
    ordered = np.argsort(x, kind="stable")
    assert (np.diff(q[ordered]) >= 0).all()  # monotone


def test_fixed_point_special_values():
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3.4e38, -3.4e38], f4)
    for nob, noib in ((9, 5), (31, -100), (1, 64), (31, 0)):
        top = ref.fixed_point(np.array([np.inf], f4), nob, noib)[0]
        np.testing.assert_array_equal(
            quantize(x, nob, noib), np.array([np.nan, top, -top, 0, 0, top, -top], f4)
        )
        assert np.isfinite(top)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (0.5, 1),
        (-0.5, -1),
        (1.5, 2),
        (2.5, 3),
        (-2.5, -3),
        (0.49999997, 0),
        (-0.49999997, 0),
        (8388607.5, 8388608),
        (8388609, 8388609),
        (-8388609, -8388609),
        (16777215, 16777215),
        (2.0**31, 2.0**31),
        (3.0e9, 2.0**31),
    ],
)
def test_rounding_to_integers_is_exact(x, y):
    assert quantize([x], 31, 31)[0] == f4(y)


def test_31_bits_saturate_at_two_to_the_31():
    assert quantize([1e30], 31, 0)[0] == 1.0
    assert quantize([-1e30], 31, 5)[0] == -32.0
    assert quantize([0.99999994], 31, 0)[0] == f4(0.99999994)


@pytest.mark.parametrize("nob", [1, 9, 31])
@pytest.mark.parametrize("noib", [-100, -95, -64, 64, 100])
def test_extreme_ranges_stay_finite(nob, noib):
    wide = np.random.RandomState(0).normal(size=61) * 10.0 ** np.arange(-30, 31)
    x = np.concatenate([[0.0, 1.0, -1.0], wide]).astype(f4)
    q = quantize(x, nob, noib)
    assert np.isfinite(q).all() and q[0] == 0 and (q[1] > 0) == (noib - nob <= 1)
    np.testing.assert_array_equal(q, ref.fixed_point(x, nob, noib))
    np.testing.assert_array_equal(quantize(q, nob, noib), q)


# --- overflow rates


@pytest.mark.parametrize("path", [UNIT, OWN], ids=["recorded", "own"])
def test_overflow_rates_as_recorded(path):
    file = arrays_of(path)
    table = {}
    for x, (nob, noib), rate in zip(
        file["overflow/x"], file["overflow/params_nob_noib"], file["overflow/rate"], strict=True
    ):
        rates = overflow_rates(x, nob, noib)
        assert rates.dtype == "float64" and rates[0] == rate
        table.setdefault((x.tobytes(), nob), {})[noib] = rates
    neighbours = [
        (at[noib][1], at[noib - 1][0]) for at in table.values() for noib in at if noib - 1 in at
    ]
    assert all(lower == same for lower, same in neighbours) and (neighbours or path == UNIT)


@pytest.mark.parametrize(
    ("shape", "order_matters"),
    [
        ((1200,), False),
        ((7,), False),
        ((128, 10), False),
        ((100, 1200), True),
        ((10, 3, 5, 5), True),
        ((3, 241), True),
        ((13, 11, 7, 3), True),
    ],
)
def test_overflow_rates_of_shapes(shape, order_matters):
    """Division by one dimension after the other, each quotient rounded to float32.

    Not one division by the size.
    """
    rng = np.random.RandomState(len(shape))
    size = int(np.prod(shape))
    orders_differ = False
    for count in {0, 1, 2, 3, size // 3, size - 1, size, *rng.randint(0, size, 40)}:
        v = np.zeros(size, f4)
        v[rng.permutation(size)[:count]] = rng.choice([-1, 1], count)
        v[v == 0] = 0.4
        first, second = overflow_rates(v.reshape(shape), 9, 0)
        assert first == ref.overflow_rate(v.reshape(shape), 9, 0)
        assert second == ref.overflow_rate(v.reshape(shape), 9, -1)
        orders_differ |= first != float(f4(count) / f4(size))
    assert orders_differ == order_matters  # the counts tell one division from several


@pytest.mark.parametrize(("nob", "noib"), [(9, 0), (9, -7), (31, 5), (1, 3), (11, -100), (31, -90)])
def test_overflow_counts_the_largest_value_itself(nob, noib):
    top = ref.fixed_point(np.array([np.inf]), nob, noib)[0]
    v = np.array(
        [
            top,
            -top,
            np.nextafter(top, f4(0)),
            np.nextafter(-top, f4(0)),
            0,
            np.inf,
            np.nan,
            2 * top,
        ],
        f4,
    )
    assert overflow_rates(v, nob, noib)[0] == 4 / 8
    lower = ref.overflow_rate(v, nob, noib - 1)
    assert overflow_rates(v, nob, noib)[1] == lower == 6 / 8


# --- half precision


@pytest.mark.parametrize("path", [UNIT, OWN], ids=["recorded", "own"])
def test_half_floats_as_recorded(path):
    file = arrays_of(path)
    np.testing.assert_array_equal(half(file["float16/x"]), file["float16/y"])


def test_every_half_float_and_the_ties_between_them():
    halves = (
        np.arange(2**15, dtype="uint16").view("float16").astype(f4)
    )  # every exponent, subnormals, inf, NaN
    finite = halves[np.isfinite(halves)]
    middle = (finite[:-1] + finite[1:]) / 2
    around = [np.nextafter(middle, f4(0)), np.nextafter(middle, f4(np.inf))]
    beyond = f4([65504, 65519.996, 65520, 65536, 1e5, 3e38, 2**-25, 2**-26, 1e-30])
    x = np.concatenate([halves, middle, *around, beyond])
    x = np.concatenate([x, -x])
    with np.errstate(over="ignore"):
        expected = x.astype("float16").astype(f4)
    y = half(x)
    np.testing.assert_array_equal(y, expected)
    assert np.isinf(y[x == 65520]).all() and (y[x == f4(2**-25)] == 0).all()
    assert np.count_nonzero((np.abs(y) > 0) & (np.abs(y) < 2.0**-14)) > 2000  # subnormals are kept


# --- range rule


@cache
def next_range_program():
    noib = pt.vector("noib", dtype="int32", shape=(1,))
    m = pt.dscalar("m")
    o, o1 = (pt.vector(name, dtype="float64", shape=(1,)) for name in ("o", "o1"))
    run = compiled(
        {"noib": noib, "o": o, "o1": o1, "m": m}, [], [signal_ranges.next_range(noib, o, o1, m)]
    )
    return lambda noib, o, o1, m: int(
        run(
            {
                "noib": np.array([noib], "int32"),
                "o": np.array([o]),
                "o1": np.array([o1]),
                "m": np.float64(m),
            },
            {},
        )[0][0]
    )


def test_range_rule_as_recorded():
    for o, o1, m, result in arrays_of(UNIT)["new_range/overflow_overflow1_max_result"]:
        assert next_range_program()(0, o, o1, m) == result


def test_range_rule():
    m = 1e-4
    below = np.nextafter(m, 0)
    above = np.nextafter(m, 1)
    for noib, o, o1 in itertools.product(
        (-100, -99, -3, 0, 7, 99, 100), (0.0, below, m, above, 1.0), (0.0, below, m, above, 1.0)
    ):
        expected = noib + 1 if o > m else noib if o1 > m else noib - 1
        assert next_range_program()(noib, o, o1, m) == min(max(expected, -100), 100)
    assert (
        next_range_program()(0, 0.0, 0.0, 0.0) == -1
        and next_range_program()(0, 1e-300, 0.0, 0.0) == 1
    )


class Dynamics:
    """Ranges.updates, compiled, all ten signals observing one vector each.

    Its state goes from call to call.
    """

    def __init__(self, size, initial_range=0):
        self.ranges = Ranges("layer", FORMATS["DFXP"], initial_range)
        prop, up, frequency = pt.iscalars("prop", "up", "frequency")
        due = pt.bscalar("due")
        m = pt.dscalar("m")
        values = {name: pt.tensor(name, shape=(size,), dtype="float32") for name in SIGNALS}
        signals = self.ranges.signals(prop, up)
        for name, value in values.items():
            signals[name].observe(value)
        updates = self.ranges.updates(signals, pt.eq(due, 1), frequency, m)
        inputs = values | {"prop": prop, "up": up, "frequency": frequency, "due": due, "m": m}
        self.names = [v.name for v in updates]
        shared = [self.ranges.ranges, self.ranges.overflow, self.ranges.epoch_overflow]
        self.run = compiled(inputs, shared, list(updates.values()))
        self.state = {v.name: v.get_value() for v in shared}
        self.zeros = {name: np.zeros(size, f4) for name in SIGNALS}

    def __call__(self, due, frequency, m, prop=9, up=9, **values):
        values = (
            self.zeros
            | values
            | {
                "prop": np.int32(prop),
                "up": np.int32(up),
                "frequency": np.int32(frequency),
                "due": np.int8(due),
                "m": np.float64(m),
            }
        )
        self.state |= dict(
            zip(self.names, map(np.asarray, self.run(values, self.state)), strict=True)
        )
        return dict(zip(SIGNALS, self.state["layer/ranges"].tolist(), strict=True))


@pytest.fixture(scope="module")
def dynamics_1200():
    return Dynamics(1200)


def test_accumulated_ties(dynamics_1200):
    """One overflow among 1,200 elements in 12 of 100 batches is more than 0.0001."""
    assert 12 * float(f4(1 / 1200)) / 100 > 0.0001 and not 12 * (1 / 1200) / 100 > 0.0001
    one = np.zeros(1200, f4)
    one[77] = 1
    for overflowing, expected in ((12, 1), (11, 0)):
        d = dynamics_1200
        d.state = {
            "layer/ranges": np.zeros(10, "int32"),
            "layer/overflow": np.zeros((2, 10)),
            "layer/epoch_overflow": np.zeros(10),
        }
        for batch in range(100):
            batches = (
                {"dEdb": one} if batch < overflowing else {"dEdb": one / 2}
            )  # /2: overflow at NOIB-1 alone
            ranges = d(batch == 99, 100, 0.0001, b=batches["dEdb"], **batches)
            if batch == 98:
                accumulated = d.state["layer/overflow"].copy()
        assert accumulated.dtype == "float64"
        assert accumulated[0, SIGNALS.index("dEdb")] == sum([float(f4(1 / 1200))] * overflowing)
        assert ranges["dEdb"] == ranges["b"] == expected
        assert all(ranges[name] == -1 for name in SIGNALS if name not in ("dEdb", "b"))
        assert not d.state["layer/overflow"].any()
        assert (
            d.state["layer/epoch_overflow"][SIGNALS.index("b")]
            == accumulated[0, SIGNALS.index("b")]
        )


def test_the_mean_is_an_exact_quotient(dynamics_1200):
    """o > m and o1 > m are decided by acc / FREQ rounded to float64.

    Not so at m = acc / FREQ, but so just below it.
    """
    d = dynamics_1200
    rng = np.random.RandomState(5)
    products_differ = 0

    def moved(overflow, overflow_1, frequency, m):
        d.state = {
            "layer/ranges": np.zeros(10, "int32"),
            "layer/epoch_overflow": np.zeros(10),
            "layer/overflow": np.array([[overflow] * 10, [overflow_1] * 10]),
        }
        (step,) = set(d(True, frequency, m).values())
        return step

    for _ in range(150):
        frequency = int(rng.choice([3, 7, 10, 49, 100, 1000]))
        total = sum(
            [float(f4(1) / f4(rng.choice([1200, 784, 10, 2400, 37])))] * int(rng.randint(1, 40))
        )
        mean = total / frequency
        below = np.nextafter(mean, 0)
        products_differ += mean != total * (1 / frequency)
        steps = [moved(total, total, frequency, m) for m in (mean, below)] + [
            moved(0, total, frequency, below)
        ]
        assert steps == [-1, 1, 0], f"{total!r} / {frequency}"
    assert products_differ > 20  # a product with the reciprocal would not do


def test_parameters_are_observed_at_the_width_they_are_stored_with(dynamics_1200):
    d = dynamics_1200
    v = np.full(1200, 1 - 2.0**-9, f4)  # the largest value of 9 bits, not of 11
    for due in (False, True):
        d.state = {
            "layer/ranges": np.zeros(10, "int32"),
            "layer/overflow": np.zeros((2, 10)),
            "layer/epoch_overflow": np.zeros(10),
        }
        ranges = d(due, 1, 0.5, prop=9, up=11, **dict.fromkeys(SIGNALS, v))
        assert ranges == {name: 0 if name in "wb" or not due else 1 for name in SIGNALS}
        assert d.state["layer/epoch_overflow"].tolist() == [
            float(name not in "wb") for name in SIGNALS
        ]
        assert d.state["layer/overflow"].any() == (not due)


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if not f.follows_overflow])
def test_only_dynamic_formats_update_ranges(name):
    ranges = Ranges("layer", FORMATS[name], 3)
    assert ranges.updates(ranges.signals(None, None), None, None, None) == {}
    assert ranges.ranges.get_value().tolist() == [3] * 10


def test_flp_is_the_identity():
    x = object()
    assert FORMATS["FLP"].quantize(x, None, None) is x
