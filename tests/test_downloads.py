"""downloads.py against a server on this machine: drops, ranges, wrong files; CIFAR-10 and SVHN as they arrive."""

import contextlib
import http.server
import io
import json
import re
import socket
import tarfile
import threading
import time

import pytest
from test_datasets import md5, refused

from datasets import cifar10, downloads, source, svhn
from datasets.cifar10 import load_cifar10
from datasets.downloads import download, reachable, unpack
from datasets.sample import ensure_sample
from datasets.svhn import fetch_svhn, svhn_sources
from errors import DataError, DownloadError
from files import file_md5

CONTENT = bytes(range(256)) * 4000  # 1 MB


class Server:
    """What it serves, how, and what it was asked.

    files : name -> bytes
    drop : how many bytes each GET gives before the connection is cut; the list is used up, then nothing is cut
    ranges : "yes", "ignored" (always the whole file), or "wrong" (another range than asked for)
    statuses : of the next GETs, instead of an answer
    """

    def __init__(self, files):
        self.files, self.drop, self.ranges, self.statuses, self.asked, self.sent = (
            files,
            [],
            "yes",
            [],
            [],
            0,
        )
        self.headers, self.length = {}, True

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


@pytest.fixture
def serve(monkeypatch):
    """serve(files) -> (address, Server)."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(downloads, "RETRY_SECONDS", 0)
    with contextlib.ExitStack() as stack:

        def start(files):
            state = Server(files)

            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    state.answer(self, True)

                def do_HEAD(self):
                    state.answer(self, False)

                def log_message(self, *_):
                    pass

            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
            ).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}/", state

        yield start


@pytest.fixture
def one(serve, tmp_path):
    """A server of the one file `big`: (address of big, Server, where it is to be, its .part file)."""
    url, state = serve({"big": CONTENT})
    path = tmp_path / "new" / "big"
    return url + "big", state, path, path.with_name("big.part")


def test_download(one, capfd):
    url, state, path, part = one
    download(url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT and not part.exists() and state.asked == [("big", None)]
    out, err = capfd.readouterr()
    assert out == "" and re.fullmatch(r"big: downloaded 1.0 MB, [0-9.]+ MB/s\n", err)


def test_dropped_connection_is_continued(one):
    url, state, path, part = one
    state.drop = [300_000, 0, 400_000]
    download(url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT and not part.exists()
    asked = [wanted for _, wanted in state.asked]
    assert asked == [None, "bytes=300000-", "bytes=300000-", "bytes=700000-"]
    assert state.sent == len(CONTENT)  # nothing twice


def test_next_call_continues_where_the_last_gave_up(one):
    url, state, path, part = one
    state.drop = [600_000] + [0] * downloads.ATTEMPTS
    with pytest.raises(DownloadError, match="go on from there"):
        download(url, path, md5(CONTENT))
    assert not path.exists() and part.read_bytes() == CONTENT[:600_000]
    state.asked.clear()
    state.drop.clear()
    download(url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT and state.asked == [("big", "bytes=600000-")]


def test_interrupted_process_leaves_its_part(one, monkeypatch):
    url, state, path, part = one
    state.drop = [500_000]
    monkeypatch.setattr(time, "sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        download(url, path, md5(CONTENT))
    assert part.stat().st_size == 500_000 and not path.exists()


def test_server_that_ignores_ranges(one):
    url, state, path, part = one
    state.ranges, state.drop = "ignored", [300_000]
    download(url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert [wanted for _, wanted in state.asked] == [None, "bytes=300000-"]


def test_server_that_ignores_ranges_and_always_drops_is_given_up(one):
    url, state, path, part = one
    state.ranges, state.drop = "ignored", [300_000] * 50
    with pytest.raises(DownloadError):
        download(url, path, md5(CONTENT))
    assert len(state.asked) == 1 + downloads.ATTEMPTS


def test_server_that_sends_another_range(one):
    url, state, path, part = one
    state.ranges, state.drop = "wrong", [300_000]
    with pytest.raises(DownloadError, match="from 300001 on"):
        download(url, path, md5(CONTENT))
    assert not path.exists() and not part.exists()


def test_whole_part_needs_no_bytes(one):
    url, state, path, part = one
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    download(url, path, md5(CONTENT))
    assert (
        path.read_bytes() == CONTENT
        and state.sent == 0
        and state.asked == [("big", "bytes=1024000-")]
    )


def test_part_that_is_longer_than_the_file(one):
    url, state, path, part = one
    part.parent.mkdir()
    part.write_bytes(CONTENT + b"more")
    download(url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT and [wanted for _, wanted in state.asked] == [
        "bytes=1024004-",
        None,
    ]


def test_part_of_another_file_is_deleted(one):
    url, state, path, part = one
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    with pytest.raises(DownloadError, match="wrong MD5, what came is deleted"):
        download(url, path, md5(CONTENT))
    assert not path.exists() and not part.exists()
    download(url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT


def test_wrong_file_is_never_accepted(one):
    url, state, path, part = one
    state.files["big"] = b"a login page"
    with pytest.raises(DownloadError, match="wrong MD5"):
        download(url, path, md5(CONTENT))
    assert list(path.parent.iterdir()) == []


def test_unannounced_length(one):
    url, state, path, part = one
    state.length = False
    download(url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT


def test_archive_declared_as_encoded_is_kept_as_it_is(one):
    url, state, path, part = one
    state.headers["Content-Encoding"] = "gzip"
    download(url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT


def test_busy_server_is_asked_again_and_a_missing_file_is_not(one, tmp_path):
    url, state, path, part = one
    state.statuses = [503, 429]
    download(url, path, md5(CONTENT))
    assert len(state.asked) == 3
    state.statuses = [403]
    for address in (url + "ger", url):
        with pytest.raises(DownloadError, match="HTTP status 40[34]"):
            download(address, tmp_path / "other", md5(CONTENT))
    assert len(state.asked) == 5 and not list(tmp_path.glob("other*"))


def test_two_at_a_time_download_once(one):
    url, state, path, part = one
    threads = [threading.Thread(target=download, args=(url, path, md5(CONTENT))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert path.read_bytes() == CONTENT and len(state.asked) == 1
    assert [left.name for left in path.parent.iterdir()] == ["big"]


def test_bar_on_a_terminal(one, monkeypatch, capfd):
    url, state, path, part = one
    state.drop = [300_000]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    download(url, path, md5(CONTENT))
    assert "B/s" in (err := capfd.readouterr().err) and "downloaded" not in err


def test_reachable(serve):
    url, _ = serve({})
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        mute = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        start = time.monotonic()
        assert reachable((mute, url, "http://127.0.0.1:1/"), "no such file", 0.5) == [url]
        assert time.monotonic() - start < 3


def test_file_md5(tmp_path):
    (tmp_path / "a").write_bytes(CONTENT)
    assert file_md5(tmp_path / "a") == md5(CONTENT)


# ------------------------------------------------------------------------------------------- the archive


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


def test_unpack_takes_what_it_was_asked_for_and_nothing_else(tmp_path):
    archive, folder = tmp_path / "a.tar.gz", tmp_path / "in" / "here"
    archive.write_bytes(
        tar_gz(
            [
                ("../out", b"evil"),
                ("/tmp/out", b"evil"),
                ("x/a", "/etc/passwd"),
                ("x/a", b"1"),
                ("x/b", b"2"),
                ("x/c", b"3"),
                ("x/../x/b", b"evil"),
            ]
        )
    )
    unpack(archive, {"x/a": "a", "x/b": "b"}, folder)
    assert {
        path.name: path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path != archive
    } == {"a": b"1", "b": b"2"}
    with pytest.raises(DownloadError, match="lacks x/d"):
        unpack(archive, {"x/d": "d"}, folder)
    for content in (archive.read_bytes()[:-40], b"", b"junk" * 99, b"\x1f\x8b" + b"junk" * 99):
        archive.write_bytes(content)
        with pytest.raises(DownloadError, match="corrupted|lacks"):
            unpack(archive, {"x/d": "d"}, folder)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    ensure_sample(folder, ["cifar10", "svhn"])
    return folder


@pytest.fixture
def official(sample, monkeypatch, serve):
    """The sample as if it were the official data on a server: (Server, pickles: name -> bytes)."""
    folder = sample / "cifar10" / "cifar-10-batches-py"
    pickles = {name: (folder / name).read_bytes() for name in cifar10.CIFAR10_MD5}
    archive = tar_gz(
        [
            (f"cifar-10-batches-py/{name}", content)
            for name, content in [
                ("batches.meta", b"names"),
                *pickles.items(),
                ("readme.html", b"hello"),
            ]
        ]
    )
    url, state = serve({"cifar-10-python.tar.gz": archive})
    monkeypatch.setattr(cifar10, "CIFAR10_MIRRORS", (url,))
    monkeypatch.setattr(cifar10, "CIFAR10_ARCHIVE", {"cifar-10-python.tar.gz": md5(archive)})
    monkeypatch.setattr(
        cifar10, "CIFAR10_MD5", {name: md5(content) for name, content in pickles.items()}
    )
    monkeypatch.setattr(cifar10, "CIFAR10_SPLIT", {"train": 900, "valid": 100, "test": 200})
    monkeypatch.setattr(
        "datasets.cifar10.whiten_cifar10", lambda folder, x, test_x, identity: (x, test_x)
    )
    return state, pickles


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_cifar10_is_downloaded_unpacked_and_tidied(official, tmp_path):
    state, pickles = official
    state.drop = [100_000]
    data = load_cifar10(tmp_path)
    assert len(data.train) == 900 and data.name == "CIFAR10" and len(state.asked) == 2
    assert contents(tmp_path) == pickles
    (tmp_path / "cifar10" / "cifar-10-batches-py" / "data_batch_2").unlink()
    load_cifar10(tmp_path)
    assert contents(tmp_path) == pickles and len(state.asked) == 3
    load_cifar10(tmp_path)
    assert len(state.asked) == 3


def test_cifar10_archive_that_is_there_is_unpacked_and_kept(official, tmp_path):
    state, pickles = official
    archive = tmp_path / "cifar10" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"half")
    with refused(str(archive), "MD5 differs"):
        load_cifar10(tmp_path)
    archive.write_bytes(state.files[archive.name])
    load_cifar10(tmp_path, download=False)
    assert state.asked == [] and contents(tmp_path) == pickles | {
        archive.name: archive.read_bytes()
    }


def test_cifar10_offline(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(cifar10, "CIFAR10_MIRRORS", ("http://127.0.0.1:1/",))
    start = time.monotonic()
    with refused(
        "cifar-10-python.tar.gz", str(tmp_path / "cifar10"), "no mirror answered", "--sample"
    ):
        load_cifar10(tmp_path)
    assert time.monotonic() - start < 4 and capfd.readouterr() == ("", "")
    monkeypatch.setattr(source, "_reachable", lambda *_: pytest.fail("the network was asked"))
    with refused("no download was tried"):
        load_cifar10(tmp_path, download=False)
    assert not contents(tmp_path)


def test_cifar10_pickles_that_are_there_are_never_replaced(official, tmp_path):
    state, pickles = official
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "test_batch").write_bytes(b"mine")
    with refused("test_batch"):
        load_cifar10(tmp_path)
    assert (folder / "test_batch").read_bytes() == b"mine"


def test_cifar10_where_nothing_can_be_written(official, tmp_path):
    (tmp_path / "cifar10").touch()
    with refused("cannot write"):
        load_cifar10(tmp_path)


# -------------------------------------------------------------------------------------------------- SVHN


def test_svhn_gets_what_is_missing(sample, serve, monkeypatch, tmp_path):
    mats = {path.name: path.read_bytes() for path in (sample / "SVHN" / "format2").glob("*.mat")}
    url, state = serve(mats)
    monkeypatch.setattr(svhn, "SVHN_MIRRORS", (url,))
    monkeypatch.setattr(svhn, "SVHN_MD5", {name: md5(content) for name, content in mats.items()})
    found = svhn_sources(tmp_path)
    fetch_svhn(found, ["train", "extra"])
    assert contents(tmp_path) == {
        name: mats[name] for name in ("train_32x32.mat", "extra_32x32.mat")
    }
    state.drop = [50_000]
    fetch_svhn(found, ["train", "test"])
    assert contents(tmp_path) == mats and len(state.asked) == 4
    (tmp_path / "SVHN" / "format2" / "test_32x32.mat").unlink()
    state.files["test_32x32.mat"] = b"another"
    with refused("test_32x32.mat missing", "wrong MD5", str(tmp_path)):
        fetch_svhn(found, ["test"])


def test_svhn_offline(monkeypatch, tmp_path):
    monkeypatch.setattr(svhn, "SVHN_MIRRORS", ("http://127.0.0.1:1/",))
    start = time.monotonic()
    with refused(
        "extra_32x32.mat", str(tmp_path / "SVHN" / "format2"), "no mirror answered", "--sample"
    ):
        fetch_svhn(svhn_sources(tmp_path), ["train", "extra"])
    assert time.monotonic() - start < 4


def test_sample_is_never_downloaded(sample, monkeypatch, tmp_path):
    monkeypatch.setattr(source, "_reachable", lambda *_: pytest.fail("the network was asked"))
    folder = tmp_path / "SVHN" / "format2"
    folder.mkdir(parents=True)
    manifest = json.loads((sample / "SVHN" / "format2" / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with refused("test_32x32.mat missing from the generated sample"):
        fetch_svhn(svhn_sources(tmp_path, sample=True), ["test"])
    with pytest.raises(DataError, match="use --sample"):
        svhn_sources(tmp_path)


def test_official_addresses():
    assert cifar10.CIFAR10_MIRRORS[0] + next(iter(cifar10.CIFAR10_ARCHIVE)) == (
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    )
    assert svhn.SVHN_MIRRORS == ("http://ufldl.stanford.edu/housenumbers/",)
    assert set(svhn.SVHN_MD5) == {f"{name}_32x32.mat" for name in ("train", "test", "extra")}
