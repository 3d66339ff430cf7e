"""Locks between processes, also on file systems that have none."""

import contextlib
import errno
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from errors import printable
from files import no_link

try:
    import fcntl
except ImportError:  # Windows, where main.py says so
    fcntl = None  # type: ignore[assignment]

IN_USE = (errno.EWOULDBLOCK, errno.EAGAIN)
# What flock says on a file system that has no locks, or lets nobody have one.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
BEAT = 10  # seconds between two signs of life
SILENCE = 120  # seconds without one after which a process on another machine counts as gone
PAUSE = 0.3  # seconds between two looks at what another process holds


class Lock:
    """An exclusive lock between processes, held until `release` or until the process ends.

    The lock is on a file, which stays when the lock is released; what is in it is left alone.
    Where the file system has no locks, a file beside it says who holds it: see `Owner`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        self._owner: Owner | None = None

    @property
    def held(self) -> bool:
        return self._file is not None

    def acquire(self, wait: bool = False) -> bool:
        """Take the lock; False if another process has it, unless told to wait.

        OSError if the file cannot be made, or is a link.
        """
        if self._file is not None:
            return True
        file = open(self.path, "ab", opener=no_link)
        try:
            owner, free = take(file, self.path, wait)
        except BaseException as error:
            file.close()
            if isinstance(error, OSError) and error.filename is None:
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            raise
        if not free:
            file.close()
            return False
        self._file = file
        self._owner = owner
        return True

    def in_place(self) -> bool:
        """Whether the file that is locked is still the one of this name."""
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except OSError:
            return False

    def release(self) -> None:
        """Let others in, if `acquire` has kept them out."""
        if self._owner is not None:
            self._owner.release()
            self._owner = None
        if self._file is not None:
            self._file.close()
            self._file = None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes out of what a lock on `path` stands for; they wait.

    OSError if the lock cannot be had.
    """
    lock = Lock(path)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()


def take(file: IO[bytes], path: Path, wait: bool = True) -> tuple["Owner | None", bool]:
    """Lock an open file, or become the Owner beside `path` where there are no locks.

    Whether that worked; if not, another process has it. OSError if neither can be had.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in IN_USE:
            return None, False
        if error.errno not in NO_LOCKS:
            raise
        owner = Owner(path)
        return owner, owner.acquire(wait)
    return None, True


class Owner:
    """A file that names the process that holds a lock, and is touched as long as it lives.

    It serves where the file system has no locks. What a process has left that is gone is taken
    over: on the same machine when there is no such process, and otherwise after SILENCE.
    """

    told = False  # whether this process has said that there are no locks

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.owner")
        self._over = threading.Event()

    def acquire(self, wait: bool) -> bool:
        """As Lock.acquire."""
        self._tell()
        while True:
            try:
                with open(self.path, "xb", opener=no_link) as file:
                    file.write(json.dumps(_this_process()).encode())
            except FileExistsError:
                if self._remove_if_left():
                    continue
                if not wait:
                    return False
                time.sleep(PAUSE)
            else:
                threading.Thread(target=self._beat, args=(self._over,), daemon=True).start()
                return True

    def _tell(self) -> None:
        if not Owner.told and sys.stderr is not None:
            line = f"{self.path.parent} is on a file system without locks"
            print(printable(f"{line}: {self.path.name} says who uses it"), file=sys.stderr)
        Owner.told = True

    def release(self) -> None:
        """Remove the file, if it is this process's."""
        self._over.set()
        if self._read() == _this_process():
            self.path.unlink(missing_ok=True)

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _read(self) -> Any:
        """What the file says; None if it says nothing."""
        try:
            with open(self.path, "rb", opener=no_link) as file:
                return json.loads(file.read(1000))
        except (FileNotFoundError, ValueError, RecursionError):
            return None

    def _remove_if_left(self) -> bool:
        """Remove the file if its process is gone; whether it was."""
        try:
            before = self.path.lstat()
        except FileNotFoundError:
            return True
        said = self._read()
        here = isinstance(said, dict) and said.get("host") == platform.node()
        if here and type(said.get("pid")) is int:
            gone = _started(said["pid"]) != said.get("started")
        else:
            gone = self._now() - before.st_mtime > SILENCE
        if not gone:
            return False
        left = self.path.with_name(f"{self.path.name}.{platform.node()}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, left)
            if not os.path.samestat(before, left.lstat()):
                os.rename(left, self.path)  # another process was faster, this is its file
                return False
            left.unlink()
        return True

    def _now(self) -> float:
        """The time by the clock that stamps the files there, which may be another machine's."""
        probe = self.path.with_name(f"{self.path.name}.{platform.node()}.{os.getpid()}")
        probe.unlink(missing_ok=True)
        with open(probe, "xb", opener=no_link):
            pass
        try:
            return probe.lstat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _this_process() -> dict[str, Any]:
    return {"host": platform.node(), "pid": os.getpid(), "started": _started(os.getpid())}


def _started(pid: int) -> str | None:
    """When a process of this machine began, so that its number alone does not count; None: gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        pass
    except (OSError, IndexError):
        return ""
    if os.path.exists("/proc/self/stat"):
        return None
    try:  # a system without /proc
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        return ""
    return ""
