"""Arrays that are made once."""

import contextlib
import fcntl
import json
import os
import shutil
import zlib

import numpy as np


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


@contextlib.contextmanager
def _lock(path):
    """Keep other processes out of a folder; they wait."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sync(file):
    file.flush()
    os.fsync(file.fileno())
