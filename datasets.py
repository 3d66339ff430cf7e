"""Readers of the data sets (SPEC section 12): arrays whose files have the known MD5 sums, or a DataError.

Under the data folder (PYLEARN2_DATA_PATH):

    mnist/                        the four idx files, .gz or not; missing ones are downloaded
    cifar10/cifar-10-batches-py/  the official pickles data_batch_1..5 and test_batch
    SVHN/format2/                 {train,test,extra}_32x32.mat

A generated sample (python -m utilities.sample_data) has the same files and a manifest.json beside them, which
holds their MD5 sums and split sizes in place of the official ones. It is read only when asked for.
"""

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import sys
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

CLASSES = 10
CONNECT_SECONDS = 5  # a mirror that has not answered by then counts as unreachable
MNIST_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/",
                 "https://storage.googleapis.com/cvdf-datasets/mnist/")
MNIST_MD5 = {  # of the published .gz files and of what they decompress to
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637"}
MNIST_NAMES = tuple(name for name in MNIST_MD5 if not name.endswith(".gz"))
MNIST_SPLIT = {"train": 50_000, "valid": 10_000, "test": 10_000}
CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb", "test_batch": "40351d587109b95175f43aff81a1287e"}


class DataError(Exception):
    """Data that cannot be used: one line that says what is wrong and what to do."""

    def __init__(self, message):
        super().__init__(" ".join(str(message).splitlines()))


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
            raise DataError(f"examples {self.x.shape} and targets {self.y.shape} do not fit together: "
                            f"give (n, features) and (n,) labels or (n, {CLASSES}) one-hot rows")
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
        raise DataError(f"labels are {labels.dtype} {labels.shape}: one integer for each example is needed")
    if labels.size and not 0 <= labels.min() <= labels.max() < CLASSES:
        raise DataError(f"labels reach from {labels.min()} to {labels.max()}: classes are 0..{CLASSES - 1}")
    return np.eye(CLASSES, dtype=np.float32)[labels]


def check_finite(part_name, array):
    """DataError if `array` has a NaN or an infinity."""
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise DataError(f"{part_name}: {bad} of {array.size} values are NaN or infinite: make the data again")


def load(task, folder, sample=False):
    """The Dataset of a task (SPEC section 1) from the data folder; DataError says why not."""
    if task not in LOADERS:
        raise DataError(f"{task}: this data set is not available yet; there are {', '.join(LOADERS)}")
    return LOADERS[task](folder, sample)


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
    missing = [name for name in MNIST_NAMES if not any(map(os.path.exists, _gz_and_plain(folder, name)))]
    if missing and sample:
        raise _missing_sample(folder, missing)
    if missing:
        _fetch_mnist(folder, missing, download)
    arrays, identity = {}, {}
    for name in MNIST_NAMES:
        path, content = _read_idx_file(folder, name, sums, sample)
        arrays[name], identity[name] = _parse_idx(path, content), _md5(content)
    parts = {}
    for images, labels, names in (("train-images-idx3-ubyte", "train-labels-idx1-ubyte", ("train", "valid")),
                                  ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", ("test",))):
        pixels, digits = arrays[images], arrays[labels]
        if len(pixels) != len(digits):
            raise DataError(f"{folder}: {images} has {len(pixels)} images but {labels} has {len(digits)} "
                            f"labels: {_remedy(sample)}")
        announced = sum(split[name] for name in names)
        if len(pixels) != announced:
            raise DataError(f"{folder}: {images} has {len(pixels)} images, not the {announced} of "
                            f"{' + '.join(names)}: {_remedy(sample)}")
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
        wrong = wrong or (f"{path} has the content of {other[0]}" if other else
                          f"{path} is not {kind} file (its MD5 differs)")
    raise DataError(f"{wrong}: {_remedy(sample)}")


def _parse_idx(path, content):
    """uint8 (n, 784) of an idx3 file of 28 x 28 images, uint8 (n,) of an idx1 file of labels 0..9."""
    shape, magic = ((28, 28), 2051) if "idx3" in path.name else ((), 2049)
    header = 8 + 4 * len(shape)
    if len(content) < header or struct.unpack(">i", content[:4])[0] != magic:
        raise DataError(f"{path} does not begin like an idx file (magic number {magic}): replace it")
    n, *dims = struct.unpack(f">{1 + len(shape)}i", content[4:header])
    if tuple(dims) != shape or len(content) != header + n * int(np.prod(shape)):
        raise DataError(f"{path} announces {n} items of {tuple(dims)} but has {len(content) - header} bytes "
                        f"for items of {shape}: replace it")
    array = np.frombuffer(content, np.uint8, offset=header)
    if not shape and n and array.max() >= CLASSES:
        raise DataError(f"{path} has the label {array.max()}; labels are 0..{CLASSES - 1}: replace it")
    return array.reshape(n, -1) if shape else array


def _fetch_mnist(folder, missing, download):
    """Download missing official files, MD5-checked and atomically; DataError, within seconds if offline."""
    files, why = [f"{name}.gz" for name in missing], "no download was tried"
    if download:
        import pooch
        import requests
        from tqdm import tqdm

        pooch.get_logger().setLevel("ERROR")
        mirrors, why = _reachable(MNIST_MIRRORS, files[0]), "no mirror answered"
        for file in files if mirrors else ():
            for mirror in mirrors:
                try:
                    # pooch renames a temporary file when the sum is right, and removes it otherwise;
                    # total=1 because pooch asks for the bar's truth before it knows the size
                    with tqdm(total=1, desc=file, unit="B", unit_scale=True, file=sys.stderr) as bar:
                        fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16,
                                                     timeout=(CONNECT_SECONDS, 30))
                        pooch.retrieve(mirror + file, f"md5:{MNIST_MD5[file]}", file, folder,
                                       downloader=fetch)
                    break
                except requests.exceptions.RequestException as error:  # before OSError, its base class
                    why = f"{mirror}: {type(error).__name__}"
                except ValueError:
                    why = f"{mirror}: wrong MD5"
                except OSError as error:
                    raise DataError(f"cannot write {folder / file} ({error.strerror or error}): make the "
                                    "folder writable or put the official MNIST files there") from error
        files = [file for file in files if not os.path.exists(folder / file)]
    if files:
        raise DataError(f"MNIST: {', '.join(files)} missing and not downloaded ({why}): put the official "
                        f"files into {folder}, or use --sample for a small generated set")


def _reachable(mirrors, file):
    """Those mirrors that answer within CONNECT_SECONDS; in threads, as a name look-up can hang longer."""
    import pooch

    answered = set()

    def ask(mirror):
        try:
            pooch.HTTPDownloader(timeout=CONNECT_SECONDS)(mirror + file, None, None, check_only=True)
            answered.add(mirror)
        except Exception:  # whatever it is, this mirror is of no use
            pass

    threads = [threading.Thread(target=ask, args=(mirror,), daemon=True) for mirror in mirrors]
    deadline = time.monotonic() + CONNECT_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return [mirror for mirror in mirrors if mirror in answered]


# -------------------------------------------------------------------------------------- CIFAR-10, SVHN

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
        raise DataError(f"CIFAR10: {', '.join(missing)} missing: unpack the official cifar-10-python.tar.gz "
                        f"so that they are in {folder}, or use --sample for a small generated set")
    batches, identity = [], {}
    for name in CIFAR10_MD5:
        data = _read_bytes(folder / name)
        identity[name] = _md5(data)
        if identity[name] != sums.get(name):
            other = [one for one in CIFAR10_MD5 if sums.get(one) == identity[name]]
            what = (f"has the content of {other[0]}" if other else
                    "is truncated, corrupted or another file (its MD5 differs)")
            raise DataError(f"{folder / name} {what}: {_remedy(sample)}")
        batches.append(_parse_batch(folder / name, data))
    x, labels = (np.concatenate(column) for column in zip(*batches[:-1], strict=True))
    sizes = {"train + valid": (len(x), manifest["split"]["train"] + manifest["split"]["valid"]),
             "test": (len(batches[-1][0]), manifest["split"]["test"])} if sample else {}
    for name, (found, announced) in sizes.items():
        if found != announced:
            raise DataError(f"{folder}: {name} has {found} images but its manifest says {announced}: "
                            f"{_remedy(sample)}")
    return x, labels, *batches[-1], identity


def _parse_batch(path, data):
    """(uint8 (n, 3072), int64 (n,)) of one pickled batch."""
    try:
        batch = _BatchUnpickler(data).load()
        x, labels = batch[b"data"].array, np.array(batch[b"labels"])
    except Exception as error:  # a hostile or damaged pickle can raise anything
        raise DataError(f"{path} is not a CIFAR-10 batch ({error}): replace it") from error
    if x.ndim != 2 or x.shape[1] != 3072 or labels.shape != x.shape[:1] or labels.dtype.kind != "i":
        raise DataError(f"{path} has data {x.shape} and labels {labels.dtype} {labels.shape}, not (n, 3072) "
                        "and integers (n,): replace it")
    if labels.size and not 0 <= labels.min() <= labels.max() < CLASSES:
        raise DataError(f"{path} has labels from {labels.min()} to {labels.max()}, not 0..9: replace it")
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


def read_svhn_mat(path):
    """One official SVHN format-2 .mat file (MATLAB 5: X uint8 (32, 32, 3, n), y (n, 1) of 1..10).

    Returns
    -------
    x uint8 (n, 3072) in (channel, row, column) order; labels int64 (n,), 1..10, where 10 is the digit 0.

    Raises
    ------
    DataError : the file is missing, damaged, or holds something else.
    """
    import scipy.io

    path = Path(path)
    if not os.path.exists(path):
        raise DataError(f"SVHN: {path.name} missing: put the official format-2 files into {path.parent}, "
                        "or use --sample for a small generated set")
    try:
        variables = scipy.io.loadmat(path, variable_names=("X", "y"))
        x, labels = (np.asarray(variables[name]) for name in ("X", "y"))
    except Exception as error:  # loadmat raises nearly anything on a damaged file
        raise DataError(f"{path} is truncated, corrupted or no MATLAB 5 file with X and y "
                        f"({type(error).__name__}): replace it by the official file") from error
    if x.ndim != 4 or x.shape[:3] != (32, 32, 3) or x.dtype != np.uint8 or labels.shape != (x.shape[3], 1):
        raise DataError(f"{path} has X {x.dtype} {x.shape} and y {labels.shape}, not uint8 (32, 32, 3, n) "
                        "and (n, 1): replace it by the official file")
    if labels.dtype.kind not in "iuf" or not np.isin(labels, np.arange(1, CLASSES + 1)).all():
        raise DataError(f"{path} has labels other than 1..10: replace it by the official file")
    return x.transpose(3, 2, 0, 1).reshape(-1, 3072), labels[:, 0].astype(np.int64)


# --------------------------------------------------------------------------------------- sample, files

def _manifest(folder, sample):
    """The sample's manifest, {"files": {name: MD5}, "split": {part: size}, ...}; None unless sample.

    DataError if there is a sample but none is asked for, or none but it is, or the manifest is damaged.
    """
    path = folder / "manifest.json"
    if not sample:
        if os.path.exists(path):
            raise DataError(f"{folder} holds the generated sample, not the official files: use --sample to "
                            "train on it, or give another data folder")
        return None
    if not os.path.exists(path):
        raise DataError(f"{folder} holds no generated sample (no manifest.json): make one with "
                        "python -m utilities.sample_data DIR, or leave --sample out")
    try:
        manifest = json.loads(_read_bytes(path))
        sane = (manifest["sample"] is True and all(isinstance(md5, str) for md5 in manifest["files"].values())
                and all(type(manifest["split"][part]) is int and manifest["split"][part] > 0
                        for part in ("train", "valid", "test")))
    except (ValueError, KeyError, TypeError, AttributeError):
        sane = False
    if not sane:
        raise DataError(f"{path} is damaged: {_remedy(sample)}")
    return manifest


def _missing_sample(folder, missing):
    return DataError(f"{folder}: {', '.join(missing)} missing from the generated sample: {_remedy(True)}")


def _remedy(sample):
    return ("delete its folder and make the sample again (python -m utilities.sample_data DIR)" if sample else
            "delete it and get the official file again, or use --sample for a small generated set")


def _read_bytes(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error}): make it a readable file") from error


def _md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


# task -> loader(folder, sample); CIFAR10 and SVHN are to come
LOADERS = {"PI_MNIST": load_mnist, "MNIST": load_mnist}
