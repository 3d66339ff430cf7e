"""What the tests of the data sets share: damage, a server on this machine, real data."""

import contextlib
import http.server
import io
import json
import os
import re
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from datasets import cifar10, svhn
from errors import DataError
from files import md5


@contextlib.contextmanager
def refused(*parts):
    """A DataError of one line that has all these parts."""
    with pytest.raises(DataError) as error:
        yield
    assert len(str(error.value).splitlines()) == 1
    for part in parts:
        assert part in str(error.value)


def put(folder, name, content, announce=True):
    """Write a file into a sample set; announce: with its sum in the manifest."""
    (folder / name).write_bytes(content)
    if announce:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = md5(content)
        (folder / "manifest.json").write_text(json.dumps(manifest))


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def flip_file(path, at):
    """Another bit in the middle of a file."""
    path.write_bytes(flip(path.read_bytes(), at))


def contents(folder):
    """Path in the folder -> content, of all files but locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def set_official(monkeypatch, module, name="OFFICIAL", **changes):
    """Let other files count as the official ones."""
    monkeypatch.setattr(module, name, replace(getattr(module, name), **changes))


def read_cifar10(folder, sample=False):
    return cifar10.read(cifar10.OFFICIAL.under(folder, sample))


def preprocess(folder, local, sample=False, **options):
    svhn.preprocess(svhn.OFFICIAL.under(folder, sample), local, **options)


def real(part):
    """The data folder with the real file `part`: PYLEARN2_DATA_PATH, or shared/data beside the
    repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folders = [Path(folder) for folder in (os.environ.get("PYLEARN2_DATA_PATH"), beside) if folder]
    for folder in folders:
        if (folder / part).exists() and not (folder / part).with_name("manifest.json").exists():
            return folder
    pytest.skip(f"no real {part} in {' or '.join(map(str, folders))} (PYLEARN2_DATA_PATH)")


class Server:
    """What it serves, how, and what it was asked.

    files : name -> bytes
    drop : how many bytes each GET gives before the connection is cut; the list is used up,
        then nothing is cut
    ranges : "yes", "ignored" (always the whole file), or "wrong" (another range than asked for)
    statuses : of the next GETs, instead of an answer
    """

    def __init__(self, files):
        self.files = files
        self.drop = []
        self.ranges = "yes"
        self.statuses = []
        self.headers = {}
        self.length = True
        self.asked = []  # (name, range) of every GET
        self.sent = 0

    @property
    def names(self):
        """What was asked for with GET."""
        return [name for name, _ in self.asked]

    def answer(self, request, body):
        name, wanted = request.path.lstrip("/"), request.headers.get("Range")
        if body:
            assert request.headers["Accept-Encoding"] == "identity"
            self.asked.append((name, wanted))
        content = self.files.get(name)
        status = 404 if content is None else self.statuses.pop(0) if body and self.statuses else 200
        headers = dict(self.headers)
        if status != 200:
            content = b"no"
        elif wanted and self.ranges != "ignored":
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1)) + (self.ranges == "wrong")
            status = 206 if start < len(content) else 416
            headers["Content-Range"] = (
                f"bytes {start}-{len(content) - 1}/{len(content)}"
                if status == 206
                else f"bytes */{len(content)}"
            )
            content = content[start:] if status == 206 else b""
        request.send_response(status)
        for item in headers.items():
            request.send_header(*item)
        if self.length:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body:
            content = content[: self.drop.pop(0)] if self.drop and status in (200, 206) else content
            self.sent += len(content)
            request.wfile.write(content)


@contextlib.contextmanager
def serving(files):
    """A server of these files on this machine: (address, Server)."""
    state = Server(files)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.answer(self, True)

        def do_HEAD(self):
            state.answer(self, False)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", state
        server.shutdown()


def tar_gz(members):
    """members: (name, bytes or a link's target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return out.getvalue()
