"""What the programs that sweep have in common: options, and one attempt at all runs."""

import argparse
import contextlib
import sys
from pathlib import Path

import terminal
from ending import failure
from errors import SettingsError
from settings import SEED, Settings
from utilities import workers
from utilities.sweep_jobs import Job, Options, plan
from utilities.sweep_table import Table
from utilities.sweeping import GPU_TOGETHER, Sweep

GOES_ON = "the same command goes on"


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
    parser.set_defaults(own=None)
    terminal.add_device_options(parser)
    terminal.add_threads_option(parser)
    on_a_gpu = ", ".join(f"{n} of {task}" for task, n in GPU_TOGETHER.items())
    parser.add_argument("--accept-changed-code", action="store_true", help="as in main.py")
    parser.add_argument(
        "--together",
        type=count_or_auto,
        default=None,
        metavar="N",
        help=f"runs that one program trains at a time (default auto: {on_a_gpu} on a GPU, else 1)",
    )
    add_process_options(parser)


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """--jobs, --ray and what that takes."""
    one = parser.add_mutually_exclusive_group()
    one.add_argument(
        "--jobs",
        type=count_or_auto,
        default=None,
        metavar="N",
        help="processes that train at a time, each on cores of its own (default auto: on a CPU "
        "one for each core for PI_MNIST, else 1)",
    )
    one.add_argument(
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
        metavar="N",
        help="with --ray: processor cores for a run (default 1)",
    )
    parser.add_argument(
        "--gpus",
        type=fraction,
        metavar="F",
        help="with --ray: GPUs for a run, also a part of one, such as 0.25 (default 0)",
    )


def count_or_auto(text: str) -> int | None:
    """An argument type: how many at a time, None for "auto"."""
    if text == "auto":
        return None
    try:
        return int(terminal.whole(1, 1000)(text))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor auto") from None


def fraction(text: str) -> float:
    """An argument type: a number of GPUs."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 64:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text.strip()!r} is no number of GPUs, such as 0.25 or 1")


def execute(
    name: str, settings: list[Settings], a: argparse.Namespace, stop_after: int | None = None
) -> tuple[int, list[Job]]:
    """Train runs as options `a` of a program say; (exit status, the jobs).

    SettingsError if there is one that would do nothing.
    """
    if a.ray is None and (a.cpus, a.gpus) != (None, None):
        raise SettingsError(
            "--cpus and --gpus are of --ray; --threads is how many a run computes in"
        )
    options = Options(
        a.out, a.data, a.sample, stop_after, a.device, a.deterministic, a.accept_changed_code, a.own
    )
    terminal.use_threads(a.threads)
    jobs = plan(settings, options)
    table = Table(jobs, sys.stdout)
    sweep = Sweep(jobs, options, a.together, table)

    def end(number: int) -> None:
        sweep.ending = number
        sweep.listener.say(f"{name}: ending after the segments in flight")

    try:
        remark_on_code(name, jobs)
        with contextlib.closing(table), terminal.Signals(end) as signals:
            sweep.at_once = signals.at_once
            train(sweep, a)
        for job in jobs:
            if job.status == "in use":
                job.check_finished(stop_after)  # by whoever trained it meanwhile
        sweep.write_summary()
    except (OSError, MemoryError) as error:
        what, status = failure(error) or ("", 1)
        advice = "give another folder with --out" if status == 2 else GOES_ON
        terminal.say(name, f"{what}; {advice}")
        return status, jobs
    done = sum(job.status == "finished" for job in jobs)
    sweep.listener.say(f"{done} of {len(jobs)} runs finished; {options.summary_path}")
    if sweep.ending:
        terminal.say(name, f"interrupted; {GOES_ON}")
        return 128 + sweep.ending, jobs
    if table.lost:
        terminal.say(name, (failure(table.lost) or ("",))[0])
    return (0 if done == len(jobs) and not table.lost else 1), jobs


def train(sweep: Sweep, a: argparse.Namespace) -> None:
    """Train what is unfinished, here, in processes of this machine or on a cluster."""
    if a.ray is not None:
        from utilities.ray_cluster import train_on_ray

        train_on_ray(sweep, a.ray, a.cpus or 1, a.gpus or 0)
        return
    wanted = 1 if a.jobs is None and a.together else a.jobs
    count = workers.number_of_processes(wanted, sweep.jobs, sweep.options, a.threads)
    if count == 1:
        sweep.train()
    else:
        workers.train_in_processes(sweep, count, a.threads)


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
