"""From PyTensor graphs to compiled XLA programs: segments of training batches, evaluation of a whole set.

The state of a run is a dict of device arrays named after the shared variables ("layer0/W"). It is donated from segment to
segment and never visits the host in between.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pytensor.compile.mode import optdb
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.link.jax.dispatch import jax_funcify

from xla import device, ops, products
from xla.device import to_device
from xla.masks import dropout_mask
from xla.program_cache import PROGRAMS, Program


def to_jax(inputs, shared, outputs):
    """A pure function of arrays from a PyTensor graph.

    Parameters
    ----------
    inputs : dict of name -> variable
    shared : list of shared variables
    outputs : list of variables

    Returns
    -------
    function (inputs: dict of name -> array, state: dict of shared name -> array) -> list of arrays
    """
    graph = FunctionGraph([*inputs.values(), *shared], list(outputs), clone=True)
    for variable in graph.inputs:
        variable.name = None  # the generated code chooses names of its own
    # No rewrites but the necessary: the others reorder algebra, and the order decides last bits.
    optdb.query(RewriteDatabaseQuery(include=["minimum_compile", "jax"])).rewrite(graph)
    with jax.ensure_compile_time_eval():  # its constants outlive the trace that may be going on
        code = jax_funcify(graph)
    names = [v.name for v in shared]

    def function(values, state):
        return list(code(*(values[name] for name in inputs), *(state[name] for name in names)))

    return function


def compiled(inputs, shared, outputs):
    """`to_jax`, compiled."""
    function = to_jax(inputs, shared, outputs)

    def run(values, state):
        with jax.default_matmul_precision("highest"):
            return function(values, state)

    return jax.jit(run)


class TrainingProgram:
    """The compiled training step of a network, over segments of at most `segment` batches.

    Parameters
    ----------
    network : model.Network
    batch_size, segment : int
    masks : "device" (drawn from the state's generator) or "given" (an argument of each call)
    cache : ProgramCache
    """

    def __init__(self, network, batch_size, segment, masks="device", cache=PROGRAMS):
        self.network, self.segment, self.masks = network, segment, masks
        self.compilations = 0
        self._steps = {}
        self._shapes = [(batch_size, layer.input_size) for layer in network.layers]
        self._program = Program(
            self._run,
            lambda: ("training", network.description, batch_size, segment, masks),
            donate=0,
            static=("tf32",),
            cache=cache,
        )
        self._together = Program(
            self._run_together,
            lambda: ("together", network.description, batch_size, segment, masks),
            donate=0,
            static=("tf32",),
            cache=cache,
        )

    def _step(self, tf32):
        """The step as a function, and the names of what it computes."""
        if tf32 not in self._steps:
            inputs, updates = self.network.training_step(self._shapes[0][0], tf32)
            step = to_jax(inputs, self.network.state, list(updates.values()))
            self._steps[tf32] = step, [v.name for v in updates]
        return self._steps[tf32]

    def __call__(self, state, constants, x, t, rows, batches, masks=None):
        """Train on a segment; `state` is consumed and its successor returned.

        Parameters
        ----------
        state : dict of device arrays
        constants : dict
            LR, M, prop_bits, up_bits, frequency, max_overflow.
        x, t : device arrays, float32 (n, inputs) and (n, classes)
        rows : int32 (count, batch_size)
            The rows of x and t that make up each batch; count <= segment.
        batches : int
            Batches of this epoch before this segment.
        masks : list of uint8 (count, batch_size, layer inputs), one a layer, for masks="given"
        """
        rows, masks, count = self._filled_up(rows, masks)
        return self._program(
            state,
            constants,
            x,
            t,
            rows,
            np.int32(batches),
            count,
            masks,
            tf32=self.narrow(constants),
        )

    def together(self, calls):
        """What `__call__` gives for each of several argument tuples, as one program; a list of states.

        They must have the same x and t, rows of the same shape, and the same `narrow`. See `batching_pays`.
        """
        if len(calls) == 1:
            return [self(*calls[0])]
        states, constants, x, t, rows, batches, masks = zip(*calls, strict=True)
        rows, masks, counts = zip(
            *(self._filled_up(r, m) for r, m in zip(rows, masks, strict=True)), strict=True
        )
        return self._together(
            states,
            constants,
            x[0],
            t[0],
            rows,
            tuple(map(np.int32, batches)),
            counts[0],
            masks,
            tf32=self.narrow(constants[0]),
        )

    def narrow(self, constants):
        """Whether the program in TF32 serves these constants (see `products`)."""
        return (
            device.tf32_pays()
            and self.network.format.significant_bits(int(constants["prop_bits"]))
            <= products.TF32_BITS
        )

    def _filled_up(self, rows, masks):
        """(rows, masks) of a whole segment, and how many batches of it count: one program for all lengths."""
        count, missing = len(rows), self.segment - len(rows)
        if missing:
            rows, *masks_ = (
                np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)])
                for a in (rows, *(masks or []))
            )
            masks = masks and masks_
        return rows, masks, np.int32(count)

    def _run_together(self, states, constants, x, t, rows, batches, count, masks, tf32=False):
        def one(state, constants, rows, batches, masks):
            return self._run(state, constants, x, t, rows, batches, count, masks, tf32)

        stacked = jax.tree.map(
            lambda *a: jnp.stack(a), *zip(states, constants, rows, batches, masks, strict=True)
        )
        new = (
            jax.vmap(one)(*stacked)
            if device.batching_pays()
            else lax.map(lambda member: one(*member), stacked)
        )
        return [jax.tree.map(lambda a, i=i: a[i], new) for i in range(len(states))]

    def _run(self, state, constants, x, t, rows, batches, count, masks, tf32=False):
        self.compilations += 1
        step, updated = self._step(tf32)

        def batch(i, state):
            if self.masks == "device":
                key = jax.random.wrap_key_data(state["masks/key"], impl="threefry2x32")
                key = jax.random.fold_in(key, state["masks/batches"])
                keys = jax.vmap(lambda k: jax.random.fold_in(key, k))(jnp.arange(len(self._shapes)))
                drawn = [
                    ops.keep(dropout_mask(key, layer.p, shape))
                    for key, layer, shape in zip(
                        keys, self.network.layers, self._shapes, strict=True
                    )
                ]
                state = state | {"masks/batches": state["masks/batches"] + np.uint32(1)}
            else:
                drawn = [m[i].astype("float32") for m in masks]
            values = constants | {"x": x[rows[i]], "t": t[rows[i]], "batches": batches + i}
            values |= {f"mask{k}": mask for k, mask in enumerate(drawn)}
            return state | dict(zip(updated, step(values, state), strict=True))

        with jax.default_matmul_precision("highest"):
            return lax.fori_loop(0, count, batch, state)


class TestProgram:
    """The compiled test-time pass: the number of errors on a whole set in one call."""

    __test__ = False  # it is no test of pytest's

    def __init__(self, network, batch_size, cache=PROGRAMS):
        self.network, self.batch_size = network, batch_size
        self._program = Program(
            self._count, lambda: ("test", network.description, batch_size), cache=cache
        )

    def arrange(self, x, t):
        """A set as the program wants it: x (n, inputs), t one-hot (n, classes) -> device arrays of whole batches.

        The last batch is filled up with examples of class -1, which count for nothing.
        """
        missing = -len(x) % self.batch_size
        x = np.concatenate([x, np.zeros((missing, x.shape[1]), x.dtype)])
        classes = np.concatenate([t.argmax(axis=1), np.full(missing, -1)]).astype("int32")
        return to_device(
            (x.reshape(-1, self.batch_size, x.shape[1]), classes.reshape(-1, self.batch_size))
        )

    def __call__(self, state, prop_bits, x, classes, first=0, last=None):
        """Number of wrong examples in batches first..last-1; x and classes from `arrange`."""
        last = len(x) if last is None else min(last, len(x))
        return int(self._program(state, prop_bits, x, classes, np.int32(first), np.int32(last)))

    def _count(self, state, prop_bits, x, classes, first, last):
        inputs, outputs = self.network.test_step(self.batch_size)
        test_pass = to_jax(inputs, self.network.state, outputs[-1:])

        def batch(i, errors):
            (y,) = test_pass({"x": x[i], "prop_bits": prop_bits}, state)
            wrong = (y.argmax(axis=1) != classes[i]) & (classes[i] >= 0)
            return errors + wrong.sum(dtype="int32")

        with jax.default_matmul_precision("highest"):
            return lax.fori_loop(first, last, batch, jnp.int32(0))
