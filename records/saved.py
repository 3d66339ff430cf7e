"""What best.npz and final.npz hold: a network to take away. records.networks reads them.

An .npz file, uncompressed and without pickles:

    layer0/W, layer0/b, ...   float32, the stored parameters
    layer0/ranges, ...        int32 (10,), the ranges with which the errors were measured, in the
                              order of format.SIGNALS; in formats that have ranges
    epoch                     the epoch they are from
    about                     JSON text: see `about`
    sum                       SHA-256 sum of all these together: see `sum_of`
    sums                      JSON text: see records.sums; in final.npz

The first form had no ranges and no `about`; read beside its metrics.jsonl and config.json it is
completed from those. Early files have no `sum`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from files import Arrays, write_npz
from records import code, extension
from records.metrics import Record
from records.sums import Sums
from settings import Settings

FORM = 2


def about(config: Mapping[str, Any], layers: list[dict[str, Any]]) -> dict[str, Any]:
    """What the files of a run say of it, from its config.json and the description of its layers.

    The epoch and its errors come with each network. `code` and `task` only where config.json
    says with which code the run is trained, `extended` only where it goes beyond its schedule.
    """
    said: dict[str, Any] = {
        "form": FORM,
        "settings": config["settings"],
        "data": config["data"],
        "sample": bool(config.get("sample")),
        **{name: config[name] for name in ("own_set",) if name in config},
        "layers": layers,
    }
    if more := extension.epochs(config):
        said["extended"] = more
    if "code" in config:
        said |= {"task": config["code"]["task"], "code": code.digest(config["code"])}
    return said


def write(
    path: Path,
    arrays: Arrays,
    said: Mapping[str, Any],
    epoch: int,
    validation_error: float,
    test_error: float,
    sums: Sums | None = None,
) -> None:
    """Write a network; `said` is what `about` gives."""
    errors = {"validation_error": validation_error, "test_error": test_error}
    text = json.dumps({**said, "epoch": epoch, **errors})
    arrays = arrays | {"epoch": np.array(epoch), "about": np.array(text.encode())}
    arrays["sum"] = np.array(sum_of(arrays).encode())
    if sums:  # apart, as they depend on times
        arrays["sums"] = np.array(json.dumps(sums).encode())
    write_npz(path, arrays)


def sum_of(arrays: Mapping[str, np.ndarray]) -> str:
    """One sum over a network, so that no array is exchanged for that of another."""
    digest = hashlib.sha256()
    for name in sorted(set(arrays) - {"sum", "sums"}):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def ranges_then(settings: Settings, record: Record, layers: int) -> Arrays:
    """The ranges with which the errors of an epoch were measured, from its record.

    The untrained network is evaluated before the range initialisation, with INITIAL_RANGE.
    ValueError if the record has none.
    """
    if "initial_range" not in settings.numbers:
        return {}
    moved: Any = [[settings.initial_range] * 10] * layers
    if record["epoch"] and "range_update_frequency" in settings.numbers:
        moved = record.get("ranges")
        if not _are_ranges(moved, layers):
            raise ValueError(f"the record of epoch {record['epoch']} has no ranges")
    return {f"layer{k}/ranges": np.array(ranges, "int32") for k, ranges in enumerate(moved)}


def _are_ranges(value: Any, layers: int) -> bool:
    """Whether there are ten whole numbers for each layer."""
    return (
        isinstance(value, Sequence)
        and len(value) == layers
        and all(isinstance(ranges, Sequence) and len(ranges) == 10 for ranges in value)
        and all(type(noib) is int and abs(noib) < 2**31 for ranges in value for noib in ranges)
    )
