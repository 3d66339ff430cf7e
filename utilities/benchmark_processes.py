"""Asks the measuring processes of the benchmark, in turn."""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from records.follow import CHECKPOINT_SECONDS

PEERS = {"eager": ("FLP", "FXP", "DFXP"), "compile": ("FLP", "FXP", "DFXP"), "qpytorch": ("FXP",)}

ROOT = Path(__file__).resolve().parent.parent


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
