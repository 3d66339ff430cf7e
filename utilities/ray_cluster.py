"""Runs of a sweep on a Ray cluster: what --ray does. Ray is imported only then.

Each run is a Ray task that trains in its run folder; a task whose worker is lost is
started again by Ray, elsewhere, and goes on from the checkpoint. The lock of the run
folder holds two workers apart, and a finished run is not trained again.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import terminal
from errors import RunError
from records import machine
from records.metrics import Record
from settings import Settings
from utilities.cores import take_cores
from utilities.sweep_jobs import Job, Options, plan
from utilities.sweeping import Sweep

ROOT = Path(__file__).resolve().parent.parent
RETRIES = 10  # lost workers that a run survives
LOCKED_SECONDS = 60  # how long a lost worker may hold its lock

Outcome = tuple[str, Record, str]  # status, record and why of a Job


def train_on_ray(sweep: Sweep, address: str, cpus: int, gpus: float) -> None:
    """Train the unfinished jobs of a sweep; address "" starts a cluster here.

    Raises
    ------
    RunError
        There is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise RunError("--ray needs Ray: python -m pip install -r requirements-ray.txt") from None

    given = sweep.options
    data = terminal.data_folder(given.data, given.sample)
    own = given.own and replace(given.own, folder=given.own.folder.resolve())
    options = replace(given, out=given.out.resolve(), data=data.resolve(), own=own)
    # What is made of the data on first use is made here, not by several workers.
    jobs = sweep.unfinished()
    connect(ray, address)
    try:
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(train_one)
        running = {remote.remote(job.settings.as_json(), options, cpus): job for job in jobs}
        wait(ray, sweep, running)
    finally:
        ray.shutdown()


def connect(ray: Any, address: str) -> None:
    """Join the cluster at an address, or start one."""
    environment = {"PYTHONPATH": str(ROOT), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    passed = ("SVHN_LOCAL_PATH", "NPROC")
    environment |= {name: os.environ[name] for name in passed if name in os.environ}
    own = {} if address else {"num_cpus": machine.cores()}
    try:
        ray.init(
            address=address or None,
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=False,
            runtime_env={"env_vars": environment},
            **own,
        )
    except Exception as error:  # whatever Ray says of an address, or of a machine
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(f"no Ray cluster ({why})") from None


def wait(ray: Any, sweep: Sweep, running: dict[Any, Job]) -> None:
    """Until all tasks have ended, by themselves or because the sweep is to end."""
    cancelled = False
    while running:
        done, _ = ray.wait(list(running), timeout=1)
        for reference in done:
            job = running.pop(reference)
            status, record, why = outcome(ray, reference, job)
            job.record = record or job.record
            sweep.change(job, status, why)
        if done:
            sweep.write_summary()
        for job in running.values():
            look(job, sweep)
        sweep.listener.went_on()
        if sweep.ending and not cancelled:
            cancelled = True
            for reference in running:
                ray.cancel(reference, recursive=False)


def outcome(ray: Any, reference: Any, job: Job) -> Outcome:
    """What has become of a task."""
    try:
        return ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return "interrupted", job.record, ""
    except ray.exceptions.RayError as error:
        return "failed", job.record, " ".join(str(error).split())[:300]


def look(job: Job, sweep: Sweep) -> None:
    """How far a run is that is trained elsewhere."""
    with contextlib.suppress(RunError):
        records = job.run.records()
        if records and job.run.exists:
            job.record = records[-1]
            if job.status == "waiting":
                sweep.change(job, "running")


def train_one(settings: dict[str, Any], options: Options, cores: int) -> Outcome:
    """Train one run, in a worker."""
    take_cores(cores)
    deadline = time.monotonic() + LOCKED_SECONDS
    while True:
        jobs = plan([Settings(**settings)], options)
        sweep = Sweep(jobs, options, together=1, leads=False)
        with ended_by_ray(sweep):
            sweep.train()
        (job,) = jobs
        if job.status != "in use" or time.monotonic() > deadline:
            return job.status, job.record, job.why
        time.sleep(1)


@contextlib.contextmanager
def ended_by_ray(sweep: Sweep) -> Iterator[None]:
    """Within it, what `ray.cancel` sends ends the sweep after the segment in flight.

    It would be a KeyboardInterrupt, anywhere in the training.
    """

    def end(number: int, frame: object) -> None:
        sweep.ending = number

    previous = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
