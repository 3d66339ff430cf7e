"""What the user of a sweep sees."""

import collections
import shutil
import time
from typing import TextIO

from errors import printable
from utilities.sweep_jobs import Job
from utilities.sweeping import Listener


class Table(Listener):
    """On a terminal a table, drawn anew; elsewhere a line when a run begins or ends."""

    def __init__(self, jobs: list[Job], out: TextIO) -> None:
        self.jobs = jobs
        self.out = out
        self.live = out.isatty()
        self._lines = 0  # of the table that is drawn
        self._drawn = 0.0  # when
        self._unsaid: collections.deque[str] = collections.deque()
        self._busy = False
        self._lost = False

    def changed(self, job: Job) -> None:
        if not self.live or job.status != "running":
            self.say(self.line(job) + (f": {job.why}" if job.why else ""))
        self.draw()

    def went_on(self) -> None:
        if time.monotonic() - self._drawn >= 0.5:
            self.draw()

    def say(self, text: object) -> None:
        """Print a line above the table; a signal may call it while another is printed."""
        self._unsaid.append(printable(text))
        if not self._busy:
            self._print()

    def draw(self) -> None:
        """Draw the table, on a terminal."""
        if self.live:
            self._drawn = time.monotonic()
            self._print(self.rows())

    def _print(self, table: list[str] | None = None) -> None:
        """What is unsaid, then the table, instead of the one that is there.

        When nothing can be printed any more, training goes on; what is left in the stream makes
        the program say so at its end.
        """
        if self._lost:
            return
        self._busy = True
        try:
            if self._lines:
                print(f"\x1b[{self._lines}A\x1b[J", end="", file=self.out)
                self._lines = 0
            while self._unsaid:
                print(self._unsaid.popleft(), file=self.out, flush=True)
            if table is not None:
                self._lines = len(table)
                print("\n".join(table), file=self.out, flush=True)
        except OSError:
            self._lost = True
        finally:
            self._busy = False

    def line(self, job: Job) -> str:
        """A job in words."""
        words = f"{job.name:<48} {job.status:<11}"
        if job.record:
            words += (
                f" epoch {job.record['epoch']} of {job.last_epoch}, "
                f"test error {job.record['best_test_error']:.2f} % "
                f"(validation {job.record['best_validation_error']:.2f} %)"
            )
        return words

    def rows(self) -> list[str]:
        """The table: what is running, and how many are in which state."""
        counts = collections.Counter(job.status for job in self.jobs)
        states = ", ".join(f"{count} {status}" for status, count in counts.items())
        lines = [self.line(job) for job in self.jobs if job.status == "running"]
        lines.append(f"{len(self.jobs)} runs: {states}{self.time_left()}")
        width = shutil.get_terminal_size().columns - 1
        return [line[:width] for line in lines]

    def time_left(self) -> str:
        """What the epochs that are left take at the speed of those before."""
        running = [j for j in self.jobs if j.status == "running" and j.record.get("epoch")]
        if not running:
            return ""
        speed = {j.settings.task: j.record["seconds"] / len(running) for j in running}
        usual = max(speed.values())
        left = 0.0
        for job in self.jobs:
            if job.status in ("waiting", "running"):
                epochs = max(0, job.last_epoch - job.record.get("epoch", 0))
                left += epochs * speed.get(job.settings.task, usual)
        return f", about {left / 60:.0f} min left"
