"""files.py, locks.py and errors.py: what is in the way of a file, and who holds a lock."""

import errno
import io
import json
import os
import platform
import struct
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

import locks
from errors import FileError, ProgramError, RunError, RunInUse
from files import file_md5, load_npz, no_link, write_atomically, write_named, write_npz
from locks import Lock, Owner, locked
from records.checkpoints import read_facts
from records.folder import RunFolder
from utilities import results

# ------------------------------------------------------------------------------------- what is said


def test_what_is_said_is_short_and_printable():
    line = str(
        ProgramError("bad: \x1b[2J\x1b]0;title\x07\u202e\x9b5m\udcff\r\n" + "x" * 10**6 + ": do")
    )
    assert line.isprintable() and len(line) < 700
    assert line.startswith("bad: \\x1b[2J") and line.endswith("x: do")
    assert str(ProgramError("no\nbreak, an ä stays")) == "no break, an ä stays"


def test_a_config_that_writes_to_the_terminal(tmp_path):
    settings = {"task": "PI_MNIST\x1b[2J" + "A" * 10**6, "format": "FLP"}
    config = {"settings": settings, "data": {}, "epochs": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ProgramError) as error:
        RunFolder(tmp_path).config()
    assert str(error.value).isprintable() and len(str(error.value)) < 700


# ---------------------------------------------------------------------------------------- npz files


def test_members_that_overlap_or_leave_the_file(tmp_path):
    """One array's bytes in many members, each as large as the file."""
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(1000, "f4"))
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    content = path.read_bytes()
    directory = content[start:-22]
    end = struct.unpack("<4s4H2LH", content[-22:])
    for other in (directory, directory.replace(b"a.npy", b"b.npy")):
        both = directory + other
        tail = struct.pack("<4s4H2LH", *end[:3], 2, 2, len(both), *end[6:])
        path.write_bytes(content[:start] + both + tail)
        with pytest.raises(FileError, match="overlap"):
            load_npz(path)
    for size, said in ((10**8, "beyond|Bad|Overlapped"), (1, "two sizes")):
        grown = bytearray(directory)
        grown[20:24] = struct.pack("<L", size)
        grown[24:28] = struct.pack("<L", max(size, 10**6))
        path.write_bytes(content[:start] + grown + content[-22:])
        with pytest.raises(FileError, match=said):
            load_npz(path)


def test_two_arrays_of_one_name(tmp_path):
    array = io.BytesIO()
    np.save(array, np.arange(3))
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", array.getvalue())
        archive.writestr("a.npy", array.getvalue())
    with pytest.raises(FileError, match="same name"):
        load_npz(tmp_path / "a.npz")


def test_what_is_unpacked_is_bounded(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1000))
    assert load_npz(tmp_path / "a.npz", compressed=True)["a"].shape == (1000,)
    monkeypatch.setattr("files.UNPACKED", 8000)
    with pytest.raises(FileError, match="larger than 8,000 bytes"):
        load_npz(tmp_path / "a.npz", compressed=True)
    np.savez(tmp_path / "b.npz", a=np.zeros(1000))  # a file with holes takes no room on a disk
    with pytest.raises(FileError, match="larger than 8,000 bytes"):
        load_npz(tmp_path / "b.npz")


# ------------------------------------------------------------------------------------ what is there


def test_nothing_but_a_plain_file_is_opened(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "link").symlink_to("precious")
    (tmp_path / "nowhere").symlink_to("new")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "nowhere", "pipe"):
        for mode in ("ab", "wb", "rb"):
            with pytest.raises(OSError, match="is a link or no plain file"):
                open(tmp_path / name, mode, opener=no_link)
        with pytest.raises(OSError, match="is a link or no plain file"):
            Lock(tmp_path / name).acquire()
    assert (tmp_path / "precious").read_text() == "kept" and not (tmp_path / "new").exists()


def test_a_pipe_or_device_never_loses_its_name(tmp_path):
    """As /dev/full would to root, in whose place a file would be; not tried with real ones."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="no plain file"):
        write_atomically(pipe, lambda file: file.write(b"x"))
    (tmp_path / "stdout").symlink_to("/proc/self/fd/0/none")
    with pytest.raises(OSError, match="no plain file"):
        write_named(tmp_path / "stdout", lambda file: file.write(b"x"))
    (tmp_path / "link").symlink_to("pipe")
    for path in (pipe, tmp_path / "link"):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        assert results.main([str(ROOT / "results"), "--csv", str(path)]) == 0
        assert os.read(reader, 8) == b"command,"
        os.close(reader)
    assert pipe.is_fifo() and (tmp_path / "link").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link", "stdout"}


def test_nobody_waits_at_a_pipe_for_what_is_read(tmp_path):
    os.mkfifo(tmp_path / "checkpoint.npz")
    with pytest.raises(FileError, match="no plain file"):
        load_npz(tmp_path / "checkpoint.npz")
    with pytest.raises(OSError, match="no plain file"):
        file_md5(tmp_path / "checkpoint.npz")
    with pytest.raises(IsADirectoryError):
        file_md5(tmp_path)
    np.savez(tmp_path / "there.npz", a=np.arange(3))
    (tmp_path / "link.npz").symlink_to("there.npz")  # somebody has put the run elsewhere
    assert load_npz(tmp_path / "link.npz")["a"].tolist() == [0, 1, 2]


def test_records_and_configurations_are_bounded_plain_files(tmp_path):
    run = RunFolder(tmp_path)
    (tmp_path / "config.json").touch()
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(RunError, match="no plain file"):
        run.records()
    (tmp_path / "metrics.jsonl").unlink()
    for name, read in (("metrics.jsonl", run.records), ("config.json", run.config)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(10**12)  # takes no room on the disk
        with pytest.raises(RunError, match="more than 268,435,456 bytes"):
            read()
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("precious")
    with pytest.raises(OSError, match="metrics.jsonl"):
        run.add({"epoch": 1})
    assert not (tmp_path / "precious").exists()


def test_two_writers_of_one_file(tmp_path):
    """Each has a temporary file of its own; what a killed one left is removed."""
    path = tmp_path / "a.csv"
    (tmp_path / ".a.csv.partial").write_bytes(b"left by a killed process")

    def write(file):
        file.write(b"first")
        file.flush()
        write_atomically(path, lambda other: other.write(b"second"))
        assert path.read_bytes() == b"second"
        file.write(b", whole")

    write_atomically(path, write)
    assert path.read_bytes() == b"first, whole" and os.listdir(tmp_path) == ["a.csv"]


def test_nothing_but_a_plain_file_is_replaced(tmp_path):
    """As /dev/null would be, by whoever may."""
    pipe, link = tmp_path / "pipe.csv", tmp_path / "link.csv"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OSError, match="it is no plain file"):
            write_atomically(path, lambda file: file.write(b"a"))
    assert pipe.is_fifo() and link.is_symlink() and len(os.listdir(tmp_path)) == 2


def test_json_of_many_small_lists_is_refused(tmp_path):
    """It takes thirty times as much memory as its text."""
    text = b'{"settings": [' + b"{}," * 10_000 + b"{}]}"
    run = RunFolder(tmp_path)
    (tmp_path / "config.json").write_bytes(text)
    (tmp_path / "metrics.jsonl").write_bytes(b"[{}, {}]\n" * 2000)
    write_npz(tmp_path / "a.npz", {"facts": np.array(text)})
    for read in (run.config, run.records, lambda: read_facts(tmp_path / "a.npz")):
        with pytest.raises((RunError, ValueError), match="too many lists or objects"):
            read()


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match=r"\.lock is a link") as error:
        RunFolder(tmp_path / "run").lock()
    assert error.value.status == 2 and not (tmp_path / "precious").exists()


# -------------------------------------------------------------------------------------------- locks


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""

    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fake = SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4)
    monkeypatch.setattr(locks, "fcntl", fake)
    monkeypatch.setattr(Owner, "told", False)


def test_only_a_held_lock_is_in_use(tmp_path, monkeypatch):
    one, two = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    one.lock()
    with pytest.raises(RunInUse):
        two.lock()
    one.unlock()

    def broken(file, operation):
        raise OSError(errno.EBADF, "broken")

    monkeypatch.setattr(locks.fcntl, "flock", broken)
    with pytest.raises(RunError, match="broken") as error:
        two.lock()
    assert not isinstance(error.value, RunInUse)


def test_without_locks_a_file_says_who_is_in(no_locks, tmp_path, capsys):
    one, two = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    one.lock()
    with pytest.raises(RunInUse):
        two.lock()
    one.unlock()
    two.lock()
    two.unlock()
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "without locks" in err and ".lock.owner" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    with locked(tmp_path / "lock"):
        assert not Lock(tmp_path / "lock").acquire()


def claim(path, age=0, **said):
    owner = path.with_name(f"{path.name}.owner")
    owner.write_text(json.dumps(said))
    os.utime(owner, (time.time() - age,) * 2)
    return owner


def test_what_a_gone_process_has_left_is_taken_over(no_locks, tmp_path):
    path = tmp_path / ".lock"
    here = platform.node()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        alive = {"host": here, "pid": other.pid, "started": locks._started(other.pid)}
        claim(path, 10**6, **alive)
        assert not Lock(path).acquire()  # on this machine a process is seen, however silent
        claim(path, **alive | {"started": "another process of that number"})
        lock = Lock(path)
        assert lock.acquire()
        lock.release()
        other.communicate(b"\n")
    for age, said, free in (
        (0, alive, True),
        (0, {"host": "elsewhere", "pid": 1}, False),
        (10**6, {"host": "elsewhere", "pid": 1}, True),
        (0, {}, False),
        (10**6, {}, True),
        (0, {"host": here, "pid": "1"}, False),
        (10**6, {"host": [], "pid": 1}, True),
    ):
        owner = claim(path, age, **said)
        lock = Lock(path)
        assert lock.acquire() is free, said
        lock.release()
        assert owner.exists() is not free
        owner.unlink(missing_ok=True)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_an_owner_gives_signs_of_life(no_locks, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.01)
    lock = Lock(tmp_path / ".lock")
    assert lock.acquire()
    owner = tmp_path / ".lock.owner"
    os.utime(owner, (0, 0))
    while owner.stat().st_mtime == 0:
        time.sleep(0.01)
    lock.release()
    assert not owner.exists()


def test_a_waiting_process_gets_in(no_locks, tmp_path, monkeypatch):
    path = tmp_path / "lock"
    owner = claim(path, host="elsewhere", pid=1)
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: owner.unlink())
    with locked(path):
        assert json.loads(owner.read_text())["pid"] == os.getpid()
