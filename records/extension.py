"""Epochs beyond a run's schedule, trained with its last rates: what --extend does.

config.json has them under `extended`, an entry for each time:

    epochs       how many there are from then on, counted from the end of the schedule
    config_sum   the sum of config.json before
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from errors import RunError
from files import write_json
from records.sums import config_sum
from settings import EPOCHS, Settings

if TYPE_CHECKING:
    from records.folder import RunFolder
    from trainer import Trainer


def check(config: Mapping[str, Any]) -> None:
    """ValueError, TypeError or LookupError if what a configuration says of it cannot be."""
    before = 0
    for entry in config.get("extended", []):
        if not EPOCHS.fits(entry["epochs"]) or entry["epochs"] <= before:
            raise ValueError(f"extended by {entry['epochs']} epochs")
        if not isinstance(entry["config_sum"], str):
            raise ValueError("an extension has no sum")
        before = entry["epochs"]


def epochs(config: Mapping[str, Any]) -> int:
    """How many epochs a run has beyond its schedule."""
    entries = config.get("extended")
    return entries[-1]["epochs"] if entries else 0


def last_epoch(config: Mapping[str, Any], stop_after: int | None = None) -> int:
    """Up to which epoch a run is trained."""
    last = config["epochs"] + epochs(config)
    return last if stop_after is None else min(stop_after, last)


def words(config: Mapping[str, Any]) -> str:
    """How many epochs a run has, as "5" or "5 + 2"."""
    more = epochs(config)
    return f"{config['epochs']} + {more}" if more else str(config["epochs"])


def note(config: Mapping[str, Any], epoch: int) -> str | None:
    """What the record of an epoch says: that with it the run goes beyond what it was to be."""
    before = 0
    for entry in config.get("extended", []):
        if epoch == config["epochs"] + before + 1:
            return f"extended by {entry['epochs'] - before} epochs, with the last rates"
        before = entry["epochs"]
    return None


def lengthen(trainer: "Trainer", config: Mapping[str, Any]) -> None:
    """Give a trainer of the run's schedule the epochs beyond it."""
    more = last_epoch(config) - trainer.epochs
    if more > 0:
        trainer.schedule = [*trainer.schedule, *[trainer.schedule[-1]] * more]
        trainer.epochs += more


def pending(run: "RunFolder", more: int) -> bool:
    """Whether a run is to be extended now to so many epochs more; it may have been already.

    RunError if it cannot be.
    """
    config = run.config()
    known = epochs(config)
    if more < known:
        raise RunError(
            f"{run.folder} has been extended by {known} epochs; --extend counts from the end of "
            f"its schedule, so more than {known} are needed to go on"
        )
    if more == known:
        return False
    if not run.finished():
        way = f"with --extend {known}" if known else "without --extend"
        raise RunError(
            f"{run.folder} is not finished ({words(config)} epochs): its command {way} goes on "
            "with it, and --extend only after that"
        )
    if not (run.checkpoints.path.exists() or run.checkpoints.previous_path.exists()):
        raise RunError(
            f"{run.folder} has no checkpoint to go on from; train anew in another folder with "
            "--out and more --epochs"
        )
    return True


def begin(run: "RunFolder", more: int) -> None:
    """Write into config.json of a finished run that it goes on."""
    config = run.config()
    entry = {"epochs": more, "config_sum": config_sum(config)}
    write_json(run.config_path, config | {"extended": [*config.get("extended", []), entry]})


def advice(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What to do about a run that differs in its number of epochs only; "" if not only in that."""
    if {name for name in {**there, **here} if there.get(name) != here.get(name)} != {"epochs"}:
        return ""
    then = Settings(**there).last_epoch
    now = Settings(**here).last_epoch
    if now < then:
        return f"its rates are those of {then} epochs: its own command with --stop-after {now}"
    return (
        f"its rates are those of {then} epochs: its own command with --extend {now - then} goes on "
        f"at the last ones once it is finished, and {now} epochs in pieces are --epochs {now} with "
        "--stop-after"
    )
