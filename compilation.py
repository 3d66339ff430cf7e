"""From PyTensor graphs to compiled XLA programs: segments of training batches, evaluation of a whole set.

The state of a run is a dict of device arrays named after the shared variables ("layer0/W"). It is donated from segment to
segment and never visits the host in between. `ops` and this module are the only ones that know JAX.
"""

import contextlib
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pytensor.compile.mode import optdb
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.link.jax.dispatch import jax_funcify

import ops
from errors import DeviceFailed, DeviceMissing
from program_cache import PROGRAMS, Program, cache_programs


@contextlib.contextmanager
def device_failures():
    """Within it, what a device raises that is out of memory, or gone, is a DeviceFailed."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise DeviceFailed(f"the device cannot go on ({what})") from error


def select_device(name, deterministic=False):
    """Compute on "cpu", "gpu" or, with "auto", on a GPU if there is one; before anything is computed.

    deterministic: the same bits in every run on a GPU, too, where XLA else chooses among kernels and orders of sums.
    """
    if deterministic:
        os.environ["XLA_FLAGS"] = (
            os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
        )
    if name != "auto":
        jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[name])
    try:
        return jax.devices()[0]
    except (RuntimeError, AssertionError) as error:  # JAX's own, where its CUDA plugin is missing
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise DeviceMissing(
            f"JAX finds no {name} ({why}); install requirements-cuda.txt or use --device cpu"
        ) from None


def keep_programs():
    """Keep compiled programs from now on (see `program_cache`)."""
    cache_programs()


def device_name():
    """The device in use, for the record."""
    device = jax.devices()[0]
    return f"{device.platform}: {device.device_kind}"


def tf32_pays():
    """Whether products of TF32 numbers are faster here: then narrow formats have a program of their own (see `ops`)."""
    return jax.default_backend() != "cpu"


def batching_pays():
    """Whether several runs are faster as one batched computation than one after the other: a CPU's caches hold one."""
    return jax.default_backend() != "cpu"


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


def dropout_mask(key, p, shape):
    """Bernoulli(p) float32 zeros and ones from a JAX key: one random bit an element for p = 1/2, else 16."""
    if p == 0.5:
        size = int(np.prod(shape))
        words = jax.random.bits(key, (-(-size // 32), 1), "uint32")
        return (
            ((words >> jnp.arange(32, dtype="uint32")) & 1)
            .ravel()[:size]
            .reshape(shape)
            .astype("float32")
        )
    return (jax.random.bits(key, shape, "uint16") < np.uint16(round(p * 2**16))).astype("float32")


def mask_state(seed):
    """The state of the device's mask generator: a key, and how many batches it has served."""
    return {
        "masks/key": jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
        "masks/batches": jnp.zeros((), "uint32"),
    }


def to_device(tree):
    """Arrays on the device, copied: what is donated later must not be the caller's."""
    return jax.device_put(tree, may_alias=False)


def to_host(tree):
    """NumPy copies of device arrays."""
    return jax.tree.map(lambda a: np.array(a), tree)


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
        self._shapes = [(batch_size, layer.input_size) for layer in network.layers]
        self._program = Program(
            self._run,
            lambda: ("training", network.description, batch_size, segment, masks),
            donate=0,
            static=("narrow",),
            cache=cache,
        )
        self._together = Program(
            self._run_together,
            lambda: ("together", network.description, batch_size, segment, masks),
            donate=0,
            static=("narrow",),
            cache=cache,
        )

    @functools.cached_property
    def _graph(self):
        """The step as a function, and the names of what it computes."""
        inputs, updates = self.network.training_step(self._shapes[0][0])
        return to_jax(inputs, self.network.state, list(updates.values())), [v.name for v in updates]

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
            narrow=self.narrow(constants),
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
            narrow=self.narrow(constants[0]),
        )

    def narrow(self, constants):
        """Whether the program for narrow formats serves these constants: there are at most two."""
        return (
            tf32_pays()
            and self.network.format.significant_bits(int(constants["prop_bits"])) <= ops.TF32_BITS
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

    def _run_together(self, states, constants, x, t, rows, batches, count, masks, narrow=False):
        def one(state, constants, rows, batches, masks):
            return self._run(state, constants, x, t, rows, batches, count, masks, narrow)

        stacked = jax.tree.map(
            lambda *a: jnp.stack(a), *zip(states, constants, rows, batches, masks, strict=True)
        )
        new = (
            jax.vmap(one)(*stacked)
            if batching_pays()
            else lax.map(lambda member: one(*member), stacked)
        )
        return [jax.tree.map(lambda a, i=i: a[i], new) for i in range(len(states))]

    def _run(self, state, constants, x, t, rows, batches, count, masks, narrow=False):
        self.compilations += 1
        step, updated = self._graph

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

        with jax.default_matmul_precision("highest"), ops.narrow_operands(narrow):
            return lax.fori_loop(0, count, batch, state)


class TestProgram:
    """The compiled test-time pass: the number of errors on a whole set in one call."""

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


@jax.jit
def _finite(state):
    return {name: jnp.isfinite(v).all() for name, v in state.items()}


def not_finite(state, names):
    """Those of the named state arrays that hold a NaN or an infinity."""
    return [name for name, good in _finite({n: state[n] for n in names}).items() if not good]


def wait(tree):
    """The same device arrays, computed."""
    return jax.block_until_ready(tree)


def peak_memory():
    """The most device memory so far in GiB; None where the device does not count it."""
    return ((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use") or 0) / 2**30 or None


def matrix_products(operands):
    """A function that multiplies all pairs (a, b, ...) on the device, in full precision, and waits."""
    operands = to_device([pair[:2] for pair in operands])
    program = jax.jit(lambda pairs: [jnp.matmul(a, b, precision="highest") for a, b in pairs])
    return lambda: wait(program(operands))


def repeated(op, operands, times):
    """A function that computes an Op of `ops` on float32 arrays so many times, in a loop as training does, and waits."""

    @jax.jit
    def program(first, *others):
        return lax.fori_loop(
            0,
            times,
            lambda _, total: total + ops.keep(op.apply(first + 0 * total, *others)).ravel()[0],
            np.float32(0),
        )  # each turn needs the one before

    operands = to_device(operands)
    return lambda: wait(program(*operands))
