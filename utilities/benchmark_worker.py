"""What the measuring processes of the benchmark do: utilities.benchmark starts them.

    python -m utilities.benchmark_worker TASK WHAT [--device DEVICE] [--together N]

WHAT is a format, "floor" or "layers". Each line on stdin names a measurement; the
answer is a line of JSON.
"""

import functools
import gc
import importlib.metadata
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import files
import terminal
from model import N_CLASSES, Network
from records.follow import CHECKPOINT_SECONDS
from settings import FORMAT_ARGUMENTS, Settings
from tasks import TASKS
from utilities import benchmark_parts
from utilities.benchmark_effort import effort
from utilities.benchmark_products import output_sides, products, products_of, random_factors
from xla import profiling
from xla.convolution import Correlation, CorrelationFilterGradient, CorrelationInputGradient
from xla.device import device_name, peak_memory, select_device, to_device, to_host, wait
from xla.masks import mask_state
from xla.program_cache import cache_programs
from xla.programs import TestProgram, TrainingProgram
from xla.timing import matrix_products, repeated

VERSIONS = ("pytensor", "jax", "jaxlib", "numpy")
REMARKS: list[str] = []  # on the device
Measurements = Mapping[str, Callable[[], Any]]


def answer(measurements: Measurements) -> None:
    """Serve a parent process."""
    for line in sys.stdin:
        print(json.dumps(measurements[line.strip()]()), flush=True)


class Training:
    """Trains and evaluates a network on random data."""

    def __init__(self, network: Network, task: str, together: int) -> None:
        self.network = network
        self.together = together
        self.segment = TASKS[task].segment
        size = TASKS[task].batch_size
        numbers = Settings.published(task, "DFXP")
        self.training = TrainingProgram(network, size, self.segment)
        self.testing = TestProgram(network, size)
        self.state = self.new_state(1)
        rng = np.random.RandomState(1234)
        x = rng.uniform(size=(self.segment * size, network.input_size)).astype("float32")
        t = np.eye(N_CLASSES, dtype="float32")[rng.randint(N_CLASSES, size=len(x))]
        self.tested = effort(task).test_batches * size
        test_set = [np.resize(a, (self.tested, *a.shape[1:])) for a in (x, t)]
        self.test_set = self.testing.arrange(*test_set)
        self.examples = to_device((x, t))
        self.rows = np.arange(len(x), dtype="int32").reshape(self.segment, size)
        self.constants: dict[str, Any] = {
            "LR": np.float32(0.02),
            "M": np.float32(0.5),
            "prop_bits": np.int32(numbers.prop_bits),
            "up_bits": np.int32(numbers.up_bits),
            "frequency": np.int32(numbers.range_update_frequency),
            "max_overflow": np.float64(numbers.max_overflow),
        }

    def new_state(self, seed: int) -> Any:
        """The state of a run that begins."""
        state = {v.name: v.get_value() for v in self.network.state}
        return to_device(state | mask_state(seed))

    def call(self, state: Any, batches: int) -> tuple:
        """The arguments of the program that trains so many batches."""
        return state, self.constants, *self.examples, self.rows[:batches], 0, None

    def run(self, batches: int) -> None:
        self.state = wait(self.training(*self.call(self.state, batches)))

    def first(self) -> None:
        """One batch."""
        self.run(1)

    def train(self) -> float:
        """Milliseconds a batch."""
        self.run(max(1, self.segment // 10))  # the process has slept
        start = time.perf_counter()
        self.run(self.segment)
        return 1e3 * (time.perf_counter() - start) / self.segment

    def parts(self) -> dict[str, float]:
        """Milliseconds a batch of each part of a step, on a CPU."""
        state = [v.get_value().shape for layer in self.network.layers for v in (layer.W, layer.b)]
        elapsed = 0.0

        def run() -> None:
            nonlocal elapsed
            start = time.perf_counter()
            self.run(self.segment)
            elapsed = time.perf_counter() - start

        kernels = profiling.kernels(self.training.program.text)
        spent = profiling.seconds(run, kernels)
        parts = benchmark_parts.split(spent, kernels, state, elapsed)
        return {part: 1e3 * value / self.segment for part, value in parts.items()}

    def test(self) -> float:
        """Milliseconds a test image."""
        start = time.perf_counter()
        self.testing(self.state, self.constants["prop_bits"], *self.test_set)
        return 1e3 * (time.perf_counter() - start) / self.tested

    def checkpoint(self) -> tuple[float, float]:
        """Seconds to copy the state, when training waits, and to write it.

        It is written to the disk of temporary files.
        """
        start = time.perf_counter()
        arrays = to_host(self.state)
        parameters = [v.name for layer in self.network.layers for v in (layer.W, layer.b)]
        best = to_host({name: self.state[name] for name in parameters})
        arrays |= {f"best/{name}": value for name, value in best.items()}
        copied = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            files.write_npz(Path(folder) / "checkpoint.npz", arrays)
        return copied - start, time.perf_counter() - copied

    def team(self) -> tuple[float, float]:
        """Milliseconds a batch and run of several runs: one by one, and together."""

        def calls(states: list[Any]) -> list[tuple]:
            return [self.call(state, self.segment) for state in states]

        seeds = range(self.together)
        # Compiled, and once for nothing.
        alone = [self.training(*call) for call in calls([self.new_state(s) for s in seeds])]
        joined = self.training.together(calls([self.new_state(s) for s in seeds]))
        wait((alone, joined))
        start = time.perf_counter()
        wait([self.training(*call) for call in calls(alone)])
        middle = time.perf_counter()
        wait(self.training.together(calls(joined)))
        each = 1e3 / self.segment / self.together
        return each * (middle - start), each * (time.perf_counter() - middle)

    def facts(self) -> dict[str, Any]:
        peak = peak_memory()
        return {
            "device": device_name(),
            "remarks": REMARKS,
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
            "checkpoint_s": CHECKPOINT_SECONDS,
            "peak_GiB": peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }

    def measurements(self) -> Measurements:
        return {
            "first": self.first,
            "train": self.train,
            "parts": self.parts,
            "test": self.test,
            "checkpoint": self.checkpoint,
            "together": self.team,
            "facts": self.facts,
        }


class Layers:
    """Times each convolution of a step against its matrix product in BLAS."""

    repeats = 2  # of ours, in a loop as training is

    def __init__(self, network: Network, batch: int) -> None:
        self.calls: dict[tuple[str, str], tuple[Callable, Callable]] = {}
        for layer in network.layers:
            if layer.W.get_value().ndim == 4:
                self.add(layer, batch, first=layer is network.layers[0])

    def add(self, layer: Any, batch: int, first: bool) -> None:
        """The three products of a layer; the first needs no gradient of its input."""
        W = layer.W.get_value()
        maps, *sides = layer.input_shape
        height, width = output_sides(layer)
        rng = np.random.default_rng(0)
        x = rng.random((sides[0], maps, sides[1], batch), "float32")
        dz = rng.random((height, len(W), width, batch), "float32")
        kinds = {
            "forward": (Correlation(layer.pad, False), (x, W)),
            "filters": (CorrelationFilterGradient(layer.pad, False), (x, dz)),
            "input": (CorrelationInputGradient(layer.pad), (dz, W)),
        }
        shapes = products_of(len(W), W[0].size, height * width * batch)
        for (kind, (op, operands)), shape in zip(kinds.items(), shapes, strict=True):
            if kind == "input" and first:
                continue
            a, b, out = random_factors(*shape)
            ours = repeated(op, operands, self.repeats)
            self.calls[layer.name, kind] = ours, functools.partial(np.matmul, a, b, out=out)

    def measure(self) -> list[tuple[str, str, float, float]]:
        """(layer, product, ms in our code, ms in BLAS) of each."""
        return [
            (*name, milliseconds(ours, self.repeats), milliseconds(blas, 1))
            for name, (ours, blas) in self.calls.items()
        ]

    def measurements(self) -> Measurements:
        return {"first": self.measure, "layers": self.measure}


class Floor:
    """Times the matrix products of a step: in NumPy's BLAS on a CPU, else in JAX."""

    def __init__(self, network: Network, task: str, on_cpu: bool) -> None:
        self.shapes = products(network, TASKS[task].batch_size)
        self.repeats = effort(task).floor_repeats
        operands = [random_factors(*shape) for shape in self.shapes]
        self.step: Callable[[], Any]
        if on_cpu:
            self.step = lambda: [np.matmul(a, b, out=out) for a, b, out in operands]
        else:
            self.step = matrix_products(operands)

    def train(self) -> float:
        """Milliseconds a step."""

        def steps() -> None:
            for _ in range(self.repeats):
                self.step()

        return milliseconds(steps, self.repeats, warm=self.step)

    def facts(self) -> dict[str, int]:
        return {"flop": sum(2 * m * k * n for m, k, n in self.shapes)}

    def measurements(self) -> Measurements:
        return {"first": self.train, "train": self.train, "facts": self.facts}


def milliseconds(
    call: Callable[[], Any], times: int, warm: Callable[[], Any] | None = None
) -> float:
    """How long one of the `times` things takes that a call does, after a first call."""
    (warm or call)()  # the threads of the other library may still spin
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start) / times


@terminal.program("benchmark_worker")
def main(arguments: list[str]) -> int:
    parser = terminal.Parser("python -m utilities.benchmark_worker", __doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("what", choices=[*FORMAT_ARGUMENTS, "floor", "layers"])
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--together", type=terminal.whole(1, 1000), default=1)
    a = parser.parse_args(arguments)
    gc.set_threshold(100_000)  # as in main.py
    on_cpu = select_device(a.device, tell=REMARKS.append).platform == "cpu"
    rng = np.random.RandomState(1234)
    serving: Training | Floor | Layers
    if a.what in FORMAT_ARGUMENTS:
        cache_programs()
        initial_range = Settings.published(a.task, "DFXP").initial_range
        serving = Training(Network(a.task, a.what, rng, initial_range), a.task, a.together)
    elif a.what == "floor":
        serving = Floor(Network(a.task, "FLP", rng), a.task, on_cpu)
    else:
        serving = Layers(Network(a.task, "FLP", rng), TASKS[a.task].batch_size)
    answer(serving.measurements())
    return 0


if __name__ == "__main__":
    terminal.run(main)
