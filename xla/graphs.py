"""PyTensor graphs as functions of JAX arrays."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from pytensor.compile.mode import optdb
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.link.jax.dispatch import jax_funcify
from pytensor.tensor.sharedvar import TensorSharedVariable
from pytensor.tensor.variable import TensorVariable

Arrays = Mapping[str, Any]  # of JAX or NumPy
ArrayFunction = Callable[[Arrays, Arrays], list[jax.Array]]


def to_jax(
    inputs: Mapping[str, TensorVariable],
    shared: Sequence[TensorSharedVariable],
    outputs: Sequence[TensorVariable],
) -> ArrayFunction:
    """A pure function of arrays from a PyTensor graph.

    Returns
    -------
    function
        (values of the inputs by name, values of the shared variables by their names) ->
        values of the outputs.
    """
    graph = FunctionGraph([*inputs.values(), *shared], list(outputs), clone=True)
    for variable in graph.inputs:
        variable.name = None  # the generated code chooses names of its own
    # No rewrites but the necessary: the others reorder algebra, which decides last
    # bits.
    optdb.query(RewriteDatabaseQuery(include=["minimum_compile", "jax"])).rewrite(graph)
    with jax.ensure_compile_time_eval():  # its constants outlive the trace that may be going on
        code = jax_funcify(graph)
    _delete_file_of(code)
    names = [str(v.name) for v in shared]

    def function(values: Arrays, state: Arrays) -> list[jax.Array]:
        return list(code(*(values[name] for name in inputs), *(state[name] for name in names)))

    return function


def _delete_file_of(code: Any) -> None:
    """PyTensor leaves a temporary file with each function that it generates."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        path = Path(code.__code__.co_filename)
        if path.read_text() == code.__source__:
            path.unlink()


def compiled(
    inputs: Mapping[str, TensorVariable],
    shared: Sequence[TensorSharedVariable],
    outputs: Sequence[TensorVariable],
) -> ArrayFunction:
    """`to_jax`, compiled."""
    function = to_jax(inputs, shared, outputs)

    def run(values: Arrays, state: Arrays) -> list[jax.Array]:
        with jax.default_matmul_precision("highest"):
            return function(values, state)

    return jax.jit(run)
