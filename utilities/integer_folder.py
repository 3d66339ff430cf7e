"""Writing a folder of integers, whole or not at all."""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from errors import RunError
from files import read_bytes, sync_folder

from .integer_network import FORM, MANIFEST, VECTORS, WEIGHTS, manifest_sum

if TYPE_CHECKING:
    from .integer_form import Contents

PACKED = "packed.bin"
HEX = "hex"
MOST_MANIFEST = 1 << 24  # bytes


def check_target(folder: Path) -> None:
    """Refuse a folder whose content is none of `write`; RunError says why."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder; give another with -o")
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    strangers = sorted(names - {MANIFEST, WEIGHTS, VECTORS, PACKED, HEX})
    if HEX in names and (folder / HEX).is_dir():
        strangers += [p.name for p in sorted((folder / HEX).iterdir()) if p.suffix != ".hex"]
    if strangers:
        raise RunError(f"{folder} is not empty ({strangers[0]}); give another folder with -o")
    try:
        ours = json.loads(read_bytes(folder / MANIFEST, MOST_MANIFEST))["form"] == FORM
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        ours = False
    if not ours:
        raise RunError(f"{folder} is not empty, and no export; give another folder with -o")


def write(folder: Path, contents: "Contents") -> None:
    """Make the folder; one that `check_target` lets pass is replaced."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)  # a killed process left it
    try:
        _fill(partial, contents)
        _put_in_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    if old.exists():
        shutil.rmtree(old)
    check_target(folder)  # once more: it was some time ago
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(partial, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _fill(folder: Path, contents: "Contents") -> None:
    files = {WEIGHTS: _npz(contents.weights), PACKED: contents.packed}
    if contents.vectors:
        files[VECTORS] = _npz(contents.vectors)
    files |= contents.hexadecimal()
    manifest = contents.manifest
    manifest["files"] = {name: _known(content) for name, content in files.items()}
    manifest["sha256"] = manifest_sum(manifest)
    files[MANIFEST] = json.dumps(manifest, indent=1).encode() + b"\n"
    (folder / HEX).mkdir(parents=True)
    for name, content in files.items():
        with open(folder / name, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(folder)


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _known(content: bytes) -> dict[str, int | str]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
