"""All that is to be done on the day a GPU is there, in order of value, and a report of it.

    python -m utilities.gpu_day        (or: make gpu)

tests the program on the GPU, measures every task, trains the paper's table, a task at a
time, and after each step writes report.md in --out. The same command goes on with what is
missing; --again does everything once more but the training, which goes on. Nothing is
downloaded: tasks whose data are not there are named in the report. --device cpu, --sample
and --scale small are for trying it out.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import terminal
from datasets.source import OFFLINE
from errors import DeviceMissing, FileError
from files import read_bytes, write_atomically, write_json
from records import machine
from tasks import TASKS
from utilities.naming import counted

ROOT = Path(__file__).resolve().parent.parent
NAME = "gpu_day"
TESTS = "tests/test_on_a_gpu.py"
TOGETHER = {"PI_MNIST": 8}  # runs at a time that are measured; two of the others
SHOWN = 40  # lines of what a step has printed
# In a process of its own: one that has asked for a GPU keeps a part of its memory.
ASK = """
import sys
from errors import DeviceMissing
from xla.device import device_name, select_device
try:
    select_device(sys.argv[1])
except DeviceMissing as error:
    print(error)
    sys.exit(2)
print(device_name())
"""


@dataclass(frozen=True)
class Step:
    """A command of the day.

    Parameters
    ----------
    name
        Of its files in the folder.
    words
        What Python is given.
    shown
        A file of it that belongs into the report, instead of the end of what it prints.
    repeats
        Whether it knows itself what is left to do.
    """

    name: str
    words: list[str]
    shown: Path | None = None
    repeats: bool = False


def steps(a: argparse.Namespace) -> list[Step]:
    """The day's commands, in order of value."""
    device = ["--device", a.device]
    day = [Step("tests", ["-m", "pytest", "-v", TESTS])]
    for task in a.tasks:
        table = a.out / f"benchmark_{task}.md"
        words = ["-m", "utilities.benchmark", "--tasks", task, *device]
        words += ["--rounds", str(a.rounds), "--together", str(TOGETHER.get(task, 2))]
        words += ["-o", str(table.with_suffix(".json")), "--markdown", str(table)]
        if task != "SVHN":  # its network is CIFAR10's
            day.append(Step(f"benchmark_{task}", words, table))
    data = ["--data", str(a.data)] if a.data else []
    data += ["--sample"] if a.sample else []
    for task in a.tasks:
        words = ["-m", "utilities.reproduce", "table", "--task", task, "--scale", a.scale, *device]
        day.append(Step(f"table_{task}", [*words, "--out", str(a.out / "runs"), *data], None, True))
    return day


class Day:
    """A folder of the day: what each step printed, its end, and the report."""

    def __init__(self, out: Path, device: str) -> None:
        self.out = out
        self.file = out / "steps.json"
        self.device = device
        self.ends: dict[str, dict[str, Any]] = {}

    def read(self) -> None:
        """What was done before, on the same device; FileError if that cannot be told."""
        if not self.file.exists():
            return
        try:
            kept = json.loads(read_bytes(self.file, 1 << 20))
            self.ends = dict(kept["steps"])
            before = kept["device"]
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(f"{self.file} is damaged ({error}); give another --out") from None
        if before != self.device:
            raise FileError(
                f"{self.out} is of another device ({before}, not {self.device}); give another --out"
            )

    def done(self, step: Step) -> bool:
        """Whether a step need not be taken again."""
        return self.ends.get(step.name, {}).get("status") == 0 and not step.repeats

    def take(self, step: Step, device: str) -> None:
        """Take a step; what it prints is passed on, and kept."""
        print(f"\n== {step.name}: python {' '.join(step.words)}", flush=True)
        start = time.monotonic()
        environment = os.environ | {OFFLINE: "1", "TEST_DEVICE": device}
        said = self.out / f"{step.name}.txt"
        with said.open("w", encoding="utf-8") as kept, child(step, environment) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                kept.write(line)
                kept.flush()
            status = process.wait()
        self.ends[step.name] = {
            "status": status,
            "seconds": round(time.monotonic() - start),
            "revision": machine.revision(),
        }
        write_json(self.file, {"device": self.device, "steps": self.ends})

    def report(self, day: list[Step]) -> Path:
        """Write report.md as things are."""
        gpus = [" ".join(gpu.values()) for gpu in machine.gpus()]
        cores = counted(machine.cores(), "core")
        lines = [
            f"# {self.device}",
            "",
            f"{', '.join(gpus) or 'no NVIDIA GPU'}; {machine.processor()}, {cores}",
            "",
            "| step | outcome | seconds | revision |",
            "|---|---|---|---|",
        ]
        for step in day:
            end = self.ends.get(step.name)
            words = (outcome(end["status"]), end["seconds"], end["revision"]) if end else ("",) * 3
            lines.append(f"| {' | '.join(map(str, (step.name, *words)))} |")
        for step in filter(lambda step: step.name in self.ends, day):
            lines += ["", f"## {step.name}", "", f"    python {' '.join(step.words)}", ""]
            lines += self.said(step)
        path = self.out / "report.md"
        text = "\n".join(lines) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))
        return path

    def said(self, step: Step) -> list[str]:
        """The part of a step in the report."""
        with contextlib.suppress(OSError):  # it did not come so far
            if step.shown:
                return step.shown.read_text().splitlines()
        with contextlib.suppress(OSError):
            printed = (self.out / f"{step.name}.txt").read_text(encoding="utf-8").splitlines()
            return [f"    {line}" for line in printed[-SHOWN:]]
        return []


def outcome(status: int) -> str:
    """An exit status in words."""
    return "done" if status == 0 else f"exit status {status}"


@contextlib.contextmanager
def child(step: Step, environment: dict[str, str]) -> "Iterator[subprocess.Popen[str]]":
    """The process of a step; whatever ends this one ends it, which then keeps what it has."""
    process = subprocess.Popen(
        [sys.executable, *step.words],
        cwd=ROOT,
        env=environment,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def device_found(name: str) -> str:
    """The device's name; DeviceMissing if there is none."""
    command = [sys.executable, "-c", ASK, name]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if asked.returncode:
        said = (asked.stdout or asked.stderr).strip().splitlines()
        raise DeviceMissing(said[-1] if said else "the device cannot be asked for its name")
    return asked.stdout.strip()


def parser() -> terminal.Parser:
    """The command line."""
    result = terminal.Parser("python -m utilities.gpu_day", __doc__)
    result.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="default gpu")
    result.add_argument(
        "--out",
        type=terminal.folder,
        default=Path("runs/gpu"),
        metavar="DIR",
        help="where everything goes (default: runs/gpu)",
    )
    result.add_argument(
        "--tasks",
        nargs="+",
        choices=TASKS,
        default=list(TASKS),
        metavar="TASK",
        help=f"default: {', '.join(TASKS)}",
    )
    result.add_argument(
        "--rounds",
        type=terminal.whole(1, 1000),
        default=5,
        metavar="N",
        help="of the benchmark (default 5)",
    )
    result.add_argument(
        "--scale", choices=("full", "small"), default="full", help="of the table (default full)"
    )
    result.add_argument("--again", action="store_true", help="also what is done already")
    terminal.add_data_options(result)
    return result


@terminal.program(NAME, kept="the same command goes on")
def main(arguments: list[str]) -> int:
    a = parser().parse_args(arguments)
    a.out = a.out.resolve()
    a.data = a.data and a.data.resolve()
    device = device_found(a.device)
    day, taken = Day(a.out, device), steps(a)
    day.read()
    a.out.mkdir(parents=True, exist_ok=True)
    day.report(taken)
    for step in taken:
        if a.again or not day.done(step):
            day.take(step, a.device)
            day.report(taken)
    failed = [step.name for step in taken if day.ends[step.name]["status"]]
    print(f"\n{day.report(taken)}")
    if failed:
        terminal.say(NAME, f"not everything went well: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    terminal.run(main)
