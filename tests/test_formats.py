"""The formats that are not the paper's, compiled, against ml_dtypes and exact arithmetic."""

import ml_dtypes
import numpy as np
import pytensor.tensor as pt
import pytest
from compiling import EVERYWHERE, run, run_looped, run_vectorized

from format import FORMATS

f4 = np.float32
EIGHT_BITS = {
    "E4M3": (ml_dtypes.float8_e4m3fn, 448.0, 9),  # its type, largest value, integer bits
    "E5M2": (ml_dtypes.float8_e5m2, 57344.0, 16),
}
EVERY_RANGE = (-64, -9, -1, 0, 3, 9, 16, 64)


def unscaled(name):
    return lambda x: FORMATS[name].quantize(x, None, None)


def scaled(name):
    return lambda x, noib: FORMATS[name].quantize(x, None, noib)


QUANTIZE = {name: unscaled(name) for name in ("BF16", "E4M3", "E5M2")}
QUANTIZE |= {name: scaled(name) for name in ("E4M3S", "E5M2S")}


def codes(kind):
    """Every value of a type, in the order of its patterns."""
    bits = 8 * np.dtype(kind).itemsize
    return np.arange(2**bits).astype(f"uint{bits}").view(kind).astype(f4)


def same(found, expected):
    """Equal, signs of zeros included; NaN equals NaN."""
    np.testing.assert_array_equal(found, expected)
    there = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[there]), np.signbit(expected[there]))


def around(values):
    """Finite values, what lies halfway between neighbours, and the floats beside all these."""
    finite = np.unique(values[np.isfinite(values)]).astype("f8")
    points = np.concatenate([finite, (finite[:-1] + finite[1:]) / 2]).astype(f4)
    return np.concatenate(
        [points, np.nextafter(points, f4(np.inf)), np.nextafter(points, f4(-np.inf))]
    )


def beyond(top):
    """Numbers at the end of a format and beyond, and those that are none."""
    ends = f4(top) * f4([1, 1.01, 1.07142857, 1.0714287, 1.125, 1.25, 2, 1e3])
    return np.concatenate([ends, -ends, f4([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-38, 3e38])])


@EVERYWHERE
@pytest.mark.parametrize("name", EIGHT_BITS)
def test_every_code_of_eight_bits(run, name):
    """All 256: what the format has stays, an infinity saturates, NaN stays."""
    kind, top, _ = EIGHT_BITS[name]
    values = codes(kind)
    assert len(values) == 256
    expected = np.where(np.isinf(values), np.copysign(f4(top), values), values)
    same(run(QUANTIZE[name], values), expected)
    assert np.count_nonzero(np.abs(expected) == top) == (2 if name == "E4M3" else 4)
    assert np.count_nonzero(np.isnan(expected)) == (2 if name == "E4M3" else 6)


@EVERYWHERE
@pytest.mark.parametrize("name", EIGHT_BITS)
def test_rounding_to_eight_bits(run, name):
    """To nearest, ties to even, subnormals included; saturating."""
    kind, top, _ = EIGHT_BITS[name]
    wide = np.random.RandomState(0).normal(size=4000) * 2.0 ** np.arange(-20, 20).repeat(100)
    x = np.concatenate([around(codes(kind)), beyond(top), wide.astype(f4)])
    expected = np.clip(x, -top, top).astype(kind).astype(f4)
    found = run(QUANTIZE[name], x)
    same(found, expected)
    smallest = np.nanmin(np.abs(expected[expected != 0]))
    assert smallest == (2.0**-9 if name == "E4M3" else 2.0**-16)
    assert (found[np.isposinf(x)] == top).all() and np.isnan(found[np.isnan(x)]).all()


@EVERYWHERE
@pytest.mark.parametrize("name", EIGHT_BITS)
def test_eight_bits_with_a_range(run, name):
    """The same, 2^(NOIB - integer bits) times as large: below 2^NOIB, as fixed point is."""
    kind, top, integer_bits = EIGHT_BITS[name]
    x = np.concatenate([around(codes(kind)), beyond(top)])
    x = x[~((np.abs(x) > 0) & (np.abs(x) < 2.0**-40))]  # 1e-38 would be no number of a range
    expected = np.clip(x, -top, top).astype(kind).astype(f4)
    for noib in EVERY_RANGE:
        shift = f4(2.0 ** (noib - integer_bits))
        with np.errstate(over="ignore"):
            found = run(QUANTIZE[f"{name}S"], x * shift, np.int32(noib))
        same(found, expected * shift)
        assert 0.875 * 2.0**noib == np.nanmax(found)


@pytest.mark.parametrize("name", EIGHT_BITS)
def test_overflow_of_eight_bits_with_a_range(name):
    """Who is at the largest value or beyond, at NOIB and at NOIB-1."""

    def largest(noib):
        return FORMATS[f"{name}S"].largest(None, pt.stack([[noib, noib - 1]]))

    for noib in (-100, -7, 0, 64, 100):
        (found,) = run(largest, np.int32(noib))
        np.testing.assert_array_equal(found, f4([0.875 * 2.0**noib, 0.875 * 2.0 ** (noib - 1)]))
        stored = run(QUANTIZE[f"{name}S"], f4([np.inf, 0.93 * 2.0**noib]), np.int32(noib))
        assert (stored == found[0]).all()  # what has overflowed is counted where it is stored


@EVERYWHERE
def test_every_bfloat16(run):
    """All 65,536, as they are: subnormals, infinities and NaN as well."""
    values = codes(ml_dtypes.bfloat16)
    found = run(QUANTIZE["BF16"], values)
    assert len(values) == 65536
    number = ~np.isnan(values)
    np.testing.assert_array_equal(found.view("uint32")[number], values.view("uint32")[number])
    assert np.isnan(found[~number]).all()


@EVERYWHERE
def test_rounding_to_bfloat16(run):
    """To nearest, ties to even, between all neighbours; what is too large becomes infinite."""
    x = around(codes(ml_dtypes.bfloat16))
    ends = f4([3.3895314e38, 3.3961775e38, 3.3961777e38, 3.4028235e38, np.inf, np.nan, 1e-45])
    x = np.concatenate([x, ends, -ends])
    with np.errstate(over="ignore"):
        expected = x.astype(ml_dtypes.bfloat16).astype(f4)
    found = run(QUANTIZE["BF16"], x)
    number = ~np.isnan(x)
    np.testing.assert_array_equal(found.view("uint32")[number], expected.view("uint32")[number])
    assert np.isnan(found[~number]).all() and np.isinf(found[x == f4(3.3961777e38)]).all()


@pytest.mark.parametrize("name", QUANTIZE)
def test_vectorized(name):
    x = (np.random.RandomState(1).normal(size=1000) * 100).astype(f4)
    arguments = (x, np.int32(3)) if name.endswith("S") else (x,)
    first, second = run_vectorized(QUANTIZE[name], *arguments)
    np.testing.assert_array_equal(first, np.flip(second))
    np.testing.assert_array_equal(first, run_looped(QUANTIZE[name], *arguments))


@pytest.mark.parametrize(
    ("name", "bits"), [("BF16", 8), ("E4M3", 4), ("E5M2", 3), ("E4M3S", 4), ("E5M2S", 3)]
)
def test_significant_bits(name, bits):
    """As many as tell every value apart, and no fewer: TF32 products rest on it."""
    assert FORMATS[name].significant_bits(31) == bits
    kind = ml_dtypes.bfloat16 if name == "BF16" else EIGHT_BITS[name.removesuffix("S")][0]
    values = codes(kind)
    fractions = np.frexp(values[np.isfinite(values)])[0] * 2.0**bits
    assert (fractions == np.rint(fractions)).all() and (fractions % 2 == 1).any()
