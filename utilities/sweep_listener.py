"""What is told of a sweep while it trains."""

from typing import TYPE_CHECKING

from bars import where
from errors import Stopped
from records.watcher import Watcher
from utilities.sweep_jobs import Job

if TYPE_CHECKING:
    from trainer import Trainer
    from utilities.sweeping import Sweep


class Listener:
    """What a sweep tells: each method may be overridden."""

    def changed(self, job: Job) -> None:
        """Its status is another."""

    def went_on(self) -> None:
        """Some run has got further."""

    def say(self, text: object) -> None:
        """Something for the user."""


class Passing(Watcher):
    """Passes on what a run tells, and ends the run when the sweep is to end."""

    def __init__(self, sweep: "Sweep", job: Job) -> None:
        self.sweep = sweep
        self.job = job
        self.trainer: Trainer | None = None

    def resumed(self, trainer: "Trainer", last_epoch: int) -> None:
        self.trainer = trainer
        if trainer.position.epoch >= 0:
            self.job.record = self.job.run.records()[-1]
        self._note_place()

    def trained(self, batches: int) -> None:
        if self.job.pace:
            self.job.pace.look(batches)
        self._note_place()
        self.sweep.listener.went_on()
        if self.sweep.ending:
            raise Stopped

    def note(self, text: str) -> None:
        self.sweep.listener.say(text)

    def _note_place(self) -> None:
        if self.trainer:
            self.job.where = where(self.trainer, self.job.last_epoch)
            self.job.done = self.trainer.batches_done
