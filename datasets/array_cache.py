"""Arrays that are expensive to make: files in a folder that is whole or not there.

Their sums come with a digest of the code that made them, which must be that of the run; of
caches of old nothing is known.
"""

import json
import re
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from datasets.parts import Floats
from errors import FileError
from files import read_bytes, write_atomically
from records import code

CODE = code.digest_of("datasets/cifar10.py", "datasets/contrast.py")
NAME = re.compile("preprocessed-[0-9a-f]{16}")  # of what is deleted


@dataclass(frozen=True)
class ArrayCache:
    """Float32 arrays in folder/preprocessed-KEY: a .npy file of each, and their sums.

    Parameters
    ----------
    folder
        Where the caches of all keys are.
    key
        Changes with whatever the arrays are made from.
    shapes
        Name -> shape of the array.
    """

    folder: Path
    key: str
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def path(self) -> Path:
        return self.folder / f"preprocessed-{self.key}"

    @property
    def lock(self) -> Path:
        """The file to be locked by whoever writes."""
        return self.folder / ".preprocessed.lock"

    def read(self) -> list[Floats]:
        """Maps of the files, in the order of `shapes`.

        Raises
        ------
        FileError
            They are damaged, not there, or of other code.
        """
        try:
            sums = json.loads(read_bytes(self.path / "sums.json", 1 << 20))
            if sums.get("code", CODE) != CODE:
                raise FileError(f"{self.path} was made by other code")
            return [self._read_one(name, sums[name]) for name in self.shapes]
        except FileError:
            raise
        except Exception as error:  # np.load raises nearly anything on a damaged header
            raise FileError(f"{self.path} is damaged ({type(error).__name__})") from error

    def _read_one(self, name: str, sums: Mapping[str, int]) -> Floats:
        path = self.path / f"{name}.npy"
        if not path.is_file():  # at a pipe NumPy would wait
            raise FileError(f"{path} is damaged, missing or no plain file")
        x = np.load(path, mmap_mode="r", allow_pickle=False)
        # the check sum reads the file once, as training is about to anyway
        if (
            path.stat().st_size != sums["bytes"]
            or x.shape != self.shapes[name]
            or x.dtype != np.float32
            or zlib.crc32(x.data) != sums["crc32"]
        ):
            raise FileError(f"{path} is damaged")
        return x

    def write(self, arrays: list[Floats]) -> None:
        """Fill a temporary folder beside `path`, which then takes its place."""
        temporary = self.path.with_name(f".{self.path.name}.partial")
        old = self.path.with_name(f".{self.path.name}.old")
        temporary.mkdir()
        try:
            sums: dict[str, object] = {"code": CODE}
            for name, x in zip(self.shapes, arrays, strict=True):
                file = temporary / f"{name}.npy"
                _save(file, x)
                sums[name] = {"bytes": file.stat().st_size, "crc32": zlib.crc32(x.data)}
            write_atomically(
                temporary / "sums.json", lambda file: file.write(json.dumps(sums).encode())
            )
            if self.path.exists():
                self.path.rename(old)
            temporary.rename(self.path)
        finally:
            for folder in (temporary, old):
                shutil.rmtree(folder, ignore_errors=True)

    def stale(self) -> list[Path]:
        """What there is of other keys."""
        return [
            path
            for path in self.folder.glob("preprocessed-*")
            if NAME.fullmatch(path.name) and path != self.path and (path / "sums.json").is_file()
        ]

    def tidy(self) -> None:
        """Delete what an interrupted process has left."""
        for kind in ("partial", "old"):
            for left in self.folder.glob(f".preprocessed-*.{kind}"):
                if not NAME.fullmatch(left.stem[1:]):
                    continue
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                else:
                    left.unlink()


def _save(path: Path, x: Floats) -> None:
    def write(file: IO[bytes]) -> None:
        np.save(file, x)

    write_atomically(path, write)
