"""The files of compiled programs: whose they are, and what is looked up when one is read.

A program is machine code, in this cache and in JAX's: whoever can write a file there can
have any code run. So a file counts only if it belongs to the user, in a folder and under
a mode that let nobody else write it. Its description is a pickle, as JAX makes it; nothing
is looked up for it but the classes in NAMES.
"""

import contextlib
import hashlib
import io
import os
import pickle
import re
import stat
from pathlib import Path
from typing import IO, Any

import jax
from jax.experimental import serialize_executable
from jax.stages import Compiled

from files import no_link, write_atomically

MAGIC = b"deep-learning-storage program 2\n"  # then the key, a sum of the rest, and the rest
HEADER = len(MAGIC) + 64 + 32
NAME = re.compile("program-[0-9a-f]{64}")
# What the description of a program is made of, with either version of JAX.
NAMES = {
    "jax": ("P",),
    "jax._src.core": ("ManualAxisType", "MemorySpace", "ShapedArray"),
    "jax._src.interpreters.pxla": ("AllArgsInfo", "UnloadedMeshExecutable"),
    "jax._src.layout": ("AutoLayoutSingleton", "Layout"),
    "jax._src.linear_util": ("DebugInfo",),
    "jax._src.mesh": ("AbstractMesh",),
    "jax._src.named_sharding": ("_unpickle_named_sharding",),
    "jax._src.sharding_impls": ("_unpickle_single_device_sharding",),
    "jax._src.stages": ("ArgInfo",),
    "jax._src.tree_util": ("default_registry", "tracing_registry"),
    "jaxlib._jax": ("DeviceList",),
    "jaxlib._jax.pytree": ("PyTreeDef",),
    "numpy": ("dtype",),
}


def private(folder: Path) -> Path:
    """The folder, made if need be, or one in it, if others can write it; OSError if none serves."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if is_safe(folder.stat()):
        return folder
    own = folder / f"deep-learning-storage-{os.geteuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.is_symlink() or not is_safe(own.stat()):
        raise PermissionError(f"{own} belongs to somebody else")
    return own


def read(folder: Path, key: str) -> Compiled:
    """The program of a key; any Exception if it is not there, or not to be trusted."""
    path = folder / f"program-{key}"
    program = _loaded(_content(path, key))
    with contextlib.suppress(OSError):
        path.touch()  # it was used
    return program


def write(folder: Path, key: str, program: Compiled) -> None:
    """Write the program of a key, where nobody else can; any Exception if that cannot be."""
    if not is_safe(folder.stat()):
        raise PermissionError(f"others can write {folder}")
    data = pickle.dumps(serialize_executable.serialize(program))
    content = MAGIC + key.encode() + hashlib.sha256(data).digest() + data
    write_atomically(folder / f"program-{key}", lambda file: _write(file, content))


def remove_oldest(folder: Path, most: int) -> None:
    """Leave so many programs in a folder, and everything that `write` has not written."""
    cached = [path for path in folder.iterdir() if _is_program(path)]
    for old in sorted(cached, key=lambda path: path.stat().st_mtime)[:-most]:
        old.unlink()


def remove_unreadable(folder: Path, key: str) -> None:
    """Remove the program of a key that was just written, if it cannot be read."""
    try:
        read(folder, key)
    except Exception:  # whatever XLA for the device says
        (folder / f"program-{key}").unlink()


def is_safe(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user, and nobody else can write it."""
    others = stat.S_IWGRP | stat.S_IWOTH
    return status.st_uid == os.geteuid() and not status.st_mode & others


def _write(file: IO[bytes], content: bytes) -> None:
    os.fchmod(file.fileno(), 0o600)
    file.write(content)


def _content(path: Path, key: str) -> bytes:
    """What follows the header of a program's file; ValueError if that is not for this key."""
    if not is_safe(path.parent.stat()):
        raise ValueError("others can write the folder")
    with open(path, "rb", opener=no_link) as file:
        if not is_safe(os.fstat(file.fileno())):
            raise ValueError("others can write the file")
        data = file.read()
    rest = data[HEADER:]
    if data[:HEADER] != MAGIC + key.encode() + hashlib.sha256(rest).digest():
        raise ValueError("it is damaged, or the program of another key")
    return rest


def _is_program(path: Path) -> bool:
    """Whether `save` wrote the file."""
    if not NAME.fullmatch(path.name):
        return False
    try:
        with open(path, "rb", opener=no_link) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


class _Known:
    """Part of an unpickler that looks nothing up but NAMES."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in NAMES.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)  # type: ignore[misc]


class _Trees(_Known, pickle.Unpickler):
    pass


def _loaded(data: bytes) -> Compiled:
    """As serialize_executable.deserialize_and_load, but for what may be looked up."""

    class Executable(_Known, serialize_executable._JaxPjrtUnpickler):  # there is no public one
        pass

    serialized, in_tree, out_tree = _Trees(io.BytesIO(data)).load()
    client = jax.devices()[0].client
    unpickler = Executable(io.BytesIO(serialized), client, client.devices())
    executable, arguments, no_kwargs = unpickler.load()
    arguments = in_tree.unflatten(arguments)
    return Compiled(executable.load(), [], arguments, out_tree, no_kwargs=no_kwargs)
