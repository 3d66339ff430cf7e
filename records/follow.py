"""Training in a run folder: the one place that knows the folder and the trainer."""

import contextlib
from collections.abc import Generator
from typing import Any, cast

from errors import RunError, Stopped
from records import code, extension, saved
from records.aside import put_aside
from records.folder import RunFolder
from records.metrics import Record
from records.sums import MetricsSum, Sums, config_sum, first_difference, line
from records.unchanged import whole_lines
from records.watcher import Watcher
from steps import Segment, Steps, Whole, driven
from trainer import Trainer

CHECKPOINT_SECONDS = 30


def begin(
    folder: RunFolder,
    trainer: Trainer,
    command: list[str],
    device: str,
    accept_changed_code: bool = False,
    extend: int | None = None,
    **options: bool | str,
) -> None:
    """Write config.json of a new run in a folder that is claimed; an old one must be of this code.

    `extend`, of a finished one: so many epochs beyond its schedule. `options` are told there, as
    the command and the device; RunError unless the code is the same or accepted.
    """
    longer = extend is not None and extension.pending(folder, extend)
    known = folder.config().get("code") if folder.exists else None
    here = code.facts(trainer.settings.task, trainer.network.layers_described(), known)
    if folder.exists:
        folder.check_code(here, accept_changed_code)
        if longer and extend:
            extension.begin(folder, extend)
    else:
        identity = trainer.data.identity
        folder.start(command, trainer.settings, identity, device, here, **options)


def follow(
    folder: RunFolder, trainer: Trainer, last_epoch: int, watcher: Watcher | None = None
) -> Generator[Record, None, None]:
    """Train to `last_epoch`, from the newest checkpoint if there is one.

    Yields each epoch's record once it is written. metrics.jsonl always has each epoch once,
    whatever happened to it: the checkpoint has the records so far. When the watcher raises
    Stopped, a checkpoint is written first.
    """
    records = driven(steps(folder, trainer, last_epoch, watcher), trainer.training)
    return cast(Generator[Record, None, None], records)


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
        self.config = config
        self.config_sum = config_sum(config)
        self.said = saved.about(config, trainer.network.layers_described())
        if trainer.epochs not in (config["epochs"], extension.last_epoch(config)):
            raise RunError(
                f"{folder.config_path} says {config['epochs']} epochs, not {trainer.epochs}; give "
                "another folder with --out"
            )
        extension.lengthen(trainer, config)
        records = folder.checkpoints.restore(trainer, config, watcher.note)
        if records is None:
            folder.check_sums()  # nothing can be made good without a checkpoint
        if records is None and (aside := put_aside(folder.folder)):
            watcher.note(
                f"{folder.folder} has records or networks, but no checkpoint that can be used: the "
                f"run starts over, and they are kept as {', '.join(aside)}"
            )
        self.records = records or []
        if changed := first_difference(whole_lines(folder.metrics_path), self.records):
            watcher.note(
                f"{folder.metrics_path} was not what the checkpoint has ({changed}); it is made "
                "anew"
            )
        folder.write_records(self.records)
        self.sum = MetricsSum()
        self.sum.add(*map(line, self.records))

    def add(self, record: Record) -> None:
        notes = self.folder.checkpoints.note, extension.note(self.config, record["epoch"])
        if any(notes):
            record["note"] = "; ".join(filter(None, notes))
            self.folder.checkpoints.note = None
        self.folder.add(record)
        self.records.append(record)
        self.sum.add(line(record))

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
        self.folder.check_mine()
        path, epoch = self.folder.final_path, last["epoch"]
        saved.write(path, network, self.said, epoch, *errors, self._sums())

    def _checkpoint(self) -> None:
        snapshot, words = self.trainer.snapshot(), self.trainer.words()
        self.folder.checkpoints.save(snapshot, self.records, self.said, self._sums(), words)

    def _sums(self) -> Sums:
        return {"config": self.config_sum, **self.sum.so_far()}


def _next(inner: Steps, answer: Any) -> Segment | Whole | Record | None:
    """The next step; None after the last."""
    try:
        return inner.send(answer)
    except StopIteration:
        return None
