"""Files that are whole or not there: atomic writes, .npz without pickles, sums."""

import contextlib
import errno
import hashlib
import json
import os
import stat
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from errors import FileError

try:
    import fcntl
except ImportError:  # Windows, where main.py says so
    fcntl = None  # type: ignore[assignment]

Arrays = dict[str, np.ndarray]

UNPACKED = 1 << 30  # bytes that an .npz file may hold
BYTES_A_LIST = 10  # of JSON text, on average, at least; a record of an epoch has thirty and more


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], previous: Path | None = None
) -> None:
    """Let `write(file)` fill a file that then takes the place of `path`, whole or not at all.

    Parameters
    ----------
    previous
        The name that the old file gets, if it is to stay.

    Raises
    ------
    OSError
        With the name of the file, whatever failed; also if there is a device or a pipe.
    """
    _check_plain(path)
    partial = None
    try:
        partial, file = _begun(path)
        with file:  # and its lock, until it has its name
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if previous is not None and path.exists():
                os.replace(path, previous)
            os.replace(partial, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            if partial:
                partial.unlink(missing_ok=True)  # it may be what fills the disk
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def _begun(path: Path) -> tuple[Path, IO[bytes]]:
    """A new file beside `path`, locked, under a name that no other process writes to.

    That is the usual name, from which what a killed process left is removed; while somebody else
    writes there, it is one of this thread's own.
    """
    usual = path.with_name(f".{path.name}.partial")
    if _removed(usual):
        with contextlib.suppress(FileExistsError):  # somebody else was faster
            file = open(usual, "xb")  # never through a link that somebody left there
            if _is_ours(file.fileno(), usual):
                return usual, file
            file.close()
    own = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    own.unlink(missing_ok=True)
    return own, open(own, "xb")


def _removed(partial: Path) -> bool:
    """Whether nothing has this name, after what no process writes any more is removed."""
    try:
        descriptor = no_link(str(partial), os.O_RDWR)
    except FileNotFoundError:
        return True
    except PermissionError:
        return False  # somebody else's
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        partial.unlink(missing_ok=True)
        return True
    try:
        left = _is_ours(descriptor, partial)
        if left:
            partial.unlink(missing_ok=True)
        return left
    finally:
        os.close(descriptor)


def _is_ours(descriptor: int, path: Path) -> bool:
    """Whether an open file gets locked, and still has its name; True where there are no locks."""
    try:
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def write_named(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write(file)` fill a file that a user has named: a pipe or device as it is, others
    atomically.

    OSError with its name, whatever failed.
    """
    try:
        kind = os.stat(path).st_mode
    except OSError:
        kind = 0
    if not (stat.S_ISFIFO(kind) or stat.S_ISCHR(kind)):
        if os.path.islink(path) and os.readlink(path).startswith("/proc/"):
            raise _no_plain_file(path)  # /dev/stdout, led into a file
        return write_atomically(path, write)
    try:
        with open(path, "wb") as file:
            write(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _check_plain(path: Path) -> None:
    """OSError if a device, a pipe or a socket would lose its name to a file."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise _no_plain_file(path)


def _no_plain_file(path: Path) -> OSError:
    return PermissionError(errno.EPERM, "it is no plain file", str(path))


def no_link(path: str, flags: int) -> int:
    """An opener for `open`: never through a link, and nothing but a plain file.

    What this program writes by a name of its own choosing could otherwise be led out of the folder
    by whoever can make a link there.

    Raises
    ------
    OSError
        ELOOP, with words of its own, if there is something else under that name.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise
    else:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    what = f"{os.path.basename(path)} is a link or no plain file: remove it"
    raise OSError(errno.ELOOP, what, os.fspath(path))


def plain(path: str, flags: int) -> int:
    """An opener for `open`: through links, but to a plain file; it does not wait at a pipe.

    OSError if there is something else.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "it is no plain file", os.fspath(path))


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a plain file; OSError if it is none, or has more than `most` bytes."""
    with open(path, "rb", opener=plain) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return content


def parsed(text: bytes) -> Any:
    """The value of JSON text; ValueError also as by `check_lists`."""
    check_lists(text)
    return json.loads(text)


def check_lists(text: bytes) -> None:
    """ValueError if JSON text has so many lists and objects that they would take much memory.

    An empty one, of two letters, takes sixty bytes.
    """
    if text.count(b"[") + text.count(b"{") > 1000 + len(text) // BYTES_A_LIST:
        raise ValueError("it has too many lists or objects for its length")


def sync_folder(folder: Path) -> None:
    """Let the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: object) -> None:
    """A JSON file, written atomically."""
    write_atomically(path, lambda file: file.write(json.dumps(value, indent=1).encode() + b"\n"))


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], previous: Path | None = None) -> None:
    """An uncompressed .npz file with a CRC-32 sum of every array, written atomically."""
    write_atomically(path, lambda file: np.savez(file, **dict(arrays)), previous)  # type: ignore[arg-type]


def load_npz(path: Path, compressed: bool = False) -> Arrays:
    """The arrays of an .npz file, their CRC-32 sums checked.

    No pickles, and unless asked for nothing compressed; they take no more memory than UNPACKED.

    Raises
    ------
    FileError
    """
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    arrays = {}
    try:
        with open(path, "rb", opener=plain) as whole, zipfile.ZipFile(whole) as archive:
            _check_members(archive, compressed)
            for member in archive.infolist():
                with archive.open(member) as file:
                    shape, fortran, dtype = headers[np.lib.format.read_magic(file)](file)
                    content = np.frombuffer(
                        file.read(), dtype
                    )  # its end is where the sum is checked
                if fortran:
                    content = content.reshape(shape[::-1]).T
                arrays[member.filename.removesuffix(".npy")] = content.reshape(shape)
    except Exception as error:  # whatever the parsers of zip files, headers and numbers raise
        raise FileError(f"{path} cannot be read ({type(error).__name__}: {error})") from None
    return arrays


def _check_members(archive: zipfile.ZipFile, compressed: bool) -> None:
    """ValueError unless all members can be read in the memory that `load_npz` promises.

    A stored member takes its place in the file, which no other one has; so all of them are no
    larger than the file.
    """
    end = 0
    members = archive.infolist()
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.compress_type != zipfile.ZIP_STORED and not compressed:
            raise ValueError(f"{member.filename} is compressed")
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise ValueError(f"{member.filename} has two sizes")
        if member.header_offset < end:
            raise ValueError(f"{member.filename} overlaps another array")
        name = len(member.orig_filename.encode())  # after 30 bytes of the member's own header
        end = member.header_offset + 30 + name + member.compress_size
    if end > archive.start_dir:
        raise ValueError("an array reaches beyond the file")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("two arrays have the same name")
    if sum(member.file_size for member in members) > UNPACKED:
        raise ValueError(f"its arrays are larger than {UNPACKED:,} bytes")


def md5(content: bytes) -> str:
    """The MD5 sum of bytes, as the official data sets give it."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def file_md5(path: Path) -> str:
    """The MD5 sum of a file of any size; OSError if it cannot be read."""
    with open(path, "rb", opener=plain) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
