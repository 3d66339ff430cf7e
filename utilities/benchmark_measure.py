"""Measures a task: its formats, the floor and PyTorch in turn, round after round."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utilities.benchmark_effort import effort
from utilities.benchmark_processes import ROOT, Failed, Process, peer, worker

PEERS = {"eager": ("FLP", "FXP", "DFXP"), "compile": ("FLP", "FXP", "DFXP"), "qpytorch": ("FXP",)}
FLOOR = "floor"  # among the names of formats
AGAINST = "against"  # before the name of a format: of the other revision

Say = Callable[[str], None]
Report = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Parameters
    ----------
    peer
        A Python that has PyTorch, if it is asked for.
    against
        (name, tree) of another revision, if it is asked for.
    """

    formats: list[str]
    rounds: int
    device: str
    peer: str | None = None
    together: int = 1
    against: tuple[str, Path] | None = None


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Those of the two values of each round."""
    return spread([x / y for x, y in zip(a, b, strict=True)])


def measure(task: str, plan: Plan, say: Say) -> tuple[Report, Report]:
    """Everything of one task, and facts about the device; Failed if it cannot be."""
    measurement = Measurement(task, plan, say)
    measurement.start()
    measurement.train()
    result = measurement.report()
    measurement.close()
    return result, measurement.machine()


class Measurement:
    """The processes of one task, and what they have answered."""

    def __init__(self, task: str, plan: Plan, say: Say) -> None:
        self.task = task
        self.plan = plan
        self.say = say
        self.processes: dict[str, Process] = {}  # by format, and FLOOR
        self.others: dict[str, Process] = {}  # of the other revision, by format
        self.others_start_up: dict[str, list[float]] = {}
        self.peers: dict[tuple[str, str], Process] = {}  # by format and variant
        self.peer_facts: dict[tuple[str, str], Report] = {}
        self.start_up: dict[str, list[float]] = {}  # seconds to the first batch
        self.times: dict[Any, list[float]] = {}  # milliseconds a batch, of each round
        self.facts: dict[str, Report] = {}

    def start(self) -> None:
        """Start all processes, one by one: how long they take is measured, too."""
        for name in [*self.plan.formats, FLOOR]:
            self.say(f"{self.task} {name}: starting")
            self.processes[name], self.start_up[name] = self._started(name)
            self.ask(name, "train")
            if name == FLOOR:
                continue
            self.ask(name, "test")
            if self.plan.against:
                self.say(f"{self.task} {name}: starting that of {self.plan.against[0]}")
                there = self._started(name, self.plan.against[1])
                self.others[name], self.others_start_up[name] = there
                self._answer(there[0], name, "train")
        for variant, formats in PEERS.items() if self.plan.peer else ():
            for name in [f for f in formats if f in self.plan.formats]:
                self.say(f"{self.task} {name}: starting PyTorch, {variant}")
                process = peer(str(self.plan.peer), self.task, name, variant)
                self.peers[name, variant] = process
                self.peer_facts[name, variant] = process.read()

    def _started(self, name: str, tree: Path = ROOT) -> tuple[Process, list[float]]:
        """A process, and the seconds to its first batch.

        Of a format there are two, one after the other: once compiled, and once with the programs
        that were saved.
        """
        seconds: list[float] = []
        with tempfile.TemporaryDirectory() as programs:
            while True:
                process = worker(
                    self.task,
                    name,
                    self.plan.device,
                    self.plan.together,
                    tree,
                    XLA_PYTHON_CLIENT_PREALLOCATE="false",
                    JAX_COMPILATION_CACHE_DIR=programs,
                )
                self._answer(process, name, "first")
                seconds.append(time.perf_counter() - process.started)
                if name == FLOOR or len(seconds) == 2:
                    return process, seconds
                process.close()

    def ask(self, name: str, what: str) -> Any:
        """The answer of one of our processes."""
        return self._answer(self.processes[name], name, what)

    def _answer(self, process: Process, name: str, what: str) -> Any:
        answer = process.ask(what)
        if process.why:
            raise Failed(f"{self.task} {name}: {process.why.removeprefix('benchmark_worker: ')}")
        return answer

    def train(self) -> None:
        """Training steps, in turn."""
        others = [(AGAINST, name) for name in self.others]
        self.times = {key: [] for key in [*self.processes, *others, *self.peers]}
        for i in range(self.plan.rounds):
            self.say(f"{self.task}: round {i + 1} of {self.plan.rounds}")
            for name in self.processes:
                self.times[name].append(self.ask(name, "train"))
                if name in self.others:
                    answer = self._answer(self.others[name], name, "train")
                    self.times[AGAINST, name].append(answer)
            for key, process in self.peers.items():
                if answered := process.ask(effort(self.task).peer_batches):
                    self.times[key].append(statistics.mean(answered))
        self.facts = {name: self.ask(name, "facts") for name in self.processes}

    def report(self) -> Report:
        """The task's part of the report; for it the rest is measured."""
        result = {
            "task": self.task,
            "floor_ms": spread(self.times[FLOOR]),
            "GFLOP": self.facts[FLOOR]["flop"] / 1e9,
            "formats": {},
        }
        rows = result["formats"] = {name: self.row(name) for name in self.plan.formats}
        for name in self.plan.formats if self.plan.together > 1 else ():
            rows[name]["together"] = self.team(name)
        for name in self.others:
            rows[name]["against"] = self.other(name)
        for a, b in (("FXP", "FLP"), ("DFXP", "FXP")):
            if a in rows and b in rows:
                rows[a][f"to_{b}"] = ratios(self.times[a], self.times[b])
        return result

    def row(self, name: str) -> Report:
        """A format."""
        rounds = range(self.plan.rounds)
        test = [self.ask(name, "test") for _ in rounds]
        copy, write = zip(*(self.ask(name, "checkpoint") for _ in rounds), strict=True)
        times = self.times[name]
        return {
            "ms_per_batch": spread(times),
            "ms_per_test_image": spread(test),
            "to_first_batch_s": self.start_up[name],
            "checkpoint": {
                "copy_s": spread(copy),
                "write_s": spread(write),
                "every_s": self.facts[name]["checkpoint_s"],
            },
            "peak_GiB": self.facts[name]["peak_GiB"],
            "to_floor": ratios(times, self.times[FLOOR]),
            "GFLOP_per_s": self.facts[FLOOR]["flop"] / 1e6 / statistics.median(times),
            "peers": {v: self.peer(name, v) for f, v in self.peers if f == name},
        }

    def other(self, name: str) -> Report:
        """A format in the other revision, against ours."""
        assert self.plan.against
        return {
            "revision": self.plan.against[0],
            "ms_per_batch": spread(self.times[AGAINST, name]),
            "to_first_batch_s": self.others_start_up[name],
            "to_ours": ratios(self.times[AGAINST, name], self.times[name]),
        }

    def peer(self, name: str, variant: str) -> Report:
        """A format in PyTorch, against ours."""
        key = name, variant
        if why := self.peers[key].why:
            return {"why_not": why}
        return {
            "ms_per_batch": spread(self.times[key]),
            **self.peer_facts[key],
            "to_ours": ratios(self.times[key], self.times[name]),
        }

    def team(self, name: str) -> Report:
        """Several runs of a format, together and one after the other."""
        runs = self.plan.together
        self.say(f"{self.task} {name}: {runs} runs together")
        answers = [self.ask(name, "together") for _ in range(self.plan.rounds)]
        alone, joined = zip(*answers, strict=True)
        return {
            "runs": runs,
            "alone_ms": spread(alone),
            "together_ms": spread(joined),
            "gain": ratios(alone, joined),
        }

    def machine(self) -> Report:
        """Device and versions, as the process of the first format has them."""
        facts = self.facts[self.plan.formats[0]]
        for remark in facts.get("remarks", ()):
            self.say(remark)
        return {name: facts[name] for name in ("device", "versions")}

    def close(self) -> None:
        """End all processes."""
        for process in [*self.processes.values(), *self.others.values(), *self.peers.values()]:
            process.close()


def measure_layers(task: str, rounds: int, device: str, say: Say) -> list[Report]:
    """Each convolution against its matrix product in BLAS; nothing if there is none."""
    say(f"{task}: layer by layer")
    process = worker(task, "layers", device)
    process.ask("first")
    answers = [process.ask("layers") for _ in range(rounds)]
    if process.why:
        raise Failed(f"{task}, layer by layer: {process.why}")
    process.close()
    return [layer_row(list(rows)) for rows in zip(*answers, strict=True)]


def layer_row(answers: list[Sequence[Any]]) -> Report:
    """A product of a layer, from the (layer, product, ours, BLAS) of each round."""
    layer, product = answers[0][:2]
    ours = [answer[2] for answer in answers]
    blas = [answer[3] for answer in answers]
    return {
        "layer": layer,
        "product": product,
        "ours_ms": spread(ours),
        "blas_ms": spread(blas),
        "to_blas": ratios(ours, blas),
    }
