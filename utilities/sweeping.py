"""Trains the runs of a sweep, those that share a program several at a time."""

import contextlib
import itertools
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from bars import Pace
from data_options import load_chosen
from datasets import Dataset
from ending import check_address_space, failure, importing
from errors import DataError, Diverged, RunError, RunInUse, Stopped
from records import machine
from signals import held_back
from tasks import TASKS
from utilities.sweep_jobs import ENDED, Job, Options, write_summary
from utilities.sweep_listener import Listener, Passing

if TYPE_CHECKING:
    from trainer import Trainer
    from utilities.team import Event

# Runs of a task at a time on a GPU, unless asked otherwise; of others, and on a CPU, one.
# Convolutions of several runs become grouped ones, which nobody has measured.
GPU_TOGETHER = {"PI_MNIST": 8}


class Sweep:
    """Trains jobs, in groups that share a program.

    Parameters
    ----------
    together
        How many runs at a time; None: what suits the device.
    leads
        False if another process says what is known of all runs, and writes summary.csv.

    Attributes
    ----------
    ending : int or None
        A signal that has come: nothing more is begun, what runs stops where it is.
    at_once
        A context in which a signal need not wait.
    """

    def __init__(
        self,
        jobs: list[Job],
        options: Options,
        together: int | None = None,
        listener: Listener | None = None,
        leads: bool = True,
    ) -> None:
        self.jobs = jobs
        self.options = options
        self.together = together
        self.listener = listener or Listener()
        self.ending: int | None = None
        self.at_once: Callable[[], AbstractContextManager] = contextlib.nullcontext
        self._leads = leads
        self._data: dict[str, Dataset] = {}  # by the name of the data set
        self._first: dict[tuple, Trainer] = {}  # that later ones of its kind share programs with
        self._warned: set[str] = set()

    def change(self, job: Job, status: str, why: str = "") -> None:
        """Note, and tell, what has become of a job."""
        job.status = status
        job.why = why
        self.listener.changed(job)

    def unfinished(self) -> list[Job]:
        """The jobs to be trained; those whose data cannot be used are marked as failed.

        Raises
        ------
        DataError
            There are no data for any of them.
        """
        jobs = [job for job in self.jobs if job.status not in ENDED]
        own = bool(self.options.own)  # then another set may have the name of that of finished runs
        looked_at = self.jobs if own else jobs
        names = dict.fromkeys(TASKS[job.settings.task].data_set for job in looked_at)
        errors: dict[str, DataError] = {}
        for name in names:
            if name in self._data:
                continue
            try:
                with self.at_once():
                    self._data[name] = load_chosen(name, self.options)
            except DataError as error:
                errors[name] = error
        if errors and len(errors) == len(names):
            raise next(iter(errors.values()))
        for job in self.jobs if own else []:
            data = self._data.get(TASKS[job.settings.task].data_set)
            if data and job.run.exists:
                job.run.check_data(data.identity)
        for job in jobs:
            if missing := errors.get(TASKS[job.settings.task].data_set):
                self.change(job, "failed", str(missing))
        self.write_summary()
        left = [job for job in jobs if job.status not in ENDED]
        if self._leads:
            self._warn_of_frequencies(left)
        return left

    def forget_data(self) -> None:
        """Free the memory of what `unfinished` has read."""
        self._data.clear()

    def warn(self, text: str) -> None:
        """Tell the user, once."""
        if text not in self._warned:
            self._warned.add(text)
            self.listener.say(text)

    def _warn_of_frequencies(self, jobs: list[Job]) -> None:
        """Whose ranges will never move, before anything is trained."""
        remarks: Counter[str] = Counter()
        for job in jobs:
            task = TASKS[job.settings.task]
            job.batches = len(self._data[task.data_set].train) // task.batch_size
            if remark := job.settings.frequency_remark(job.batches):
                remarks[remark] += 1
        for remark, count in remarks.items():
            self.warn(f"{remark} ({count} of {len(self.jobs)} runs)")

    def train(self) -> None:
        """Train all that is not finished."""
        check_address_space()
        groups: dict[tuple, list[Job]] = {}
        for job in self.unfinished():
            groups.setdefault(alike(job), []).append(job)
        for jobs in groups.values():
            self._train_group(jobs)

    def _train_group(self, jobs: list[Job]) -> None:
        """Jobs of one task, format and source of masks: they share what is compiled."""
        with importing(xla=True):
            from xla import device
            from xla.program_cache import cache_programs, compilations

        options = self.options
        with held_back():
            device.select_device(options.device, options.deterministic, self.warn)
        cache_programs()
        together = self._at_a_time(jobs[0].settings.task, device.batching_pays())
        trainers = self._trainers(jobs)
        pace = Pace()
        with compilations(pace.apart):
            while team := dict(itertools.islice(trainers, together)):
                pace.look(0)
                self._train_team(team, pace)
                team.clear()  # their states, before those of the next are made

    def _at_a_time(self, task: str, batching_pays: bool) -> int:
        """How many runs of a task one program trains."""
        if TASKS[task].chunk_batches:
            return 1  # what is read of the data differs from run to run
        return self.together or (GPU_TOGETHER.get(task, 1) if batching_pays else 1)

    def _trainers(self, jobs: list[Job]) -> "Iterator[tuple[Job, Trainer]]":
        """A trainer of each job that can be trained, made when its turn comes."""
        with importing():
            from trainer import Trainer

        for job in jobs:
            if self.ending:
                return
            data = self._data[TASKS[job.settings.task].data_set]
            if not self._open(job, data):
                continue
            kind = alike(job)
            trainer = Trainer(job.settings, data, like=self._first.get(kind))
            self._first.setdefault(kind, trainer)
            if self._begin(job, trainer):
                yield job, trainer

    def _open(self, job: Job, data: Dataset) -> bool:
        """Claim a job's folder; whether there is something to be trained in it."""
        try:
            job.run.claim(job.settings, data.identity)
            finished = job.check_finished(self.options.stop_after)  # somebody else was faster
        except RunError as error:
            return self._refuse(job, error)
        if finished:
            job.run.unlock()
        return not finished

    def _begin(self, job: Job, trainer: "Trainer") -> bool:
        """Make a job's folder a run folder, or go on with its run; whether that can be."""
        from records import follow
        from xla.device import device_name

        options, device, differing = self.options, device_name(), ""
        said: dict[str, Any] = {"sample": options.sample, "deterministic": options.deterministic}
        if options.own:
            said["own_set"] = options.own.name
        if job.run.exists:
            differing = machine.difference(job.run.config(), machine.environment(device))
        try:
            follow.begin(
                job.run,
                trainer,
                options.command(job.settings),
                device,
                options.accept_changed_code,
                **said,
            )
        except RunError as error:
            return self._refuse(job, error)
        if differing:
            self.warn(
                "a run was started with other versions or on another device "
                f"({differing}); its last bits may differ"
            )
        return True

    def _refuse(self, job: Job, error: RunError) -> bool:
        """Note why a job cannot be trained."""
        job.run.unlock()
        job.status = "in use" if isinstance(error, RunInUse) else "failed"
        job.why = str(error)
        if self._leads:
            self.listener.say(error)
        return False

    def _train_team(self, team: "dict[Job, Trainer]", pace: Pace) -> None:
        """Train some jobs to their ends, at the same time."""
        from records.follow import steps
        from utilities.team import train_together

        following = {
            job: steps(job.run, trainer, job.last_epoch, Passing(self, job))
            for job, trainer in team.items()
        }
        for job in team:
            job.pace = pace
            self.change(job, "running")
        programs = [trainer.training for trainer in team.values()]
        for job, event in train_together(programs[0], following):
            self._note(job, event)
        self.write_summary()

    def _note(self, job: Job, event: "Event") -> None:
        """What has happened to a job: another epoch, or its end."""
        if isinstance(event, dict):
            job.record = event
            self.listener.went_on()
            return
        job.run.unlock()
        if event is None:
            self.change(job, "finished")
        elif isinstance(event, Stopped):
            self.change(job, "interrupted")
        elif isinstance(event, Diverged):
            self.change(job, "diverged", str(event))
        elif said := failure(event):
            self.change(job, "failed", said[0][:300])
        else:  # a mistake in the program
            traceback.print_exception(event)
            self.change(job, "failed", f"{type(event).__name__}: {event}")

    def write_summary(self) -> None:
        """Write summary.csv as things are."""
        if self._leads:
            write_summary(self.jobs, self.options)


def alike(job: Job) -> tuple:
    """What jobs that share a program have in common."""
    return job.settings.task, job.settings.format, job.settings.streams
