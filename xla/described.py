"""Programs for an NVIDIA GPU that is described, not there.

XLA's compiler for CUDA needs no GPU and no driver, only a description of the device and
the package jax-cuda12-pjrt of jaxlib's version (requirements-gpu-check.txt).
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from jax.experimental import topologies

from errors import MissingPackage
from xla import cuda_installed, stderr_aside
from xla.device import compiler_options
from xla.program_cache import Program


@dataclass(frozen=True)
class Compilation:
    """What XLA made of a program.

    Attributes
    ----------
    hlo
        The program after all of XLA's optimizations, in the order in which it runs.
    kernels
        The PTX of each kernel by its name.
    thunks
        What the host launches, and in which CUDA graphs.
    argument_bytes, temporary_bytes
        Memory of the inputs and outputs, and of what is computed in between.
    """

    hlo: str
    kernels: dict[str, str]
    thunks: str
    argument_bytes: int
    temporary_bytes: int


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Within it, operations are written as for a GPU, whatever computes."""
    with mock.patch.object(jax, "default_backend", lambda: "gpu"):
        yield


def compile_for(
    description: str, program: Program, arguments: tuple, **static: object
) -> Compilation:
    """A program, compiled for the GPU of a description, XLA's GpuTargetConfigProto as text.

    After `device.select_device("cpu")`.

    Parameters
    ----------
    arguments
        As the program is called with them; only shapes and types matter.

    Raises
    ------
    MissingPackage
    """
    if not cuda_installed():
        raise MissingPackage(
            "JAX's compiler for GPUs is missing; install requirements-gpu-check.txt"
        )
    with stderr_aside():
        topology = topologies.get_topology_desc(
            "gpu", "cuda", target_config=description, topology="1x1x1"
        )
    sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])

    def described(value: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(np.shape(value), value.dtype, sharding=sharding)

    lowered = program.jitted.lower(*jax.tree.map(described, arguments), **static)
    with tempfile.TemporaryDirectory() as folder:
        # Autotuning would measure on the device.
        options = compiler_options() | {"xla_gpu_autotune_level": "0", "xla_dump_to": folder}
        with stderr_aside():
            compiled = lowered.compile(compiler_options=options)
        kernels, thunks = _dumped(Path(folder))
    memory: Any = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return Compilation(
        compiled.as_text() or "",
        kernels,
        thunks,
        held - memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
    )


def _dumped(folder: Path) -> tuple[dict[str, str], str]:
    """Kernels and thunks among what XLA has dumped."""
    kernels = {}
    for path in folder.glob("*.ptx"):
        for text in path.read_text().split(".entry ")[1:]:
            kernels[text.partition("(")[0].strip()] = text
    thunks = [path.read_text() for path in folder.glob("*thunk_sequence_after_thunk_passes.txt")]
    return kernels, max(thunks, key=len, default="")
