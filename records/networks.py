"""Reading networks that were saved: see records.saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import FileError, ProgramError, RunError, printable
from files import Arrays, load_npz, parsed
from records.folder import RunFolder
from records.metrics import ERRORS
from records.saved import FORM, about, ranges_then, sum_of
from settings import Settings
from snapshots import check_arrays

DAMAGE = (ArithmeticError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class SavedNetwork:
    """A network as a file has it.

    Parameters
    ----------
    arrays
        layer0/W, layer0/b, layer0/ranges, ...
    settings
        Those of its run.
    epoch
        The one it is from.
    validation_error, test_error
        As they were measured then, in %.
    data
        What it was trained on: file name -> MD5 sum.
    sample
        Whether that was the generated sample.
    extended
        By how many epochs its run goes beyond its schedule.
    own_set
        The name of a set of somebody's own, if it was one; else "".
    """

    path: Path
    arrays: Arrays
    settings: Settings
    epoch: int
    validation_error: float
    test_error: float
    data: dict[str, str]
    sample: bool
    extended: int = 0
    own_set: str = ""


def read(path: Path) -> SavedNetwork:
    """A network from its file; FileError if it is damaged, foreign, or cannot be completed."""
    arrays = load_npz(path)
    try:
        if "sum" in arrays and arrays["sum"].item().decode() != sum_of(arrays):
            raise ValueError("its arrays are not those that were written together")
        arrays.pop("sum", None)
        epoch = int(arrays.pop("epoch").item())
        arrays.pop("sums", None)
        if "about" in arrays:
            said = parsed(arrays.pop("about").item())
        else:
            said = _completed(path, arrays, epoch)
        if said["form"] != FORM:
            raise ValueError(f"it has the form {said['form']!r}, not {FORM}")
        network = SavedNetwork(
            path,
            arrays,
            Settings(**said["settings"]),
            epoch,
            _error(said["validation_error"]),
            _error(said["test_error"]),
            {str(name): str(md5) for name, md5 in said["data"].items()},
            said["sample"],
            int(said.get("extended", 0)),
            printable(said.get("own_set", ""), 100),
        )
        if type(network.sample) is not bool:
            raise ValueError(f"sample is {network.sample!r}")
        last = network.settings.last_epoch + network.extended
        if said["epoch"] != epoch or not 0 <= epoch <= last:
            raise ValueError(f"its epoch is {epoch}")
    except (*DAMAGE, ProgramError) as error:
        what = error if isinstance(error, ProgramError) else f"{type(error).__name__}: {error}"
        raise FileError(f"{path} is no network of this program ({what})") from None
    return network


def _error(value: object) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 100:  # type: ignore[operator]
        raise ValueError(f"an error of {value!r} %")
    return float(value)  # type: ignore[arg-type]


def _completed(path: Path, arrays: Arrays, epoch: int) -> dict[str, Any]:
    """`about` of a file of the first form, from its run folder; adds the ranges to the arrays."""
    if "layer0/W" not in arrays:
        raise ValueError("it has no layer0/W")
    if not (path.parent / "config.json").exists():
        raise FileError("its ranges are not in it, and no config.json and metrics.jsonl beside it")
    run = RunFolder(path.parent)
    try:
        config = run.config()
        records = {record["epoch"]: record for record in run.records()}
    except RunError as error:
        raise FileError(f"its ranges are not in it, and {error.fact}") from None
    if epoch not in records:
        raise FileError(f"metrics.jsonl beside it has no epoch {epoch}")
    settings = Settings(**config["settings"])
    names = [name for name in arrays if name.endswith("/W")]
    arrays |= ranges_then(settings, records[epoch], len(names))
    errors = {name: records[epoch][name] for name in ERRORS[:2]}
    return {**about(config, []), "epoch": epoch, **errors}


def remarks(network: SavedNetwork) -> list[str]:
    """What the run folder that a network is in, if it is in one, says against taking it."""
    if not (network.path.parent / "config.json").exists():
        return []
    try:
        run = RunFolder(network.path.parent)
        run.check_sums()
        config, records = run.config(), run.records()
    except RunError as error:
        return [error.fact]
    if Settings(**config["settings"]) != network.settings or config["data"] != network.data:
        return [f"{network.path} is of another run than the one in {run.folder}"]
    name = {"best.npz": "best_epoch", "final.npz": "epoch"}.get(network.path.name)
    if not records or name is None or records[-1][name] <= network.epoch:
        return []
    later = "has a lower validation error" if name == "best_epoch" else "was trained since"
    return [
        f"{network.path} is of epoch {network.epoch}, and epoch {records[-1][name]} {later}: the "
        "run goes on, or has ended before it was written; the same command resumes it"
    ]


def file_of(path: Path, which: str | None) -> Path:
    """The network's file; FileError if there is none."""
    if path.is_dir():
        file = path / f"{which or 'best'}.npz"
        if not file.is_file():
            raise FileError(f"{path} has no {file.name}: it is no run folder, or not so far yet")
        return file
    if which:
        raise FileError(f"--which chooses a network of a run folder, {path} is none")
    if not path.is_file():
        raise FileError(f"there is no file {path}")
    return path


def check(network: SavedNetwork, like: Mapping[str, Any]) -> None:
    """FileError unless a network has just the arrays of `like`, by name, with usable values.

    A parameter that is NaN or infinite is of no use, nor is a range beyond its limit.
    """
    try:
        if strange := sorted(set(network.arrays) - set(like)):
            raise ValueError(f"it has {strange[0]}")
        if missing := [name for name in like if name not in network.arrays]:
            raise ValueError(f"it has no {missing[0]}")
        check_arrays(network.arrays, like)
    except ValueError as error:
        settings = network.settings
        raise FileError(
            f"{network.path} is no {settings.task} network in {settings.format} ({error})"
        ) from None
