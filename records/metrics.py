"""The records of epochs: what a line of metrics.jsonl says."""

from typing import Any

import numpy as np

Record = dict[str, Any]

MOST_BYTES = 1 << 28  # of metrics.jsonl or config.json
EPOCHS = ("epoch", "best_epoch")
ERRORS = ("validation_error", "test_error", "best_validation_error", "best_test_error")


def norm(v: np.ndarray) -> float:
    """The Euclidean norm of all elements, in float64."""
    return float(np.sqrt(np.sum(np.square(v.astype("float64")))))


def _is_record(record: Record) -> bool:
    """Whether what every table needs is there, and of the right kind."""
    epochs = [record.get(name) for name in EPOCHS]
    errors: list[Any] = [record.get(name) for name in ERRORS]
    seconds = record.get("seconds", 0.0)
    return (
        all(type(epoch) is int and 0 <= epoch < 2**31 for epoch in epochs)
        and all(type(error) in (int, float) and 0 <= error <= 100 for error in errors)
        and (type(seconds) is float or type(seconds) is int and abs(seconds) < 2**63)
    )


def check_records(records: list[Record]) -> list[Record]:
    """The records as they are.

    ValueError, TypeError or AttributeError if they are anything but records of epochs.
    """
    for record in records:
        if not _is_record(record):
            raise ValueError("a line is no record of an epoch")
    return records


def check_course(records: list[Record], best: dict[str, Any] | None) -> None:
    """ValueError unless the best epochs are those of the lowest validation errors so far.

    `best` is the last one: before the first record that of epoch 0, or none.
    """
    lowest: dict[str, Any] | None = None
    for epoch, record in enumerate(records):
        error = record["validation_error"]
        if lowest is None or error < lowest["best_validation_error"]:
            values = (epoch, error, record["test_error"])
            names = ("best_epoch", "best_validation_error", "best_test_error")
            lowest = dict(zip(names, values, strict=True))
        if any(record[name] != value for name, value in lowest.items()):
            raise ValueError(f"the best epoch of the record of epoch {epoch} is another")
    if records and best != lowest or best and not records and best["best_epoch"]:
        raise ValueError("the best epoch is none of the records'")
