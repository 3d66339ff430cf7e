"""Train many runs: every word of the command line may be a list or a range.

    python -m utilities.sweep PI_MNIST FLP,DFXP 5 6:12 11 100 0.0001 2 --epochs 10 --seeds 3

A list is 9,10,11; a range is 5:12, both ends included, or 5:13:2. Each run gets the
folder that main.py would have given it, under --out. Runs that are finished are
skipped, others resumed, so that the same command goes on after an interruption.
summary.csv in --out has a line for each. Runs of one task and format are trained by one
compiled program, on a GPU several at a time (--together).
"""

import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import itertools
import re

import terminal
from data_options import add_own_set, add_sizes, own_set
from errors import SettingsError
from settings import EPOCHS, FORMAT_ARGUMENTS, NONE, NUMBERS, SEED, STREAMS, Settings, known
from utilities.sweep_program import GOES_ON, add_options, execute

MOST_RUNS = 100_000


def expand(text: str) -> list[str]:
    """The words that a list or range stands for: "5:7,9" -> 5, 6, 7, 9.

    SettingsError if it is neither.
    """
    words = []
    for part in text.strip().split(","):
        if ":" not in part:
            words.append(part)
            continue
        if not re.fullmatch(r"[+-]?\d{1,9}:[+-]?\d{1,9}(:\d{1,9})?", part):
            raise SettingsError(f"{part!r} is no range of whole numbers, such as 5:12 or 5:13:2")
        low, high, step = (*map(int, part.split(":")), 1)[:3]
        if not (0 < step and low <= high < low + step * MOST_RUNS):
            raise SettingsError(f"the range {part!r} has no number, or too many")
        words += map(str, range(low, high + 1, step))
    if "" in words:
        raise SettingsError(f"{text!r} has an empty word")
    return words


def product(words: list[str], seeds: int = 1, **options: object) -> list[Settings]:
    """The settings of all combinations of `words`, one for each seed, each once."""
    tasks, formats, *numbers = map(expand, words)
    settings = []
    for task, number_format, seed in itertools.product(tasks, formats, range(SEED, SEED + seeds)):
        known(number_format, FORMAT_ARGUMENTS, "FORMAT")
        needed = numbers[: FORMAT_ARGUMENTS[number_format].needs]
        for combination in itertools.product(*needed):
            own = Settings.parse(task, number_format, list(combination), seed=seed, **options)
            settings.append(own)
            if len(settings) > MOST_RUNS:
                raise SettingsError(f"these are more than {MOST_RUNS} runs")
    return list(dict.fromkeys(settings))


@terminal.program("sweep", kept=GOES_ON)
def main(arguments: list[str]) -> int:
    parser = terminal.Parser("python -m utilities.sweep", __doc__)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="TASK FORMAT ...",
        help="as in main.py, each a word, a list or a range",
    )
    parser.add_argument("--epochs", type=terminal.number(EPOCHS), metavar="N", help="as in main.py")
    parser.add_argument(
        "--stop-after", type=terminal.whole(0, 10**6), metavar="K", help="as in main.py"
    )
    parser.add_argument("--streams", choices=STREAMS, default=STREAMS[0], help="as in main.py")
    add_options(parser)
    add_own_set(parser)
    add_sizes(parser)
    # "-5:5" would be taken for an option; a word with a blank is not.
    a = parser.parse_intermixed_args([f" {w}" if re.match(r"-\d", w) else w for w in arguments])
    if not 2 <= len(a.words) <= 2 + len(NUMBERS):
        parser.error(
            f"TASK, FORMAT and at most {len(NUMBERS)} words more are needed, "
            f"not {len(a.words)} words"
        )
    a.own = own_set(parser, a)
    try:
        settings = product(a.words, a.seeds, epochs=a.epochs, streams=a.streams)
    except SettingsError as error:
        parser.error(error)
    formats = {own.format: FORMAT_ARGUMENTS[own.format].numbers for own in settings}
    counting = {number for numbers in formats.values() for number in numbers}
    pairs = zip(a.words[2:], NUMBERS, strict=False)
    if ignored := [word for word, n in pairs if n not in counting and word != NONE]:
        terminal.say("sweep", f"{', '.join(formats)}: {' '.join(ignored)} is ignored")
    status, _ = execute("sweep", settings, a, a.stop_after)
    return status


if __name__ == "__main__":
    terminal.run(main)
