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
    with folder.checkpoints.writing():
        book = _Book(folder, trainer, watcher)
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
                    book.look(step.batches)
                else:
                    book.add(step)
                    book.look(0)
                    yield step
        book.close()


class _Book:
    """What is written while a run is followed, beginning with the newest good checkpoint."""

    def __init__(self, folder: RunFolder, trainer: Trainer, watcher: Watcher) -> None:
        config = folder.config()
        self.folder = folder
        self.trainer = trainer
        self.watcher = watcher
        self.said = saved.about(config, trainer.network.layers_described())
        if config["epochs"] != trainer.epochs:
            raise RunError(
                f"{folder.config_path} says {config['epochs']} epochs, not {trainer.epochs}; give "
                "another folder with --out"
            )
        records = folder.checkpoints.restore(trainer, self.said, watcher.note)
        if records is None and (aside := folder.put_records_aside()):
            watcher.note(
                f"{folder.folder} has records, but no checkpoint: the run starts over, {aside} "
                "keeps them"
            )
        self.records = records or []
        folder.write_records(self.records)

    def add(self, record: Record) -> None:
        self.folder.add(record)
        self.records.append(record)

    def look(self, batches: int) -> None:
        """The state is whole, and as many batches have been trained since the last look."""
        try:
            self.watcher.trained(batches)
        except Stopped:
            self._checkpoint()
            raise
        begun = batches or self.records
        if begun and self.folder.checkpoints.due(CHECKPOINT_SECONDS):
            self._checkpoint()

    def close(self) -> None:
        """The last epoch is trained."""
        self._checkpoint()
        self.folder.checkpoints.wait()
        last = self.records[-1]
        # The untrained network's errors are those of before the range initialisation.
        network = self.trainer.network_arrays() if last["epoch"] else self.trainer.best_network
        errors = last["validation_error"], last["test_error"]
        saved.write(self.folder.final_path, network, self.said, last["epoch"], *errors)

    def _checkpoint(self) -> None:
        self.folder.checkpoints.save(
            self.trainer.snapshot(), self.records, self.said, self.trainer.words()
        )


def _next(inner: Steps, answer: Any) -> Segment | Whole | Record | None:
    """The next step; None after the last."""
    try:
        return inner.send(answer)
    except StopIteration:
        return None
