"""What a terminal shows of work that takes long, and the blocks in which it is done."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from errors import printable

if TYPE_CHECKING:
    from tqdm import tqdm


def blocks(n: int, size: int) -> Iterator[slice]:
    """0..n-1 in slices of `size`; the last one may be shorter."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def report(line: str) -> None:
    """A line on stderr, at once."""
    if sys.stderr is not None:
        print(printable(line), file=sys.stderr, flush=True)


def image_bar(total: int, title: str) -> "tqdm":
    """A bar on stderr when that is a terminal; it counts images."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=title,
        unit="image",
        unit_scale=True,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
