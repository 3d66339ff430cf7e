"""The device that computes: its choice, its name, its memory, its failures, and arrays on it."""

import contextlib
import os

import jax
import jax.numpy as jnp
import numpy as np

from errors import DeviceFailed, DeviceMissing


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


def to_device(tree):
    """Arrays on the device, copied: what is donated later must not be the caller's."""
    return jax.device_put(tree, may_alias=False)


def to_host(tree):
    """NumPy copies of device arrays."""
    return jax.tree.map(lambda a: np.array(a), tree)


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
