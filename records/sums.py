"""Sums over config.json and metrics.jsonl, which checkpoints and final.npz hold.

    config     of the values in config.json
    metrics    of the first `lines` lines of metrics.jsonl, each ended
    lines

config.json changes once a run is told to go on with other code, or beyond its schedule: its
entries `earlier_code` and `extended` have the sums that it had before. Runs of old have no sums,
and nothing is said of them.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from records.metrics import Record

Sums = dict[str, Any]


def config_sum(config: Mapping[str, Any]) -> str:
    """The sum of a configuration, however it is written down."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def fits(sums: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a configuration is, or has been, the one that a sum was made of."""
    changes = [*config.get("earlier_code", []), *config.get("extended", [])]
    earlier = [entry["config_sum"] for entry in changes]
    return sums["config"] in (config_sum(config), *earlier)


def line(record: Record) -> bytes:
    """A record as metrics.jsonl has it."""
    return json.dumps(record).encode() + b"\n"


class MetricsSum:
    """The sum of records, one after the other."""

    def __init__(self) -> None:
        self.lines = 0
        self._sum = hashlib.sha256()

    def add(self, *lines: bytes) -> None:
        for text in lines:
            self._sum.update(text)
        self.lines += len(lines)

    def so_far(self) -> Sums:
        return {"metrics": self._sum.hexdigest(), "lines": self.lines}


def first_difference(lines: list[bytes], records: list[Record]) -> str:
    """What the first lines of metrics.jsonl say instead of these records; "" if nothing."""
    for text, record in zip(lines, records, strict=False):
        if text == line(record):
            continue
        try:
            there = json.loads(text)
            names = [name for name in {**record, **there} if there.get(name) != record.get(name)]
        except (ValueError, TypeError, AttributeError, RecursionError):
            return f"the line of epoch {record['epoch']} cannot be read"
        if names:
            name = names[0]
            return (
                f"{name} of epoch {record['epoch']} is {there.get(name)!r}, it was "
                f"{record.get(name)!r}"
            )
        return f"the line of epoch {record['epoch']} is written in another way"
    return ""
