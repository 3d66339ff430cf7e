"""Downloads that go on where they were interrupted.

A download is a .part file, requests for the range that is missing, an MD5 sum, then a
rename. What is downloaded from where is said by the Source of each data set.
"""

import contextlib
import os
import re
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from errors import DownloadError
from files import file_md5, no_link, write_atomically
from locks import take

if TYPE_CHECKING:
    from requests import Response
    from tqdm import tqdm

READ_SECONDS = 30  # without a byte, after which a connection counts as dropped
ATTEMPTS = 5  # in a row that bring nothing new
RETRY_SECONDS = 1  # pause before another attempt, times the attempts so far
CHUNK = 1 << 16


def reachable(mirrors: Sequence[str], file: str, seconds: float) -> list[str]:
    """Those mirrors that answer within `seconds`, whatever they say.

    They are asked in threads, as a name look-up can hang longer.
    """
    import requests

    answered = set()

    def ask(mirror: str) -> None:
        with contextlib.suppress(Exception):  # whatever it is, this mirror is of no use
            requests.head(mirror + file, timeout=seconds, allow_redirects=True)
            answered.add(mirror)

    threads = [threading.Thread(target=ask, args=(mirror,), daemon=True) for mirror in mirrors]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return [mirror for mirror in mirrors if mirror in answered]


def download(url: str, path: Path, md5: str, connect_seconds: float = 5) -> None:
    """Download a file, unless it is there; the rest, if `path`.part has its beginning.

    Parameters
    ----------
    url
        Address, http:// or https://.
    path
        Where the file is to be; its folder is made.
    md5
        Hexadecimal sum that the file must have.
    connect_seconds
        After which a server that does not answer counts as unreachable.

    Raises
    ------
    DownloadError
        The server refuses, or the connection keeps dropping (the .part file stays, the
        next call goes on from there); or the sum is wrong (the .part file is deleted).
    OSError
        The file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(part) as file:
        if os.path.exists(path):  # another process was faster
            os.unlink(part)
            return
        try:
            _Transfer(url, file, path.name, connect_seconds).run()
        finally:
            file.flush()
            if not file.tell():
                os.unlink(part)
        if file_md5(part) != md5:
            os.unlink(part)
            raise DownloadError(f"{url}: wrong MD5, what came is deleted")
        os.fsync(file.fileno())
        os.replace(part, path)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """The .part file, open for appending, once no other process has it."""
    while True:
        with open(part, "ab", opener=no_link) as file:
            owner, _ = take(file, part)
            try:
                here = os.path.exists(part)
                if here and os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
                    yield file
                    return
            finally:
                if owner:
                    owner.release()
        # the process that had it has moved or deleted it


class _Transfer:
    """What is missing of `url` comes into an open file, in some requests."""

    def __init__(self, url: str, file: IO[bytes], name: str, connect_seconds: float) -> None:
        self.url = url
        self.file = file
        self.name = name
        self.connect_seconds = connect_seconds
        self.bar: tqdm | None = None

    def run(self) -> None:
        first = self.file.seek(0, os.SEEK_END)
        began = time.monotonic()
        try:
            received = self._request_until_whole()
        finally:
            if self.bar is not None:
                self.bar.close()
        if received and not sys.stderr.isatty():
            size = self.file.tell()
            seconds = max(time.monotonic() - began, 1e-3)
            speed = (size - first) / seconds
            print(
                f"{self.name}: downloaded {size / 1e6:.1f} MB, {speed / 1e6:.2f} MB/s",
                file=sys.stderr,
            )

    def _request_until_whole(self) -> bool:
        """Whether the last reply had anything in it."""
        import requests
        from urllib3.exceptions import HTTPError

        failures = 0
        while True:
            have = self.file.seek(0, os.SEEK_END)
            try:
                status, why = self._request(have)
            except (requests.RequestException, HTTPError) as error:  # before OSError, a base class
                why = type(error).__name__
            if why is None:
                return status != 416
            failures = 0 if self.file.tell() > have else failures + 1
            if failures == ATTEMPTS:
                raise DownloadError(f"{self.url}: {why}; run it again to go on from there")
            time.sleep(RETRY_SECONDS * failures)

    def _request(self, have: int) -> tuple[int, str | None]:
        """Ask for what comes after the first `have` bytes.

        Returns
        -------
        status : of the reply
        why : the file is not whole; None if it is
        """
        import requests

        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        timeout = (self.connect_seconds, READ_SECONDS)
        with requests.get(self.url, headers=headers, stream=True, timeout=timeout) as reply:
            status = reply.status_code
            if status in (200, 206):
                return status, self._receive(reply, have)
            if status == 416 and have:
                return status, self._compare(reply, have)
            if status in (408, 429) or status >= 500:
                return status, f"HTTP status {status}"
            raise DownloadError(f"{self.url}: HTTP status {status}")

    def _receive(self, reply: "Response", have: int) -> str | None:
        """Append what a reply brings; why that is not all, if it is not."""
        start, total = _span(reply)
        if start != have:  # the server knows no ranges, or gives another one
            self._empty()
        if start not in (0, have):
            raise DownloadError(
                f"{self.url}: sent bytes from {start} on, asked for those from {have} on"
            )
        bar = self._show(total)
        bar.update(start - bar.n)
        # not decoded: some servers declare a .tar.gz as a compressed .tar
        for data in reply.raw.stream(CHUNK, decode_content=False):
            self.file.write(data)
            bar.update(len(data))
        whole = total in (None, 0, self.file.tell())
        return None if whole else "the connection dropped"

    def _compare(self, reply: "Response", have: int) -> str | None:
        """Nothing comes after the .part file: it is whole, or of another file."""
        total = _span(reply)[1]
        if total is None or total == have:
            return None
        self._empty()
        return f"the file has {total} bytes, the .part file had {have}"

    def _show(self, total: int | None) -> "tqdm":
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(
                total=total,
                desc=self.name,
                unit="B",
                unit_scale=True,
                leave=False,
                disable=not sys.stderr.isatty(),
            )
        return self.bar

    def _empty(self) -> None:
        self.file.truncate(0)
        self.file.seek(0)


def _span(reply: "Response") -> tuple[int, int | None]:
    """(first byte, size of the whole file or None) that a reply announces."""
    if reply.status_code == 200:
        length = reply.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    content_range = reply.headers.get("Content-Range", "").strip()
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", content_range)
    start, total = found.groups() if found else (None, None)
    return int(start) if start else -1, int(total) if total and total != "*" else None


def unpack(archive: Path, members: Mapping[str, str], folder: Path) -> None:
    """Extract regular files of a .tar.gz, each atomically; the rest is not looked at.

    Parameters
    ----------
    members
        Exact name in the archive -> file name in `folder`, which is made.

    Raises
    ------
    DownloadError
        The archive is damaged or lacks one of them.
    OSError
        A file cannot be written.
    """
    missing = dict(members)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None and member.name in missing:
                    _write(folder / missing.pop(member.name), content.read())
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DownloadError(f"{archive} is truncated or corrupted ({error})") from error
    if missing:
        raise DownloadError(f"{archive} lacks {', '.join(missing)}")


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))
