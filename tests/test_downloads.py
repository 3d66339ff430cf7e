"""datasets/downloads.py against a server on this machine: drops, ranges, wrong files, archives."""

import errno
import re
import socket
import threading
import time

import pytest
from data_files import serving, tar_gz

from datasets import downloads
from datasets.downloads import download, reachable, unpack
from errors import DownloadError
from files import md5

CONTENT = bytes(range(256)) * 4000  # 1 MB


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(downloads, "RETRY_SECONDS", 0)


@pytest.fixture
def one(tmp_path):
    """A server of the one file `big`: its address, Server, where it is to be, its .part file."""
    path = tmp_path / "new" / "big"
    with serving({"big": CONTENT}) as (url, state):
        yield url + "big", state, path, path.with_name("big.part")


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


def test_reachable():
    with serving({}) as (url, _), socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        mute = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        start = time.monotonic()
        assert reachable((mute, url, "http://127.0.0.1:1/"), "no such file", 0.5) == [url]
        assert time.monotonic() - start < 3


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


def test_no_link_is_followed_where_a_download_grows(tmp_path):
    (tmp_path / "precious").write_bytes(b"kept")
    (tmp_path / "big.part").symlink_to(tmp_path / "precious")
    with serving({"big": CONTENT}) as (url, _), pytest.raises(OSError, match="is a link"):
        download(url + "big", tmp_path / "big", md5(CONTENT))
    assert (tmp_path / "precious").read_bytes() == b"kept"


def test_a_download_where_there_are_no_locks(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("locks.fcntl.flock", flock)
    monkeypatch.setattr("locks.Owner.told", True)
    with serving({"big": CONTENT}) as (url, _):
        download(url + "big", tmp_path / "big", md5(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["big"]
