"""Runs of a sweep on a Ray cluster: what `utilities.sweep --ray` does. Ray is imported only then.

Each run is a Ray task that trains in its run folder; a task whose worker is lost is started again by Ray, elsewhere, and goes
on from the checkpoint. The lock of the run folder keeps two workers apart, and a finished run is not trained again.
"""

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import terminal
from errors import RunError
from settings import Settings

ROOT = Path(__file__).resolve().parent.parent
RETRIES = 10  # lost workers that a run survives
LOCKED_SECONDS = 60  # how long a lost worker may hold its lock
_cores = []  # files whose locks say which cores this process has


def train_on_ray(sweep, address, cpus, gpus):
    """Train the unfinished jobs of a Sweep; `address` "" starts a cluster on this machine.

    RunError if there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise RunError("--ray needs Ray: python -m pip install -r requirements-ray.txt") from None

    options = replace(
        sweep.options,
        out=sweep.options.out.resolve(),
        data=terminal.data_folder(sweep.options.data, sweep.options.sample).resolve(),
    )
    environment = {"PYTHONPATH": str(ROOT), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    environment |= {name: os.environ[name] for name in ("SVHN_LOCAL_PATH",) if name in os.environ}
    jobs = (
        sweep.unfinished()
    )  # what is made of the data on first use is made once, not by several workers at a time
    try:
        ray.init(
            address=address or None,
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=False,
            runtime_env={"env_vars": environment},
            **({} if address else {"num_cpus": len(os.sched_getaffinity(0))}),
        )
    except (
        Exception
    ) as error:  # whatever Ray says of an address, or of a machine that it cannot use
        raise RunError(
            f"no Ray cluster ({' '.join(str(error).split())[:200] or type(error).__name__})"
        ) from None
    try:
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(train_one)
        running = {remote.remote(asdict(job.settings), options, cpus): job for job in jobs}
        told = False
        while running:
            done, _ = ray.wait(list(running), timeout=1)
            for reference in done:
                job = running.pop(reference)
                try:
                    status, record, why = ray.get(reference)
                except ray.exceptions.TaskCancelledError:
                    status, record, why = "interrupted", job.record, ""
                except ray.exceptions.RayError as error:
                    status, record, why = "failed", job.record, " ".join(str(error).split())[:300]
                job.record = record or job.record
                sweep.table.change(job, status, why)
            if done:
                sweep.write_summary()
            for job in running.values():
                _look(job, sweep.table)
            sweep.table.show()
            if sweep.ending and not told:
                told = True
                for reference in running:
                    ray.cancel(reference, recursive=False)
    finally:
        ray.shutdown()


def _look(job, table):
    """How far a run is that is trained elsewhere."""
    with contextlib.suppress(RunError):
        if job.run.exists and (records := job.run.records()):
            job.record = records[-1]
            if job.status == "waiting":
                epochs, stop = job.run.config()["epochs"], table.sweep.options.stop_after
                job.last_epoch = epochs if stop is None else min(stop, epochs)
                table.change(job, "running")


def train_one(settings, options, cores):
    """Train one run, in a worker; (status, last record, why)."""
    take_cores(cores)
    from utilities.sweeping import Sweep

    with open(os.devnull, "w") as nowhere:
        deadline = time.monotonic() + LOCKED_SECONDS
        while True:
            sweep = Sweep([Settings(**settings)], options, 1, nowhere)
            sweep.check()
            sweep.train()
            (job,) = sweep.jobs
            if job.status != "in use" or time.monotonic() > deadline:
                return job.status, job.record, job.why
            time.sleep(1)


def take_cores(count):
    """Confine this process to cores that no other worker has: two XLA programs on the same ones slow each other badly."""
    free = sorted(os.sched_getaffinity(0))
    if _cores or count >= len(free):
        return
    taken = []
    for core in free:
        file = open(
            Path(tempfile.gettempdir()) / f"deep-learning-storage-{os.getuid()}-core{core}", "w"
        )
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        _cores.append(file)  # held until the process ends
        taken.append(core)
        if len(taken) == count:
            os.sched_setaffinity(0, taken)
            return
