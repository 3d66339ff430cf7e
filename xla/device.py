"""The device that computes: choice, name, memory and failures, and arrays on it."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from errors import DeviceFailed, DeviceMissing


def select_device(name: str, deterministic: bool = False) -> jax.Device:
    """Compute on this device from now on; before anything is computed.

    Parameters
    ----------
    name
        "cpu", "gpu", or "auto": a GPU if there is one.
    deterministic
        The same bits in every run on a GPU, too, where XLA else chooses among kernels
        and orders of sums.

    Raises
    ------
    DeviceMissing
    """
    if deterministic:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true"
    if name != "auto":
        jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[name])
    try:
        return jax.devices()[0]
    except (RuntimeError, AssertionError) as error:  # JAX's own, where its CUDA plugin is missing
        why = f" ({_one_line(error)})" if str(error) else ""
        raise DeviceMissing(
            f"JAX finds no {name}{why}; install requirements-cuda.txt or use --device cpu"
        ) from None


@contextlib.contextmanager
def device_failures() -> Iterator[None]:
    """Within it, what a device raises, out of memory or gone, is a DeviceFailed."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        raise DeviceFailed(f"the device cannot go on ({_one_line(error)})") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def device_name() -> str:
    """The device in use, for the record."""
    device = jax.devices()[0]
    return f"{device.platform}: {device.device_kind}"


def peak_memory() -> float | None:
    """The most device memory so far in GiB; None where the device does not count it."""
    statistics = jax.devices()[0].memory_stats() or {}
    return (statistics.get("peak_bytes_in_use") or 0) / 2**30 or None


def tf32_pays() -> bool:
    """Whether products of TF32 numbers are faster than others (see `products`)."""
    return jax.default_backend() != "cpu"


def batching_pays() -> bool:
    """Whether several runs are faster as one batched computation than in turn.

    A CPU's caches hold one.
    """
    return jax.default_backend() != "cpu"


def to_device(tree: Any) -> Any:
    """Arrays on the device, copied: what is donated later must not be the caller's."""
    return jax.device_put(tree, may_alias=False)


def to_host(tree: Any) -> Any:
    """NumPy copies of device arrays."""
    return jax.tree.map(lambda a: np.array(a), tree)


def wait(tree: Any) -> Any:
    """The same device arrays, computed."""
    return jax.block_until_ready(tree)


@jax.jit
def _finite(state: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.isfinite(v).all() for name, v in state.items()}


def not_finite(state: Mapping[str, jax.Array], names: Iterable[str]) -> list[str]:
    """Those of the named state arrays that hold a NaN or an infinity."""
    return [name for name, good in _finite({n: state[n] for n in names}).items() if not good]
