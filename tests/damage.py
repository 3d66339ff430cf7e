"""Ways to spoil a file."""

import random
from pathlib import Path


def damage(path: Path, kind: str, rng: random.Random) -> None:
    """One of many ways to spoil a file."""
    content = bytearray(path.read_bytes())
    if kind == "flip" and content:
        for _ in range(rng.choice([1, 1, 1, 8, 200])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[rng.randrange(len(content) or 1) :]
    elif kind == "zeros" and content:
        start = rng.randrange(len(content))
        content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    elif kind == "insert":
        at = rng.randrange(len(content) + 1)
        content[at:at] = rng.randbytes(rng.choice([1, 7, 4096]))
    elif kind == "noise":
        content = bytearray(rng.randbytes(rng.choice([0, 1, 100, 5000])))
    elif kind == "swap":
        other = rng.choice([p for p in path.parent.iterdir() if p.is_file()])
        content = bytearray(other.read_bytes())
    path.write_bytes(content)


KINDS = ("flip", "flip", "cut", "zeros", "insert", "noise", "swap")
