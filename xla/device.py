"""The device that computes: choice, name, memory and failures, and arrays on it."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from errors import DeviceFailed, DeviceMissing
from xla import cuda_installed, stderr_aside

# Whatever JAX_... in the environment says: a run would have other bits, end in an error of JAX's,
# or take days.
SETTLED = {
    "jax_debug_infs": False,
    "jax_debug_nans": False,
    "jax_disable_jit": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_random_seed_offset": 0,
    "jax_threefry_partitionable": True,
    "jax_transfer_guard": "allow",
}
# What XLA for GPUs is told through the environment, unless it says something already.
GPU_SETTINGS = {
    # A run needs under 2 GB; JAX would take three quarters of the memory there is.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    # Convolutions by Winograd's method round between their products, also of small integers.
    "TF_ENABLE_WINOGRAD_NONFUSED": "0",
}
_OPTIONS: dict[str, str | bool] = {}  # of XLA's compiler for GPUs


def select_device(
    name: str, deterministic: bool = False, tell: Callable[[str], object] | None = None
) -> jax.Device:
    """Compute on this device from now on; before anything is computed.

    Parameters
    ----------
    name
        "cpu", "gpu", or "auto": a GPU if there is one.
    deterministic
        The same bits in every run on a GPU, too, where XLA else chooses among kernels
        and orders of sums.
    tell
        Is told in a line where "auto" is a CPU though JAX's CUDA packages are there.

    Raises
    ------
    DeviceMissing
    """
    for setting, value in SETTLED.items():
        jax.config.update(setting, value)
    _OPTIONS["xla_gpu_deterministic_ops"] = deterministic
    for setting, value in GPU_SETTINGS.items():
        os.environ.setdefault(setting, value)
    if name != "auto":
        jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[name])
        jax.config.update("jax_platform_name", "")  # as JAX_PLATFORM_NAME may have it
    failures: list[str] = []
    try:
        with _quiet(failures):
            device = jax.devices()[0]
    except (RuntimeError, AssertionError) as error:  # JAX's own, where its CUDA plugin is missing
        reason = failures[0] if failures else str(error) and _one_line(error)
        raise DeviceMissing(_missing(name, reason)) from None
    if name == "auto" and device.platform == "cpu" and failures and tell:
        tell(
            f"computing on the CPU: JAX's CUDA packages find no GPU to use ({failures[0]}); "
            "it needs an NVIDIA driver for CUDA 12"
        )
    return device


def _missing(name: str, reason: str) -> str:
    """What is wrong, and what to do, where JAX does not find a device."""
    if name == "gpu" and cuda_installed():
        remedy = "it needs an NVIDIA driver for CUDA 12 and a GPU; or use --device cpu"
    elif name == "gpu":
        remedy = "install requirements-cuda.txt or use --device cpu"
    elif setting := next(
        (s for s in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if s in os.environ), ""
    ):
        remedy = f"unset {setting} or use --device cpu"
    else:
        remedy = "use --device cpu" if name == "auto" else "install requirements.txt once more"
    what = {"gpu": "no GPU", "cpu": "no CPU", "auto": "no device"}[name]
    why = f" ({reason})" if reason else ""
    return f"JAX finds {what}{why}; {remedy}"


@contextlib.contextmanager
def _quiet(failures: list[str]) -> Iterator[None]:
    """Within it, JAX may look for devices; why a plugin of its fails is put into `failures`.

    It would log that with a traceback.
    """

    def note(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            failures.append(_one_line(record.exc_info[1]))
        return False

    logger = logging.getLogger("jax._src.xla_bridge")
    logger.addFilter(note)
    try:
        with stderr_aside():
            yield
    finally:
        logger.removeFilter(note)


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


def known_lengths_pay() -> bool:
    """Whether a loop is faster if its length is part of the program."""
    return jax.default_backend() != "cpu"


def compiler_options() -> dict[str, str | bool]:
    """What XLA is to be told when it compiles, as `select_device` has been told."""
    if jax.default_backend() == "cpu":
        return {}
    return {name: value for name, value in _OPTIONS.items() if value}


def compiled_for() -> list[str]:
    """What a compiled program depends on besides the processor: on a GPU, GPU and driver."""
    if jax.default_backend() == "cpu":
        return []
    device = jax.devices()[0]
    settings = [os.environ.get(name) for name in GPU_SETTINGS]
    return [device_name(), device.client.platform_version, f"{compiler_options()} {settings}"]


def to_device(tree: Any) -> Any:
    """Arrays on the device, copied: what is donated later must not be the caller's."""
    return jax.device_put(tree, may_alias=False)


def to_host(tree: Any) -> Any:
    """NumPy copies of device arrays."""
    return jax.tree.map(lambda a: np.array(a), tree)


def wait(tree: Any) -> Any:
    """The same device arrays, computed."""
    return jax.block_until_ready(tree)
