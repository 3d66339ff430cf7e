"""All that knows JAX: operations by their JAX functions, compiled programs, the device.

    ops                  an Op by its JAX function; the elementwise ones
    products             matrix products, and which of them may run in TF32
    layout               how images lie in memory
    convolution          cross-correlation and its gradients, in two ways:
    convolution_by_rows      as matrix products of rows of images
    convolution_by_xla       as XLA has them
    pooling              max pooling and its gradient
    statistics           column norms, overflow counts
    masks                dropout masks, drawn on the device
    rounding             to bfloat16, and at random
    graphs               PyTensor graphs as functions of arrays
    programs             a network's training step and test-time pass, compiled
    finite               whether arrays are finite
    program_cache        compiled programs on disk
    device               its choice, name, memory and failures, arrays on it
    timing               single operations, for the benchmark

It imports errors and files, and nothing else of this repository.
"""

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator

CUDA_PLUGINS = ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")


def cuda_installed() -> bool:
    """Whether JAX's CUDA packages are there, with or without a driver."""
    for plugin in CUDA_PLUGINS:
        with contextlib.suppress(ImportError):  # there are no plugins at all
            if importlib.util.find_spec(plugin):
                return True
    return False


@contextlib.contextmanager
def stderr_aside() -> Iterator[None]:
    """Within it, what is written to this process's stderr is dropped.

    Where JAX's CUDA packages are and no driver, their libraries write lines there
    whenever they are loaded. Without these packages it is left alone.
    """
    try:
        kept = os.dup(2) if cuda_installed() else None
    except OSError:  # closed
        kept = None
    if kept is None:
        yield
        return
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


with stderr_aside():
    import jax  # noqa: F401  (first here, and quietly)
