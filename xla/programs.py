"""Compiled programs: segments of training batches, and the evaluation of a whole set.

The state of a run is a dict of device arrays named after the shared variables
("layer0/W"). It is donated from segment to segment and never visits the host in
between.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pytensor.tensor.sharedvar import TensorSharedVariable
from pytensor.tensor.variable import TensorVariable

from xla import device, products
from xla.graphs import ArrayFunction, to_jax
from xla.masks import draw_masks
from xla.program_cache import PROGRAMS, Program, ProgramCache

State = dict[str, jax.Array]
Constants = dict[str, np.generic]
Masks = list[np.ndarray] | None
Graph = tuple[dict[str, TensorVariable], Any]


class NetworkGraphs(Protocol):
    """What is asked of a network (see model.Network)."""

    @property
    def layers(self) -> Sequence[Any]: ...

    @property
    def format(self) -> Any: ...

    @property
    def description(self) -> tuple: ...

    @property
    def state(self) -> Sequence[TensorSharedVariable]: ...

    def training_step(self, batch_size: int, tf32: bool = False) -> Graph: ...

    def test_step(self, batch_size: int) -> Graph: ...


class TrainingProgram:
    """The compiled training step of a network, over segments of batches.

    Parameters
    ----------
    segment
        So many batches at most.
    masks
        "device": drawn from the state's generator; "given": an argument of each call.

    Attributes
    ----------
    compilations
        How often the step was traced.
    """

    def __init__(
        self,
        network: NetworkGraphs,
        batch_size: int,
        segment: int,
        masks: str = "device",
        cache: ProgramCache = PROGRAMS,
    ) -> None:
        self.network = network
        self.segment = segment
        self.masks = masks
        self.compilations = 0
        self._batch_size = batch_size
        self._steps: dict[bool, tuple[ArrayFunction, list[str]]] = {}
        self.program = self._cached("training", self._run, cache)
        self.team_program = self._cached("together", self._run_together, cache)

    def _cached(self, kind: str, function: Any, cache: ProgramCache) -> Program:
        def describe() -> tuple:
            return kind, self.network.description, self._batch_size, self.segment, self.masks

        return Program(function, describe, donate=0, static=("tf32", "whole"), cache=cache)

    def __call__(
        self,
        state: State,
        constants: Constants,
        x: jax.Array,
        t: jax.Array,
        rows: np.ndarray,
        batches: int,
        masks: Masks = None,
    ) -> State:
        """Train on a segment; `state` is consumed and its successor returned.

        Parameters
        ----------
        constants
            LR, M, prop_bits, up_bits, frequency, max_overflow.
        x, t
            float32 (n, inputs) and (n, classes), on the device.
        rows
            int32 (count, batch_size), count <= segment: the rows of x and t that make
            up each batch.
        batches
            Batches of this epoch before this segment.
        masks
            uint8 (count, batch_size, layer inputs), one a layer, for masks="given".
        """
        rows, masks, count = self._filled_up(rows, masks)
        before = np.int32(batches)
        static = self.static(constants, count)
        return self.program(state, constants, x, t, rows, before, count, masks, **static)

    def together(self, calls: Sequence[tuple]) -> list[State]:
        """What `__call__` gives for each of several argument tuples, as one program.

        They must have the same x and t, rows of the same shape, and the same `narrow`.
        See `device.batching_pays`.
        """
        if len(calls) == 1:
            return [self(*calls[0])]
        states, constants, x, t, rows, batches, masks = zip(*calls, strict=True)
        pairs = zip(rows, masks, strict=True)
        rows, masks, counts = zip(*(self._filled_up(*pair) for pair in pairs), strict=True)
        before = tuple(map(np.int32, batches))
        static = self.static(constants[0], counts[0])
        return self.team_program(
            states, constants, x[0], t[0], rows, before, counts[0], masks, **static
        )

    def static(self, constants: Constants, count: np.int32) -> dict[str, bool]:
        """What tells the programs apart: whether in TF32, and whether of a whole segment.

        A GPU asks the host after each batch whether there is another, unless their
        number is part of the program.
        """
        whole = device.known_lengths_pay() and count == self.segment
        return {"tf32": self.narrow(constants), "whole": bool(whole)}

    def narrow(self, constants: Constants) -> bool:
        """Whether the step in TF32 serves these constants (see `products`)."""
        if not device.tf32_pays():
            return False
        bits = self.network.format.significant_bits(int(constants["prop_bits"]))
        return bits <= products.TF32_BITS

    def _filled_up(self, rows: np.ndarray, masks: Masks) -> tuple[np.ndarray, Masks, np.int32]:
        """Rows and masks of a whole segment, and how many batches of it count.

        So one program serves all lengths.
        """

        def fill(a: np.ndarray) -> np.ndarray:
            missing = np.zeros((self.segment - len(rows), *a.shape[1:]), a.dtype)
            return np.concatenate([a, missing])

        count = np.int32(len(rows))
        if count < self.segment:
            masks = masks and [fill(mask) for mask in masks]
            rows = fill(rows)
        return rows, masks, count

    def _step(self, tf32: bool) -> tuple[ArrayFunction, list[str]]:
        """The step as a function, and the names of what it computes."""
        if tf32 not in self._steps:
            inputs, updates = self.network.training_step(self._batch_size, tf32)
            step = to_jax(inputs, self.network.state, list(updates.values()))
            self._steps[tf32] = (step, [v.name for v in updates])
        return self._steps[tf32]

    def _run(
        self,
        state: State,
        constants: Any,
        x: jax.Array,
        t: jax.Array,
        rows: jax.Array,
        batches: jax.Array,
        count: jax.Array,
        masks: Any,
        tf32: bool = False,
        whole: bool = False,
    ) -> State:
        """`__call__`, as it is traced."""
        self.compilations += 1
        step, updated = self._step(tf32)
        layers = self.network.layers
        shapes = [(self._batch_size, layer.input_size) for layer in layers]

        def batch(i: jax.Array, state: State) -> State:
            if self.masks == "device":
                drawn, state = draw_masks(state, [layer.p for layer in layers], shapes)
            else:
                drawn = [m[i].astype("float32") for m in masks]
            values = constants | {"x": x[rows[i]], "t": t[rows[i]], "batches": batches + i}
            values |= {f"mask{k}": mask for k, mask in enumerate(drawn)}
            return state | dict(zip(updated, step(values, state), strict=True))

        with jax.default_matmul_precision("highest"):
            return lax.fori_loop(0, np.int32(self.segment) if whole else count, batch, state)

    def _run_together(
        self,
        states: Sequence[State],
        constants: Any,
        x: jax.Array,
        t: jax.Array,
        rows: Sequence[jax.Array],
        batches: Sequence[jax.Array],
        count: jax.Array,
        masks: Any,
        tf32: bool = False,
        whole: bool = False,
    ) -> list[State]:
        """`together`, as it is traced."""

        def one(member: tuple) -> State:
            state, constants, rows, batches, masks = member
            return self._run(state, constants, x, t, rows, batches, count, masks, tf32, whole)

        members = zip(states, constants, rows, batches, masks, strict=True)
        stacked = jax.tree.map(lambda *a: jnp.stack(a), *members)
        new = jax.vmap(one)(stacked) if device.batching_pays() else lax.map(one, stacked)
        return [jax.tree.map(lambda a, i=i: a[i], new) for i in range(len(states))]


class TestProgram:
    """The compiled test-time pass: the number of errors on a whole set in one call."""

    __test__ = False  # it is no test of pytest's

    def __init__(
        self, network: NetworkGraphs, batch_size: int, cache: ProgramCache = PROGRAMS
    ) -> None:
        self.network = network
        self.batch_size = batch_size

        def describe() -> tuple:
            return "test", network.description, batch_size

        self.program = Program(self._count, describe, cache=cache)

    def arrange(self, x: np.ndarray, t: np.ndarray) -> tuple[jax.Array, jax.Array]:
        """A set as the program wants it: device arrays of whole batches.

        The last batch is filled up with examples of class -1, which count for nothing.

        Parameters
        ----------
        x, t
            (n, inputs), and one-hot (n, classes).
        """
        missing = -len(x) % self.batch_size
        x = np.concatenate([x, np.zeros((missing, x.shape[1]), x.dtype)])
        classes = np.concatenate([t.argmax(axis=1), np.full(missing, -1)]).astype("int32")
        batches = (x.reshape(-1, self.batch_size, x.shape[1]), classes.reshape(-1, self.batch_size))
        return device.to_device(batches)

    def __call__(
        self,
        state: State,
        prop_bits: np.int32,
        x: jax.Array,
        classes: jax.Array,
        first: int = 0,
        last: int | None = None,
    ) -> int:
        """The wrong examples in batches first..last-1; x and classes from `arrange`."""
        last = len(x) if last is None else min(last, len(x))
        return int(self.program(state, prop_bits, x, classes, np.int32(first), np.int32(last)))

    def _count(
        self,
        state: State,
        prop_bits: jax.Array,
        x: jax.Array,
        classes: jax.Array,
        first: jax.Array,
        last: jax.Array,
    ) -> jax.Array:
        """`__call__`, as it is traced."""
        inputs, outputs = self.network.test_step(self.batch_size)
        test_pass = to_jax(inputs, self.network.state, outputs[-1:])

        def batch(i: jax.Array, errors: jax.Array) -> jax.Array:
            (y,) = test_pass({"x": x[i], "prop_bits": prop_bits}, state)
            wrong = (y.argmax(axis=1) != classes[i]) & (classes[i] >= 0)
            return errors + wrong.sum(dtype="int32")

        with jax.default_matmul_precision("highest"):
            return lax.fori_loop(first, last, batch, jnp.int32(0))
