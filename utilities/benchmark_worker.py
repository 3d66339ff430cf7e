"""What the processes of the benchmark do: each answers with the times of one thing."""

import functools
import gc
import importlib.metadata
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import files
from settings import Settings
from tasks import TASKS

TEST_BATCHES = {"PI_MNIST": 100, "MNIST": 10, "CIFAR10": 5}


def answer(measurements):
    """Serve a parent process: each line of stdin names a measurement, each answer is a line of JSON."""
    for line in sys.stdin:
        print(json.dumps(measurements[line.strip()]()), flush=True)


def worker(task, number_format, device, together):
    """Train and evaluate a network on random data; what is compiled is kept in a folder of the parent's."""
    gc.set_threshold(100_000)  # as in main.py
    import numpy as np

    import compilation
    from model import Network

    compilation.select_device(device)
    compilation.keep_programs()
    settings, rng = Settings.published(task, "DFXP"), np.random.RandomState(1234)
    network = Network(task, number_format, rng, settings.initial_range)
    size, segment = TASKS[task].batch_size, TASKS[task].segment
    training = compilation.TrainingProgram(network, size, segment)
    testing = compilation.TestProgram(network, size)
    state = compilation.to_device(
        {v.name: v.get_value() for v in network.state} | compilation.mask_state(1)
    )
    x = rng.uniform(size=(segment * size, network.input_size)).astype("float32")
    t = np.eye(10, dtype="float32")[rng.randint(10, size=len(x))]
    n_test = TEST_BATCHES[task] * size
    test_set = testing.arrange(*(np.resize(a, (n_test, *a.shape[1:])) for a in (x, t)))
    x, t = compilation.to_device((x, t))
    rows = np.arange(segment * size, dtype="int32").reshape(segment, size)
    constants = {
        "LR": np.float32(0.02),
        "M": np.float32(0.5),
        "prop_bits": np.int32(settings.prop_bits),
        "up_bits": np.int32(settings.up_bits),
        "frequency": np.int32(settings.range_update_frequency),
        "max_overflow": np.float64(settings.max_overflow),
    }

    def run(batches):
        nonlocal state
        state = compilation.wait(training(state, constants, x, t, rows[:batches], 0))

    def train():
        run(max(1, segment // 10))  # the process has slept
        start = time.perf_counter()
        run(segment)
        return 1e3 * (time.perf_counter() - start) / segment

    def test():
        start = time.perf_counter()
        testing(state, constants["prop_bits"], *test_set)
        return 1e3 * (time.perf_counter() - start) / n_test

    def checkpoint():
        """Seconds to copy the state, for which training waits, and to write it, meanwhile; on the disk of temporary files."""
        start = time.perf_counter()
        arrays = compilation.to_host(state) | {
            f"best/{n}": a
            for n, a in compilation.to_host(
                {v.name: state[v.name] for layer in network.layers for v in (layer.W, layer.b)}
            ).items()
        }
        copied = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            files.write_npz(Path(folder) / "checkpoint.npz", arrays)
        return [copied - start, time.perf_counter() - copied]

    def team():
        """Milliseconds a batch and run of `together` runs: one after the other, and as one program."""
        fresh = [
            compilation.to_device(
                {v.name: v.get_value() for v in network.state} | compilation.mask_state(seed)
            )
            for seed in range(2 * together)
        ]
        alone, joined = (
            [(s, constants, x, t, rows, 0, None) for s in half]
            for half in (fresh[:together], fresh[together:])
        )
        alone, joined = (
            [training(*call) for call in alone],
            training.together(joined),
        )  # compiled, and once for nothing
        compilation.wait((alone, joined))
        start = time.perf_counter()
        compilation.wait([training(s, constants, x, t, rows, 0) for s in alone])
        middle = time.perf_counter()
        compilation.wait(training.together([(s, constants, x, t, rows, 0, None) for s in joined]))
        each = 1e3 / segment / together
        return [each * (middle - start), each * (time.perf_counter() - middle)]

    def facts():
        return {
            "device": compilation.device_name(),
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("pytensor", "jax", "jaxlib", "numpy")
            },
            "peak_GiB": compilation.peak_memory()
            or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }

    answer(
        {
            "first": lambda: run(1),
            "train": train,
            "test": test,
            "checkpoint": checkpoint,
            "together": team,
            "facts": facts,
        }
    )


def products(network, batch_size):
    """(m, k, n) of every matrix product of a training step."""
    shapes = []
    for layer in network.layers:
        W = layer.W.get_value()
        if W.ndim == 4:
            rows, columns = (n + 2 * layer.pad - W.shape[2] + 1 for n in layer.input_shape[1:])
            m, k, n = W.shape[0], W[0].size, rows * columns * batch_size
        else:
            m, k, n = W.shape[1], W.shape[0], batch_size
        shapes += products_of(m, k, n)[: 3 if shapes else 2]  # the first input needs no gradient
    return shapes


def products_of(m, k, n):
    """(m, k, n) of a product and of its gradients in the left and in the right factor."""
    return [(m, k, n), (m, n, k), (k, m, n)]


def layers(task, device):
    """Serve [layer, product, ms in our code, ms in BLAS] of each convolution of a step, ours in a loop as training is."""
    import numpy as np

    import compilation
    import ops
    from model import Network

    compilation.select_device(device)
    network, batch, rng = (
        Network(task, "FLP", np.random.RandomState(0)),
        TASKS[task].batch_size,
        np.random.default_rng(0),
    )
    calls = {}
    for layer in network.layers:
        W = layer.W.get_value()
        if W.ndim != 4:
            continue
        (maps, *sides), n_out, pad = layer.input_shape, len(W), layer.pad
        height, width = (n + 2 * pad - W.shape[2] + 1 for n in sides)
        x = rng.random((sides[0], maps, sides[1], batch), "float32")
        dz = rng.random((height, n_out, width, batch), "float32")
        kinds = {
            "forward": (ops.Correlation(pad, False), (x, W)),
            "filters": (ops.CorrelationFilterGradient(pad, False), (x, dz)),
            "input": (ops.CorrelationInputGradient(pad), (dz, W)),
        }
        shapes = products_of(n_out, W[0].size, height * width * batch)
        for (kind, (op, operands)), (m, k, n) in zip(kinds.items(), shapes, strict=True):
            if kind == "input" and layer is network.layers[0]:
                continue
            a, b, out = (
                rng.random((m, k), "float32"),
                rng.random((k, n), "float32"),
                np.zeros((m, n), "float32"),
            )
            ours, blas = (
                compilation.repeated(op, operands, 2),
                functools.partial(np.matmul, a, b, out=out),
            )
            calls[layer.name, kind] = ours, blas

    def milliseconds(call, times):
        call()  # the threads of the other library may still spin
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start) / times

    def measure():
        return [
            [*name, milliseconds(ours, 2), milliseconds(blas, 1)]
            for name, (ours, blas) in calls.items()
        ]

    answer({"first": measure, "layers": measure})


def floor(task, device):
    """The matrix products of a step, alone."""
    import numpy as np

    import compilation
    from model import Network

    on_gpu = compilation.select_device(device).platform != "cpu"
    shapes = products(Network(task, "FLP", np.random.RandomState(0)), TASKS[task].batch_size)
    rng = np.random.default_rng(0)
    operands = [
        (rng.random((m, k), "float32"), rng.random((k, n), "float32"), np.zeros((m, n), "float32"))
        for m, k, n in shapes
    ]
    run = (
        compilation.matrix_products(operands)
        if on_gpu
        else (lambda: [np.matmul(a, b, out=out) for a, b, out in operands])
    )

    def train(repeat=20 if task == "PI_MNIST" else 2):
        run()
        start = time.perf_counter()
        for _ in range(repeat):
            run()
        return 1e3 * (time.perf_counter() - start) / repeat

    answer(
        {
            "first": train,
            "train": train,
            "facts": lambda: {"flop": sum(2 * m * k * n for m, k, n in shapes)},
        }
    )
