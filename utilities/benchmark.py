"""Time training and evaluation, beside the matrix products alone and PyTorch.

    python -m utilities.benchmark
    python -m utilities.benchmark --tasks PI_MNIST --formats FLP FXP DFXP --peer \\
        -o benchmark.json --markdown benchmark.md

Training steps, ours, the floor's and PyTorch's, are measured in turn, round after
round, each in a process of its own, so that ratios hold where the machine's speed
drifts; then evaluation, checkpoints and what else is asked for. Times are medians over
the rounds (smallest - largest), but for the start: from nothing to the first batch,
once with compilation and once with what was saved. Data are random, of the real shapes.
Close other programs first.

floor: the step's matrix products alone (a convolution counted as its matrix product),
by NumPy's BLAS on a CPU, by JAX's on a GPU; --layers compares every single convolution
with its matrix products in NumPy's. --parts says what a step spends its time on, on one
core and on all. --peer adds the same step in PyTorch: as written
(eager), compiled, and with QPyTorch's quantizers, as far as torch and qtorch are
installed, here or for another Python (--peer PYTHON). --against adds the same step as it
is in another revision of this repository.
"""

import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import argparse
import contextlib
import datetime
import json
import platform

import terminal
from records import machine
from settings import FORMAT_ARGUMENTS, PAPER
from tasks import TASKS
from utilities.benchmark_effort import EFFORTS
from utilities.benchmark_measure import Plan, Report, measure, measure_layers
from utilities.benchmark_processes import Process, tree_of
from utilities.benchmark_profiles import measure_parts, measure_peer_parts
from utilities.benchmark_table import markdown


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is measured, and where the report goes."""
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=TASKS,
        default=list(EFFORTS),
        metavar="TASK",
        help=f"default: {', '.join(EFFORTS)}",
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=FORMAT_ARGUMENTS,
        default=list(PAPER),
        metavar="FORMAT",
        help=f"{', '.join(FORMAT_ARGUMENTS)}; default: {', '.join(PAPER)}",
    )
    parser.add_argument("-o", "--out", type=terminal.path, help="write the report as JSON")
    parser.add_argument("--markdown", type=terminal.path, help="write the table as Markdown, too")
    add_measurements(parser)


def add_measurements(parser: argparse.ArgumentParser) -> None:
    """How often, where, and what besides."""
    parser.add_argument(
        "--peer",
        nargs="?",
        const=sys.executable,
        metavar="PYTHON",
        help="measure PyTorch as well, with this Python (default: the one that runs this)",
    )
    parser.add_argument(
        "--against",
        metavar="REV",
        help="measure another revision as well, such as HEAD~1 or a tag",
    )
    parser.add_argument(
        "--rounds",
        type=terminal.whole(1, 10**6),
        default=5,
        metavar="N",
        help="how often everything is measured (default: 5)",
    )
    parser.add_argument(
        "--together",
        type=terminal.whole(1, 1000),
        default=1,
        metavar="N",
        help="measure N runs as one program as well, against one after the other",
    )
    parser.add_argument(
        "--layers",
        action="store_true",
        help="measure each convolution against its matrix products as well",
    )
    parser.add_argument(
        "--parts",
        action="store_true",
        help="measure each part of a training step, on one core and on all of a CPU, as well",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="where to compute (default: auto)",
    )


def check_writable(path: Path) -> None:
    """OSError if a file cannot be written, before anything takes long."""
    new = not path.exists()
    path.open("a").close()
    if new:
        path.unlink()


@terminal.program(
    "benchmark",
    kept="what is measured of a whole task is in the files of -o and --markdown",
)
def main(arguments: list[str]) -> int:
    parser = terminal.Parser("python -m utilities.benchmark", __doc__)
    add_options(parser)
    a = parser.parse_args(arguments)
    for path in filter(None, (a.out, a.markdown)):
        check_writable(path)
    if a.peer and (why := Process([a.peer, "-c", "import torch; print(0)"]).lacks()):
        parser.error(f"--peer {a.peer}: {why}; name a Python that has torch")
    with tree_of(a.against) if a.against is not None else contextlib.nullcontext() as against:
        try:
            compare(a, ["python", "-m", "utilities.benchmark", *arguments], against)
        finally:
            Process.close_all()
    return 0


def compare(
    a: argparse.Namespace, command: list[str], against: tuple[str, Path] | None = None
) -> None:
    """Measure all tasks, against another revision if there is one; write and print the report."""
    report: Report = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "revision": machine.revision(),
        "processor": machine.processor(),
        "cores": machine.cores(),
        "python": platform.python_version(),
        "results": [],
    }
    plan = Plan(list(dict.fromkeys(a.formats)), a.rounds, a.device, a.peer, a.together, against)
    for task in dict.fromkeys(a.tasks):
        result, facts = measure(task, plan, say)
        report["results"].append(result)
        report |= facts
        write(report, a.out, a.markdown)
        if a.layers and (rows := measure_layers(task, a.rounds, a.device, say)):
            result["layers"] = rows
            write(report, a.out, a.markdown)
        if a.parts:
            result["parts"] = measure_parts(task, plan.formats, a.rounds, say)
            if a.peer:
                result["peer_parts"] = measure_peer_parts(task, plan, say)
            write(report, a.out, a.markdown)
    print(markdown(report))


def say(text: str) -> None:
    """How far it is."""
    with contextlib.suppress(OSError):  # nobody reads it
        print(text, file=sys.stderr)


def write(report: Report, out: Path | None, table: Path | None) -> None:
    """Write the files that are asked for."""
    if out:
        out.write_text(json.dumps(report, indent=1) + "\n")
    if table:
        table.write_text(markdown(report))


if __name__ == "__main__":
    terminal.run(main)
