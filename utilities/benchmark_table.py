"""The tables of a benchmark's report, in Markdown."""

from collections.abc import Iterator
from typing import Any

from utilities.benchmark_measure import PEERS, Report
from utilities.benchmark_parts import PARTS

SPEED = (
    "task",
    "format",
    "ms a batch",
    "ms a test image",
    "to the floor",
    "to the format before",
    "first batch (again), s",
    "peak, GiB",
    "PyTorch eager, ms",
    "compiled, ms",
    "QPyTorch, ms",
    "fastest / ours",
)
CHECKPOINTS = ("task", "format", "checkpoint copied, s", "written, s", "of the time, %")
TEAMS = (
    "task",
    "format",
    "runs",
    "one after the other, ms a batch and run",
    "together, ms",
    "gain",
)
OTHERS = (
    "task",
    "format",
    "other revision",
    "its ms a batch",
    "ours, ms",
    "its / ours",
    "its first batch (again), s",
)
STEPS = ("task", "format", "cores", "ms a batch", "floor, ms", *PARTS)
PEER_STEPS = (
    "task",
    "format",
    "PyTorch eager: convolutions, ms",
    "matrix products, ms",
    "the rest, ms",
)
LAYERS = ("task", "layer", "product", "ours, ms", "BLAS, ms", "ratio")


def markdown(report: Report) -> str:
    """Speed, cost of checkpoints, and what else was measured."""
    rows = list(format_rows(report))
    speed = [(*names, *speed_cells(row)) for names, row in rows]
    checkpoints = [(*names, *checkpoint_cells(row["checkpoint"])) for names, row in rows]
    teams = [(*names, *team_cells(row["together"])) for names, row in rows if "together" in row]
    layers = [
        (result["task"], *layer_cells(row))
        for result in report["results"]
        for row in result.get("layers", ())
    ]
    tables = [table(SPEED, speed), table(CHECKPOINTS, checkpoints)]
    tables += [table(TEAMS, teams)] if teams else []
    others = [(*names, *other_cells(row)) for names, row in rows if "against" in row]
    tables += [table(OTHERS, others)] if others else []
    tables += [table(LAYERS, layers)] if layers else []
    parts = [
        (result["task"], row["format"], row["cores"], *parts_cells(row))
        for result in report["results"]
        for row in result.get("parts", ())
    ]
    tables += [table(STEPS, parts)] if parts else []
    peers = [
        (result["task"], row["format"], *(times(part) for part in row["parts_ms"].values()))
        for result in report["results"]
        for row in result.get("peer_parts", ())
        if "parts_ms" in row
    ]
    tables += [table(PEER_STEPS, peers)] if peers else []
    return "\n".join(tables)


def format_rows(report: Report) -> Iterator[tuple[tuple[str, str], Report]]:
    """((task, format), what was measured) of each."""
    for result in report["results"]:
        for name, row in result["formats"].items():
            yield (result["task"], name), row


def table(head: tuple[str, ...], rows: list[tuple]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def times(values: dict[str, float], digits: int = 1) -> str:
    """Median (smallest - largest)."""
    return "{median:.{d}f} ({min:.{d}f} - {max:.{d}f})".format(**values, d=digits)


def speed_cells(row: Report) -> tuple[str, ...]:
    """Of the first table."""
    before = next((row[key]["median"] for key in ("to_FLP", "to_FXP") if key in row), None)
    measured = {v: p for v, p in row["peers"].items() if "ms_per_batch" in p}
    peers = [times(measured[v]["ms_per_batch"]) if v in measured else "" for v in PEERS]
    fastest: Any = min(
        (p["to_ours"] for p in measured.values()), key=lambda ratio: ratio["median"], default=None
    )
    return (
        times(row["ms_per_batch"]),
        f"{row['ms_per_test_image']['median']:.3f}",
        f"{row['to_floor']['median']:.2f}",
        "" if before is None else f"{before:.2f}",
        "{:.1f} ({:.1f})".format(*row["to_first_batch_s"]),
        f"{row['peak_GiB']:.2f}",
        *peers,
        "" if fastest is None else times(fastest, 2),
    )


def checkpoint_cells(row: Report) -> tuple[str, ...]:
    """Of the second; the share is as if training stood still while it is written."""
    copied = row["copy_s"]["median"]
    written = row["write_s"]["median"]
    share = 100 * (copied + written) / row["every_s"]
    return f"{copied:.3f}", f"{written:.3f}", f"{share:.2f}"


def team_cells(row: Report) -> tuple[str, ...]:
    """Of the table of runs that are trained together."""
    runs = str(row["runs"])
    return runs, times(row["alone_ms"]), times(row["together_ms"]), times(row["gain"], 2)


def other_cells(row: Report) -> tuple[str, ...]:
    """Of the table of another revision."""
    other = row["against"]
    return (
        other["revision"],
        times(other["ms_per_batch"]),
        times(row["ms_per_batch"]),
        times(other["to_ours"], 2),
        "{:.1f} ({:.1f})".format(*other["to_first_batch_s"]),
    )


def layer_cells(row: Report) -> tuple[str, ...]:
    """Of the table of layers."""
    names = row["layer"], row["product"]
    return *names, times(row["ours_ms"]), times(row["blas_ms"]), times(row["to_blas"], 2)


def parts_cells(row: Report) -> tuple[str, ...]:
    """Of the table of a step's parts."""
    whole = (f"{row[key]['median']:.2f}" for key in ("ms_per_batch", "floor_ms"))
    return *whole, *(f"{row['parts_ms'][part]['median']:.2f}" for part in PARTS)
