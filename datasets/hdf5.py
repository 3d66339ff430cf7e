"""Parts in HDF5 files, as SVHN has them: written in blocks, read in pieces.

A file has a group Data with the arrays X float32 (n, 3072) and y float32 one-hot (n,
10), and in its attributes what it was made from, a digest of the code that made it (not
in files of old) and, written last of all, that it is finished.
"""

import contextlib
import json
import os
import pickle
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from datasets.parts import CLASSES, Floats
from datasets.progress import image_bar
from errors import DataError, NotOurs
from files import no_link, plain
from records import code

if TYPE_CHECKING:
    import tables

CODE = code.digest_of("datasets/contrast.py", "datasets/svhn_split.py")
N_FEATURES = 3072
# Images in a compressed piece of a file; divides the blocks: each is written once.
CHUNK_ROWS = 125
MOST_ROWS = 10_000  # in a piece of a file that is read: it is unpacked as a whole
# How pieces may be packed. A piece by zlib is unpacked to its end, however large that is.
PACKED = {"blosc", "shuffle", "fletcher32"}


class _NoPickles:
    """What PyTables has in place of pickle.

    It would unpickle every text among a node's attributes that looks like a pickle, as soon as the
    node is looked at, and so run what the file says. Here it gets the text itself. No file of this
    program has any.
    """

    dumps = staticmethod(pickle.dumps)
    HIGHEST_PROTOCOL = pickle.HIGHEST_PROTOCOL

    @staticmethod
    def loads(*_: object, **__: object) -> NoReturn:
        raise pickle.UnpicklingError("nothing is unpickled")


def _tables() -> Any:
    """PyTables, which unpickles nothing, and does without locks where there are none."""
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "BEST_EFFORT")  # looked at once, by HDF5
    import tables

    tables.attributeset.pickle = tables.atom.pickle = _NoPickles
    return tables


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
    NotOurs
        It is of another form, cannot be read, or another program has locked it.
    """

    n_features = N_FEATURES
    _lock = threading.Lock()

    def __init__(self, path: Path, n: int, remedy: str) -> None:
        self.path = path
        self.n = n
        self.remedy = remedy
        self._stat: os.stat_result | None = None
        with self._open() as group:
            self.identity: dict[str, str] = self._check(group)

    def __len__(self) -> int:
        return self.n

    def read(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """Rows start..stop-1 from the file: x float32 (n, 3072), y float32 (n, 10)."""
        with self._open() as group:
            return group.X.read(start, stop), group.y.read(start, stop)

    def _check(self, group: "tables.Group") -> dict[str, str]:
        """The identity of a file that is what it should be."""
        tables = _tables()
        get_filters = tables.utilsextension.get_filters
        if not isinstance(group, tables.Group) or "identity" not in group._v_attrs:
            raise self._of_another_form()
        if getattr(group._v_attrs, "finished", 0) != 1:
            raise DataError(f"{self.path} was never finished: {self.remedy}")
        if getattr(group._v_attrs, "code", CODE) != CODE:
            raise DataError(f"{self.path} was made by other code: {self.remedy}")
        arrays = (group.X, group.y)
        shapes = [(array.shape, array.dtype) for array in arrays]
        if shapes != [((self.n, width), np.float32) for width in (N_FEATURES, CLASSES)]:
            raise DataError(
                f"{self.path} has arrays {[tuple(map(int, s)) for s, _ in shapes]}, "
                f"not {self.n} examples: {self.remedy}"
            )
        if not all(type(array) is tables.CArray for array in arrays):
            raise ValueError("X or y is no chunked array")
        packed = [get_filters(group._v_objectid, name) for name in ("X", "y")]
        if any(not PACKED.issuperset(kinds) for kinds in packed):
            raise ValueError("its pieces are packed in another way")
        if any(array.chunkshape[0] > MOST_ROWS for array in arrays):
            raise ValueError("its pieces are too large")
        return json.loads(group._v_attrs.identity)

    def _of_another_form(self) -> NotOurs:
        return NotOurs(
            f"{self.path} is an HDF5 file of another form, not one of this program: move it away, "
            f"or give another folder (SVHN_LOCAL_PATH), and {self.remedy}"
        )

    @contextlib.contextmanager
    def _open(self) -> "Iterator[tables.Group]":
        tables = _tables()
        self._check_readable()
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
                if "/Data" not in file:
                    raise self._of_another_form()
                yield file.root.Data
        except DataError:
            raise
        except Exception as error:  # PyTables raises nearly anything on a damaged file
            if "unable to lock" in str(error):
                raise NotOurs(
                    f"{self.path} is locked by another program: end that program, or set "
                    "HDF5_USE_FILE_LOCKING=FALSE"
                ) from error
            raise DataError(
                f"{self.path} is truncated or damaged ({type(error).__name__}): {self.remedy}"
            ) from error

    def _check_readable(self) -> None:
        """What the system has to say of the file, of which HDF5 would leave nothing."""
        try:
            with open(self.path, "rb", opener=plain) as file:
                file.read(1)
        except FileNotFoundError as error:
            raise DataError(f"{self.path} missing: {self.remedy}") from error
        except OSError as error:
            raise NotOurs(
                f"cannot read {self.path} ({error.strerror or error}): make it a readable file"
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
    tables = _tables()
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        with open(partial, "xb", opener=no_link):  # HDF5 itself would follow a link
            pass
        # several Blosc threads would put a chunk's pieces in the order of their ends
        with tables.open_file(str(partial), "w", max_blosc_threads=1) as file:
            group = file.create_group("/", "Data")
            group._v_attrs.identity = json.dumps(dict(identity), sort_keys=True)
            group._v_attrs.code = CODE
            _fill(group, blocks, n, path.name)
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
    tables = _tables()
    return group._v_file.create_carray(
        group,
        name,
        tables.Float32Atom(),
        (n, width),
        filters=tables.Filters(complevel=5, complib="blosc:lz4", fletcher32=True),
        chunkshape=(CHUNK_ROWS, width),
        track_times=False,
    )
