"""What the programs that sweep have in common: options, and one attempt at all runs."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import terminal
from errors import ProgramError
from settings import SEED, Settings
from utilities.sweep_jobs import Job, Options, plan
from utilities.sweep_table import Table
from utilities.sweeping import GPU_TOGETHER, Sweep


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where, on what and how the runs are trained."""
    parser.add_argument(
        "--seeds",
        type=terminal.whole(1, 1000),
        default=1,
        metavar="N",
        help=f"N runs of each, with the seeds {SEED}, {SEED + 1}, ... (default 1)",
    )
    parser.add_argument(
        "--out",
        type=terminal.folder,
        default=Path("runs"),
        metavar="DIR",
        help="where the run folders are, and summary.csv (default: runs)",
    )
    terminal.add_data_options(parser)
    terminal.add_device_options(parser)
    parser.add_argument("--accept-changed-code", action="store_true", help="as in main.py")
    parser.add_argument(
        "--together",
        type=count_or_auto,
        default=None,
        metavar="N",
        help="runs that one program trains at a time "
        f"(default auto: {GPU_TOGETHER} on a GPU, 1 on a CPU)",
    )
    add_ray_options(parser)


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """--ray and what it takes."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="hand the runs to a Ray cluster; without ADDRESS one is started here "
        "(requirements-ray.txt). All its machines must see --out and the data under the same names",
    )
    parser.add_argument(
        "--cpus",
        type=terminal.whole(1, 4096),
        default=1,
        metavar="N",
        help="with --ray: processor cores for a run (default 1)",
    )
    parser.add_argument(
        "--gpus",
        type=fraction,
        default=0,
        metavar="F",
        help="with --ray: GPUs for a run, also a part of one, such as 0.25 (default 0)",
    )


def count_or_auto(text: str) -> int | None:
    """An argument type: how many at a time, None for "auto"."""
    return None if text == "auto" else int(terminal.whole(1, 1000)(text))


def fraction(text: str) -> float:
    """An argument type: a number of GPUs."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 64:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of GPUs, such as 0.25 or 1")


def execute(
    name: str, settings: list[Settings], a: argparse.Namespace, stop_after: int | None = None
) -> tuple[int, list[Job]]:
    """Train runs as options `a` of a program say; (exit status, the jobs)."""
    options = Options(
        a.out, a.data, a.sample, stop_after, a.device, a.deterministic, a.accept_changed_code
    )
    jobs: list[Job] = []
    try:
        jobs = plan(settings, options)
        remark_on_code(name, jobs)
        sweep = Sweep(jobs, options, a.together, Table(jobs, sys.stdout))
        with ended_by_signals(name, sweep):
            if a.ray is None:
                sweep.train()
            else:
                from utilities.ray_cluster import train_on_ray

                train_on_ray(sweep, a.ray, a.cpus, a.gpus)
        sweep.write_summary()
    except ProgramError as error:
        terminal.say(name, error)
        return error.status, jobs
    except OSError as error:
        terminal.say(name, f"{error}; the same command goes on")
        return 1, jobs
    except KeyboardInterrupt:  # before anything was trained
        terminal.say(name, "interrupted; the same command goes on")
        return 128 + signal.SIGINT, jobs
    done = sum(job.status == "finished" for job in jobs)
    sweep.listener.say(f"{done} of {len(jobs)} runs finished; {options.summary_path}")
    if sweep.ending:
        terminal.say(name, "interrupted; the same command goes on")
        return 128 + sweep.ending, jobs
    return (0 if done == len(jobs) else 1), jobs


def remark_on_code(name: str, jobs: list[Job]) -> None:
    """Say so if runs that are finished were trained with other code."""
    others = {
        job.name: words
        for job in jobs
        if job.status == "finished" and (words := job.run.changed_code())
    }
    for first, words in list(others.items())[:1]:
        terminal.say(
            name,
            f"the code has changed since {len(others)} of the finished runs were trained, among "
            f"them {first} ({words})",
        )


@contextlib.contextmanager
def ended_by_signals(name: str, sweep: Sweep) -> Iterator[None]:
    """Within it SIGINT and SIGTERM end the sweep after the segments in flight.

    A second one ends it at once.
    """

    def end(number: int, frame: object) -> None:
        if sweep.ending:
            os._exit(128 + number)
        sweep.ending = number
        sweep.listener.say(f"{name}: ending after the segments in flight")

    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, end) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
