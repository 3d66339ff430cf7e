"""Parts in HDF5 files, as SVHN has them: written in blocks, read in pieces.

A file has a group Data with the arrays X float32 (n, 3072) and y float32 one-hot (n,
10), and in its attributes what it was made from and, written last of all, that it is
finished.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.parts import CLASSES, Floats
from datasets.progress import image_bar
from errors import DataError

if TYPE_CHECKING:
    import tables

N_FEATURES = 3072
# Images in a compressed piece of a file; divides the blocks: each is written once.
CHUNK_ROWS = 125


class HDF5Part:
    """A Part in an HDF5 file.

    The file is open only while something is read, by one thread at a time, as PyTables
    demands.

    Parameters
    ----------
    n
        Number of examples that it must have.
    remedy
        What an error tells the user to do.

    Attributes
    ----------
    identity : dict
        What the file says it was made from.

    Raises
    ------
    DataError
        Also by `read`; the file is missing, damaged, or was never finished.
    """

    n_features = N_FEATURES
    _lock = threading.Lock()

    def __init__(self, path: Path, n: int, remedy: str) -> None:
        self.path = path
        self.n = n
        self.remedy = remedy
        self._stat: os.stat_result | None = None
        with self._open() as group:
            if getattr(group._v_attrs, "finished", 0) != 1:
                raise DataError(f"{path} was never finished: {remedy}")
            shapes = [(array.shape, array.dtype) for array in (group.X, group.y)]
            if shapes != [((n, width), np.float32) for width in (N_FEATURES, CLASSES)]:
                raise DataError(
                    f"{path} has arrays {[tuple(map(int, s)) for s, _ in shapes]}, "
                    f"not {n} examples: {remedy}"
                )
            self.identity: dict[str, str] = json.loads(group._v_attrs.identity)

    def __len__(self) -> int:
        return self.n

    def read(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """Rows start..stop-1 from the file: x float32 (n, 3072), y float32 (n, 10)."""
        with self._open() as group:
            return group.X.read(start, stop), group.y.read(start, stop)

    @contextlib.contextmanager
    def _open(self) -> "Iterator[tables.Group]":
        import tables

        tables.silence_hdf5_messages()  # in this thread; the error below says it
        threads = min(4, os.cpu_count() or 1)
        try:
            with (
                self._lock,
                tables.open_file(str(self.path), max_blosc_threads=threads) as file,
            ):
                stat = os.stat(self.path)
                self._stat = self._stat or stat
                if (stat.st_ino, stat.st_mtime_ns) != (self._stat.st_ino, self._stat.st_mtime_ns):
                    raise DataError(f"{self.path} was replaced while it was in use: start again")
                yield file.root.Data
        except FileNotFoundError as error:
            raise DataError(f"{self.path} missing: {self.remedy}") from error
        except DataError:
            raise
        except Exception as error:  # PyTables raises nearly anything on a damaged file
            raise DataError(
                f"{self.path} is truncated or damaged ({type(error).__name__}): {self.remedy}"
            ) from error


def write_hdf5(
    path: Path, blocks: Iterator[tuple[Floats, Floats]], n: int, identity: Mapping[str, str]
) -> None:
    """Write n examples, and last that the file is finished; then move it to `path`.

    Parameters
    ----------
    blocks
        x float32 (some, 3072) and y float32 (some, 10), in order; the next block is
        made while one is written.

    Raises
    ------
    OSError
        Something cannot be written.
    """
    import tables

    partial = path.with_name(f".{path.name}.partial")
    try:
        # several Blosc threads would put a chunk's pieces in the order of their ends
        with tables.open_file(str(partial), "w", max_blosc_threads=1) as file:
            group = file.create_group("/", "Data")
            _fill(group, blocks, n, path.name)
            group._v_attrs.identity = json.dumps(dict(identity), sort_keys=True)
            file.flush()
            group._v_attrs.finished = 1
        with open(partial, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except tables.HDF5ExtError as error:  # of what the system said nothing is left in it
        raise OSError(f"{type(error).__name__} while writing {partial.name}") from error
    finally:
        partial.unlink(missing_ok=True)


def _fill(
    group: "tables.Group", blocks: Iterator[tuple[Floats, Floats]], n: int, title: str
) -> None:
    """Make the arrays X and y of a group, and write the blocks into them."""
    x = _array(group, "X", n, N_FEATURES)
    y = _array(group, "y", n, CLASSES)
    start = 0
    with ThreadPoolExecutor(1) as ahead, image_bar(n, title) as bar:
        coming = ahead.submit(next, blocks, None)
        while block := coming.result():
            coming = ahead.submit(next, blocks, None)
            stop = start + len(block[0])
            x[start:stop], y[start:stop] = block
            bar.update(stop - start)
            start = stop


def _array(group: "tables.Group", name: str, n: int, width: int) -> "tables.CArray":
    import tables

    return group._v_file.create_carray(
        group,
        name,
        tables.Float32Atom(),
        (n, width),
        filters=tables.Filters(complevel=5, complib="blosc:lz4", fletcher32=True),
        chunkshape=(CHUNK_ROWS, width),
        track_times=False,
    )
