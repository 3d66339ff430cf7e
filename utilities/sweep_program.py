"""What the programs that sweep have in common: their options, and one attempt at all runs."""

import argparse
import contextlib
import os
import signal
from pathlib import Path

import terminal
from errors import ProgramError
from settings import SEED
from utilities.sweeping import GPU_TOGETHER, Options, Sweep


def add_options(parser):
    """What sweep and reproduce have in common."""
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
    parser.add_argument(
        "--together",
        type=count_or_auto,
        default=None,
        metavar="N",
        help=f"runs that one program trains at a time (default auto: {GPU_TOGETHER} on a GPU, 1 on a CPU)",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="hand the runs to a Ray cluster; without ADDRESS one is started here (requirements-ray.txt). "
        "All its machines must see --out and the data under the same names",
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


def count_or_auto(text):
    return None if text == "auto" else terminal.whole(1, 1000)(text)


def fraction(text):
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 64:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of GPUs, such as 0.25 or 1")


def execute(name, settings, a, stop_after=None):
    """Train `settings` as the options `a` of program `name` say; (exit status, Sweep)."""
    options = Options(a.out, a.data, a.sample, stop_after, a.device, a.deterministic)
    sweep = Sweep(settings, options, a.together)

    def end(number, frame):
        if sweep.ending:
            os._exit(128 + number)
        sweep.ending = number
        sweep.table.say(f"{name}: ending after the segments in flight")

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        sweep.check()
        if a.ray is None:
            sweep.train()
        else:
            from utilities.ray_cluster import train_on_ray

            train_on_ray(sweep, a.ray, a.cpus, a.gpus)
        sweep.write_summary()
    except ProgramError as error:
        terminal.say(name, error)
        return error.status, sweep
    except OSError as error:
        terminal.say(name, f"{error}; the same command goes on")
        return 1, sweep
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    done = sum(job.status == "finished" for job in sweep.jobs)
    sweep.table.say(f"{done} of {len(sweep.jobs)} runs finished; {sweep.summary_path}")
    if sweep.ending:
        terminal.say(name, "interrupted; the same command goes on")
        return 128 + sweep.ending, sweep
    return (0 if done == len(sweep.jobs) else 1), sweep
