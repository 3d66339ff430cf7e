"""Readers of the data sets (SPEC section 12): arrays whose files have the known MD5 sums, or a DataError.

Under the data folder (PYLEARN2_DATA_PATH):

    mnist/                        the four idx files, .gz or not
    cifar10/cifar-10-batches-py/  the official pickles data_batch_1..5 and test_batch; preprocessed on first use
    SVHN/format2/                 {train,test,extra}_32x32.mat, of which python -m utilities.svhn_preprocessing makes
                                  HDF5 files under SVHN_LOCAL_PATH; those are read

Missing official files are downloaded. A generated sample (python -m utilities.sample_data) has the same files and a
manifest.json beside them, which holds their MD5 sums and split sizes in place of the official ones. It is read only
when asked for.
"""

import contextlib
import gzip
import io
import json
import os
import pickle
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from downloads import download, unpack
from downloads import reachable as _reachable
from errors import DataError, DownloadError
from files import file_md5
from files import md5 as _md5

CLASSES = 10
CONNECT_SECONDS = 5  # a mirror that has not answered by then counts as unreachable
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_MD5 = {  # of the published .gz files and of what they decompress to
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MNIST_NAMES = tuple(name for name in MNIST_MD5 if not name.endswith(".gz"))
MNIST_SPLIT = {"train": 50_000, "valid": 10_000, "test": 10_000}
CIFAR10_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
CIFAR10_ARCHIVE = {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}
CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CIFAR10_SPLIT = {"train": 45_000, "valid": 5_000, "test": 10_000}
SVHN_MIRRORS = ("http://ufldl.stanford.edu/housenumbers/",)
SVHN_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}
SVHN_SPLIT = {"train": 598_388, "valid": 6_000, "test": 26_032}
SVHN_VALID_PER_CLASS = {"train": 400, "extra": 200}
SVHN_PARTS = {
    "train": "splitted_train_32x32.h5",
    "valid": "valid_32x32.h5",
    "test": "test_32x32.h5",
}
PREPROCESSING_VERSION = 1  # raised whenever preprocessing.py gives other numbers


class Part(Protocol):
    """One part (train, valid or test) of a data set."""

    n_features: int

    def __len__(self): ...

    def read(self, start, stop):
        """Examples start..stop-1: x float32 (n, features), y float32 one-hot (n, 10)."""


class ArrayPart:
    """A Part in memory.

    Parameters
    ----------
    x : (n, features) array, stored as float32
    labels_or_onehot : (n,) integer labels 0..9, or (n, 10) one-hot rows

    Raises
    ------
    DataError : x and labels do not fit together.
    """

    def __init__(self, x, labels_or_onehot):
        y = np.asarray(labels_or_onehot)
        self.x = np.ascontiguousarray(x, np.float32)
        self.y = one_hot(y) if y.ndim == 1 else np.ascontiguousarray(y, np.float32)
        if self.x.ndim != 2 or self.y.shape != (len(self.x), CLASSES):
            raise DataError(
                f"examples {self.x.shape} and targets {self.y.shape} do not fit together: "
                f"give (n, features) and (n,) labels or (n, {CLASSES}) one-hot rows"
            )
        self.n_features = self.x.shape[1]

    def __len__(self):
        return len(self.x)

    def read(self, start, stop):
        """Views of rows start..stop-1: x float32 (n, features), y float32 (n, 10)."""
        return self.x[start:stop], self.y[start:stop]


@dataclass(frozen=True)
class Dataset:
    """The three parts, and what the data is: identity, file name -> MD5 of its uncompressed content."""

    name: str
    train: Part
    valid: Part
    test: Part
    identity: dict


def one_hot(labels):
    """float32 (n, 10) with a 1 at each label; DataError unless labels is (n,) of integers 0..9."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels are {labels.dtype} {labels.shape}: one integer for each example is needed"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < CLASSES:
        raise DataError(
            f"labels reach from {labels.min()} to {labels.max()}: classes are 0..{CLASSES - 1}"
        )
    return np.eye(CLASSES, dtype=np.float32)[labels]


def check_finite(part_name, array):
    """DataError if `array` has a NaN or an infinity."""
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise DataError(
            f"{part_name}: {bad} of {array.size} values are NaN or infinite: make the data again"
        )


def load(data_set, folder, sample=False):
    """The Dataset named in LOADERS from the data folder; DataError says why not.

    The sample is made on first use.
    """
    if data_set not in LOADERS:
        raise DataError(f"the data set {data_set!r} is none of {', '.join(LOADERS)}")
    if sample:
        make_sample(data_set, folder)
    return LOADERS[data_set](folder, sample)


def make_sample(data_set, folder):
    """Make the generated sample of a data set, unless it is there; DataError says why not."""
    from utilities.sample_data import ensure_sample

    try:
        ensure_sample(folder, [data_set])
    except (ValueError, OSError) as error:
        raise DataError(f"no sample: {error}") from None


# ----------------------------------------------------------------------------------------------- MNIST


def load_mnist(folder, sample=False, download=True):
    """MNIST: pixel/255 in float32, file order, the last rows of the train files are valid (SPEC section 12).

    Parameters
    ----------
    folder : path of the data folder; the files are in folder/mnist
    sample : read the generated sample that lies there instead of MNIST
    download : fetch missing official files

    Raises
    ------
    DataError : a file is missing and cannot be had, or is not the file it should be.
    """
    folder = Path(folder) / "mnist"
    manifest = _manifest(folder, sample)
    sums = manifest["files"] if sample else MNIST_MD5
    split = manifest["split"] if sample else MNIST_SPLIT
    missing = [
        name for name in MNIST_NAMES if not any(map(os.path.exists, _gz_and_plain(folder, name)))
    ]
    if missing and sample:
        raise _missing_sample(folder, missing)
    if missing:
        _fetch_mnist(folder, missing, download)
    arrays, identity = {}, {}
    for name in MNIST_NAMES:
        path, content = _read_idx_file(folder, name, sums, sample)
        arrays[name], identity[name] = _parse_idx(path, content), _md5(content)
    parts = {}
    for images, labels, names in (
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", ("train", "valid")),
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", ("test",)),
    ):
        pixels, digits = arrays[images], arrays[labels]
        if len(pixels) != len(digits):
            raise DataError(
                f"{folder}: {images} has {len(pixels)} images but {labels} has {len(digits)} "
                f"labels: {_remedy(sample)}"
            )
        announced = sum(split[name] for name in names)
        if len(pixels) != announced:
            raise DataError(
                f"{folder}: {images} has {len(pixels)} images, not the {announced} of "
                f"{' + '.join(names)}: {_remedy(sample)}"
            )
        start = 0
        for name in names:
            rows = slice(start, start + split[name])
            parts[name] = ArrayPart(pixels[rows].astype(np.float32) / np.float32(255), digits[rows])
            check_finite(f"{folder} {name}", parts[name].x)
            start += split[name]
    return Dataset("MNIST sample" if sample else "MNIST", identity=identity, **parts)


def _gz_and_plain(folder, name):
    return folder / f"{name}.gz", folder / name


def _read_idx_file(folder, name, sums, sample):
    """(path, uncompressed bytes) of an idx file whose sum is right, .gz first; DataError if none is."""
    wrong = None
    for path in _gz_and_plain(folder, name):
        if not os.path.exists(path):
            continue
        data = _read_bytes(path)
        known, zipped = _md5(data) == sums.get(path.name), path.suffix == ".gz"
        try:
            content = gzip.decompress(data) if zipped else data
        except (EOFError, OSError, zlib.error) as error:
            wrong = wrong or f"{path} is truncated or corrupted ({error})"
            continue
        if known or _md5(content) == sums.get(name):  # the latter: compressed by somebody else
            return path, content
        other = [one for one in MNIST_NAMES if sums.get(one) == _md5(content)]
        kind = "the sample" if sample else "the official"
        wrong = wrong or (
            f"{path} has the content of {other[0]}"
            if other
            else f"{path} is not {kind} file (its MD5 differs)"
        )
    raise DataError(f"{wrong}: {_remedy(sample)}")


def _parse_idx(path, content):
    """uint8 (n, 784) of an idx3 file of 28 x 28 images, uint8 (n,) of an idx1 file of labels 0..9."""
    shape, magic = ((28, 28), 2051) if "idx3" in path.name else ((), 2049)
    header = 8 + 4 * len(shape)
    if len(content) < header or struct.unpack(">i", content[:4])[0] != magic:
        raise DataError(
            f"{path} does not begin like an idx file (magic number {magic}): replace it"
        )
    n, *dims = struct.unpack(f">{1 + len(shape)}i", content[4:header])
    if tuple(dims) != shape or len(content) != header + n * int(np.prod(shape)):
        raise DataError(
            f"{path} announces {n} items of {tuple(dims)} but has {len(content) - header} bytes "
            f"for items of {shape}: replace it"
        )
    array = np.frombuffer(content, np.uint8, offset=header)
    if not shape and n and array.max() >= CLASSES:
        raise DataError(
            f"{path} has the label {array.max()}; labels are 0..{CLASSES - 1}: replace it"
        )
    return array.reshape(n, -1) if shape else array


def _fetch_mnist(folder, missing, allowed):
    _fetch("MNIST", [f"{name}.gz" for name in missing], folder, MNIST_MIRRORS, MNIST_MD5, allowed)


# -------------------------------------------------------------------------------------------- CIFAR-10


def load_cifar10(folder, sample=False, download=True):
    """CIFAR-10 after GCN and ZCA, the last rows of the training images are valid (SPEC section 12).

    Parameters
    ----------
    folder : path of the data folder; the pickles are in folder/cifar10/cifar-10-batches-py, or come out of an official
        cifar-10-python.tar.gz in folder/cifar10; what is made of them is kept in folder/cifar10/preprocessed-...
    sample : read the generated sample that lies there instead of CIFAR-10
    download : fetch the archive if neither is there

    Raises
    ------
    DataError : a file is missing and cannot be had, is not the file it should be, or the result cannot be kept.
    """
    from preprocessing import whiten_cifar10

    cifar10 = Path(folder) / "cifar10"
    pickles = cifar10 / "cifar-10-batches-py"
    manifest = _manifest(pickles, sample)
    if not sample and (
        missing := [name for name in CIFAR10_MD5 if not os.path.exists(pickles / name)]
    ):
        _unpack_cifar10(cifar10, missing, download)
    x, labels, test_x, test_labels, identity = read_cifar10_pickles(folder, sample)
    x, test_x = whiten_cifar10(cifar10, x, test_x, identity)
    n = (manifest["split"] if sample else CIFAR10_SPLIT)["train"]
    return Dataset(
        "CIFAR10 sample" if sample else "CIFAR10",
        train=ArrayPart(x[:n], labels[:n]),
        valid=ArrayPart(x[n:], labels[n:]),
        test=ArrayPart(test_x, test_labels),
        identity=identity | {"preprocessing": str(PREPROCESSING_VERSION)},
    )


def _unpack_cifar10(folder, missing, allowed):
    """The missing pickles, out of the archive in `folder`, which is downloaded for it if it is not there."""
    ((name, md5),) = CIFAR10_ARCHIVE.items()
    archive = folder / name
    given = os.path.exists(archive)
    if not given:
        _fetch("CIFAR10", [name], folder, CIFAR10_MIRRORS, CIFAR10_ARCHIVE, allowed)
    try:
        if given and file_md5(archive) != md5:
            raise DataError(
                f"{archive} is truncated, corrupted or another file (its MD5 differs): {_remedy(False)}"
            )
        unpack(
            archive,
            {f"cifar-10-batches-py/{name}": name for name in missing},
            folder / "cifar-10-batches-py",
        )
    except DownloadError as error:
        raise DataError(f"{error}: {_remedy(False)}") from error
    except OSError as error:
        raise DataError(
            f"cannot unpack {archive} into {folder} ({error.strerror or error}): make the folder writable "
            "and room for 200 MB"
        ) from error
    if not given:
        archive.unlink(missing_ok=True)


def read_cifar10_pickles(folder, sample=False):
    """The official pickles in folder/cifar10/cifar-10-batches-py, read without running what they say.

    Returns
    -------
    train_x uint8 (50000, 3072) in (channel, row, column) order, train_labels int64 (50000,), test_x uint8
    (10000, 3072), test_labels int64 (10000,), identity (file name -> MD5). The sample has fewer rows.

    Raises
    ------
    DataError : a file is missing, has another MD5 sum, or is not a CIFAR-10 batch.
    """
    folder = Path(folder) / "cifar10" / "cifar-10-batches-py"
    manifest = _manifest(folder, sample)
    sums = manifest["files"] if sample else CIFAR10_MD5
    missing = [name for name in CIFAR10_MD5 if not os.path.exists(folder / name)]
    if missing and sample:
        raise _missing_sample(folder, missing)
    if missing:
        raise DataError(
            f"CIFAR10: {', '.join(missing)} missing: unpack the official cifar-10-python.tar.gz "
            f"so that they are in {folder}, or use --sample for a small generated set"
        )
    batches, identity = [], {}
    for name in CIFAR10_MD5:
        data = _read_bytes(folder / name)
        identity[name] = _md5(data)
        if identity[name] != sums.get(name):
            other = [one for one in CIFAR10_MD5 if sums.get(one) == identity[name]]
            what = (
                f"has the content of {other[0]}"
                if other
                else "is truncated, corrupted or another file (its MD5 differs)"
            )
            raise DataError(f"{folder / name} {what}: {_remedy(sample)}")
        batches.append(_parse_batch(folder / name, data))
    x, labels = (np.concatenate(column) for column in zip(*batches[:-1], strict=True))
    sizes = (
        {
            "train + valid": (len(x), manifest["split"]["train"] + manifest["split"]["valid"]),
            "test": (len(batches[-1][0]), manifest["split"]["test"]),
        }
        if sample
        else {}
    )
    for name, (found, announced) in sizes.items():
        if found != announced:
            raise DataError(
                f"{folder}: {name} has {found} images but its manifest says {announced}: "
                f"{_remedy(sample)}"
            )
    return x, labels, *batches[-1], identity


def _parse_batch(path, data):
    """(uint8 (n, 3072), int64 (n,)) of one pickled batch."""
    try:
        batch = _BatchUnpickler(data).load()
        x, labels = batch[b"data"].array, np.array(batch[b"labels"])
    except Exception as error:  # a hostile or damaged pickle can raise anything
        raise DataError(f"{path} is not a CIFAR-10 batch ({error}): replace it") from error
    if x.ndim != 2 or x.shape[1] != 3072 or labels.shape != x.shape[:1] or labels.dtype.kind != "i":
        raise DataError(
            f"{path} has data {x.shape} and labels {labels.dtype} {labels.shape}, not (n, 3072) "
            "and integers (n,): replace it"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < CLASSES:
        raise DataError(
            f"{path} has labels from {labels.min()} to {labels.max()}, not 0..9: replace it"
        )
    return x, labels.astype(np.int64)


class _BatchUnpickler(pickle.Unpickler):
    """Reads a pickle of plain objects and uint8 arrays; NumPy's three names in it mean the stand-ins below.

    Nothing else can be looked up, so nothing can be called; and as NumPy itself is not called either, its own
    names may move (numpy.core became numpy._core).
    """

    def __init__(self, data):
        super().__init__(io.BytesIO(data), encoding="bytes")  # the batches come from Python 2

    def find_class(self, module, name):
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return lambda *_: _PickledArray()
        if (module, name) == ("numpy", "ndarray"):
            return None  # only ever an argument of _reconstruct
        if (module, name) == ("numpy", "dtype"):
            return _PickledDtype
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


class _PickledDtype:
    def __init__(self, code, *_):
        self.code = code

    def __setstate__(self, state):
        pass  # byte order and fields: a byte has none


class _PickledArray:
    def __setstate__(self, state):
        _version, shape, dtype, fortran, data = state
        if dtype.code not in (b"u1", "u1") or fortran:
            raise pickle.UnpicklingError("its array is not uint8 in C order")
        self.array = np.frombuffer(data, np.uint8).reshape(shape)


# ------------------------------------------------------------------------------------------------ SVHN


def load_svhn(folder, sample=False):
    """SVHN after split, GCN and LCN (SPEC section 12), read from its three HDF5 files in pieces, when asked for.

    Parameters
    ----------
    folder : path of the data folder
    sample : read the generated sample in folder/SVHN, whose HDF5 files are made on first use. Otherwise the files are
        those in $SVHN_LOCAL_PATH/h5, and only python -m utilities.svhn_preprocessing makes them.

    Raises
    ------
    DataError : a file is missing, damaged, not finished, or does not belong to the others.
    """
    source = svhn_sources(folder, sample)
    local = Path(folder) / "SVHN" if sample else os.environ.get("SVHN_LOCAL_PATH")
    if not local:
        raise DataError(
            "SVHN_LOCAL_PATH is not set: set it to a folder with 8 GB of room and run python -m "
            "utilities.svhn_preprocessing, or use --sample for a small generated set"
        )
    try:
        return _open_svhn(source, local)
    except DataError:
        if not sample:
            raise
    from preprocessing import preprocess_svhn

    preprocess_svhn(folder, local, sample=True)
    return _open_svhn(source, local)


def _open_svhn(source, local):
    remedy = "run python -m utilities.svhn_preprocessing" + (
        " --sample --data DIR" if source.sample else ""
    )
    parts = {
        part: HDF5Part(Path(local) / "h5" / name, source.split[part], remedy)
        for part, name in SVHN_PARTS.items()
    }
    identity = parts["train"].identity
    if identity not in (source.identity("all"), source.identity("first")):
        what = "this sample" if source.sample else "the official files"
        raise DataError(f"{parts['train'].path} is not made of {what} by this version: {remedy}")
    for part in parts.values():
        if part.identity != identity:
            raise DataError(
                f"{part.path} is made of other files or with other options than "
                f"{parts['train'].path.name}: {remedy}"
            )
    return Dataset("SVHN sample" if source.sample else "SVHN", identity=identity, **parts)


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


@dataclass(frozen=True)
class SVHNSources:
    """The .mat files of SVHN or of its sample.

    folder : where they are; sums : file name -> MD5; split : part -> number of images
    per_class : file -> how many images of each class valid takes from it
    """

    folder: Path
    sums: dict
    split: dict
    per_class: dict
    sample: bool

    def identity(self, channels):
        """What the HDF5 files are made from (str -> str); channels: those that LCN normalises, "all" or "first"."""
        return {
            **{name: self.sums[name] for name in SVHN_MD5},
            "sample": "yes" if self.sample else "no",
            "valid_per_class": f"{self.per_class['train']} of train, {self.per_class['extra']} of extra",
            "lcn_channels": channels,
            "preprocessing": str(PREPROCESSING_VERSION),
        }


def svhn_sources(folder, sample=False):
    """The SVHNSources in folder/SVHN/format2; DataError if the sample is asked for and not there, or the reverse."""
    folder = Path(folder) / "SVHN" / "format2"
    manifest = _manifest(folder, sample)
    if not sample:
        return SVHNSources(folder, SVHN_MD5, SVHN_SPLIT, SVHN_VALID_PER_CLASS, False)
    per_class = manifest.get("valid_per_class", SVHN_VALID_PER_CLASS)
    if (
        not isinstance(per_class, dict)
        or set(per_class) != set(SVHN_VALID_PER_CLASS)
        or set(SVHN_MD5) - set(manifest["files"])
        or not all(type(n) is int and n >= 0 for n in per_class.values())
    ):
        raise DataError(f"{folder / 'manifest.json'} is damaged: {_remedy(sample)}")
    return SVHNSources(folder, manifest["files"], manifest["split"], per_class, True)


def fetch_svhn(source, names):
    """Download the missing ones of "train", "test", "extra" into source.folder; DataError if that fails."""
    missing = [
        f"{name}_32x32.mat"
        for name in names
        if not os.path.exists(source.folder / f"{name}_32x32.mat")
    ]
    if missing and source.sample:
        raise _missing_sample(source.folder, missing)
    if missing:
        _fetch("SVHN", missing, source.folder, SVHN_MIRRORS, SVHN_MD5)


def read_svhn_mat(path, md5=None):
    """One official SVHN format-2 .mat file (MATLAB 5: X uint8 (32, 32, 3, n), y (n, 1) of 1..10).

    Parameters
    ----------
    md5 : the sum that the file must have

    Returns
    -------
    x uint8 (n, 3072) in (channel, row, column) order; labels int64 (n,), 1..10, where 10 is the digit 0.

    Raises
    ------
    DataError : the file is missing, damaged, has another sum, or holds something else.
    """
    import scipy.io

    path = Path(path)
    if not os.path.exists(path):
        raise DataError(
            f"SVHN: {path.name} missing: put the official format-2 files into {path.parent}, "
            "or use --sample for a small generated set"
        )
    try:
        known = md5 is None or file_md5(path) == md5
    except OSError as error:
        raise _unreadable(path, error) from error
    if not known:
        raise DataError(
            f"{path} is truncated, corrupted or another file (its MD5 differs): delete it and get the file "
            "again"
        )
    try:
        variables = scipy.io.loadmat(path, variable_names=("X", "y"))
        x, labels = (np.asarray(variables[name]) for name in ("X", "y"))
    except Exception as error:  # loadmat raises nearly anything on a damaged file
        raise DataError(
            f"{path} is truncated, corrupted or no MATLAB 5 file with X and y "
            f"({type(error).__name__}): replace it by the official file"
        ) from error
    if (
        x.ndim != 4
        or x.shape[:3] != (32, 32, 3)
        or x.dtype != np.uint8
        or labels.shape != (x.shape[3], 1)
    ):
        raise DataError(
            f"{path} has X {x.dtype} {x.shape} and y {labels.shape}, not uint8 (32, 32, 3, n) "
            "and (n, 1): replace it by the official file"
        )
    if labels.dtype.kind not in "iuf" or not np.isin(labels, np.arange(1, CLASSES + 1)).all():
        raise DataError(f"{path} has labels other than 1..10: replace it by the official file")
    x = np.require(
        x.T, requirements="CW"
    )  # (n, channel, column, row): MATLAB's order, so that nothing is copied
    for start in range(0, len(x), 5000):
        x[start : start + 5000] = x[start : start + 5000].swapaxes(2, 3).copy()
    return x.reshape(-1, 3072), labels[:, 0].astype(np.int64)


# ------------------------------------------------------------------------------- sample, files, downloads


def _manifest(folder, sample):
    """The sample's manifest, {"files": {name: MD5}, "split": {part: size}, ...}; None unless sample.

    DataError if there is a sample but none is asked for, or none but it is, or the manifest is damaged.
    """
    path = folder / "manifest.json"
    if not sample:
        if os.path.exists(path):
            raise DataError(
                f"{folder} holds the generated sample, not the official files: use --sample to "
                "train on it, or give another data folder"
            )
        return None
    if not os.path.exists(path):
        raise DataError(
            f"{folder} holds no generated sample (no manifest.json): make one with "
            "python -m utilities.sample_data DIR, or leave --sample out"
        )
    try:
        manifest = json.loads(_read_bytes(path))
        sane = (
            manifest["sample"] is True
            and all(isinstance(md5, str) for md5 in manifest["files"].values())
            and all(
                type(manifest["split"][part]) is int and manifest["split"][part] > 0
                for part in ("train", "valid", "test")
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        sane = False
    if not sane:
        raise DataError(f"{path} is damaged: {_remedy(sample)}")
    return manifest


def _missing_sample(folder, missing):
    return DataError(
        f"{folder}: {', '.join(missing)} missing from the generated sample: {_remedy(True)}"
    )


def _remedy(sample):
    return (
        "delete its folder and make the sample again (python -m utilities.sample_data DIR)"
        if sample
        else "delete it and get the official file again, or use --sample for a small generated set"
    )


def _fetch(task, files, folder, mirrors, sums, allowed=True):
    """Download missing official files, each from the first mirror that has it; DataError, within seconds if offline."""
    why = "no download was tried"
    if allowed:
        mirrors, why = _reachable(mirrors, files[0], CONNECT_SECONDS), "no mirror answered"
        for file in files if mirrors else ():
            for mirror in mirrors:
                try:
                    download(mirror + file, folder / file, sums[file], CONNECT_SECONDS)
                    break
                except DownloadError as error:
                    why = str(error)
                except OSError as error:
                    raise DataError(
                        f"cannot write {folder / file} ({error.strerror or error}): make room, and the "
                        f"folder writable, or put the official {task} files there"
                    ) from error
        files = [file for file in files if not os.path.exists(folder / file)]
    if files:
        raise DataError(
            f"{task}: {', '.join(files)} missing and not downloaded ({why}): put the official "
            f"files into {folder}, or use --sample for a small generated set"
        )


def _read_bytes(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path, error):
    return DataError(f"cannot read {path} ({error.strerror or error}): make it a readable file")


LOADERS = {"mnist": load_mnist, "cifar10": load_cifar10, "svhn": load_svhn}
