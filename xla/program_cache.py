"""Compiled programs on disk, each under a digest of all that it is made from.

A run that finds its programs there neither traces nor compiles them, which takes
seconds to minutes. JAX's own cache needs the traced program; on GPUs it is there as
well, in case that this one cannot read what it has written.
"""

import contextlib
import hashlib
import os
import platform
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np
import pytensor
from jax.stages import Compiled

from xla import device, program_files

ROOT = Path(__file__).resolve().parent.parent
# Every module of this repository that is imported where a program is built and traced.
# tests/test_program_cache.py compares this list with what is imported.
SOURCES = tuple(
    ROOT / name
    for name in (
        "errors.py",
        "files.py",
        "format.py",
        "layer.py",
        "layers.py",
        "model.py",
        "ranges.py",
        "xla/__init__.py",
        "xla/convolution.py",
        "xla/convolution_by_rows.py",
        "xla/convolution_by_xla.py",
        "xla/device.py",
        "xla/graphs.py",
        "xla/layout.py",
        "xla/masks.py",
        "xla/ops.py",
        "xla/pooling.py",
        "xla/products.py",
        "xla/program_cache.py",
        "xla/program_files.py",
        "xla/programs.py",
        "xla/rounding.py",
        "xla/statistics.py",
    )
)


class ProgramCache:
    """A folder of compiled programs.

    A damaged or foreign file counts as absent, and a program that cannot be written is
    not cached: neither is an error. A folder that others can write is not used.

    Parameters
    ----------
    folder
        None: nothing is cached.
    sources
        The files whose text decides what the programs do.
    most
        So many programs stay, those that were used last.

    Attributes
    ----------
    compiling
        A context in which programs are compiled.
    """

    def __init__(
        self, folder: Path | None, sources: Sequence[Path] = SOURCES, most: int = 50
    ) -> None:
        self.folder = folder
        # As they are when the process begins: what is written there later is not what runs.
        self.texts: list[bytes] | None = None  # they cannot be read, and nothing is cached
        with contextlib.suppress(OSError):
            self.texts = [path.read_bytes() for path in sources]
        self.most = most
        self.compiling: Callable[[], AbstractContextManager] = contextlib.nullcontext

    def key(self, *facts: object) -> str:
        """A digest of sources, processor, versions, environment and `facts`.

        OSError if the sources could not be read.

        Parameters
        ----------
        facts
            Everything else that a program depends on, told apart by its repr.
        """
        if self.texts is None:
            raise FileNotFoundError("the sources cannot be read")
        settings = [
            f"{name}={value}"
            for name, value in sorted(os.environ.items())
            if name.startswith(("JAX_", "XLA_", "PYTENSOR_"))
        ]
        versions = [f"{m.__name__} {m.__version__}" for m in (jax, jaxlib, np, pytensor)]
        return _digest(
            *(hashlib.sha256(text).hexdigest() for text in self.texts),
            *settings,
            platform.python_version(),
            *versions,
            _processor(),
            f"{_threads()} cores",
            *device.compiled_for(),
            *map(repr, facts),
        )

    def load(self, *facts: object) -> Compiled | None:
        """The program that was saved with these facts, if it is there."""
        if self.folder is None:
            return None
        with contextlib.suppress(Exception):  # damaged, or not there: it is compiled
            return program_files.read(self.folder, self.key(*facts))
        return None

    def save(self, program: Compiled, *facts: object) -> None:
        """Write a program, and remove those that have not been used for longest."""
        if self.folder is None:
            return
        with contextlib.suppress(Exception):  # a program that cannot be cached can still be used
            key = self.key(*facts)
            program_files.write(self.folder, key, program)
            if jax.default_backend() != "cpu":  # where nobody has tried whether it can be read
                program_files.remove_unreadable(self.folder, key)
            program_files.remove_oldest(self.folder, self.most)


PROGRAMS = ProgramCache(None)  # of this process; `cache_programs` gives it its folder


@contextlib.contextmanager
def compilations(within: Callable[[], AbstractContextManager]) -> Iterator[None]:
    """As long as it lasts, programs of this process are compiled in a context of somebody's."""
    before = PROGRAMS.compiling
    PROGRAMS.compiling = within
    try:
        yield
    finally:
        PROGRAMS.compiling = before


def cache_programs() -> None:
    """Cache programs in $XDG_CACHE_HOME/deep-learning-storage (~/.cache) from now on.

    After `select_device`. There is one folder for each kind of processor and version,
    as a home may be shared. JAX_COMPILATION_CACHE_DIR names another. Of a folder that
    others can write a folder within is taken that they cannot, and where nothing can be
    written nothing is cached.
    """
    named = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    try:
        folder = program_files.private(Path(PROGRAMS.folder or named or _usual_folder()))
    except (OSError, RuntimeError):
        jax.config.update("jax_compilation_cache_dir", None)  # JAX would complain again and again
        return
    PROGRAMS.folder = folder
    if jax.default_backend() == "cpu":
        # JAX cannot write out once more what it has read from its own cache.
        jax.config.update("jax_compilation_cache_dir", None)
        return
    if not named:
        _drop_damaged(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    # XLA's caches would make the folder's path part of the keys.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    # A program that cannot be cached, or that was damaged, is compiled: nothing to
    # tell.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _usual_folder() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    # Python's version, too: it may compress in another way.
    kind = _digest(_processor(), platform.python_version(), jax.__version__)
    return home / "deep-learning-storage" / f"programs-{kind[:12]}"


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _threads() -> int | str:
    """How many threads XLA computes with on a CPU, as it decides it; sums depend on that."""
    if number := os.environ.get("NPROC"):
        return number
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def _processor() -> str:
    """What tells one kind of processor from another."""
    try:
        described = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "".join(
        line for line in described if line.startswith(("model name", "flags", "Features"))
    )


def _drop_damaged(folder: Path) -> None:
    """Remove what a killed process left: JAX would neither read nor replace it."""
    try:
        from jax._src import compilation_cache  # there is no public way to tell
    except ImportError:
        return
    for path in folder.glob("*-cache"):
        try:
            compilation_cache.decompress_executable(path.read_bytes())
        except Exception:  # whatever the decompressor says
            with contextlib.suppress(OSError):
                path.unlink()


class Program:
    """A function of arrays, compiled for each kind of arguments, and cached.

    Parameters
    ----------
    function
        Of arrays, which may be in dicts and lists.
    describe
        With the sources and the arguments' types, everything that the function depends
        on.
    donate
        Positions of arguments that are consumed.
    static
        Names of keyword arguments that are not arrays.
    cache
        Where what is compiled is looked for first.
    """

    def __init__(
        self,
        function: Callable,
        describe: Callable[[], tuple],
        donate: int | Sequence[int] = (),
        static: Collection[str] = (),
        cache: ProgramCache = PROGRAMS,
    ) -> None:
        self.jitted = jax.jit(function, donate_argnums=donate, static_argnames=static)
        self.describe = describe
        self.cache = cache
        self._compiled: dict[tuple, Compiled] = {}

    @property
    def text(self) -> str:
        """What it has been compiled to, as XLA prints it."""
        return "\n".join(program.as_text() or "" for program in self._compiled.values())

    def __call__(self, *arguments: Any, **static: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        types = tuple((np.shape(v), str(getattr(v, "dtype", type(v)))) for v in leaves)
        kind = (tree, types, tuple(static.items()))
        if kind not in self._compiled:
            facts = () if self.cache.folder is None else (self.describe(), kind)
            program = self.cache.load(*facts)
            if program is None:
                with self.cache.compiling():
                    lowered = self.jitted.lower(*arguments, **static)
                    program = lowered.compile(compiler_options=device.compiler_options())
                self.cache.save(program, *facts)
            self._compiled[kind] = program
        return self._compiled[kind](*arguments)
