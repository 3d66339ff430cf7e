"""What XLA makes of the training and test programs for a GPU that is not there.

    python -m utilities.gpu_report [--device h100] [--tasks ...] [--formats ...] [--kinds ...]

compiles them from a description of the device, which takes seconds a program, and prints a
table: kernels, bytes and products of a batch, memory, and the lower bound of an epoch. That is
arithmetic from the device's peak figures, and no measurement: the largest of all launches at
3 microseconds each, all bytes at its memory's speed, all operations at its peak. Needs
requirements-gpu-check.txt, and neither a GPU nor a driver. --device also takes a file that
describes another device (XLA's GpuTargetConfigProto as text).
"""

import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from errors import ProgramError
from settings import FORMAT_ARGUMENTS, PAPER
from tasks import TASKS
from terminal import Parser, say
from utilities.gpu_devices import DEVICES, Gpu, gpu

NAME = "python -m utilities.gpu_report"
LAUNCH_SECONDS = 3e-6
EXAMPLES = {"PI_MNIST": 50000, "MNIST": 50000, "CIFAR10": 45000, "SVHN": 598388}
KINDS = ("train", "test", "together")
TOGETHER = {"PI_MNIST": 8}  # runs at a time; two of the others
COLUMNS = (
    "task",
    "format",
    "program",
    "kernels",
    "not in a graph",
    "MB a batch",
    "GFLOP a batch",
    "products, full / TF32",
    "MiB",
    "an epoch at least, s",
)


def compiled(device: Gpu, task: str, number_format: str, kind: str, bits: int = 9) -> Any:
    """The Compilation of one program; MissingPackage without XLA's compiler for GPUs.

    Parameters
    ----------
    kind
        One of KINDS.
    """
    from xla.described import as_on_a_gpu, compile_for
    from xla.device import select_device

    select_device("cpu")  # the GPU's compiler then does not ask for its driver
    with as_on_a_gpu():
        program, arguments, static = described_call(task, number_format, kind, bits)
        return compile_for(device.description, program, arguments, **static)


def described_call(
    task: str, number_format: str, kind: str, bits: int
) -> tuple[Any, tuple, dict[str, Any]]:
    """A program and arguments of the shapes that it has in a run, without their data."""
    from model import Network
    from xla.masks import mask_state
    from xla.programs import TestProgram, TrainingProgram

    batch = TASKS[task].batch_size
    segment = TASKS[task].segment
    network = Network(task, number_format, np.random.RandomState(1), 5)
    state = {str(v.name): v.get_value() for v in network.state}
    first = np.int32(0)
    if kind == "test":
        whole = -(-10000 // batch)
        x = np.broadcast_to(np.float32(0), (whole, batch, network.input_size))
        classes = np.zeros((whole, batch), "int32")
        arguments = (state, np.int32(bits), x, classes, first, np.int32(whole))
        return TestProgram(network, batch).program, arguments, {}
    training = TrainingProgram(network, batch, segment)
    loaded = (TASKS[task].chunk_batches or EXAMPLES[task]) * (batch if task == "SVHN" else 1)
    x = np.broadcast_to(np.float32(0), (loaded, network.input_size))
    t = np.broadcast_to(np.float32(0), (loaded, 10))
    rows = np.zeros((segment, batch), "int32")
    constants: dict[str, Any] = {"LR": np.float32(0), "M": np.float32(0)}
    constants |= {"prop_bits": np.int32(bits), "up_bits": np.int32(bits + 2)}
    constants |= {"frequency": np.int32(100), "max_overflow": np.float64(0)}
    state |= mask_state(0)
    count = np.int32(segment)
    static = training.static(constants, count)
    if kind == "train":
        return training.program, (state, constants, x, t, rows, first, count, None), static
    k = TOGETHER.get(task, 2)
    runs = ((state,) * k, (constants,) * k, x, t, (rows,) * k, (first,) * k, count, (None,) * k)
    return training.team_program, runs, static


def operations(task: str) -> tuple[float, float]:
    """Floating point operations of a training step's products, and those with the data."""
    from model import Network
    from utilities.benchmark_products import products

    network = Network(task, "FLP", np.random.RandomState(1))
    each = [2.0 * m * k * n for m, k, n in products(network, TASKS[task].batch_size)]
    return sum(each), sum(each[:2])


def rows(device: Gpu, choices: argparse.Namespace) -> Iterator[list[str]]:
    """A line of the table for each program, once it is compiled."""
    from utilities.gpu_reading import counts

    for task in choices.tasks:
        every, of_data = operations(task)
        for number_format in choices.formats:
            for kind in choices.kinds:
                compilation = compiled(device, task, number_format, kind, choices.bits)
                found = counts(compilation)
                runs = TOGETHER.get(task, 2) if kind == "together" else 1
                share = 1 / 3 if kind == "test" else 1  # it has no gradients
                full = every if found.tf32 == 0 else of_data
                flop = runs * share * every
                seconds = runs * share * (full / device.full + (every - full) / device.tf32)
                least = max(found.kernels * LAUNCH_SECONDS, found.moved / device.bandwidth, seconds)
                memory = compilation.argument_bytes + compilation.temporary_bytes
                batches = EXAMPLES[task] // TASKS[task].batch_size
                bound = f"{least * batches / runs:.2f}" if kind != "test" else ""
                yield [
                    task,
                    number_format,
                    f"{kind} {runs}" if kind == "together" else kind,
                    str(found.kernels),
                    str(found.outside),
                    f"{found.moved / 1e6:.0f}",
                    f"{flop / 1e9:.2f}",
                    f"{found.full} / {found.tf32}",
                    f"{memory / 2**20:.0f}",
                    bound,
                ]


def parser() -> Parser:
    """The command line."""
    result = Parser(NAME, __doc__)
    result.add_argument(
        "--device", default="h100", help=f"{', '.join(DEVICES)}, or a file; default h100"
    )
    tasks = ["PI_MNIST", "MNIST", "CIFAR10"]
    result.add_argument("--tasks", nargs="+", choices=TASKS, default=tasks, metavar="TASK")
    result.add_argument(
        "--formats", nargs="+", choices=FORMAT_ARGUMENTS, default=list(PAPER), metavar="FORMAT"
    )
    result.add_argument("--kinds", nargs="+", choices=KINDS, default=["train"], metavar="KIND")
    result.add_argument("--bits", type=int, choices=range(1, 30), default=9, metavar="BITS")
    return result


def main(arguments: list[str] | None = None) -> int:
    a = parser().parse_args(arguments)
    try:
        device = gpu(a.device)
        head = f"{device.name}, {a.bits} and {a.bits + 2} bits\n\n"
        head += f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
        for row in rows(device, a):
            print(f"{head}| {' | '.join(row)} |", flush=True)
            head = ""
    except ProgramError as error:
        say("gpu_report", error)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
