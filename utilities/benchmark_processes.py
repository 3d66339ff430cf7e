"""The processes of the benchmark: each measures one thing when it is asked to."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from errors import ProgramError
from signals import SIGNALS

ROOT = Path(__file__).resolve().parent.parent
WORKER = [sys.executable, "-m", "utilities.benchmark_worker"]


class Failed(ProgramError):
    """A measurement that there cannot be: one line for the user."""


class Process:
    """A measuring process; None for an answer means that it cannot run here (`why`)."""

    running: list["Process"] = []

    def __init__(self, command: list[str], **environment: str) -> None:
        self.running.append(self)
        self.started = time.perf_counter()
        self.why: str | None = None
        self.process: subprocess.Popen[str] | None = None
        # A signal must find the process known here. It hears none; `close` kills it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
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

    def read(self) -> Any:
        """The next answer."""
        if self.why is not None or self.process is None:
            return None
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            self.why = (self.process.stderr.read().strip().splitlines() or ["it stopped"])[-1]
        try:
            return json.loads(line or "null")
        except ValueError:
            self.why = f"it printed {line.strip()[:80]!r}"
            return None

    def ask(self, what: object) -> Any:
        """The answer to a measurement's name."""
        if self.why is not None or self.process is None:
            return None
        time.sleep(0.3)  # threads of the process before may still spin
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{what}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `read` finds out why
        return self.read()

    def lacks(self) -> str | None:
        """Why it did not answer a line of JSON; None if it did."""
        self.read()
        self.close()
        return self.why

    def close(self) -> None:
        """End it, without waiting for what it has started: that has its output open."""
        if self.process:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                with contextlib.suppress(BrokenPipeError):  # what it had not read yet
                    pipe.close()  # type: ignore[union-attr]
        self.running.remove(self)

    @classmethod
    def close_all(cls) -> None:
        """End those that run."""
        for process in list(cls.running):
            process.close()


def worker(task: str, what: str, device: str, together: int = 1, **environment: str) -> Process:
    """A process of utilities.benchmark_worker."""
    options = ["--device", device, "--together", str(together)]
    return Process([*WORKER, task, what, *options], **environment)


def peer(python: str, task: str, number_format: str, variant: str) -> Process:
    """A process of utilities.torch_peer; its first answer says what it runs on."""
    command = [python, "-m", "utilities.torch_peer", task, number_format, "--variant", variant]
    return Process(command)
