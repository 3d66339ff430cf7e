"""The .mat files of SVHN as a Source: what their HDF5 files are made from, and where they go."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from datasets.contrast import PREPROCESSING_VERSION
from datasets.manifest import damaged_manifest
from datasets.own import marked
from datasets.parts import Labels
from datasets.source import Source
from datasets.svhn_split import Rows, own_rows, split_rows
from errors import DataError, SettingsError
from files import md5
from paths import expanded


@dataclass(frozen=True)
class SVHNSource(Source):
    """The .mat files.

    Parameters
    ----------
    per_class
        "train" and "extra" -> how many images of each class valid takes from it.
    """

    per_class: Mapping[str, int] = field(default_factory=dict)

    def rows(self, labels: Labels, more_labels: Labels) -> dict[str, Rows]:
        """Which rows of train and extra are in which part, see split_rows."""
        if self.own:
            return own_rows(len(labels) + len(more_labels), self.split)
        return split_rows(labels, more_labels, self.per_class)

    def of_sample(self, manifest: Mapping[str, Any]) -> Self:
        per_class = manifest.get("valid_per_class", self.per_class)
        if (
            not isinstance(per_class, dict)
            or set(per_class) != set(self.per_class)
            or set(self.names) - set(manifest["files"])
            or not all(type(n) is int and n >= 0 for n in per_class.values())
        ):
            raise damaged_manifest(self.folder)
        return replace(super().of_sample(manifest), per_class=per_class)

    def local_folder(self) -> Path:
        """The folder with h5/ in it; DataError if nobody has said where it is."""
        if self.sample:
            return self.folder.parent
        given = _given()
        if self.own:
            key = md5(json.dumps(sorted(self.identity("all").items())).encode())[:16]
            return (given or self.own.folder) / f"preprocessed-{key}"
        if given:
            return given
        raise DataError(
            "SVHN_LOCAL_PATH is not set: set it to a folder with 8 GB of room and run python -m "
            "utilities.svhn_preprocessing, or use --sample for a small generated set"
        )

    def identity(self, channels: str) -> dict[str, str]:
        """What the HDF5 files are made from.

        Parameters
        ----------
        channels
            Those that LCN normalises, "all" or "first".
        """
        taken = [f"{self.per_class[name]} of {name}" for name in ("train", "extra")]
        split = {
            "sample": "yes" if self.sample else "no",
            "valid_per_class": ", ".join(taken),
        }
        return {
            **{name: self.sums[name] for name in self.names},
            **(marked(self.split) if self.own else split),
            "lcn_channels": channels,
            "preprocessing": str(PREPROCESSING_VERSION),
        }


def _given() -> Path | None:
    """The folder that the environment names, if any."""
    try:
        return expanded(text) if (text := os.environ.get("SVHN_LOCAL_PATH")) else None
    except SettingsError as error:
        raise DataError(f"SVHN_LOCAL_PATH: {error}") from None
