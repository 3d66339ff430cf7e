"""Train what is behind an item of the paper, then draw or print it.

    python -m utilities.reproduce table     the table of SPEC section 13: FLP, HFLP, FXP 5 19 19, DFXP 5 9 11 100 0.0001 2
    python -m utilities.reproduce fig1      FXP against the radix point position, 31 bits
    python -m utilities.reproduce fig2      FXP and DFXP against the bit-width of the propagations, 31 bits for the updates
    python -m utilities.reproduce fig3      FXP and DFXP against that of the updates, 31 bits for the propagations
    python -m utilities.reproduce fig4      DFXP against the maximum overflow rate, for several bit-widths

--scale small shrinks the number of epochs (the schedules with it) and leaves points out, for a laptop, and says so; nothing
of the networks or formats is smaller. What it will cost is said before it starts. The same command again goes on with what is
missing.
"""

import json
import sys
from pathlib import Path

from errors import RunError
from settings import FORMAT_ARGUMENTS, SEED, Settings
from tasks import TASKS
from terminal import Parser
from utilities import paper_figures, results_table, sweeping
from utilities.outcomes import collect
from utilities.sweep_program import add_options, execute

SMALL_EPOCHS = {"PI_MNIST": 20, "MNIST": 3, "CIFAR10": 3, "SVHN": 1}
DFXP = (100, 0.0001, 2)
# The bit-widths around the knees, and the other points of each figure: (full, small).
POINTS = {
    "fig1": (range(0, 11), (1, 3, 5, 7, 9)),
    "fig2": (
        {"FXP": range(9, 25), "DFXP": range(4, 16)},
        {"FXP": (9, 11, 13, 15, 17, 19, 21), "DFXP": (5, 6, 7, 8, 9, 10, 12)},
    ),
    "fig3": (
        {"FXP": range(9, 25), "DFXP": range(6, 20)},
        {"FXP": (11, 13, 15, 17, 19, 21), "DFXP": (7, 8, 9, 10, 11, 13)},
    ),
    "fig4": (
        ((7, 8, 9, 10), (0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)),
        ((8, 9), (0, 1e-5, 1e-4, 1e-3, 1e-2)),
    ),
}
BENCHMARK = Path(__file__).resolve().parent.parent / "results" / "benchmark.json"
# Of a data set: examples that are trained on, and examples that are tested after each epoch.
EXAMPLES = {"mnist": (50_000, 20_000), "cifar10": (45_000, 15_000), "svhn": (598_388, 32_032)}
SAME_NETWORK = {"SVHN": "CIFAR10"}  # task -> the one whose times it has


def small_epochs(task):
    """How many epochs of a task --scale small trains."""
    return SMALL_EPOCHS.get(task) or max(1, TASKS[task].epochs // 40)


def table_formats(task):
    """The formats of a task's column in the table: the paper's, or all where the paper has none."""
    return [name for name in FORMAT_ARGUMENTS if name in (TASKS[task].paper or FORMAT_ARGUMENTS)]


def wanted(item, task=None, small=False, seeds=1):
    """The Settings behind an item, in order of value."""

    def setting(task, number_format, *numbers):
        numbers = numbers or FORMAT_ARGUMENTS[number_format].published
        epochs = small_epochs(task) if small else None
        return [
            Settings(task, number_format, *numbers, seed=seed, epochs=epochs)
            for seed in range(SEED, SEED + seeds)
        ]

    if item == "table":
        tasks = [task] if task else [name for name in TASKS if TASKS[name].paper]
        return [s for t in tasks for f in table_formats(t) for s in setting(t, f)]
    task, points = task or "PI_MNIST", POINTS[item][small]
    rows = [(task, "FLP")]
    if item == "fig1":
        rows += [(task, "FXP", n, 31, 31) for n in points]
    elif item == "fig4":
        rows += [
            (task, "DFXP", 5, bits, 31, DFXP[0], rate, DFXP[2])
            for bits in points[0]
            for rate in points[1]
        ]
    else:

        def bits(n):
            return (n, 31) if item == "fig2" else (31, n)

        rows += [(task, "FXP", 5, *bits(n)) for n in points["FXP"]]
        rows += [(task, "DFXP", 5, *bits(n), *DFXP) for n in points["DFXP"]]
    return [s for row in rows for s in setting(*row)]


def cost(settings):
    """Hours that runs take at the speed of the committed benchmark, and what it has not measured."""
    report = json.loads(BENCHMARK.read_text())
    rows = {(r["task"], name): row for r in report["results"] for name, row in r["formats"].items()}
    hours = 0.0
    unknown = set()
    for s in settings:
        task = TASKS[s.task]
        row = rows.get((SAME_NETWORK.get(s.task, s.task), s.format))
        if row is None or task.data_set not in EXAMPLES:
            unknown.add(f"{s.task} {s.format}")
            continue
        trained, tested = EXAMPLES[task.data_set]
        batches = trained // task.batch_size * (s.last_epoch + s.init_epochs)
        images = tested * (s.last_epoch + 1)
        milliseconds = batches * row["ms_per_batch"]["median"]
        milliseconds += images * row["ms_per_test_image"]["median"]
        hours += milliseconds / 3.6e6
    return hours, sorted(unknown)


def announce(item, settings, small, jobs):
    """What is going to be done, and what it will cost."""
    print(f"{item}: {len(settings)} runs, {len(settings) - jobs} of them finished already")
    if small:
        shrunk = {s.task: s.epochs for s in settings}
        print(
            "small scale: "
            + ", ".join(
                f"{n} epochs of {task} instead of {TASKS[task].epochs}"
                for task, n in shrunk.items()
            )
            + ("" if item == "table" else ", and fewer points")
            + "; the networks and formats are the published ones"
        )
    hours, unknown = cost(settings)
    time = f"{hours:.0f} hours" if hours > 3 else f"{60 * hours:.0f} minutes"
    print(
        f"all of them take about {time} on two CPU cores (results/benchmark.json)"
        + (f", but for {', '.join(unknown)}, which it does not have" if unknown else ""),
        flush=True,
    )


def main(arguments=None):
    parser = Parser("python -m utilities.reproduce", __doc__)
    parser.add_argument("item", choices=("table", *POINTS), help="what to reproduce")
    parser.add_argument(
        "--task", choices=TASKS, help="for this task only (default: table all, figures PI_MNIST)"
    )
    parser.add_argument(
        "--scale", choices=("full", "small"), default="full", help="full: as published (default)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be trained, and what it would cost"
    )
    add_options(parser)
    a = parser.parse_args(arguments)
    small = a.scale == "small"
    settings = wanted(a.item, a.task, small, a.seeds)
    try:
        planned = sweeping.Sweep(settings, sweeping.Options(a.out, a.data, a.sample))
        planned.check()
        announce(a.item, settings, small, sum(job.status != "finished" for job in planned.jobs))
    except (RunError, OSError) as error:
        parser.error(error)
    if a.dry_run:
        for job in planned.jobs:
            print(f"{job.status:<9} python {' '.join(planned.options.command(job.settings))}")
        return 0
    status, done = execute("reproduce", settings, a)
    folders = [job.folder for job in done.jobs if job.record]
    if status >= 128 or not folders:
        return status
    if a.item == "table":
        rows, missing = results_table.table(collect(folders, a.sample)[0])
        print(results_table.terminal(rows), end="")
    else:
        paths, remarks = paper_figures.paper(folders, a.out, a.sample, [a.item])
        print("\n".join([*map(str, paths), *remarks]))
    return status


if __name__ == "__main__":
    sys.exit(main())
