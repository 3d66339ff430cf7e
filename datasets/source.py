"""Where the files of a data set are, what they must be, and what to do if they are not.

A data set's module has one Source, OFFICIAL: the published files, relative to the data
folder. `under` makes of it the files in a data folder: those, in the first of some places
that has them, or a generated sample of the same names. The sample's manifest.json, beside
its files, has their sums and split in place of the official ones; it is read only when
asked for. `of_own` makes of it a set of somebody's own, in files of the same form.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from datasets.downloads import download, reachable
from datasets.manifest import MANIFEST, SAMPLE_REMEDY, is_foreign, read_manifest
from datasets.own import PLACES, OwnSet
from datasets.progress import report
from errors import DataError, DownloadError
from paths import no_folder

CONNECT_SECONDS = 5  # a mirror that has not answered by then counts as unreachable
OFFLINE = "DEEP_LEARNING_STORAGE_OFFLINE"  # set to anything: nothing is downloaded
MOST_SHOWN = 5  # names of what is in a folder

OFFICIAL_REMEDY = (
    "give a folder with the official files with --data (what is missing there is downloaded), or "
    "use --sample for a small generated set"
)
OWN_REMEDY = "give the folder of a set in the official form with --data-set"


def paths(*names: str) -> tuple[Path, ...]:
    return tuple(map(Path, names))


def as_named(name: str) -> Sequence[str]:
    """The one way in which most files are there."""
    return (name,)


@dataclass(frozen=True)
class Source:
    """The files that a data set is read from.

    Parameters
    ----------
    data_set
        Its name in messages.
    folder
        Where the files are.
    names
        The files that there must be, in the order in which they are read.
    sums
        File name -> MD5 sum.
    split
        Part (train, valid, test) -> number of examples.
    mirrors
        Addresses of folders from which missing files are downloaded; none: they are
        not.
    sample
        Whether this is the generated sample.
    remedy
        What an error about one of the files tells the user to do.
    places
        Other folders, looked at in this order after `folder`.
    ways
        Name of a file -> the names that it may have.
    data_folder
        In which all places are.
    usual
        Whether the files are in the first place, or would be.
    own
        The set of somebody's own that this is, if it is one: of any sums.
    """

    data_set: str
    folder: Path
    names: Sequence[str]
    sums: Mapping[str, str]
    split: Mapping[str, int]
    mirrors: Sequence[str] = ()
    sample: bool = False
    remedy: str = OFFICIAL_REMEDY
    places: Sequence[Path] = ()
    ways: Callable[[str], Sequence[str]] = as_named
    data_folder: Path = Path()
    usual: bool = True
    own: OwnSet | None = None

    @property
    def name(self) -> str:
        """The data set's name, which says so if it is the sample, or somebody's own."""
        if self.own:
            return f"own set {self.own.name}"
        return f"{self.data_set} sample" if self.sample else self.data_set

    def under(self, data_folder: Path, sample: bool = False) -> Self:
        """These files in a data folder, or those of the sample there.

        Raises
        ------
        DataError
            The sample is there but not asked for, or the reverse; or its manifest is
            damaged.
        """
        official = self.found(data_folder)
        folder = data_folder / self.folder if sample else official.folder
        there = os.path.exists(folder / MANIFEST)
        if there and not sample and not is_foreign(folder / MANIFEST):
            raise DataError(
                f"{folder} holds the generated sample, not the official files: use --sample to "
                "train on it, or give another data folder"
            )
        if sample and not there:
            raise DataError(
                f"{folder} holds no generated sample (no {MANIFEST}): make one with "
                "python -m utilities.sample_data DIR, or leave --sample out"
            )
        if sample:
            return replace(self, folder=folder, data_folder=data_folder).of_sample(
                read_manifest(folder / MANIFEST)
            )
        return official

    def of_own(self, own: OwnSet) -> Self:
        """A set of somebody's own in files of this form.

        Raises
        ------
        DataError
            Its folder is not there, or holds the sample.
        """
        if what := no_folder(own.folder):
            raise DataError(f"{own.folder} {what}: {OWN_REMEDY}")
        own_form = replace(
            self, folder=PLACES[0], places=PLACES[1:], mirrors=(), sums={}, remedy=OWN_REMEDY
        )
        source = replace(own_form.found(own.folder), own=own)
        manifest = source.folder / MANIFEST
        if os.path.exists(manifest) and not is_foreign(manifest):
            raise DataError(
                f"{source.folder} holds the generated sample: use --sample to train on it"
            )
        return source

    def found(self, data_folder: Path) -> Self:
        """These files in the first place that has them all, else in that with most of them.

        Where none has any, they belong into `folder`.
        """
        here = [
            replace(
                self,
                folder=data_folder / place,
                data_folder=data_folder,
                usual=place == self.folder,
            )
            for place in (self.folder, *self.places)
        ]
        return min(here, key=lambda source: len(source.missing(self.names)))

    def say_where(self) -> None:
        """A line for the user if the files are not where they usually are."""
        if not self.usual:
            report(f"{self.name}: the files in {self.folder} are taken")

    def of_sample(self, manifest: Mapping[str, Any]) -> Self:
        """The sample in the same folder; `manifest` is what its manifest says."""
        return replace(
            self,
            sums=manifest["files"],
            split=manifest["split"],
            mirrors=(),
            sample=True,
            remedy=SAMPLE_REMEDY,
        )

    def missing(self, names: Collection[str]) -> list[str]:
        """Those of the files that are not there.

        DataError if there is a link in the place of one, which leads nowhere: it must not be lost.
        """
        for path in (self.folder / way for name in names for way in self.ways(name)):
            if os.path.islink(path) and not os.path.exists(path):
                raise DataError(
                    f"{path} is a link to {os.readlink(path)}, which is not there: mend it"
                )
        return [name for name in names if not self.there(name)]

    def there(self, name: str) -> list[Path]:
        """Where a file is, in all ways; folders only if there is nothing else."""
        paths = [self.folder / way for way in self.ways(name)]
        found = [path for path in paths if os.path.exists(path)]
        return [path for path in found if not os.path.isdir(path)] or found

    def wrong(self, message: str) -> DataError:
        """The error that says what is wrong with the files, and what to do."""
        return DataError(f"{message}: {self.remedy}")

    def fetch(self, missing: Sequence[str], suffix: str = "") -> None:
        """Download missing files, each from the first mirror that has it.

        Parameters
        ----------
        suffix
            What their names have on the mirrors beyond `missing`.

        Raises
        ------
        DataError
            They cannot be had (offline: within seconds), or not written, or are of the
            sample.
        """
        if not missing:
            return
        if self.sample:
            raise self.wrong(
                f"{self.folder}: {', '.join(missing)} missing from the generated sample"
            )
        if self.own:
            raise self.absent(missing)
        files = [f"{name}{suffix}" for name in missing]
        why = self._download(files)
        if self.missing(missing):
            files = [file for file in files if not os.path.exists(self.folder / file)]
            raise self.absent(files, f" and not downloaded ({why})")

    def absent(self, names: Sequence[str], why: str = "") -> DataError:
        """The error that says which files are missing, what is there, and what would help."""
        if self.own:
            return self.wrong(
                f"{self.name}: {', '.join(names)} missing, it is not of {self.data_set}'s form; "
                f"{self._what_is_there()}"
            )
        if os.path.exists(self.data_folder) and not os.path.isdir(self.data_folder):
            return DataError(f"{self.data_folder} is no folder: give that of the data with --data")
        return DataError(
            f"{self.data_set}: {', '.join(names)} missing{why}; {self._what_is_there()}: put the "
            f"official files into {self.folder}, or give the folder that has them with --data, or "
            "use --sample for a small generated set"
        )

    def of_another_set(self) -> str:
        """What to say of a file that is sound, but not the one."""
        return f"damaged or another set's (main.py --data-set {self.folder} trains on that)"

    def _what_is_there(self) -> str:
        """What the folder has, or the data folder if it has nothing."""
        for folder in (self.folder, self.data_folder):
            try:
                names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
            except FileNotFoundError:
                continue
            except OSError as error:
                return f"{folder} cannot be looked into ({error.strerror})"
            if names:
                more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
                return f"{folder} has {', '.join(names[:MOST_SHOWN])}{more}"
        there = os.path.isdir(self.data_folder)
        return f"{self.data_folder} {'has nothing of it' if there else 'is not there'}"

    def _download(self, files: Sequence[str]) -> str:
        """Get what can be had; why the rest could not, if there is a rest."""
        if not self.mirrors or os.environ.get(OFFLINE):
            return "no download was tried"
        why = "no mirror answered"
        mirrors = reachable(self.mirrors, files[0], CONNECT_SECONDS)
        for file in files:
            for mirror in mirrors:
                try:
                    url = mirror + file
                    download(url, self.folder / file, self.sums[file], CONNECT_SECONDS)
                    break
                except DownloadError as error:
                    why = str(error)
                except OSError as error:
                    raise DataError(
                        f"cannot write {self.folder / file} ({error.strerror or error}): make "
                        f"room, and the folder writable, put the official {self.data_set} files "
                        "there, or give another folder with --data"
                    ) from error
        return why
