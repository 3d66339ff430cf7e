"""The command line of main.py ("Command line" in docs/published_program.md)."""

import argparse
import textwrap

import terminal
from data_options import SIZES, add_own_set, add_sizes, own_set
from errors import SettingsError
from reports import REPORTS
from settings import EPOCHS, FORMAT_ARGUMENTS, NUMBERS, SEED, SEEDS, STREAMS, Settings
from tasks import TASKS


def epilog() -> str:
    """The end of the help: what to expect."""
    published = ", ".join(
        f"{error:.2f} % ({' '.join([name, *map(str, FORMAT_ARGUMENTS[name].published)])})"
        for name, error in TASKS["PI_MNIST"].paper.items()
    )
    return textwrap.fill(
        f"On real MNIST the published test errors of PI_MNIST are {published}. The same command "
        "again resumes an unfinished run, or prints the result of a finished one.",
        88,
    )


def parser(description: str | None) -> terminal.Parser:
    """The command line."""
    result = terminal.Parser("main.py", description, epilog=epilog())
    result.add_argument("TASK", nargs="?", help=", ".join(TASKS))
    formats = ", ".join(f"{name} ({a.about})" for name, a in FORMAT_ARGUMENTS.items())
    needs = ", ".join(f"{name} {a.needs or 'none'}" for name, a in FORMAT_ARGUMENTS.items())
    result.add_argument(
        "FORMAT",
        nargs="?",
        help=f"{formats}. Of the following arguments it needs the first so many: {needs}; the "
        "others are ignored",
    )
    for number in NUMBERS:
        users = ", ".join(name for name, a in FORMAT_ARGUMENTS.items() if number in a.numbers)
        limits = f"{number.low}..{number.high}"
        text = f"{users}: {number.help} ({limits})".replace("%", "%%")
        result.add_argument(number.argument, nargs="?", help=text)
    add_options(result)
    return result


def add_options(result: terminal.Parser) -> None:
    """The options of the command line."""
    result.add_argument(
        "--epochs",
        type=terminal.number(EPOCHS),
        metavar="N",
        help=f"train N {EPOCHS.help}; the schedules of learning rate and momentum scale with it",
    )
    result.add_argument(
        "--stop-after",
        type=terminal.whole(0, 10**6),
        metavar="K",
        help="stop after epoch K of an unchanged schedule",
    )
    result.add_argument(
        "--extend",
        type=terminal.number(EPOCHS),
        metavar="N",
        help="go on with a finished run at its last rates, up to N epochs beyond its schedule",
    )
    result.add_argument(
        "--seed",
        type=terminal.number(SEEDS),
        metavar="S",
        help=f"{SEEDS.help} (default {SEED}, the published one)",
    )
    terminal.add_data_options(result)
    add_own_set(result)
    add_sizes(result)
    add_folder_options(result)
    add_report_options(result)
    terminal.add_device_options(result)
    terminal.add_threads_option(result)
    result.add_argument(
        "--streams",
        choices=STREAMS,
        help="where dropout masks come from: the device's generator (default), or the published "
        "NumPy streams, which follow the original program's trajectory",
    )


def add_folder_options(result: terminal.Parser) -> None:
    """Where the run is, and how to go on with one."""
    result.add_argument(
        "--out",
        type=terminal.folder,
        metavar="DIR",
        help="run folder (default: runs/ and a name made of the arguments)",
    )
    result.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, which must be there; TASK and what follows may be "
        "left out",
    )
    result.add_argument(
        "--accept-changed-code",
        action="store_true",
        help="go on with a run although the code that decides its results has changed; its records "
        "say so",
    )


def add_report_options(result: terminal.Parser) -> None:
    """What is printed of an epoch."""
    result.add_argument(
        "--report",
        choices=REPORTS,
        default=REPORTS[0],
        help="what is printed of an epoch: a line (default), or all that the published program "
        "printed",
    )
    result.add_argument(
        "--ranges",
        action="store_true",
        help="print the ranges of DFXP after every epoch; else what has changed of them",
    )


def parse(arguments: list[str], description: str | None = None) -> argparse.Namespace:
    """Command line -> argparse.Namespace with `settings`, a Settings; None if the run has them."""
    command = parser(description)
    a = command.parse_intermixed_args(arguments)
    a.own = own_set(command, a)
    if a.resume and a.TASK is None:
        if a.out is None:
            command.error("--resume without TASK needs the run folder, --out DIR")
        names = ("epochs", "seed", "streams", *SIZES)
        chosen = [name for name in names if getattr(a, name) is not None]
        if chosen:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
            command.error(
                f"--resume without TASK takes everything from the run; leave {options} out"
            )
        a.settings = None
        return a
    if a.TASK is None or a.FORMAT is None:
        command.error("TASK and FORMAT are missing" if a.TASK is None else "FORMAT is missing")
    given = [getattr(a, n.argument) for n in NUMBERS if getattr(a, n.argument) is not None]
    seed = SEED if a.seed is None else a.seed
    try:
        a.settings = Settings.parse(
            a.TASK, a.FORMAT, given, epochs=a.epochs, seed=seed, streams=a.streams or STREAMS[0]
        )
    except SettingsError as error:
        command.error(error)
    if ignored := FORMAT_ARGUMENTS[a.FORMAT].needless(given):
        terminal.say("main.py", f"{a.FORMAT} ignores {' '.join(ignored)}")
    return a
