"""What the user of a sweep sees."""

import contextlib
import shutil
import threading
import time


class Table:
    """What the user sees: on a terminal a table that is drawn anew, elsewhere a line when a run begins or ends."""

    def __init__(self, sweep, out):
        self.sweep, self.out, self.live, self.lines = sweep, out, out.isatty(), 0
        self._lock, self._shown = threading.Lock(), 0.0

    def change(self, job, status, why=""):
        job.status, job.why = status, why
        if not self.live or status != "running":
            self.say(self.line(job) + (f": {why}" if why else ""))
        self.show(at_once=True)

    def say(self, text):
        with (
            self._lock,
            contextlib.suppress(BrokenPipeError),
        ):  # training goes on when nobody reads any more
            self._erase()
            print(text, file=self.out, flush=True)

    def line(self, job):
        words = [f"{job.folder.name:<48} {job.status:<11}"]
        if job.record:
            r = job.record
            of = f" of {job.last_epoch}" if job.last_epoch is not None else ""
            words.append(
                f"epoch {r['epoch']}{of}, test error {r['best_test_error']:.2f} % "
                f"(validation {r['best_validation_error']:.2f} %)"
            )
        return " ".join(words)

    def show(self, at_once=False):
        if not self.live or not at_once and time.monotonic() - self._shown < 0.5:
            return
        jobs = self.sweep.jobs
        lines = [self.line(job) for job in jobs if job.status == "running"]
        counts = [
            f"{sum(job.status == s for job in jobs)} {s}"
            for s in dict.fromkeys(job.status for job in jobs)
        ]
        lines.append(f"{len(jobs)} runs: {', '.join(counts)}{self.time_left()}")
        width = shutil.get_terminal_size().columns - 1
        with self._lock:
            self._erase()
            print("\n".join(line[:width] for line in lines), file=self.out, flush=True)
            self.lines, self._shown = len(lines), time.monotonic()

    def time_left(self):
        """As long as the epochs that are left take at the speed of those that were trained, if there is one."""
        left, known = (
            0.0,
            [j for j in self.sweep.jobs if j.record.get("epoch") and j.status == "running"],
        )
        if not known:
            return ""
        together = len(known)
        speed = {j.settings.task: j.record["seconds"] / together for j in known}
        usual = max(speed.values())
        for job in self.sweep.jobs:
            if job.status in ("waiting", "running"):
                last = job.last_epoch or known[0].last_epoch
                left += max(0, last - job.record.get("epoch", 0)) * speed.get(
                    job.settings.task, usual
                )
        return f", about {left / 60:.0f} min left"

    def _erase(self):
        if self.lines:
            print(f"\x1b[{self.lines}A\x1b[J", end="", file=self.out)
            self.lines = 0
