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
import functools
import gc
import importlib.metadata
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import files
import terminal
from records.follow import CHECKPOINT_SECONDS
from settings import FORMAT_ARGUMENTS, Settings
from tasks import TASKS

MEASURED = ("PI_MNIST", "MNIST", "CIFAR10")  # SVHN's network is CIFAR10's
PEERS = {"eager": ("FLP", "FXP", "DFXP"), "compile": ("FLP", "FXP", "DFXP"), "qpytorch": ("FXP",)}
TEST_BATCHES = {"PI_MNIST": 100, "MNIST": 10, "CIFAR10": 5}
ROOT = Path(__file__).resolve().parent.parent


# ----------------------------------------------------------------------------------------------- what the processes do


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


# ---------------------------------------------------------------------------------------------------- the parent process


class Failed(Exception):
    """One line for the user."""


class Process:
    """A measuring process; None for an answer means that it cannot run here (`why`)."""

    running = []

    def __init__(self, command, **environment):
        self.running.append(self)
        self.started, self.why, self.process = time.perf_counter(), None, None
        # A signal must find the process known here. It will not hear any itself; `close` kills it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=os.environ | environment,
            )
        except OSError as error:
            self.why = f"{command[0]}: {error.strerror}"
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def read(self):
        if self.why is not None:
            return None
        line = self.process.stdout.readline()
        if not line:
            self.why = (self.process.stderr.read().strip().splitlines() or ["it stopped"])[-1]
        try:
            return json.loads(line or "null")
        except ValueError:
            self.why = f"it printed {line.strip()[:80]!r}"
            return None

    def ask(self, what):
        if self.why is None:
            time.sleep(0.3)  # threads of the process before may still spin
            try:
                self.process.stdin.write(f"{what}\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                pass  # `read` finds out why
            return self.read()
        return None

    def lacks(self):
        """Why it did not answer a line of JSON; None if it did."""
        self.read()
        self.close()
        return self.why

    def close(self):
        if self.process:
            self.process.kill()
            self.process.communicate()
        self.running.remove(self)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(a, b):
    return spread([x / y for x, y in zip(a, b, strict=True)])


def measure_layers(task, rounds, device, say):
    """Each convolution against its matrix product in BLAS; a list of dicts."""
    say(f"{task}: layer by layer")
    process = Process(
        [
            sys.executable,
            "-m",
            "utilities.benchmark",
            "--device",
            device,
            "--worker",
            task,
            "layers",
        ]
    )
    process.ask("first")
    answers = [process.ask("layers") for _ in range(rounds)]
    if process.why:
        raise Failed(f"{task}, layer by layer: {process.why}")
    process.close()
    return [
        {
            "layer": rows[0][0],
            "product": rows[0][1],
            "ours_ms": spread([r[2] for r in rows]),
            "blas_ms": spread([r[3] for r in rows]),
            "to_blas": ratios([r[2] for r in rows], [r[3] for r in rows]),
        }
        for rows in zip(*answers, strict=True)
    ]


def measure(task, formats, rounds, device, peer, together, say):
    """Everything of one task, in turn."""
    command = [
        sys.executable,
        "-m",
        "utilities.benchmark",
        "--device",
        device,
        "--together",
        str(together),
        "--worker",
        task,
    ]
    processes, start_up = {}, {}
    for name in [*formats, "floor"]:  # one after the other: what starts a program is timed, too
        say(f"{task} {name}: starting")
        start_up[name] = []
        with tempfile.TemporaryDirectory() as kept:
            for _ in range(1 if name == "floor" else 2):  # compiled, and with what was kept
                if name in processes:
                    processes[name].close()
                process = processes[name] = Process(
                    [*command, name],
                    XLA_PYTHON_CLIENT_PREALLOCATE="false",
                    JAX_COMPILATION_CACHE_DIR=kept,
                )
                process.ask("first")
                start_up[name].append(time.perf_counter() - process.started)
                if process.why:
                    raise Failed(f"{task} {name}: {process.why.removeprefix('runs.RunError: ')}")
            process.ask("train")
            if name != "floor":
                process.ask("test")
    peers = {}
    for variant, peer_formats in PEERS.items() if peer else ():
        for number_format in [f for f in peer_formats if f in formats]:
            say(f"{task} {number_format}: starting PyTorch, {variant}")
            p = peers[number_format, variant] = Process(
                [peer, "-m", "utilities.torch_peer", task, number_format, "--variant", variant]
            )
            p.facts = p.read()
    batches = {"PI_MNIST": 40, "MNIST": 5, "CIFAR10": 3}[task]
    times = {key: [] for key in [*processes, *peers]}
    for i in range(rounds):
        say(f"{task}: round {i + 1} of {rounds}")
        for name, process in processes.items():
            times[name].append(process.ask("train"))
        for key, p in peers.items():
            answered = p.ask(batches)
            if answered:
                times[key].append(statistics.mean(answered))
    facts = {name: p.ask("facts") for name, p in processes.items()}
    result = {
        "task": task,
        "floor_ms": spread(times["floor"]),
        "GFLOP": facts["floor"]["flop"] / 1e9,
        "formats": {},
    }
    for name in formats:
        test = [processes[name].ask("test") for _ in range(rounds)]
        copy, write = zip(*(processes[name].ask("checkpoint") for _ in range(rounds)), strict=True)
        row = result["formats"][name] = {
            "ms_per_batch": spread(times[name]),
            "ms_per_test_image": spread(test),
            "to_first_batch_s": start_up[name],
            "checkpoint": {
                "copy_s": spread(copy),
                "write_s": spread(write),
                "every_s": CHECKPOINT_SECONDS,
            },
            "peak_GiB": facts[name]["peak_GiB"],
            "to_floor": ratios(times[name], times["floor"]),
            "GFLOP_per_s": 1e3 * result["GFLOP"] / statistics.median(times[name]),
            "peers": {},
        }
        for (number_format, variant), p in peers.items():
            if number_format == name:
                row["peers"][variant] = (
                    {"why_not": p.why}
                    if p.why
                    else {
                        "ms_per_batch": spread(times[number_format, variant]),
                        **p.facts,
                        "to_ours": ratios(times[number_format, variant], times[name]),
                    }
                )
    for name in formats if together > 1 else ():
        say(f"{task} {name}: {together} runs together")
        alone, joined = zip(*(processes[name].ask("together") for _ in range(rounds)), strict=True)
        result["formats"][name]["together"] = {
            "runs": together,
            "alone_ms": spread(alone),
            "together_ms": spread(joined),
            "gain": ratios(alone, joined),
        }
    for a, b in (("FXP", "FLP"), ("DFXP", "FXP")):
        if a in formats and b in formats:
            result["formats"][a][f"to_{b}"] = ratios(times[a], times[b])
    for process in [*processes.values(), *peers.values()]:
        process.close()
    return result, {name: facts[formats[0]][name] for name in ("device", "versions")}


# ------------------------------------------------------------------------------------------------------------- report


def markdown(report):
    """The report's tables: speed, what checkpoints cost, and what runs gain by being trained together."""
    lines = [
        "| task | format | ms a batch | ms a test image | to the floor | to the format before | first batch (again), s "
        "| peak, GiB | PyTorch eager, ms | compiled, ms | QPyTorch, ms | fastest / ours |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]

    def times(values, digits=1):
        return "{median:.{d}f} ({min:.{d}f} - {max:.{d}f})".format(**values, d=digits)

    for result in report["results"]:
        for name, row in result["formats"].items():
            before = next((row[key] for key in ("to_FLP", "to_FXP") if key in row), None)
            measured = {v: p for v, p in row["peers"].items() if "ms_per_batch" in p}
            cells = [times(measured[v]["ms_per_batch"]) if v in measured else "" for v in PEERS]
            fastest = min(
                (p["to_ours"] for p in measured.values()), key=lambda r: r["median"], default=None
            )
            lines.append(
                "| "
                + " | ".join(
                    [
                        result["task"],
                        name,
                        times(row["ms_per_batch"]),
                        f"{row['ms_per_test_image']['median']:.3f}",
                        f"{row['to_floor']['median']:.2f}",
                        f"{before['median']:.2f}" if before else "",
                        "{:.1f} ({:.1f})".format(*row["to_first_batch_s"]),
                        f"{row['peak_GiB']:.2f}",
                        *cells,
                        times(fastest, 2) if fastest else "",
                    ]
                )
                + " |"
            )
    lines += [
        "",
        "| task | format | checkpoint copied, s | written, s | of the time, % |",
        "|---|---|---|---|---|",
    ]
    for result in report["results"]:
        for name, row in result["formats"].items():
            copied, written = (row["checkpoint"][what]["median"] for what in ("copy_s", "write_s"))
            # As if training stood still while it is written, too.
            share = 100 * (copied + written) / row["checkpoint"]["every_s"]
            lines.append(
                f"| {result['task']} | {name} | {copied:.3f} | {written:.3f} | {share:.2f} |"
            )
    teams = [
        (result["task"], name, row["together"])
        for result in report["results"]
        for name, row in result["formats"].items()
        if "together" in row
    ]
    if teams:
        lines += [
            "",
            "| task | format | runs | one after the other, ms a batch and run | together, ms | gain |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {task} | {name} | {row['runs']} | {times(row['alone_ms'])} | {times(row['together_ms'])} | "
            f"{times(row['gain'], 2)} |"
            for task, name, row in teams
        ]
    rows = [
        (result["task"], row) for result in report["results"] for row in result.get("layers", ())
    ]
    if rows:
        lines += [
            "",
            "| task | layer | product | ours, ms | BLAS, ms | ratio |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {task} | {row['layer']} | {row['product']} | {times(row['ours_ms'])} | {times(row['blas_ms'])} | "
            f"{times(row['to_blas'], 2)} |"
            for task, row in rows
        ]
    return "\n".join(lines) + "\n"


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
