"""Train what is behind an item of the paper, then draw or print it.

    python -m utilities.reproduce table   FLP, HFLP, FXP 5 19 19, DFXP 5 9 11 100 0.0001 2
    python -m utilities.reproduce fig1    FXP against the radix point position, 31 bits
    python -m utilities.reproduce fig2    FXP and DFXP against the bit-width of the propagations,
                                          31 bits for the updates
    python -m utilities.reproduce fig3    FXP and DFXP against the bit-width of the updates,
                                          31 bits for the propagations
    python -m utilities.reproduce fig4    DFXP against the maximum overflow rate, for several
                                          bit-widths

--scale small shrinks the number of epochs (the schedules with it) and leaves points of
figures out, for a laptop, and says so; nothing of the networks or formats is smaller. Of
the table it gives the runs of results/README.md. What it will cost is said before it
starts. The same command again goes on with what is missing.
"""

import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import json
from collections.abc import Iterable

import terminal
from errors import printable_path
from settings import FORMAT_ARGUMENTS, SEED, Settings
from tasks import TASKS
from terminal import Parser
from utilities import paper_figures
from utilities.naming import counted
from utilities.outcomes import collect
from utilities.results_table import aligned, remarks, table
from utilities.sweep_jobs import Job, Options, plan
from utilities.sweep_program import GOES_ON, add_options, execute

# Of the table in results/README.md, which has no SVHN; None: as many as published.
TABLE_EPOCHS: dict[str, int | None] = {"PI_MNIST": None, "MNIST": 40, "CIFAR10": 10}
# Of a run behind a figure, or of another task.
SMALL_EPOCHS = {"PI_MNIST": 20, "MNIST": 3, "CIFAR10": 3, "SVHN": 1}
SMALL_SHARE = 40  # where that says nothing: one of so many epochs
# The bit-widths around the knees, and the other points of each figure: (full, small).
RANGES = range(0, 11), (1, 3, 5, 7, 9)
PROP_BITS: dict[str, tuple[Iterable[int], Iterable[int]]] = {
    "FXP": (range(9, 25), (9, 11, 13, 15, 17, 19, 21)),
    "DFXP": (range(4, 16), (5, 6, 7, 8, 9, 10, 12)),
}
UP_BITS: dict[str, tuple[Iterable[int], Iterable[int]]] = {
    "FXP": (range(9, 25), (11, 13, 15, 17, 19, 21)),
    "DFXP": (range(6, 20), (7, 8, 9, 10, 11, 13)),
}
OVERFLOW_BITS = (7, 8, 9, 10), (8, 9)
OVERFLOW_RATES = (0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1), (0, 1e-5, 1e-4, 1e-3, 1e-2)
MOST_BITS = 31

BENCHMARK = Path(__file__).resolve().parent.parent / "results" / "benchmark.json"
# Of a data set: examples that are trained on, and those tested after each epoch.
EXAMPLES = {"mnist": (50_000, 20_000), "cifar10": (45_000, 15_000), "svhn": (598_388, 32_032)}
SAMPLE_EXAMPLES = {"mnist": (2_000, 1_000), "cifar10": (900, 300), "svhn": (1_050, 350)}
SAME_NETWORK = {"SVHN": "CIFAR10"}  # task -> the one whose times the benchmark has

Numbers = dict[str, int | float]


def points(item: str, small: bool) -> list[tuple[str, Numbers]]:
    """The runs of a figure, FLP first: (format, numbers that are not the table's)."""
    runs: list[tuple[str, Numbers]] = [("FLP", {})]
    most: Numbers = {"prop_bits": MOST_BITS, "up_bits": MOST_BITS}
    if item == "fig1":
        runs += [("FXP", most | {"initial_range": n}) for n in RANGES[small]]
    elif item == "fig4":
        runs += [
            ("DFXP", {"prop_bits": bits, "up_bits": MOST_BITS, "max_overflow": rate})
            for bits in OVERFLOW_BITS[small]
            for rate in OVERFLOW_RATES[small]
        ]
    else:
        swept, widths = {"fig2": ("prop_bits", PROP_BITS), "fig3": ("up_bits", UP_BITS)}[item]
        for number_format, choices in widths.items():
            runs += [(number_format, most | {swept: bits}) for bits in choices[small]]
    return runs


def table_formats(task: str) -> list[str]:
    """The formats of a task in the table: the paper's; all, where it has none."""
    if paper := TASKS[task].paper:
        return [name for name in FORMAT_ARGUMENTS if name in paper]
    return [name for name, a in FORMAT_ARGUMENTS.items() if len(a.published) == a.needs]


def wanted(
    item: str, task: str | None = None, small: bool = False, seeds: int = 1
) -> list[Settings]:
    """The runs behind an item, in order of value."""
    runs: list[tuple[str, str, Numbers]]
    if item == "table":
        tasks = [task] if task else table_tasks(small)
        runs = [(name, f, {}) for name in tasks for f in table_formats(name)]
    else:
        runs = [(task or "PI_MNIST", f, numbers) for f, numbers in points(item, small)]
    return [
        Settings.published(
            name, f, **numbers, seed=seed, epochs=small_epochs(item, name) if small else None
        )
        for name, f, numbers in runs
        for seed in range(SEED, SEED + seeds)
    ]


def table_tasks(small: bool) -> list[str]:
    """The tasks of the table: the paper's, those that `results/` has if it is to be small."""
    return [name for name in TASKS if TASKS[name].paper and (name in TABLE_EPOCHS or not small)]


def small_epochs(item: str, task: str) -> int | None:
    """How many epochs of a task --scale small trains for an item; None: as many as published."""
    if item == "table" and task in TABLE_EPOCHS:
        return TABLE_EPOCHS[task]
    return SMALL_EPOCHS.get(task) or max(1, TASKS[task].epochs // SMALL_SHARE)


class Costs:
    """What runs take, as results/benchmark.json has it; its machine in words.

    Parameters
    ----------
    sample
        Whether they are trained on the generated sample.
    """

    def __init__(self, sample: bool = False) -> None:
        report = json.loads(BENCHMARK.read_text())
        self.machine = f"{counted(report['cores'], 'core')} of {report['processor']}"
        self._examples = SAMPLE_EXAMPLES if sample else EXAMPLES
        self._rows = {
            (result["task"], name): row
            for result in report["results"]
            for name, row in result["formats"].items()
        }

    def hours(self, settings: Settings) -> float | None:
        """Of a run; None of one that it does not have."""
        task = TASKS[settings.task]
        row = self._rows.get((SAME_NETWORK.get(settings.task, settings.task), settings.format))
        if row is None or task.data_set not in self._examples:
            return None
        trained, tested = self._examples[task.data_set]
        batches = trained // task.batch_size * (settings.last_epoch + settings.init_epochs)
        images = tested * (settings.last_epoch + 1)
        training = batches * row["ms_per_batch"]["median"]
        return (training + images * row["ms_per_test_image"]["median"]) / 3.6e6


def cost(runs: list[Settings], sample: bool = False) -> tuple[float, list[str]]:
    """Hours that runs take; and those that the benchmark does not have."""
    costs = Costs(sample)
    hours = {settings: costs.hours(settings) for settings in runs}
    unknown = {f"{s.task} {s.format}" for s, known in hours.items() if known is None}
    return sum(known or 0.0 for known in hours.values()), sorted(unknown)


def duration(hours: float | None) -> str:
    """In words."""
    if hours is None:
        return "?"
    if hours > 3:
        return f"{hours:.0f} hours"
    if hours > 1:
        return f"{hours:.1f} hours"
    minutes = max(1, round(60 * hours))
    return f"{minutes} minute{'s' * (minutes > 1)}"


def frequency_remarks(runs: list[Settings], sample: bool) -> list[str]:
    """Which ranges will never move; training says it of the data that are there."""
    examples = SAMPLE_EXAMPLES if sample else EXAMPLES
    batches = {
        name: examples[task.data_set][0] // task.batch_size
        for name, task in TASKS.items()
        if task.data_set in examples
    }
    remarks = [own.frequency_remark(batches[own.task]) for own in runs if own.task in batches]
    return list(dict.fromkeys(filter(None, remarks)))


def announce(item: str, small: bool, jobs: list[Job], sample: bool = False) -> None:
    """What is going to be done, and what it will cost."""
    runs = [job.settings for job in jobs]
    finished = sum(job.status == "finished" for job in jobs)
    print(f"{item}: {counted(len(runs), 'run')}, {finished} of them finished already")
    if small:
        print(shrunk(item, runs))
    if sample:
        print("on the generated sample: its errors say nothing about the paper's")
    hours, unknown = cost(runs, sample)
    but = f", but for {', '.join(unknown)}, which it does not have" if unknown else ""
    print(
        f"all of them take about {duration(hours)} on {Costs().machine} "
        f"(results/benchmark.json){but}",
        flush=True,
    )


def shrunk(item: str, runs: list[Settings]) -> str:
    """In what --scale small is not what was published."""
    epochs = {own.task: own.last_epoch for own in runs}
    parts = [
        f"{n} epochs of {task} instead of {TASKS[task].epochs}"
        for task, n in epochs.items()
        if n != TASKS[task].epochs
    ]
    if item != "table":
        parts.append("and fewer points")
    if len(epochs) > 1:
        parts += [f"no {task} (--task {task})" for task in table_tasks(False) if task not in epochs]
    return f"small scale: {', '.join(parts)}; the networks and formats are the published ones"


def print_plan(jobs: list[Job], options: Options) -> None:
    """Each run with what it costs."""
    for remark in frequency_remarks([job.settings for job in jobs], options.sample):
        print(remark)
    costs = Costs(options.sample)
    for job in jobs:
        time = duration(costs.hours(job.settings))
        command = " ".join(options.command(job.settings))
        print(f"{job.status:<9} {time:>10}  python {command}")


def show(item: str, jobs: list[Job], out: Path, sample: bool) -> None:
    """Print the table, or draw the figure, that has been trained."""
    folders = [job.run.folder for job in jobs if job.record]
    if item == "table":
        outcomes, _ = collect(folders, sample)
        rows, _ = table(outcomes)
        print(aligned(rows), end="")
        print("".join(f"{line}\n" for line in remarks(outcomes)), end="")
    else:
        paths, others = paper_figures.draw(folders, out, sample, [item])
        print("\n".join([*map(printable_path, paths), *others]))


@terminal.program("reproduce", kept=GOES_ON)
def main(arguments: list[str]) -> int:
    parser = Parser("python -m utilities.reproduce", __doc__)
    items = ("table", *paper_figures.FIGURES)
    parser.add_argument("item", choices=items, help="what to reproduce")
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
    options = Options(a.out, a.data, a.sample)
    jobs = plan(settings, options)
    announce(a.item, small, jobs, a.sample)
    if a.dry_run:
        print_plan(jobs, options)
        return 0
    status, jobs = execute("reproduce", settings, a)
    if status < 128 and any(job.record for job in jobs):
        show(a.item, jobs, a.out, a.sample)
    return status


if __name__ == "__main__":
    terminal.run(main)
