"""Run folders: the record of a run and its checkpoints.

    config.json      command, settings, data (file sums), versions, machine, git revision
    metrics.jsonl    one line an epoch, as `trainer.Trainer.run` yields them
    checkpoint.npz   all that the rest of the run depends on; the one before is
                     checkpoint.previous.npz
    best.npz         parameters at the lowest validation error (layer0/W, layer0/b, ...)
    final.npz        the network after the last epoch trained, to the end or to a stop asked for

Every file is written under a temporary name and moved into place, so none is ever seen
half-written. Arrays are stored with their CRC-32 sums, which are checked when they are read.
"""

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import FileError, RunError, RunInUse
from files import check_lists, load_npz, no_link, parsed, read_bytes, write_atomically, write_json
from locks import Lock
from paths import reason
from records import code, extension, machine, unchanged
from records.checkpoints import Checkpoints
from records.metrics import MOST_BYTES, Record, check_records
from records.sums import config_sum, line
from settings import Settings

# What may be in a folder before the run: hidden files, logs, what a system has of its own. Logs may
# be numbered (log.1), and batch systems write job.o17, job.e17 and, of arrays, job.o17.2.
HARMLESS = re.compile(
    r"\..*|.*\.(txt|log|out|err)(\.\d+)?|.*\.p?[oe]\d+([.-]\d+)?"
    r"|lost\+found|Thumbs\.db|desktop\.ini",
    re.DOTALL,
)
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class RunFolder:
    """A run's folder; made, if it is missing, by the first thing written.

    Raises
    ------
    RunError
        Here and by every method: the folder is something else, or cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.config_path = self.folder / "config.json"
        self.metrics_path = self.folder / "metrics.jsonl"
        self.best_path = self.folder / "best.npz"
        self.final_path = self.folder / "final.npz"
        self.checkpoints = Checkpoints(self.folder, self.check_mine)
        self._lock = Lock(self.folder / ".lock")
        self.check_empty()

    def check_empty(self) -> None:
        """RunError if there is something, but no run, in the folder."""
        try:
            strangers = self._strangers()
        except OSError as error:
            raise self._unusable(error) from None
        if strangers:
            raise RunError(
                f"{self.folder} is not a run folder ({strangers[0]} is in the way); give another "
                "with --out"
            )

    def _strangers(self) -> list[str]:
        """What is in a folder that is no run folder."""
        if self.exists or not self.folder.exists():
            return []
        return [path.name for path in self.folder.iterdir() if not HARMLESS.fullmatch(path.name)]

    def _unusable(self, error: OSError) -> RunError:
        return RunError(
            f"{self.folder} cannot be a run folder ({reason(error)}); give another with --out"
        )

    @property
    def exists(self) -> bool:
        """Whether there is a run in it."""
        return self.config_path.exists()

    def config(self) -> dict[str, Any]:
        """The configuration of an existing run."""
        try:
            config = parsed(read_bytes(self.config_path, MOST_BYTES))
            settings = Settings(**config["settings"])
            if not all(isinstance(w, str) for w in (*config["data"], *config["data"].values())):
                raise ValueError("data are not file names and sums")
            if type(config["epochs"]) is not int or settings.epochs not in (None, config["epochs"]):
                raise ValueError(f"epochs is {config['epochs']}")
            code.check(config)
            extension.check(config)
        except DAMAGE as error:
            raise RunError(
                f"{self.config_path} cannot be read ({type(error).__name__}: {error}); put one "
                "back that can, or give another folder with --out"
            ) from None
        return config

    def check_settings(self, settings: Settings) -> None:
        """Refuse to go on with a run of other settings."""
        there = self.config()["settings"]
        here = json.loads(json.dumps(settings.as_json()))
        differences = [
            f"{name} {_shown(there.get(name))} there, {_shown(here.get(name))} here"
            for name in sorted(there | here)
            if there.get(name) != here.get(name)
        ]
        if differences:
            self.check_sums()  # unless it is the configuration that has changed
            advice = extension.advice(there, here)
            raise RunError(
                f"{self.folder} holds another run ({'; '.join(differences)}); "
                f"{advice + '; or ' if advice else ''}give another folder with --out"
            )

    def check_data(self, identity: Mapping[str, str]) -> None:
        """Refuse to go on with other data."""
        there = self.config()["data"]
        names = sorted({*there, *identity})
        differing = [name for name in names if there.get(name) != identity.get(name)]
        if differing:
            raise RunError(
                f"{self.folder} was trained on other data ({', '.join(differing)}); use that data "
                "or give another folder with --out"
            )

    def lock(self) -> None:
        """Keep other processes out until this one ends, however it ends; RunInUse if one is in.

        What was known of the folder before is to be checked once more: see `claim`.
        """
        while not self._lock.held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                free = self._lock.acquire()
            except OSError as error:
                raise self._unusable(error) from None
            if not free:
                raise RunInUse(
                    f"{self.folder} is in use by another process; wait for it or give another "
                    "folder with --out"
                )
            if not self._lock.in_place():  # the folder was removed, and perhaps made again
                self._lock.release()

    def claim(self, settings: Settings, identity: Mapping[str, str], resume: bool = False) -> None:
        """Lock the folder, and only then refuse anything but a run of these settings and data.

        Parameters
        ----------
        identity
            That of the data.
        resume
            Whether there must be a run.
        """
        self.lock()
        self.check_mine()
        if self.exists:
            self.check_settings(settings)
            self.check_data(identity)
        elif resume:
            raise RunError(f"the run in {self.folder} was removed meanwhile")
        else:
            self.check_empty()

    def check_mine(self) -> None:
        """RunError if the folder was removed, and perhaps made again, since it was locked."""
        if self._lock.held and not self._lock.in_place():
            raise RunError(
                f"{self.folder} was removed, or taken by another process, while it was trained in; "
                "nothing more is written there"
            )

    def unlock(self) -> None:
        """Let others in, if `lock` has kept them out."""
        self._lock.release()

    def start(
        self,
        command: list[str],
        settings: Settings,
        identity: Mapping[str, str],
        device: str,
        code: code.Code | None = None,
        **options: bool | str,
    ) -> None:
        """Write config.json of a new run; `identity` is that of the data."""
        config = {
            "command": command,
            "settings": settings.as_json(),
            "epochs": settings.last_epoch,
            "data": dict(identity),
            **options,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **machine.environment(device),
            **({"code": code} if code else {}),
        }
        write_json(self.config_path, config)

    def check_code(self, here: code.Code, accept: bool = False) -> None:
        """Refuse to go on with a run of other code, unless told to accept the change.

        From then on config.json has this code, and the one before among `earlier_code`, as it has
        if the run is from before code was recorded: nothing is known of that.
        """
        config = self.config()
        there = config.get("code")
        words = code.difference(there, here) if there else ""
        if words or not there:
            unchanged.check(self.folder, config, records=False)
        if words and not accept:
            raise RunError(
                f"{self.folder} was trained with other code ({words}); --accept-changed-code goes "
                "on with it, another --out starts anew"
            )
        if there and not words:
            return
        earlier = {"config_sum": config_sum(config), **({"code": there} if there else {})}
        self.final_path.unlink(missing_ok=True)  # it has the sum of this config.json
        config["earlier_code"] = [*config.get("earlier_code", []), earlier]
        write_json(self.config_path, config | {"code": here})

    def records(self) -> list[Record]:
        """The lines of metrics.jsonl, but for a last one cut short."""
        try:
            if not self.metrics_path.exists():
                return []
            content = read_bytes(self.metrics_path, MOST_BYTES)
            check_lists(content)
            return check_records([json.loads(line) for line in content.split(b"\n")[:-1]])
        except DAMAGE as error:
            raise RunError(f"{self.metrics_path} is damaged ({error})") from None

    def write_records(self, records: list[Record]) -> None:
        """Make metrics.jsonl these and no others."""
        self.check_mine()
        lines = b"".join(map(line, records))
        write_atomically(self.metrics_path, lambda file: file.write(lines))

    def add(self, record: Record) -> None:
        """Write the record of an epoch."""
        self.check_mine()
        try:
            with open(self.metrics_path, "ab", opener=no_link) as file:
                file.write(line(record))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.metrics_path)) from error

    def finished(self, stop_after: int | None = None) -> Record | None:
        """The last record of a run that has got to its last epoch, or to `stop_after`.

        None if its files are not what they were then, but can be made anew, by `follow`; RunError
        if it is config.json that has changed.
        """
        config = self.config()
        if not self.final_path.exists():
            return None
        try:
            records = self.records()
            if not records or records[-1]["epoch"] < extension.last_epoch(config, stop_after):
                return None
            arrays = load_npz(self.final_path)
            final = arrays["epoch"] == records[-1]["epoch"]
            best = load_npz(self.best_path)["epoch"] == records[-1]["best_epoch"]
            sums = unchanged.sums_of(arrays)
            same = not sums or unchanged.records_fit(sums, self.metrics_path)
        except (RunError, FileError, *DAMAGE):
            return None
        if sums:
            unchanged.check_config(sums, config, self.final_path)
        return records[-1] if final and best and same else None

    def changed_code(self) -> str:
        """What has changed in the code since the run was trained, in words, but for its layers."""
        config = self.config()
        there = config.get("code")
        here = code.facts(config["settings"]["task"], None, there)
        return code.difference(there, here) if there else ""

    def check_sums(self) -> None:
        """RunError if config.json or metrics.jsonl has changed, as far as can be told."""
        unchanged.check(self.folder, self.config())


def _shown(value: object) -> object:
    """A setting for a message."""
    return "not given" if value is None else value
