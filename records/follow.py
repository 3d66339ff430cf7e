"""Training in a run folder: the one place that knows the folder and the trainer."""

import contextlib
from collections.abc import Iterator
from typing import Any

from errors import RunError, Stopped
from records import saved
from records.folder import RunFolder
from records.metrics import Record
from records.watcher import Watcher
from steps import Segment, Steps, Whole, driven
from trainer import Trainer

CHECKPOINT_SECONDS = 30


def follow(
    folder: RunFolder, trainer: Trainer, last_epoch: int, watcher: Watcher | None = None
) -> Iterator[Record]:
    """Train to `last_epoch`, from the newest checkpoint if there is one.

    Yields each epoch's record once it is written. metrics.jsonl always has each epoch once,
    whatever happened to it: the checkpoint has the records so far. When the watcher raises
    Stopped, a checkpoint is written first.
    """
    return driven(steps(folder, trainer, last_epoch, watcher), trainer.training)


def steps(
    folder: RunFolder, trainer: Trainer, last_epoch: int, watcher: Watcher | None = None
) -> Steps:
    """`follow`, for somebody else to drive: it yields the trainer's segments, too."""
    watcher = watcher or Watcher()
    config = folder.config()
    said = saved.about(config, trainer.network.layers_described())
    checkpoints = folder.checkpoints

    def save() -> None:
        checkpoints.save(trainer.snapshot(), records, said, trainer.words())

    def look(batches: int) -> None:
        """The state is whole."""
        try:
            watcher.trained(batches)
        except Stopped:
            save()
            raise
        if (batches or records) and checkpoints.due(CHECKPOINT_SECONDS):
            save()

    with checkpoints.writing():
        records = _restored(folder, trainer, watcher, config["epochs"], said)
        if trainer.batches_done > trainer.batches_until(last_epoch):  # it has gone on since then
            return
        folder.final_path.unlink(missing_ok=True)
        watcher.resumed(trainer, last_epoch)
        with contextlib.closing(trainer.steps(last_epoch)) as inner:
            answer = None
            while (step := _next(inner, answer)) is not None:
                answer = None
                if isinstance(step, Segment):
                    answer = yield step
                elif isinstance(step, Whole):
                    look(step.batches)
                else:
                    folder.add(step)
                    records.append(step)
                    look(0)
                    yield step
        save()
        checkpoints.wait()
        last = records[-1]
        # The untrained network's errors are those of before the range initialisation.
        network = trainer.network_arrays() if last["epoch"] else trainer.best_network
        errors = last["validation_error"], last["test_error"]
        saved.write(folder.final_path, network, said, last["epoch"], *errors)


def _next(inner: Steps, answer: Any) -> Segment | Whole | Record | None:
    """The next step; None after the last."""
    try:
        return inner.send(answer)
    except StopIteration:
        return None


def _restored(
    folder: RunFolder,
    trainer: Trainer,
    watcher: Watcher,
    epochs: int,
    said: dict[str, Any],
) -> list[Record]:
    """Put the trainer where the newest good checkpoint is; the records up to there."""
    if epochs != trainer.epochs:
        raise RunError(
            f"{folder.config_path} says {epochs} epochs, not {trainer.epochs}; give another folder "
            "with --out"
        )
    records = folder.checkpoints.restore(trainer, said, watcher.note)
    if records is None:
        records = []
        if aside := folder.put_records_aside():
            watcher.note(
                f"{folder.folder} has records, but no checkpoint: the run starts over, {aside} "
                "keeps them"
            )
    folder.write_records(records)
    return records
