"""What is shown of long work."""

import sys


def _report(line):
    print(line, file=sys.stderr, flush=True)


def _bar(total, title):
    """A progress bar on stderr when that is a terminal."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=title,
        unit="image",
        unit_scale=True,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
