"""What pylearn2 did to CIFAR-10 and SVHN before training (SPEC section 12), and where the results are kept.

    global_contrast_normalize, ZCA, local_contrast_normalize, split_svhn    the operations, on arrays
    whiten_cifar10     GCN and ZCA of CIFAR-10, kept as .npy files beside the pickles
    preprocess_svhn    split, GCN and LCN of SVHN, streamed into three HDF5 files

Images are rows of 3072 values in (channel, row, column) order.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets import (
    PREPROCESSING_VERSION,
    SVHN_PARTS,
    HDF5Part,
    check_finite,
    fetch_svhn,
    one_hot,
    read_svhn_mat,
    svhn_sources,
)
from errors import DataError

GCN_SCALE = {"CIFAR10": 55.0, "SVHN": 1.0}
ZCA_BIAS = 0.1
SPLIT_SEED = 322
BLOCK = 5000  # images read, normalised and written at a time
CACHED = 250  # images whose float64 copy stays in the cache
CHUNK_ROWS = (
    125  # images a compressed piece of an HDF5 file; divides BLOCK, so that each is written once
)


def _blocks(n, size):
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


# ------------------------------------------------------------------------------------------ operations


def global_contrast_normalize(x, scale):
    """Subtract each image's mean, divide by sqrt(sum of squares)/scale; a divisor below 1e-8 becomes 1.

    Parameters
    ----------
    x : (n, features) array of any numbers
    scale : float, the length of every row afterwards

    Returns
    -------
    float32 (n, features), from sums in float64. Source: SPEC section 12.
    """
    out = np.empty(np.shape(x), np.float32)
    for rows in _blocks(len(out), CACHED):
        centred = x[rows] - np.mean(x[rows], axis=1, keepdims=True, dtype=np.float64)
        divisor = np.sqrt(np.einsum("ij,ij->i", centred, centred)) / scale
        divisor[divisor < 1e-8] = 1
        np.divide(centred, divisor[:, None], out=out[rows], casting="same_kind")
    return out


@dataclass(frozen=True)
class ZCA:
    """Whitening that stays closest to the image: x -> (x - mean) P (SPEC section 12).

    mean : float64 (d,)
    P : float64 (d, d), symmetric: V diag(lambda^-1/2) V^T of the covariance plus bias I
    """

    mean: np.ndarray
    P: np.ndarray

    @classmethod
    def fit(cls, x, bias=ZCA_BIAS, progress=lambda images: None):
        """Mean and covariance of x (n, d) in float64, a block at a time; progress(images) is called after each."""
        mean = np.mean(x, axis=0, dtype=np.float64)
        if len(x) < x.shape[1]:
            progress(len(x))
            return cls(mean, _inverse_root_of_few(x - mean, bias))
        covariance = np.zeros((x.shape[1],) * 2)
        for rows in _blocks(len(x), BLOCK):
            centred = x[rows] - mean
            covariance += centred.T @ centred
            progress(len(centred))
        covariance /= len(x)
        covariance[np.diag_indices_from(covariance)] += bias
        eigenvalues, V = np.linalg.eigh(covariance)
        return cls(mean, (V / np.sqrt(eigenvalues)) @ V.T)

    def apply(self, x, out=None, progress=lambda images: None):
        """float32 (n, d) of x (n, d), into `out` if given; the product is in float32 (a few 1e-6 of the result)."""
        out = np.empty(np.shape(x), np.float32) if out is None else out
        P = self.P.astype(np.float32)
        for rows in _blocks(len(x), BLOCK):
            np.matmul((x[rows] - self.mean).astype(np.float32), P, out=out[rows])
            progress(rows.stop - rows.start)
        return out


def _inverse_root_of_few(centred, bias):
    """P of fewer images than features, as in the sample, ten times faster: outside their span P is bias^-1/2 I."""
    n, d = centred.shape
    eigenvalues, U = np.linalg.eigh(centred @ centred.T / n)
    some = eigenvalues > 1e-12 * eigenvalues[-1]
    eigenvalues, V = eigenvalues[some], centred.T @ (U[:, some] / np.sqrt(n * eigenvalues[some]))
    P = (V * ((eigenvalues + bias) ** -0.5 - bias**-0.5)) @ V.T
    P[np.diag_indices(d)] += bias**-0.5
    return P


def _gaussian_matrix():
    """float32 (32, 32): product with it convolves 32 values with a 7-tap Gaussian, sigma 2, zeros beyond the border."""
    offsets = np.arange(-3, 4)
    taps = np.exp(-(offsets**2) / (2 * 2.0**2))
    return sum(
        np.diag(np.full(32 - abs(k), tap), k)
        for k, tap in zip(offsets, taps / taps.sum(), strict=True)
    ).astype(np.float32)


def local_contrast_normalize(x, channels="all"):
    """LeCun's local contrast normalisation of each 32 x 32 channel X: v / max(d, mean of d over the image, 1e-4).

    v = X - K*X and d = sqrt(K*(X^2)), X uncentred, with zeros beyond the border. K is a 7 x 7 Gaussian of sigma 2 that
    sums to 1: the outer product of a 7-tap one with itself, so K*X = G X G with a banded 32 x 32 matrix G.

    Parameters
    ----------
    x : (n, 3072) array
    channels : "all", or "first": the first channel alone, as pylearn2 did it by a bug; the others stay as they are

    Returns
    -------
    float32 (n, 3072). Source: SPEC section 12.
    """
    if channels not in ("all", "first"):
        raise ValueError(f"channels is {channels!r}: give 'all' or 'first'")
    G, out = _gaussian_matrix(), np.array(x, np.float32)

    def blur(X):
        return np.matmul(G, (X.reshape(-1, 32) @ G).reshape(X.shape))

    for rows in _blocks(len(out), CACHED):
        images = out[rows].reshape(-1, 3, 32, 32)[:, : 3 if channels == "all" else 1]
        X = np.ascontiguousarray(images)
        d = np.sqrt(blur(X * X))
        np.maximum(d, d.mean((2, 3), keepdims=True, dtype=np.float64), out=d, casting="same_kind")
        images[...] = (X - blur(X)) / np.maximum(d, np.float32(1e-4))
    return out


def split_svhn(train_labels, extra_labels, per_class):
    """Which images are in splitted_train and in valid, and in which order.

    Parameters
    ----------
    train_labels, extra_labels : int (n,), 1..10
    per_class : {"train": images of each class that valid takes from train, "extra": those from extra}

    Returns
    -------
    {"train": int64 rows of train followed by extra, "valid": the same}: a partition of them all. "train" is
    splitted_train.

    Raises
    ------
    DataError : a class has fewer images than valid takes.

    Source: SPEC section 12; the taken rows stand in the order of taking before they are shuffled.
    """
    rows = {}
    for part in ("train", "valid"):
        rng, taken, start = np.random.RandomState(SPLIT_SEED), [], 0
        for name, labels in (("train", train_labels), ("extra", extra_labels)):
            for label in range(1, 11):
                indices = np.flatnonzero(labels == label)
                if len(indices) < per_class[name]:
                    raise DataError(
                        f"SVHN: {name} has {len(indices)} images with label {label}, valid takes "
                        f"{per_class[name]}: give the whole files"
                    )
                rng.shuffle(indices)
                taken.append(start + indices[: per_class[name]])
            start += len(labels)
        rows[part] = np.concatenate(taken)
        if part == "train":
            rows[part] = np.setdiff1d(np.arange(start), rows[part], assume_unique=True)
        rows[part] = rows[part][_shuffled(len(rows[part]), rng)]
    return rows


def _shuffled(n, rng):
    order = np.arange(n)
    rng.shuffle(order)
    return order


# --------------------------------------------------------------------------------------------- CIFAR-10


def whiten_cifar10(folder, train, test, inputs):
    """GCN with scale 55, then ZCA fitted on the training images (SPEC section 12): kept, or made and kept.

    The result is in folder/preprocessed-KEY (train.npy, test.npy and their sums), KEY being that of inputs, parameters
    and version. It is made again when it is damaged; what other inputs or another version left is deleted.

    Parameters
    ----------
    folder : the folder with cifar-10-batches-py in it
    train, test : uint8 (n, 3072) images
    inputs : file name -> MD5 of the files they come from

    Returns
    -------
    float32 (n, 3072) of train and of test: maps of the files, or arrays where the folder cannot be written.

    Raises
    ------
    DataError : no space is left on the device.
    """
    key = hashlib.md5(
        json.dumps(
            [inputs, GCN_SCALE["CIFAR10"], ZCA_BIAS, PREPROCESSING_VERSION], sort_keys=True
        ).encode(),
        usedforsecurity=False,
    ).hexdigest()[:16]
    folder = Path(folder)
    target, shapes = folder / f"preprocessed-{key}", {"train": train.shape, "test": test.shape}
    try:
        with _lock(folder / ".preprocessed.lock"):
            kept, why = _read_cache(target, shapes)
            if kept:
                return kept
            stale = [
                path for path in folder.glob("preprocessed-*") if path != target and path.is_dir()
            ]
            if why is None and stale:
                why = f"{stale[0]} is of other files or of another version"
            _report(
                "CIFAR10: " + (f"{why}: made again" if why else "first use") + ": GCN and ZCA of "
                f"{len(train) + len(test):,} images, kept in {target}"
            )
            for left in folder.glob(".preprocessed-*"):  # by an interrupted process
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            _write_cache(target, *_whitened(train, test))
            for path in stale:
                shutil.rmtree(path, ignore_errors=True)
            return _read_cache(target, shapes)[0]
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            kept, _ = _read_cache(target, shapes)
            if not kept:
                _report(
                    f"CIFAR10: GCN and ZCA of {len(train) + len(test):,} images, not kept ({folder} is not "
                    "writable)"
                )
            return kept or _whitened(train, test)
        raise DataError(
            f"cannot write {target} ({error.strerror or error}): make room for "
            f"{(train.size + test.size) * 4 / 1e6:.0f} MB there"
        ) from error


def _whitened(train, test):
    with _bar(2 * len(train) + len(test), "GCN and ZCA") as bar:
        x = global_contrast_normalize(train, GCN_SCALE["CIFAR10"])
        zca = ZCA.fit(x, progress=bar.update)
        whitened = [zca.apply(x, progress=bar.update)]
        del x
        whitened.append(
            zca.apply(global_contrast_normalize(test, GCN_SCALE["CIFAR10"]), progress=bar.update)
        )
    for name, x in zip(("train", "test"), whitened, strict=True):
        check_finite(f"CIFAR10 {name}", x)
    return whitened


def _write_cache(target, train, test):
    """Write the files into a temporary folder beside `target`, which then takes its place."""
    temporary, old = (target.with_name(f".{target.name}.{what}") for what in ("partial", "old"))
    temporary.mkdir()
    sums = {}
    try:
        for name, x in (("train", train), ("test", test)):
            with open(temporary / f"{name}.npy", "wb") as file:
                np.save(file, x)
                _sync(file)
            sums[name] = {
                "bytes": (temporary / f"{name}.npy").stat().st_size,
                "crc32": zlib.crc32(x),
            }
        with open(temporary / "sums.json", "w") as file:
            json.dump(sums, file)
            _sync(file)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    finally:
        for path in (temporary, old):
            shutil.rmtree(path, ignore_errors=True)


def _read_cache(target, shapes):
    """([train, test], None) from the files in `target`; (None, why not), the latter None if there are none."""
    if not target.exists():
        return None, None
    arrays = []
    try:
        sums = json.loads((target / "sums.json").read_bytes())
        for name, shape in shapes.items():
            path = target / f"{name}.npy"
            x = np.load(path, mmap_mode="r", allow_pickle=False)
            # the check sum reads the file once, as training is about to anyway
            if (
                path.stat().st_size != sums[name]["bytes"]
                or x.shape != shape
                or x.dtype != np.float32
                or zlib.crc32(x) != sums[name]["crc32"]
            ):
                return None, f"{path} is damaged"
            arrays.append(x)
    except Exception as error:  # np.load raises nearly anything on a damaged header
        return None, f"{target} is damaged ({type(error).__name__})"
    return arrays, None


# ------------------------------------------------------------------------------------------------- SVHN


def preprocess_svhn(folder, local, sample=False, channels="all", say=lambda line: None):
    """Split, GCN and LCN of SVHN: from the .mat files to local/h5 (SPEC section 12).

    Each file is written under another name, and moved when it is finished and on the disk. A file that is there, whole
    and of the same inputs and options is kept. The pixels stay in memory as uint8 (splitted_train mixes all rows of
    train and extra); what is made of them exists in blocks of 5,000 images. Same inputs, same bytes.

    Parameters
    ----------
    folder : the data folder; missing official files are downloaded to folder/SVHN/format2
    local : the folder in which h5/ is made (SVHN_LOCAL_PATH)
    sample : take the generated sample in `folder`, with the split sizes of its manifest
    channels : as for local_contrast_normalize
    say : called with a line for each file

    Raises
    ------
    DataError : an input is missing or damaged, the disk is too full or cannot be written.
    """
    source, target = svhn_sources(folder, sample), Path(local) / "h5"
    identity = source.identity(channels)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _lock(target / ".lock"):
            todo = [
                part for part in SVHN_PARTS if not _is_finished(part, target, source, identity, say)
            ]
            for left in target.glob(".*.partial"):  # by an interrupted process
                left.unlink()
            if todo:
                _check_space(target, sum(source.split[part] for part in todo) * (3072 + 10) * 4)
                _make_svhn(todo, source, target, identity, channels, say)
    except OSError as error:
        raise DataError(
            f"cannot write {target} ({error.strerror or error}): give a folder that can be written and has "
            "room"
        ) from error


def _is_finished(part, target, source, identity, say):
    """Whether local/h5 has this part, readable to its last byte and made from the same."""
    path = target / SVHN_PARTS[part]
    if not path.exists():
        return False
    try:
        with _bar(source.split[part], f"checking {path.name}") as bar:
            there = HDF5Part(path, source.split[part], "made again")
            if there.identity != identity:
                say(f"{path}: made from other files or with other options; made again")
                return False
            for rows in _blocks(len(there), BLOCK):
                there.read(rows.start, rows.stop)
                bar.update(rows.stop - rows.start)
    except DataError as error:
        say(str(error))
        return False
    say(f"{path}: {len(there):,} images, kept")
    return True


def _check_space(folder, size):
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DataError(
            f"{folder} has {free / 1e9:.2f} GB free, SVHN needs up to {size / 1e9:.2f} GB: make room or "
            "give another folder (SVHN_LOCAL_PATH)"
        )


def _make_svhn(todo, source, target, identity, channels, say):
    mats = ["test"] * ("test" in todo) + ["train", "extra"] * bool({"train", "valid"} & set(todo))
    fetch_svhn(source, mats)

    def write(part, arrays, labels, rows):
        if len(rows) != source.split[part]:
            raise DataError(
                f"{source.folder}: {part} would have {len(rows)} images, but {source.split[part]} are "
                "announced: delete the folder and get the files again"
            )
        started, path = time.monotonic(), target / SVHN_PARTS[part]
        _write_hdf5(path, _normalised(arrays, labels, rows, channels), len(rows), identity)
        say(
            f"{path}: {len(rows):,} images, {path.stat().st_size / 1e6:,.1f} MB, {time.monotonic() - started:.1f} s"
        )

    def read(name):
        return read_svhn_mat(source.folder / f"{name}_32x32.mat", source.sums[f"{name}_32x32.mat"])

    if "test" in todo:
        x, labels = read("test")
        write("test", [x], labels, _shuffled(len(x), np.random.RandomState(SPLIT_SEED)))
        del x
    if set(todo) - {"test"}:
        (x, labels), (more, more_labels) = read("train"), read("extra")
        rows = split_svhn(labels, more_labels, source.per_class)
        for part in ("valid", "train"):
            if part in todo:
                write(part, [x, more], np.concatenate([labels, more_labels]), rows[part])


def _normalised(arrays, labels, rows, channels):
    """Blocks (x float32 (n, 3072), y one-hot (n, 10)) of `rows` of the uint8 arrays, which are not joined for that."""
    starts = np.cumsum([0, *map(len, arrays)])
    for block in _blocks(len(rows), BLOCK):
        wanted = rows[block]
        pixels = np.empty((len(wanted), 3072), np.uint8)
        for array, start in zip(arrays, starts, strict=False):
            here = (wanted >= start) & (wanted < start + len(array))
            pixels[here] = array[wanted[here] - start]
        x = local_contrast_normalize(global_contrast_normalize(pixels, GCN_SCALE["SVHN"]), channels)
        check_finite("SVHN", x)
        yield x, one_hot(labels[wanted] - 1)  # the digit 0 has the label 10; class = label - 1


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


# ----------------------------------------------------------------------------------------------- helpers


@contextlib.contextmanager
def _lock(path):
    """Keep other processes out of a folder; they wait."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sync(file):
    file.flush()
    os.fsync(file.fileno())


def _report(line):
    print(line, file=sys.stderr, flush=True)


def _bar(total, title):
    """A progress bar on stderr when that is a terminal."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=title,
        unit="image",
        unit_scale=True,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
