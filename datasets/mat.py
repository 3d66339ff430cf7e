"""The .mat files of SVHN."""

import os
from pathlib import Path

import numpy as np

from datasets.parts import CLASSES
from datasets.source import _unreadable
from errors import DataError
from files import file_md5


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
