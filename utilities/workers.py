"""Runs of a sweep in several processes of this machine: what --jobs does.

Each process has cores of its own and trains one run after the other, so that what was read
and compiled for one serves the next. One that is lost is replaced, and its run goes on from
the checkpoint.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
import traceback
from collections import Counter, deque
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from bars import Pace
from ending import check_address_space, failure
from records import machine
from settings import Settings
from signals import held_back
from utilities.cores import take_cores
from utilities.sweep_jobs import ENDED, Job, Options, plan
from utilities.sweep_listener import Listener
from utilities.sweeping import Sweep

PROCESSES = multiprocessing.get_context("spawn")  # JAX cannot be forked
# How many cores a run of a task keeps busy, measured on two: a second one makes a run of
# PI_MNIST 1.5 times as fast, and two runs beside each other 1.3 times as fast as that.
CORES = {"PI_MNIST": 1}
GIB = 1.5  # of memory that a process may need
LOSSES = 3  # of processes that a run survives
LOOK_SECONDS = 0.3  # between two messages of how far a run is


def number_of_processes(
    wanted: int | None, jobs: list[Job], options: Options, threads: int | None
) -> int:
    """How many processes train the jobs that are unfinished.

    Parameters
    ----------
    wanted
        By --jobs; None: what suits the tasks and the machine.
    threads
        By --threads; None: all cores.
    """
    unfinished = [job for job in jobs if job.status not in ENDED]
    if wanted is None:
        wanted = automatic({job.settings.task for job in unfinished}, options.device, threads)
    return max(1, min(wanted, len(unfinished)))


def automatic(tasks: set[str], device: str, threads: int | None) -> int:
    """--jobs auto: one on a GPU, else as many as cores and memory are there for."""
    if device == "gpu" or (device == "auto" and machine.gpus()):
        return 1
    cores = machine.cores()
    needed = threads or max((CORES.get(task, cores) for task in tasks), default=cores)
    memory = machine.memory_gib()
    return min(cores // needed, int(memory / GIB) if memory else cores)


def train_in_processes(sweep: Sweep, count: int, threads: int | None) -> None:
    """Train the unfinished jobs of a sweep in so many processes."""
    check_address_space()
    # What is made of the data on first use is made here, not by several processes.
    waiting = deque(sweep.unfinished())
    sweep.forget_data()
    team = Team(sweep, threads or max(1, machine.cores() // count))
    try:
        while (waiting and not sweep.ending) or team.busy:
            while waiting and not sweep.ending and len(team.busy) < count:
                team.begin(waiting.popleft())
            waiting.extendleft(team.hear())
            sweep.listener.went_on()
            if sweep.ending:
                team.end()
    finally:
        team.close()


class Worker:
    """A process that trains runs; `job` is the one it is at."""

    def __init__(self, options: Options, cores: int) -> None:
        self.connection, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=work, args=(theirs, options, cores), daemon=True)
        resource_tracker.ensure_running()  # which lets signals through when it starts
        with held_back():  # they come to all processes of a terminal: the sweep's own ends this one
            self.process.start()
        theirs.close()  # so that an end of the process is the end of the connection
        self.job: Job | None = None


class Team:
    """The processes of a sweep."""

    def __init__(self, sweep: Sweep, cores: int) -> None:
        self.sweep = sweep
        self.cores = cores
        self.pace = Pace()  # of all together
        self.workers: list[Worker] = []
        self._losses: Counter[Job] = Counter()
        self._told_to_end = False

    @property
    def busy(self) -> list[Worker]:
        """Those that train."""
        return [worker for worker in self.workers if worker.job]

    def begin(self, job: Job) -> None:
        """Have a job trained, by a process that has nothing to do or by a new one."""
        idle = [worker for worker in self.workers if not worker.job]
        worker = idle[0] if idle else Worker(self.sweep.options, self.cores)
        if not idle:
            self.workers.append(worker)
        worker.job = job
        job.pace = self.pace
        job.where = "beginning"
        self.sweep.change(job, "running")
        with contextlib.suppress(OSError):  # it has ended: that is heard next
            worker.connection.send(job.settings.as_json())

    def hear(self) -> list[Job]:
        """What has happened in half a second; the jobs whose processes were lost."""
        lost = []
        ready = multiprocessing.connection.wait([w.connection for w in self.workers], 0.5)
        for worker in [w for w in self.workers if w.connection in ready]:
            try:
                what, *told = worker.connection.recv()
            except (EOFError, OSError):
                lost += self._lose(worker)
                continue
            getattr(self, f"_{what}")(worker, *told)
        return lost

    def end(self) -> None:
        """Tell all to end after the segments that they train."""
        if not self._told_to_end:
            self._told_to_end = True
            for worker in self.busy:
                with contextlib.suppress(OSError):
                    worker.connection.send(None)

    def close(self) -> None:
        """End with the processes, which end when nobody listens to them."""
        for worker in self.workers:
            worker.connection.close()
        for worker in self.workers:
            worker.process.join()

    def _lose(self, worker: Worker) -> list[Job]:
        """A process has ended; its job, if that is to be tried again."""
        self.workers.remove(worker)
        worker.connection.close()
        worker.process.join()
        job = worker.job
        if job is None:
            return []
        self._losses[job] += 1
        status = worker.process.exitcode or 0
        why = f"signal {-status}" if status < 0 else f"status {status}"
        if self.sweep.ending:
            self.sweep.change(job, "interrupted")
        elif self._losses[job] == LOSSES:
            self.sweep.change(job, "failed", f"its process has ended {LOSSES} times, by {why}")
        else:
            self.sweep.listener.say(f"{job.name}: its process has ended by {why}; it goes on")
            self.sweep.change(job, "waiting")
            return [job]
        self.sweep.write_summary()
        return []

    # What a process tells.

    def _at(self, worker: Worker, where: str, done: int, record: dict[str, Any]) -> None:
        if job := worker.job:
            self.pace.look(0 if job.done is None else max(0, done - job.done))
            job.where, job.done, job.record = where, done, record or job.record

    def _said(self, worker: Worker, text: str) -> None:
        self.sweep.warn(text)

    def _ended(self, worker: Worker, status: str, record: dict[str, Any], why: str) -> None:
        if job := worker.job:
            worker.job = None
            job.record = record or job.record
            self.sweep.change(job, status, why)
            self.sweep.write_summary()


# ------------------------------------------------------------------------ in a process


class Telling(Listener):
    """Tells the sweep's process, and hears that it is to end or has ended."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.sweep: Sweep | None = None
        self._told = 0.0

    def went_on(self) -> None:
        assert self.sweep is not None
        (job,) = self.sweep.jobs
        if job.done is not None and time.monotonic() - self._told >= LOOK_SECONDS:
            self._told = time.monotonic()
            self.tell("at", job.where, job.done, job.record)
        with contextlib.suppress(OSError):
            if self.connection.poll():
                self.sweep.ending = signal.SIGTERM

    def say(self, text: object) -> None:
        self.tell("said", str(text))

    def tell(self, *message: object) -> None:
        with contextlib.suppress(OSError):  # nobody listens: `went_on` finds out
            self.connection.send(message)


def work(connection: Connection, options: Options, cores: int) -> None:
    """Train the runs that are asked for, until nobody asks any more."""
    if not take_cores(cores):
        os.environ["NPROC"] = str(cores)
    telling = Telling(connection)
    sweep = telling.sweep = Sweep([], options, together=1, listener=telling, leads=False)
    with contextlib.suppress(EOFError, OSError):
        while asked := connection.recv():
            telling.tell("ended", *trained(sweep, Settings(**asked)))


def trained(sweep: Sweep, settings: Settings) -> tuple[str, dict[str, Any], str]:
    """What has become of a run: its status, its record, and why."""
    try:
        sweep.jobs = plan([settings], sweep.options)
        sweep.train()
    except Exception as error:
        if said := failure(error):
            return "failed", {}, said[0]
        traceback.print_exception(error)  # a mistake in the program
        return "failed", {}, f"{type(error).__name__}: {error}"
    (job,) = sweep.jobs
    return job.status, job.record, job.why
