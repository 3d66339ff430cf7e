"""The manifest.json of a generated sample: the sums of its files, and its split."""

import json
from pathlib import Path
from typing import Any

from datasets.parts import PARTS
from datasets.reading import read_bytes
from errors import DataError

MANIFEST = "manifest.json"
MOST_EXAMPLES = 1_000_000  # in a part; what is read is bounded by it

SAMPLE_REMEDY = "make the sample in another folder (python -m utilities.sample_data DIR)"


def read_manifest(path: Path) -> dict[str, Any]:
    """What a manifest says: {"files": {name: MD5}, "split": {part: size}, ...}."""
    try:
        manifest = json.loads(read_bytes(path, 1 << 20))
        sane = (
            manifest["sample"] is True
            and all(isinstance(md5, str) for md5 in manifest["files"].values())
            and all(type(manifest["split"][part]) is int for part in PARTS)
            and all(0 < manifest["split"][part] <= MOST_EXAMPLES for part in PARTS)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sane = False
    if not sane:
        raise damaged_manifest(path.parent)
    return manifest


def is_foreign(path: Path) -> bool:
    """Whether a manifest is a sound one of something else than the sample."""
    try:
        manifest = json.loads(read_bytes(path, 1 << 20))
    except (DataError, ValueError, RecursionError):
        return False
    return not (isinstance(manifest, dict) and "sample" in manifest)


def damaged_manifest(folder: Path) -> DataError:
    return DataError(f"{folder / MANIFEST} is damaged: {SAMPLE_REMEDY}")
