"""The processes of the benchmark: each measures one thing when it is asked to.

Those of another revision run in its tree, with the benchmark that it has.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from errors import ProgramError, SettingsError
from signals import held_back

ROOT = Path(__file__).resolve().parent.parent
WORKER = [sys.executable, "-m", "utilities.benchmark_worker"]


class Failed(ProgramError):
    """A measurement that there cannot be: one line for the user."""


class Process:
    """A measuring process; None for an answer means that it cannot run here (`why`)."""

    running: list["Process"] = []

    def __init__(self, command: list[str], tree: Path = ROOT, **environment: str) -> None:
        self.running.append(self)
        self.started = time.perf_counter()
        self.why: str | None = None
        self.process: subprocess.Popen[str] | None = None
        # A signal must find the process known here. It hears none; `close` kills it.
        with held_back():
            try:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    cwd=tree,
                    env=os.environ | environment,
                )
            except OSError as error:
                self.why = f"{command[0]}: {error.strerror}"

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


def worker(
    task: str, what: str, device: str, together: int = 1, tree: Path = ROOT, **environment: str
) -> Process:
    """A process of utilities.benchmark_worker, as it is in a tree."""
    options = ["--device", device, "--together", str(together)]
    return Process([*WORKER, task, what, *options], tree, **environment)


@contextlib.contextmanager
def tree_of(revision: str) -> Iterator[tuple[str, Path]]:
    """(its short name, a folder with it as it is in git), as long as it is needed.

    SettingsError if git has no such revision, or it has no benchmark of this kind.
    """
    if not _git("rev-parse", "--git-dir"):
        raise SettingsError(f"--against {revision!r}: {ROOT} is in no git repository; clone it")
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if not commit:
        raise SettingsError(f"--against {revision!r}: git has no such revision here; see git log")
    name = commit.decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", name))) as tar:
            tar.extractall(folder, filter="data")
        tree = Path(folder)
        if not (tree / "utilities" / "benchmark_worker.py").exists():
            raise SettingsError(f"--against {revision!r}: it has no utilities/benchmark_worker.py")
        yield name[:7], tree


def _git(*words: str) -> bytes:
    """What git prints, nothing if it refuses; SettingsError if there is no git."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True)
    except OSError as error:
        raise SettingsError(f"--against needs git ({error.strerror})") from None
    return b"" if done.returncode else done.stdout


def peer(python: str, task: str, number_format: str, variant: str, **environment: str) -> Process:
    """A process of utilities.torch_peer; its first answer says what it runs on."""
    command = [python, "-m", "utilities.torch_peer", task, number_format, "--variant", variant]
    return Process(command, ROOT, **environment)
