"""What the user of a sweep sees."""

import collections
import os
import shutil
import threading
import time
from typing import TextIO

from bars import Ticker, duration
from errors import printable
from utilities.naming import counted
from utilities.sweep_jobs import Job
from utilities.sweep_listener import Listener

LEAST_NAME = 12  # columns
DOTS = ".."


class Table(Listener):
    """On a terminal a table, drawn anew; elsewhere a line when a run begins or ends."""

    def __init__(self, jobs: list[Job], out: TextIO) -> None:
        self.jobs = jobs
        self.out = out
        self.live = out.isatty() and os.environ.get("TERM") != "dumb"
        self._lines = 0  # of the table that is drawn
        self._drawn = 0.0  # when
        self._unsaid: collections.deque[str] = collections.deque()
        self._busy = False
        self.lost: OSError | None = None  # what keeps anything from being printed
        self._lock = threading.RLock()
        self._ticker = Ticker(self.went_on)
        if self.live:
            self._ticker.start()

    def close(self) -> None:
        """Let the table stand as it is."""
        self._ticker.stop()

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
        with self._lock:
            if not self._busy:
                self._print()

    def draw(self) -> None:
        """Draw the table, on a terminal."""
        if not self.live:
            return
        with self._lock:
            self._drawn = time.monotonic()
            self._print(self.rows())

    def _print(self, table: list[str] | None = None) -> None:
        """What is unsaid, then the table, instead of the one that is there.

        When nothing can be printed any more, training goes on, and `lost` says why.
        """
        if self.lost:
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
        except OSError as error:
            self.lost = error
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
        size = shutil.get_terminal_size()
        width = size.columns - 1
        running = [job for job in self.jobs if job.status == "running"]
        shown = running[: max(1, size.lines - 4)]
        names = max((len(job.name) for job in shown), default=0)
        lines = [row(job, names, width) for job in shown]
        if len(running) > len(shown):
            lines.append(f"and {len(running) - len(shown)} more")
        counts = collections.Counter(job.status for job in self.jobs)
        states = ", ".join(f"{count} {status}" for status, count in counts.items())
        left = self.time_left() + self.compiling()
        lines.append(
            shortened(f"{counted(len(self.jobs), 'run')}: {states}", width - len(left)) + left
        )
        return [line[:width] for line in lines]

    def compiling(self) -> str:
        """For how long something is being compiled, if anything is."""
        paces = [job.pace for job in self.jobs if job.status == "running" and job.pace]
        seconds = paces[0].compiling if paces else None
        return "" if seconds is None else f", compiling, {seconds:.0f} s"

    def time_left(self) -> str:
        """What the batches that are left take at the speed of those before."""
        left = [job for job in self.jobs if job.status in ("waiting", "running")]
        running = sum(job.status == "running" for job in left)
        known: dict[str, float] = {}  # seconds of a batch, by task
        for job in self.jobs:
            task = job.settings.task
            if job.pace and (seconds := job.pace.left(1)) is not None:
                known[task] = seconds
            elif job.status == "running" and job.record.get("epoch") and task not in known:
                known[task] = job.record["seconds"] / job.batches / running
        if not left or not known:
            return ""
        usual = max(known.values())
        seconds = sum(job.batches_left * known.get(job.settings.task, usual) for job in left)
        return f", about {duration(seconds)} left"


def row(job: Job, names: int, width: int) -> str:
    """A running job, in so many columns if that can be; names take `names` columns at most."""
    where = job.where
    if not where and job.record:
        where = f"epoch {job.record['epoch']} of {job.last_epoch}"
    words = [where] if where else []
    if job.record:
        words.append(f"test error {job.record['best_test_error']:.2f} %")
        validation = f" (validation {job.record['best_validation_error']:.2f} %)"
        if names + 2 + len(", ".join(words)) + len(validation) <= width:
            words[-1] += validation
    text = ", ".join(words)
    space = max(LEAST_NAME, min(names, width - len(text) - 2))
    return f"{shortened(job.name, space):<{space}}  {text}".rstrip()


def shortened(text: str, width: int) -> str:
    """A text without its middle, if it is wider than that."""
    over = len(text) - max(width, len(DOTS) + 2)
    if over <= 0:
        return text
    keep = len(text) - over - len(DOTS)
    return text[: keep // 2] + DOTS + text[-(keep - keep // 2) :]
