"""Files that are whole or not there: atomic writes, .npz without pickles, locks, sums."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from errors import FileError

Arrays = dict[str, np.ndarray]


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
        With the name of the file, whatever failed.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        with open(partial, "xb") as file:  # never through a link that somebody left there
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(partial, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # it may be what fills the disk
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


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

    No pickles, and unless asked for nothing compressed: then no more memory is taken than the
    file is large.

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
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED and not compressed:
                    raise ValueError(f"{member.filename} is compressed")
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


def md5(content: bytes) -> str:
    """The MD5 sum of bytes, as the official data sets give it."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def file_md5(path: Path) -> str:
    """The MD5 sum of a file of any size; OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class Lock:
    """An exclusive lock between processes, held until `release` or until the process ends.

    The lock is on a file, which stays when the lock is released; what is in it is left alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    @property
    def held(self) -> bool:
        return self._file is not None

    def acquire(self, wait: bool = False) -> bool:
        """Take the lock; False if another process has it, unless told to wait.

        OSError if the file cannot be made.
        """
        if self._file is not None:
            return True
        file = open(self.path, "a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            file.close()
            return False
        self._file = file
        return True

    def in_place(self) -> bool:
        """Whether the file that is locked is still the one of this name."""
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except OSError:
            return False

    def release(self) -> None:
        """Let others in, if `acquire` has kept them out."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes out of what a lock on `path` stands for; they wait.

    OSError if the lock cannot be had.
    """
    lock = Lock(path)
    if not lock.acquire(wait=True):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path))
    try:
        yield
    finally:
        lock.release()
