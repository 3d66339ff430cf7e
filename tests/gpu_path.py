"""The program as a GPU gets it, on a CPU, with what a GPU's arithmetic may do to it.

    GPU_PATH=tf32,div,sqrt,exp,convert python -m pytest -p tests.gpu_path tests/test_ops.py ...

runs tests in this way; without GPU_PATH with all DEVIATIONS. They take the place of JAX's
primitives, so that no way of writing an operation escapes them. What else a GPU does is
looked at in the code that XLA makes for it (tests/test_gpu_code.py).
"""

import contextlib
import os
from collections import Counter

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend.core import primitives

HIGHEST = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)


def off(x, units):
    """x, a quarter of it some units in the last place nearer to zero, a quarter further off.

    Which of it is decided by its bits. Zeros, subnormal numbers, infinities and NaN stay.
    """
    bits = lax.bitcast_convert_type(x, f"int{8 * x.dtype.itemsize}")
    mixed = (bits ^ (bits >> 7) ^ (bits >> 13)) & 3
    step = units * ((mixed == 1).astype(bits.dtype) - (mixed == 2).astype(bits.dtype))
    size = jnp.abs(x)
    limits = jnp.finfo(x.dtype)
    inside = (size > limits.smallest_normal) & (size < limits.max)
    return lax.bitcast_convert_type(bits + jnp.where(inside, step, 0), x.dtype)


def tf32_or_nan(x):
    """x as a TF32 number; NaN where that is not x: nothing that is lost stays hidden."""
    rounded = lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10)
    return jnp.where(rounded == x, rounded, jnp.float32(jnp.nan))


def approximate(units, *dtypes):
    """Results of these types err by up to so many units in the last place."""

    def deviation(plain, note):
        def bind(*operands, **options):
            out = plain(*operands, **options)
            if out.dtype not in dtypes:
                return out
            note()
            return off(out, units)

        return bind

    return deviation


def product_in_tf32(plain, note):
    """Products of float32 that need not be of the highest precision."""

    def bind(a, b, **options):
        if a.dtype == jnp.float32 and options["precision"] != HIGHEST:
            note()
            a, b = tf32_or_nan(a), tf32_or_nan(b)
        return plain(a, b, **options)

    return bind


def no_rounding_in_between():
    """float64 -> float32 -> float64 is nothing, also where the float32 is moved about."""
    widened = {}  # id of a float32 -> it, which keeps its id, and the float64 that it was

    def conversion(plain, note):
        def bind(x, **options):
            out = plain(x, **options)
            if id(x) in widened and out.dtype == jnp.float64:
                note()
                return widened[id(x)][1]
            if out.dtype == jnp.float32 and jnp.result_type(x) == jnp.float64:
                widened[id(out)] = out, x
            return out

        return bind

    def move(plain, note):
        def bind(x, *sizes, **options):
            out = plain(x, *sizes, **options)
            if id(x) in widened:
                widened[id(out)] = out, plain(widened[id(x)][1], *sizes, **options)
            return out

        return bind

    moves = ("copy_p", "reshape_p", "transpose_p", "broadcast_in_dim_p", "squeeze_p")
    return {"convert_element_type_p": conversion} | dict.fromkeys(moves, move)


# What a GPU may do: the primitives that are others, and in which way.
DEVIATIONS = {
    "tf32": lambda: dict.fromkeys(("dot_general_p", "conv_general_dilated_p"), product_in_tf32),
    "div": lambda: {"div_p": approximate(2, "float32")},
    "sqrt": lambda: dict.fromkeys(("sqrt_p", "rsqrt_p"), approximate(1, "float32")),
    "exp": lambda: dict.fromkeys(
        ("exp_p", "exp2_p", "log_p"), approximate(2, "float32", "float64")
    ),
    "convert": no_rounding_in_between,
}


@contextlib.contextmanager
def gpu_path(*names):
    """Within it, what is traced is for a GPU, with these DEVIATIONS.

    Gives a Counter: how many operations each has changed.
    """
    counted = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        for name in names:
            for primitive, deviation in DEVIATIONS[name]().items():
                changed = getattr(primitives, primitive)

                def note(name=name):
                    counted[name] += 1

                patch.setitem(vars(changed), "bind", deviation(changed.bind, note))
        jax.clear_caches()  # of what was traced before
        try:
            yield counted
        finally:
            jax.clear_caches()


class WholeSession:
    """The plug-in."""

    def __init__(self):
        self.names = [n for n in os.environ.get("GPU_PATH", ",".join(DEVIATIONS)).split(",") if n]
        self.path = gpu_path(*self.names)
        self.counted = self.path.__enter__()

    def pytest_terminal_summary(self, terminalreporter):
        counted = ", ".join(f"{name} {self.counted[name]}" for name in self.names)
        terminalreporter.write_line(f"as on a GPU; operations changed: {counted or 'none'}")

    def pytest_unconfigure(self):
        self.path.__exit__(None, None, None)


def pytest_configure(config):
    """For -p tests.gpu_path."""
    config.pluginmanager.register(WholeSession())
