"""Reading data files: bounded, and with a line about what cannot be read."""

import errno
from pathlib import Path

import files
from errors import DataError


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file; DataError if it cannot be read, or has more than `most` bytes."""
    try:
        return files.read_bytes(path, most)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise DataError(
                f"{path}: {error.strerror}: it is another file, give the right one"
            ) from error
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot read {path} ({error.strerror or error}): make it a readable file")
