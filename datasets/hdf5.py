"""Parts in HDF5 files."""

import contextlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from datasets.parts import CLASSES
from datasets.progress import _bar
from errors import DataError

CHUNK_ROWS = (
    125  # images a compressed piece of an HDF5 file; divides BLOCK, so that each is written once
)


class HDF5Part:
    """A Part in an HDF5 file: arrays X float32 (n, 3072) and y float32 (n, 10) in its group Data.

    The file is open only while something is read, by one thread at a time, as PyTables demands.

    Parameters
    ----------
    path : the file
    n : number of examples that it must have
    remedy : what an error tells the user to do
    identity : (attribute) what the file says it was made from

    Raises
    ------
    DataError : also by `read`; the file is missing, damaged, or was never finished.
    """

    n_features = 3072
    _lock = threading.Lock()

    def __init__(self, path, n, remedy):
        self.path, self.n, self.remedy, self._stat = Path(path), n, remedy, None
        with self._open() as group:
            if getattr(group._v_attrs, "finished", 0) != 1:
                raise DataError(f"{path} was never finished: {remedy}")
            shapes = [(array.shape, array.dtype) for array in (group.X, group.y)]
            if shapes != [((n, width), np.float32) for width in (self.n_features, CLASSES)]:
                raise DataError(
                    f"{path} has arrays {[tuple(map(int, s)) for s, _ in shapes]}, not {n} examples: {remedy}"
                )
            self.identity = json.loads(group._v_attrs.identity)

    def __len__(self):
        return self.n

    def read(self, start, stop):
        """Rows start..stop-1 from the file: x float32 (n, 3072), y float32 (n, 10)."""
        with self._open() as group:
            return group.X.read(start, stop), group.y.read(start, stop)

    @contextlib.contextmanager
    def _open(self):
        import tables

        tables.silence_hdf5_messages()  # in this thread; the error below says it
        try:
            with (
                self._lock,
                tables.open_file(
                    str(self.path), max_blosc_threads=min(4, os.cpu_count() or 1)
                ) as file,
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


def _write_hdf5(path, blocks, n, identity):
    """Write n examples, and last of all that it is finished; then move the file to `path`."""
    import tables

    partial = path.with_name(f".{path.name}.partial")
    filters = tables.Filters(complevel=5, complib="blosc:lz4", fletcher32=True)
    try:
        # several Blosc threads would put a chunk's pieces in the order in which they happen to be ready
        with (
            tables.open_file(str(partial), "w", max_blosc_threads=1) as file,
            ThreadPoolExecutor(1) as ahead,
            _bar(n, path.name) as bar,
        ):
            group = file.create_group("/", "Data")
            x, y = (
                file.create_carray(
                    group,
                    name,
                    tables.Float32Atom(),
                    (n, width),
                    filters=filters,
                    chunkshape=(CHUNK_ROWS, width),
                    track_times=False,
                )
                for name, width in (("X", 3072), ("y", 10))
            )
            start, coming = 0, ahead.submit(next, blocks, None)
            while block := coming.result():
                coming = ahead.submit(
                    next, blocks, None
                )  # the next block is made while this one is written
                stop = start + len(block[0])
                x[start:stop], y[start:stop] = block
                bar.update(stop - start)
                start = stop
            group._v_attrs.identity = json.dumps(identity, sort_keys=True)
            file.flush()
            group._v_attrs.finished = 1
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except tables.HDF5ExtError as error:  # of what the system said nothing is left in it
        raise OSError(f"{type(error).__name__} while writing {partial.name}") from error
    finally:
        partial.unlink(missing_ok=True)
