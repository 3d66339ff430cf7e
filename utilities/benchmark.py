"""Time training and evaluation of every task and format, beside the limit of the matrix products and PyTorch.

    python -m utilities.benchmark
    python -m utilities.benchmark --tasks PI_MNIST --formats FLP FXP DFXP --peer -o benchmark.json --markdown benchmark.md

Training steps, ours, the floor's and PyTorch's, are measured in turn, round after round, each in a process of its own, so
that ratios hold where the machine's speed drifts; then evaluation, checkpoints and what else is asked for. Times are medians
over the rounds (smallest - largest), but for the start: from nothing to the first batch, once with compilation and once with
what was kept. Data are random, of the real shapes. Close other programs first.

floor: the step's matrix products alone (a convolution counted as its matrix product), by NumPy's BLAS on a CPU, by JAX's
on a GPU; --layers compares every single convolution with its matrix products in NumPy's. --peer adds the same step in
PyTorch: as written (eager), compiled, and with QPyTorch's quantizers, as far as torch and qtorch are installed, here or for
another Python (--peer PYTHON).
"""

import argparse
import datetime
import json
import os
import platform
import signal
import sys
from pathlib import Path

import terminal
from settings import FORMAT_ARGUMENTS
from utilities.benchmark_processes import Failed, Process, measure, measure_layers
from utilities.benchmark_table import markdown
from utilities.benchmark_worker import floor, layers, worker

MEASURED = ("PI_MNIST", "MNIST", "CIFAR10")  # SVHN's network is CIFAR10's


def main(arguments=None):
    parser = terminal.Parser("python -m utilities.benchmark", __doc__)
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=MEASURED,
        default=MEASURED,
        metavar="TASK",
        help=", ".join(MEASURED),
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=FORMAT_ARGUMENTS,
        default=list(FORMAT_ARGUMENTS),
        metavar="FORMAT",
        help=", ".join(FORMAT_ARGUMENTS),
    )
    parser.add_argument(
        "--peer",
        nargs="?",
        const=sys.executable,
        metavar="PYTHON",
        help="measure PyTorch as well, with this Python (default: the one that runs this)",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often everything is measured (default: 5)"
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
        "--device",
        choices=["auto", "cpu", "gpu"],
        default="auto",
        help="where to compute (default: auto)",
    )
    parser.add_argument("-o", "--out", type=Path, help="write the report as JSON")
    parser.add_argument("--markdown", type=Path, help="write the table as Markdown, too")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        task, what = options.worker
        if what in FORMAT_ARGUMENTS:
            return worker(task, what, options.device, options.together)
        return {"floor": floor, "layers": layers}[what](task, options.device)
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    for path in filter(None, (options.out, options.markdown)):
        new = not path.exists()
        try:
            path.open("a").close()
        except OSError as error:
            parser.error(f"{path} cannot be written: {error.strerror}")
        if new:
            path.unlink()
    if options.peer and (why := Process([options.peer, "-c", "import torch; print(0)"]).lacks()):
        parser.error(f"--peer {options.peer}: {why}; name a Python that has torch")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        compare(
            options,
            [
                "python",
                "-m",
                "utilities.benchmark",
                *(sys.argv[1:] if arguments is None else arguments),
            ],
        )
    except (Failed, OSError) as error:
        parser.error(error)
    except KeyboardInterrupt:
        parser.exit(
            130,
            "benchmark: interrupted; what is measured of a whole task is in the files of -o and --markdown\n",
        )
    finally:
        for process in list(Process.running):
            process.close()


def compare(options, command):
    """Measure all tasks; write and print the report."""
    report = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "results": [],
    }

    def say(text):
        print(text, file=sys.stderr)

    for task in dict.fromkeys(options.tasks):
        result, facts = measure(
            task,
            list(dict.fromkeys(options.formats)),
            options.rounds,
            options.device,
            options.peer,
            options.together,
            say,
        )
        report["results"].append(result)
        report |= facts
        write(report, options)
        if options.layers and task != "PI_MNIST":  # it has no convolutions
            result["layers"] = measure_layers(task, options.rounds, options.device, say)
            write(report, options)
    print(markdown(report))


def write(report, options):
    """Write the files that are asked for."""
    for path, text in (
        (options.out, json.dumps(report, indent=1) + "\n"),
        (options.markdown, markdown(report)),
    ):
        if path:
            path.write_text(text)


def processor():
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
