"""What a training step, ours and PyTorch's, spends its time on, part by part."""

from collections.abc import Iterator
from typing import Any

from records import machine
from utilities.benchmark_effort import effort
from utilities.benchmark_measure import FLOOR, PEERS, Plan, Report, Say, spread
from utilities.benchmark_processes import Failed, Process, peer, worker


def on_cores(task: str, what: str, count: int) -> Process:
    """A measuring process with so many threads on the CPU."""
    return worker(task, what, "cpu", NPROC=str(count), OPENBLAS_NUM_THREADS=str(count))


def measure_parts(task: str, formats: list[str], rounds: int, say: Say) -> list[Report]:
    """Each part of a training step on the CPU, on one core and on all of them, by format."""
    return [
        row
        for count in sorted({1, machine.cores()})
        for row in _parts_on(count, task, formats, rounds, say)
    ]


def _parts_on(count: int, task: str, formats: list[str], rounds: int, say: Say) -> Iterator[Report]:
    floor = on_cores(task, FLOOR, count)
    _asked(floor, task, "train")
    for name in formats:
        say(f"{task} {name}: part by part, cores: {count}")
        process = on_cores(task, name, count)
        _asked(process, task, "train")
        times: dict[str, list[float]] = {"floor_ms": [], "ms_per_batch": []}
        parts = []
        for _ in range(rounds):
            times["floor_ms"].append(_asked(floor, task, "train"))
            times["ms_per_batch"].append(_asked(process, task, "train"))
            parts.append(_asked(process, task, "parts"))
        process.close()
        spreads = {part: spread([p[part] for p in parts]) for part in parts[0]}
        whole = {key: spread(values) for key, values in times.items()}
        yield {"format": name, "cores": count, **whole, "parts_ms": spreads}
    floor.close()


def measure_peer_parts(task: str, plan: Plan, say: Say) -> list[Report]:
    """Each part of PyTorch's training step as written, on all cores of a CPU, by format."""
    rows: list[Report] = []
    for name in [f for f in PEERS["eager"] if f in plan.formats]:
        say(f"{task} {name}: PyTorch, part by part")
        process = peer(str(plan.peer), task, name, "eager", CUDA_VISIBLE_DEVICES="")
        process.read()
        batches = effort(task).peer_batches
        answers = [process.ask(f"{batches} parts") for _ in range(plan.rounds)]
        if process.why:
            rows.append({"format": name, "why_not": process.why})
        else:
            parts = {part: spread([answer[part] for answer in answers]) for part in answers[0]}
            rows.append({"format": name, "parts_ms": parts})
        process.close()
    return rows


def _asked(process: Process, task: str, what: str) -> Any:
    """An answer; Failed if there cannot be one."""
    answer = process.ask(what)
    if process.why:
        raise Failed(f"{task}, part by part: {process.why.removeprefix('benchmark_worker: ')}")
    return answer
