"""Functions of PyTensor variables, compiled: alone, in a loop, vectorized."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytensor.tensor as pt
import pytest
from jax import lax

from xla.graphs import compiled, to_jax


@cache
def graph(function, *types):
    inputs = {
        f"input{i}": pt.tensor(f"input{i}", dtype=dtype, shape=shape)
        for i, (dtype, shape) in enumerate(types)
    }
    outputs = function(*inputs.values())
    return inputs, list(outputs) if isinstance(outputs, tuple) else [outputs]


@cache
def program(function, *types):
    inputs, outputs = graph(function, *types)
    return compiled(inputs, [], outputs)


@cache
def loop(function, *types):
    inputs, outputs = graph(function, *types)
    code = to_jax(inputs, [], outputs)

    @jax.jit
    def repeat(values, count):
        start = jax.tree.map(
            lambda v: jnp.zeros(v.shape, v.dtype), jax.eval_shape(code, values, {})
        )
        return lax.fori_loop(0, count, lambda _, before: code(values, {}), start)

    return lambda values, _: repeat(values, np.int32(2))


def call(make, function, arrays):
    arrays = [np.asarray(a) for a in arrays]
    values = {f"input{i}": a for i, a in enumerate(arrays)}
    outputs = [
        np.asarray(a)
        for a in make(function, *((str(a.dtype), a.shape) for a in arrays))(values, {})
    ]
    return outputs if len(outputs) > 1 else outputs[0]


def run(function, *arrays):
    """function of variables, compiled, on these arrays; a list if it returns a tuple."""
    return call(program, function, arrays)


def run_looped(function, *arrays):
    """The same in a loop of unknown length, which XLA compiles in another way."""
    return call(loop, function, arrays)


def run_vectorized(function, *arrays):
    """The same, by jax.vmap, for two problems, the second with every input reversed."""
    inputs, outputs = graph(function, *((str(a.dtype), a.shape) for a in map(np.asarray, arrays)))
    code = jax.jit(jax.vmap(lambda values: to_jax(inputs, [], outputs)(values, {})[0]))
    pairs = {
        name: np.stack([a, np.flip(a)])
        for name, a in zip(inputs, map(np.asarray, arrays), strict=True)
    }
    return np.asarray(code(pairs))


EVERYWHERE = pytest.mark.parametrize("run", [run, run_looped], ids=["alone", "looped"])


def equations(jaxpr):
    """Every equation of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


CONSTANTS = {
    "LR": np.float32(0.1),
    "M": np.float32(0.5),
    "prop_bits": np.int32(9),
    "up_bits": np.int32(11),
    "frequency": np.int32(2),
    "max_overflow": np.float64(0),
}
