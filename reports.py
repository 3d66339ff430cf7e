"""What main.py prints of epochs, and of a run."""

from collections.abc import Sequence

from errors import printable, printable_path
from records import extension
from records.folder import RunFolder
from records.metrics import Record

REPORTS = ("line", "published")


class Report:
    """Prints the record of each epoch.

    Parameters
    ----------
    kind
        One of REPORTS.
    ranges
        Whether a line is followed by all ranges; else by those that have changed.
    last_epoch
        The highest number that an epoch will have.
    """

    def __init__(self, kind: str, ranges: bool, last_epoch: int) -> None:
        self._published = kind == "published"
        self._all_ranges = ranges
        self._width = len(str(last_epoch))
        self._before: list[list[int]] | None = None  # the ranges that were printed

    def resuming(self, words: str) -> None:
        """Say from where a run goes on, in words."""
        if not self._published:
            print(f"resuming {words}", flush=True)

    def __call__(self, record: Record) -> None:
        if self._published:
            lines = published(record)
        else:
            known = None if self._all_ranges else self._before
            lines = [line(record, self._width), *range_lines(record.get("ranges", []), known)]
            self._before = record.get("ranges")
        print("\n".join(lines), flush=True)


def line(record: Record, width: int = 1) -> str:
    """An epoch in a line; the best one so far is that of the lowest validation error."""
    words = (
        f"epoch {record['epoch']:>{width}}: "
        f"validation {record['validation_error']:5.2f} %, "
        f"test {record['test_error']:5.2f} %, "
        f"best {record['best_test_error']:.2f} % in {record['best_epoch']}; "
        f"LR {record['LR']:.4g}, M {record['M']:.4g}"
    )
    if "seconds" in record:
        words += f"; {record['seconds']:.1f} s"
    if record.get("images_per_second"):
        words += f", {record['images_per_second']:,.0f} images/s"
    return words


def range_lines(
    ranges: Sequence[Sequence[int]], before: Sequence[Sequence[int]] | None
) -> list[str]:
    """The ranges of each layer: all of them, or those that are not what they were before."""
    if not ranges:
        return []
    from format import SIGNALS  # which takes long to import

    lines = []
    for k, now in enumerate(ranges):
        was = [None] * len(now) if before is None else before[k]
        triples = zip(SIGNALS, was, now, strict=True)
        if words := [f"{name} {noib}" for name, then, noib in triples if then != noib]:
            lines.append(f"  layer {k} ranges: {', '.join(words)}")
    return lines


def published(record: Record) -> list[str]:
    """An epoch as the published program printed it."""
    lines = [
        f"epoch {record['epoch']}:",
        f"  learning rate {record['LR']:g}",
        f"  momentum {record['M']:g}",
        f"  validation error {record['validation_error']:.2f} %",
        f"  test error {record['test_error']:.2f} %",
        f"  best epoch {record['best_epoch']}",
        f"  best validation error {record['best_validation_error']:.2f} %",
        f"  its test error {record['best_test_error']:.2f} %",
    ]
    for layer in range_lines(record.get("ranges", []), None):
        k, _, words = layer.removeprefix("  layer ").partition(" ranges: ")
        lines.append(f"  ranges of layer {k}: {words}")
    return lines


def print_result(run: RunFolder, record: Record | None = None) -> None:
    """The result of a run; `record` is its last one, if it is at hand."""
    record = record or run.records()[-1]
    config = run.config()
    data = f" on the set {printable(config['own_set'], 100)}" if "own_set" in config else ""
    data = " on the generated sample" if config.get("sample") else data
    folder = printable_path(run.folder)
    print(
        f"test error {record['best_test_error']:.2f} % at the lowest validation error, "
        f"{record['best_validation_error']:.2f} % in epoch {record['best_epoch']}; trained "
        f"{record['epoch']} of {extension.words(config)} epochs{data}; run folder {folder}",
        flush=True,
    )
