"""Downloads that go on where they were interrupted: a .part file, Range requests, an MD5 sum, then a rename.

What is downloaded from where is said in datasets.py.
"""

import contextlib
import fcntl
import os
import re
import sys
import tarfile
import threading
import time
import zlib
from pathlib import Path

from errors import DownloadError
from files import file_md5

READ_SECONDS = 30  # without a byte, after which a connection counts as dropped
ATTEMPTS = 5  # in a row that bring nothing new
RETRY_SECONDS = 1  # pause before another attempt, times the attempts so far
CHUNK = 1 << 16


def reachable(mirrors, file, seconds):
    """Those mirrors that answer within `seconds`, whatever they say; in threads, as a name look-up can hang longer."""
    import requests

    answered = set()

    def ask(mirror):
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


def download(url, path, md5, connect_seconds=5):
    """Download a file, or the rest of it if `path`.part has its beginning; an existing `path` is left as it is.

    Parameters
    ----------
    url : address, http:// or https://
    path : where the file is to be; its folder is made
    md5 : hexadecimal MD5 sum that the file must have
    connect_seconds : after which a server that does not answer counts as unreachable

    Raises
    ------
    DownloadError : the server refuses, or the connection keeps dropping (the .part file stays, the next call goes on
        from there); or the sum is wrong (the .part file is deleted).
    OSError : the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(part) as file:
        if os.path.exists(path):  # another process was faster
            os.unlink(part)
            return
        try:
            _fetch(url, file, path.name, connect_seconds)
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
def _locked(part):
    """The .part file, open for appending, once no other process has it."""
    while True:
        with open(part, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.exists(part) and os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
                yield file
                return
        # the process that had it has moved or deleted it


def _fetch(url, file, name, connect_seconds):
    """Append what is missing of `url` to the open `file`, in as many requests as it takes."""
    import requests
    from tqdm import tqdm
    from urllib3.exceptions import HTTPError

    failures, began, bar = 0, time.monotonic(), None
    first = file.seek(0, os.SEEK_END)
    try:
        while True:
            have, total, why = file.seek(0, os.SEEK_END), None, "the connection dropped"
            headers = {"Accept-Encoding": "identity"} | (
                {"Range": f"bytes={have}-"} if have else {}
            )
            try:
                with requests.get(
                    url, headers=headers, stream=True, timeout=(connect_seconds, READ_SECONDS)
                ) as reply:
                    status = reply.status_code
                    if status in (200, 206):
                        start, total = _span(reply)
                        if start != have:  # the server knows no ranges, or gives another one
                            _empty(file)
                        if start not in (0, have):
                            raise DownloadError(
                                f"{url}: sent bytes from {start} on, asked for those from {have} on"
                            )
                        bar = bar or tqdm(
                            total=total,
                            desc=name,
                            unit="B",
                            unit_scale=True,
                            leave=False,
                            disable=not sys.stderr.isatty(),
                        )
                        bar.update(start - bar.n)
                        # not decoded: some servers declare a .tar.gz as a compressed .tar
                        for data in reply.raw.stream(CHUNK, decode_content=False):
                            file.write(data)
                            bar.update(len(data))
                    elif (
                        status == 416 and have
                    ):  # nothing after the .part file: it is whole, or of another file
                        total = _span(reply)[1]
                        if total is None or total == have:
                            return
                        _empty(file)
                        why = f"the file has {total} bytes, the .part file had {have}"
                    elif status in (408, 429) or status >= 500:
                        why = f"HTTP status {status}"
                    else:
                        raise DownloadError(f"{url}: HTTP status {status}")
            except (requests.RequestException, HTTPError) as error:  # before OSError, a base class
                why = type(error).__name__
            else:
                if status in (200, 206) and file.tell() == (total or file.tell()):
                    break
            failures = 0 if file.tell() > have else failures + 1
            if failures == ATTEMPTS:
                raise DownloadError(f"{url}: {why}; run it again to go on from there")
            time.sleep(RETRY_SECONDS * failures)
    finally:
        if bar is not None:
            bar.close()
    if not sys.stderr.isatty():
        got, seconds = file.tell() - first, max(time.monotonic() - began, 1e-3)
        print(
            f"{name}: downloaded {file.tell() / 1e6:.1f} MB, {got / seconds / 1e6:.2f} MB/s",
            file=sys.stderr,
        )


def _empty(file):
    file.truncate(0)
    file.seek(0)


def _span(reply):
    """(first byte, size of the whole file or None) that a reply announces."""
    if reply.status_code == 200:
        length = reply.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    found = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", reply.headers.get("Content-Range", "").strip()
    )
    start, total = found.groups() if found else (None, None)
    return int(start) if start else -1, int(total) if total and total != "*" else None


def unpack(archive, members, folder):
    """Extract regular files of a .tar.gz, each atomically; nothing else in the archive is looked at.

    Parameters
    ----------
    archive : path of the .tar.gz
    members : {exact name in the archive: file name in folder}

    Raises
    ------
    DownloadError : the archive is damaged or lacks one of them.
    OSError : a file cannot be written.
    """
    folder, missing = Path(folder), dict(members)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name in missing and member.isreg():
                    target = folder / missing.pop(member.name)
                    partial = target.with_name(f".{target.name}.partial")
                    partial.write_bytes(tar.extractfile(member).read())
                    os.replace(partial, target)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DownloadError(f"{archive} is truncated or corrupted ({error})") from error
    if missing:
        raise DownloadError(f"{archive} lacks {', '.join(missing)}")
