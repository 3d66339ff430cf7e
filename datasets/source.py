"""Where files come from: the official ones, or the generated sample."""

import json
import os

from datasets.downloads import download
from datasets.downloads import reachable as _reachable
from errors import DataError, DownloadError

CONNECT_SECONDS = 5  # a mirror that has not answered by then counts as unreachable


def _manifest(folder, sample):
    """The sample's manifest, {"files": {name: MD5}, "split": {part: size}, ...}; None unless sample.

    DataError if there is a sample but none is asked for, or none but it is, or the manifest is damaged.
    """
    path = folder / "manifest.json"
    if not sample:
        if os.path.exists(path):
            raise DataError(
                f"{folder} holds the generated sample, not the official files: use --sample to "
                "train on it, or give another data folder"
            )
        return None
    if not os.path.exists(path):
        raise DataError(
            f"{folder} holds no generated sample (no manifest.json): make one with "
            "python -m utilities.sample_data DIR, or leave --sample out"
        )
    try:
        manifest = json.loads(_read_bytes(path))
        sane = (
            manifest["sample"] is True
            and all(isinstance(md5, str) for md5 in manifest["files"].values())
            and all(
                type(manifest["split"][part]) is int and manifest["split"][part] > 0
                for part in ("train", "valid", "test")
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        sane = False
    if not sane:
        raise DataError(f"{path} is damaged: {_remedy(sample)}")
    return manifest


def _missing_sample(folder, missing):
    return DataError(
        f"{folder}: {', '.join(missing)} missing from the generated sample: {_remedy(True)}"
    )


def _remedy(sample):
    return (
        "delete its folder and make the sample again (python -m utilities.sample_data DIR)"
        if sample
        else "delete it and get the official file again, or use --sample for a small generated set"
    )


def _fetch(task, files, folder, mirrors, sums, allowed=True):
    """Download missing official files, each from the first mirror that has it; DataError, within seconds if offline."""
    why = "no download was tried"
    if allowed:
        mirrors, why = _reachable(mirrors, files[0], CONNECT_SECONDS), "no mirror answered"
        for file in files if mirrors else ():
            for mirror in mirrors:
                try:
                    download(mirror + file, folder / file, sums[file], CONNECT_SECONDS)
                    break
                except DownloadError as error:
                    why = str(error)
                except OSError as error:
                    raise DataError(
                        f"cannot write {folder / file} ({error.strerror or error}): make room, and the "
                        f"folder writable, or put the official {task} files there"
                    ) from error
        files = [file for file in files if not os.path.exists(folder / file)]
    if files:
        raise DataError(
            f"{task}: {', '.join(files)} missing and not downloaded ({why}): put the official "
            f"files into {folder}, or use --sample for a small generated set"
        )


def _read_bytes(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path, error):
    return DataError(f"cannot read {path} ({error.strerror or error}): make it a readable file")
