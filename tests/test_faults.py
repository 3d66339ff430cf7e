"""What may happen to a run: it is stopped, killed, its files are damaged or were made
by somebody else, the disk is full.
"""

import contextlib
import errno
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import test_trainer
from conftest import OFTEN, ROOT, assert_same_run
from damage import KINDS, damage
from small_network import small_pi_mnist
from test_trainer import assert_same_arrays, make, svhn, without_times

import datasets
import main
from errors import DataError, FileError, RunError, Stopped
from files import load_npz
from records import machine
from records.aside import put_aside
from records.checkpoints import Checkpoints
from records.folder import RunFolder
from records.follow import Watcher, follow
from settings import FORMAT_ARGUMENTS, TASKS
from snapshots import Snapshot
from steps import Segment, Whole

small_tasks = test_trainer.small_tasks  # a fixture
DFXP = ["PI_MNIST", "DFXP", "5", "9", "11", "10", "0.0001", "2"]


# -------------------------------------------------------------------------- stopped at any segment


@pytest.mark.parametrize(
    ("number_format", "streams", "chunks"),
    [
        ("DFXP", "device", False),
        ("DFXP", "published", False),
        ("DFXP", "published", True),
        ("FLP", "device", True),
    ],
)
def test_a_run_goes_on_from_every_segment(number_format, streams, chunks):
    """Range initialisation, training, evaluation: a snapshot at each, each continued in
    a trainer that knows nothing.
    """

    def new():
        return (
            svhn(number_format, streams=streams, epochs=2)
            if chunks
            else make(number_format, streams=streams, epochs=2)
        )

    whole, snapshots, records = new(), [], []
    answer, steps = None, whole.steps()
    with contextlib.suppress(StopIteration):
        while True:
            step = steps.send(answer)
            answer = whole.training(*step.arguments) if isinstance(step, Segment) else None
            if isinstance(step, Whole):
                snapshots.append((whole.words(), len(records), whole.snapshot()))
            elif isinstance(step, dict):
                records.append(without_times(step))
    end, _ = whole.snapshot()
    assert len(snapshots) > 12 and len({position for position, *_ in snapshots}) > 8
    again = new()
    for position, before, (arrays, facts) in snapshots:
        again.restore(Snapshot(arrays, json.loads(json.dumps(facts))))
        assert again.words() == position
        assert [without_times(record) for record in again.run()] == records[before:], position
        assert_same_arrays(again.snapshot()[0], end)


@cache
def compiled():
    """A trainer of the small task, and the snapshot of its beginning."""
    trainer = make(epochs=3)
    return trainer, trainer.snapshot()


def beginner():
    """That trainer, as if nothing had happened to it."""
    trainer, start = compiled()
    trainer.restore(start)
    return trainer


def small_run(folder, trainer=None, identity=None):
    """A run folder of the small task, and its trainer."""
    run, trainer = RunFolder(folder), trainer or beginner()
    if not run.exists:
        run.folder.mkdir()
        run.start(["test"], trainer.settings, identity or {}, "cpu: cpu")
    return run, trainer


class StopAfter(Watcher):
    def __init__(self, segments):
        self.left, self.notes = segments, []

    def trained(self, batches):
        self.left -= 1
        if self.left < 0:
            raise Stopped

    def note(self, text):
        self.notes.append(text)


def test_a_run_stopped_again_and_again_keeps_all_it_did(tmp_path, monkeypatch):
    """At most three segments are trained at a time, so nothing is ever done twice."""
    run, trainer = small_run(tmp_path / "whole")
    list(follow(run, trainer, 3))
    monkeypatch.setattr("records.follow.CHECKPOINT_SECONDS", 1e9)
    stops, done = 0, False
    while not done:
        run, trainer = small_run(tmp_path / "pieces")
        try:
            list(follow(run, trainer, 3, StopAfter(3)))
            done = True
        except Stopped:
            assert run.checkpoints.newest == trainer.words()
            stops += 1
            assert stops < 50
    assert stops > 5
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_range_initialisation(number, sample, tmp_path, program):
    line = [*DFXP[:-1], "3", "--data", sample, "--sample", "--stop-after", "1", "--out"]
    stop_soon = (
        "import os, sys, main\nfrom xla.programs import TrainingProgram\n"
        "call = TrainingProgram.__call__\n"
        "def train(self, *arguments):\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    return call(self, *arguments)\n"
        "TrainingProgram.__call__ = train\n"
        "sys.exit(main.main(sys.argv[1:]))"
    )
    for expected in (
        r"resumes after epoch 1 of the range initialisation\n",
        r"resumes after epoch 2 .*\n",
    ):
        stopped = subprocess.run(
            [sys.executable, "-c", stop_soon, *map(str, line), tmp_path / "stopped"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert stopped.returncode == 128 + number
        assert re.fullmatch(
            r"main.py: interrupted; the same command "
            + expected.replace("after epoch", "after .*"),
            stopped.stderr,
        ), stopped.stderr
    for name in ("stopped", "whole"):
        assert program(*line, name, cwd=tmp_path).returncode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_signal_while_the_data_are_read_ends_the_program(tmp_path, monkeypatch, capsys):
    def load(task, folder, sample):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        raise AssertionError("it goes on")

    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.chdir(tmp_path)
    assert main.main(["PI_MNIST", "FLP"]) == 143
    assert (
        capsys.readouterr().err
        == "main.py: interrupted; nothing was kept yet, the same command starts again\n"
    )
    assert list(tmp_path.iterdir()) == []


def killed(line, folder, seconds, code):
    """Start, and kill -9 that many seconds after the folder has a checkpoint, or after
    the start; whether it was killed.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, line), "--out", folder],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.soak
@pytest.mark.parametrize("streams", ["device", "published"])
def test_kills_at_random_moments(streams, sample, tmp_path, program):
    """25 for each source of masks, with a checkpoint after every segment."""
    line = [*DFXP, "--data", sample, "--sample", "--streams", streams, "--stop-after", "150"]
    began = time.monotonic()
    assert program(*line, "--out", "whole", cwd=tmp_path).returncode == 0
    whole, kills, rng = time.monotonic() - began, 0, random.Random(5)
    while kills < 25:
        if killed(line, tmp_path / "killed", rng.uniform(0.5, 5), OFTEN):
            kills += 1
        else:  # finished: from its beginning again
            assert_same_run(tmp_path / "whole", tmp_path / "killed")
            shutil.rmtree(tmp_path / "killed")
    assert program(*line, "--out", "killed", cwd=tmp_path).returncode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    epochs = [
        json.loads(text)["epoch"]
        for text in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert epochs == list(range(151))
    print(
        f"\n{streams}: {kills} kills, every resume bit-identical; the whole run takes {whole:.0f} s"
    )


# ----------------------------------------------------------------------------------- damaged files


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a small run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run, trainer = small_run(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("records.follow.CHECKPOINT_SECONDS", 0)
        list(follow(run, trainer, 3))
    return folder


def regions(path):
    """Of an .npz file: offsets in the local headers, the array headers, the arrays, the
    directory and its end.
    """
    with zipfile.ZipFile(path) as archive:
        members, directory = archive.infolist(), archive.start_dir
    size, found = path.stat().st_size, {}
    for member in members:
        start = member.header_offset
        found.setdefault("local header", []).extend(range(start, start + 30))
        content = start + 30 + len(member.filename)
        found.setdefault("array header", []).extend(range(content + 20, content + 148))
        found.setdefault("array", []).extend(range(content + 148, content + 20 + member.file_size))
    return found | {"directory": range(directory, size - 22), "end": range(size - 22, size)}


@pytest.mark.parametrize("region", ["local header", "array header", "array", "directory", "end"])
def test_a_flipped_byte_of_a_checkpoint_is_found_or_does_not_matter(region, finished, tmp_path):
    whole, copy, rng = (
        load_npz(finished / "checkpoint.npz"),
        tmp_path / "copy.npz",
        random.Random(1),
    )
    content, found = (finished / "checkpoint.npz").read_bytes(), 0
    offsets = regions(finished / "checkpoint.npz")[region]
    for offset in rng.sample(list(offsets), min(len(offsets), 150)):
        damaged = bytearray(content)
        damaged[offset] ^= 1 << rng.randrange(8)
        copy.write_bytes(damaged)
        try:
            arrays = load_npz(copy)
        except FileError as error:
            assert "copy.npz cannot be read" in str(error)
            found += 1
        else:
            for name in set(arrays) & set(
                whole
            ):  # a name that was changed is missed by Trainer.restore
                np.testing.assert_array_equal(arrays[name], whole[name])
            assert set(arrays) == set(whole) or region == "directory"
    assert found > 0


def test_fuzzed_run_folders(finished, tmp_path):
    """180 of them: the run ends as it did, or one line says why not; nothing looks
    finished that is not.
    """
    rng, folder, outcomes = (
        random.Random(2),
        tmp_path / "run",
        {"same": 0, "refused": 0, "noted": 0},
    )
    for _ in range(180):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(finished, folder)
        (folder / "final.npz").unlink()
        names = [
            "checkpoint.npz",
            "checkpoint.previous.npz",
            "config.json",
            "metrics.jsonl",
            "best.npz",
        ]
        hit = rng.sample(names, rng.choice([1, 1, 2]))
        for name in hit:
            damage(folder / name, rng.choice(KINDS), rng)
        watcher = StopAfter(10**9)
        trainer = beginner()
        try:
            run = RunFolder(folder)
            run.check_settings(trainer.settings)
            run.check_data({})
            assert run.finished() is None
            list(follow(run, trainer, 3, watcher))
        except RunError as error:
            assert "\n" not in str(error) and {"checkpoint.npz", "config.json"} & set(hit), error
            assert not (folder / "final.npz").exists()
            outcomes["refused"] += 1
        else:
            assert_same_run(finished, folder)
            outcomes["same"] += 1
            outcomes["noted"] += len(watcher.notes)
    assert min(outcomes.values()) > 10, outcomes


def test_the_older_checkpoint_is_used_and_the_loss_reported(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "checkpoint.npz").write_bytes(b"spoiled")
    (folder / "metrics.jsonl").write_text(
        (folder / "metrics.jsonl").read_text()[:-40]
    )  # cut in a line
    watcher = StopAfter(10**9)
    run, trainer = small_run(folder)
    list(follow(run, trainer, 3, watcher))
    (note,) = watcher.notes
    assert "checkpoint.npz is damaged" in note and "going on from the one before, after" in note
    assert_same_run(finished, folder)
    for name in ("checkpoint.npz", "checkpoint.previous.npz"):
        (folder / name).write_bytes(b"spoiled")
    with pytest.raises(
        RunError,
        match=r"checkpoint.npz is damaged .* and .*checkpoint.previous.npz is damaged .*; remove",
    ):
        list(follow(run, beginner(), 3))
    assert (folder / "checkpoint.npz").read_bytes() == b"spoiled"  # nothing is thrown away


def test_a_checkpoint_of_another_run_or_of_other_data_is_refused(tmp_path):
    for name, seed, identity in (("one", 1, {}), ("two", 2, {}), ("three", 1, {"file": "other"})):
        run, trainer = small_run(tmp_path / name, make(epochs=1, seed=seed), identity)
        list(follow(run, trainer, 1))
    for other, what in (("two", "settings"), ("three", "data")):
        shutil.rmtree(tmp_path / "mixed", ignore_errors=True)
        shutil.copytree(tmp_path / "one", tmp_path / "mixed")
        shutil.copy(tmp_path / other / "checkpoint.npz", tmp_path / "mixed")
        (tmp_path / "mixed" / "checkpoint.previous.npz").unlink(missing_ok=True)
        run, trainer = small_run(tmp_path / "mixed", make(epochs=1, seed=1))
        with pytest.raises(RunError, match=f"that of a run of other {what}"):
            list(follow(run, trainer, 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda a, f: a.pop("layer0/W"),
        lambda a, f: a.update({"layer0/W": a["layer0/W"][:1]}),
        lambda a, f: a.update({"layer0/W": a["layer0/W"].astype("f8")}),
        lambda a, f: a.update({"order": a["order"] * 0}),
        lambda a, f: a.update({"rng": np.full(625, 700, "u4")}),
        lambda a, f: f.update(epoch="2"),
        lambda a, f: f.update(epoch=99),
        lambda a, f: f.update(batches=10**6),
        lambda a, f: f.pop("best"),
        lambda a, f: f.update(best={"best_epoch": 0}),
        lambda a, f: f.update(initialised=1),
        lambda a, f: f.update(batches=-1),
        lambda a, f: f["best"].update(best_validation_error=float("nan")),
        lambda a, f: f["best"].update(best_epoch=1.5),
    ],
)
def test_a_snapshot_that_does_not_fit_is_refused(change):
    t = beginner()
    list(t.run(1))
    arrays, facts = t.snapshot()
    t.restore(Snapshot(arrays, facts))
    change(arrays, facts)
    with pytest.raises((ValueError, KeyError)):
        t.restore(Snapshot(arrays, facts))


def test_an_array_larger_than_its_file_is_not_made_room_for(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(1000, "f4"))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(
        content.replace(b"(1000,)", b"(9999999999999,)")[: len(content)]
    )
    with pytest.raises(FileError):
        load_npz(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(10**7))
    with pytest.raises(FileError, match="is compressed"):
        load_npz(tmp_path / "bomb.npz")


def test_a_stop_before_where_the_run_is_writes_no_wrong_parameters(tmp_path):
    run, trainer = small_run(tmp_path / "run")
    steps = 0
    while trainer.position.epoch < 2 or not trainer.position.batches:  # into epoch 3
        steps += 1
        trainer = beginner()
        with pytest.raises(Stopped):
            list(follow(run, trainer, 3, StopAfter(steps)))
        shutil.rmtree(
            run.folder
        ) if trainer.position.epoch < 2 or not trainer.position.batches else None
        run, _ = small_run(tmp_path / "run", trainer)
    list(follow(run, beginner(), 2))
    assert run.records()[-1]["epoch"] == 2 and not run.final_path.exists()


def test_a_finished_run_is_made_whole_again(finished, tmp_path):
    for name in ("final.npz", "best.npz"):
        for spoil in (b"", b"garbage", None):
            folder = tmp_path / f"{name}{spoil}"
            shutil.copytree(finished, folder)
            assert RunFolder(folder).finished()
            (folder / name).unlink() if spoil is None else (folder / name).write_bytes(spoil)
            run, trainer = small_run(folder)
            assert run.finished() is None
            list(follow(run, trainer, 3))
            assert_same_run(finished, folder)


def test_a_run_without_its_checkpoints_says_that_it_starts_over(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "checkpoint.npz").unlink()
    (tmp_path / "run" / "checkpoint.previous.npz").rename(tmp_path / "run" / "kept")
    watcher = StopAfter(10**9)
    list(follow(small_run(tmp_path / "run")[0], beginner(), 3, watcher))
    assert len(watcher.notes) == 1 and "the run starts over" in watcher.notes[0]
    for name in ("best", "final"):
        kept = tmp_path / "run" / f"{name}.previous.npz"
        assert (
            kept.read_bytes() == (finished / f"{name}.npz").read_bytes()
            and name in watcher.notes[0]
        )
    assert_same_run(finished, tmp_path / "run")
    assert (tmp_path / "run" / "metrics.previous.jsonl").read_bytes() == (
        finished / "metrics.jsonl"
    ).read_bytes()
    (tmp_path / "run" / "kept").replace(tmp_path / "run" / "checkpoint.previous.npz")
    (tmp_path / "run" / "metrics.previous.jsonl").replace(tmp_path / "run" / "metrics.jsonl")
    (tmp_path / "run" / "checkpoint.npz").unlink()
    watcher = StopAfter(10**9)
    list(follow(small_run(tmp_path / "run")[0], beginner(), 3, watcher))
    assert (
        len(watcher.notes) == 1
        and "checkpoint.npz is missing; going on from the one before" in watcher.notes[0]
    )


def test_what_is_put_aside_never_takes_the_place_of_what_was_before(tmp_path):
    for number in range(3):
        (tmp_path / "metrics.jsonl").write_bytes(b"{}\n" * (number + 1))
        aside = put_aside(tmp_path)
        assert len(aside) == (number > 0)  # of the first, only the untrained network's is there
        (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
    assert (tmp_path / "metrics.previous.jsonl").read_bytes() == b"{}\n" * 2
    assert (tmp_path / "metrics.previous2.jsonl").read_bytes() == b"{}\n" * 3


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint.npz",
        "checkpoint.previous.npz",
        "best.npz",
        "metrics.jsonl",
        "config.json",
        ".checkpoint.npz.partial",
        ".lock",
    ],
)
def test_a_folder_in_place_of_a_file_is_named(name, sample, tmp_path, capsys):
    line = [
        "PI_MNIST",
        "FLP",
        "--sample",
        "--data",
        str(sample),
        "--out",
        str(tmp_path / "run"),
        "--stop-after",
    ]
    assert main.main([*line, "0"]) == 0
    path = tmp_path / "run" / name
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "within").touch()
    assert main.main([*line, "1"]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "run") in err and err.count("\n") == 1


@pytest.mark.parametrize("name", [".checkpoint.npz.partial", ".metrics.jsonl.partial"])
def test_a_link_out_of_the_folder_is_not_followed(name, tmp_path):
    (tmp_path / "precious").write_text("kept")
    run, trainer = small_run(tmp_path / "run")
    (run.folder / name).symlink_to(tmp_path / "precious")
    run.lock()
    list(follow(run, trainer, 1))
    assert (tmp_path / "precious").read_text() == "kept"
    run.unlock()


# -------------------------------------------------------------------------------------------- disk


def test_a_limit_on_what_is_written(sample, tmp_path, program):
    """As on a full disk: one line, and what was kept before is as it was."""
    line = [*DFXP, "--data", sample, "--sample", "--out", "run", "--stop-after"]
    assert program(*line, "1", cwd=tmp_path).returncode == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").glob("*.npz")}
    limited = (
        "import resource, sys, main; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)); "
        "sys.exit(main.main(sys.argv[1:]))"
    )
    full = subprocess.run(
        [
            sys.executable,
            "-c",
            limited,
            *map(str, line[:-2]),
            tmp_path / "run",
            "--stop-after",
            "3",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (
        full.returncode == 1
        and full.stderr.count("\n") == 1
        and os.strerror(errno.EFBIG) in full.stderr
    )
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes() == before["checkpoint.npz"]
    assert (
        not list((tmp_path / "run").glob(".*.partial"))
        and not (tmp_path / "run" / "final.npz").exists()
    )
    for name, stops in (("run", ["3"]), ("whole", ["1", "3"])):
        line[-2] = name
        for stop in stops:
            assert program(*line, stop, cwd=tmp_path).returncode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_disk_that_fills_up(sample, tmp_path, program):
    """A tmpfs with room for one checkpoint, not for the second."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        line = [*DFXP, "--data", sample, "--sample", "--stop-after", "2", "--out"]
        full = program(*line, disk / "run", cwd=tmp_path)
        assert (
            full.returncode == 1
            and full.stderr.count("\n") == 1
            and os.strerror(errno.ENOSPC) in full.stderr
        )
        load_npz(disk / "run" / "checkpoint.npz")
        assert (
            not list((disk / "run").glob(".*.partial"))
            and not (disk / "run" / "final.npz").exists()
        )
        shutil.copytree(disk / "run", tmp_path / "run")
        for name in ("run", "whole"):
            assert program(*line, name, cwd=tmp_path).returncode == 0
        assert_same_run(tmp_path / "whole", tmp_path / "run")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "checkpoint.npz"),
            "No space left on device: checkpoint.npz",
        ),
        (MemoryError(), "MemoryError"),
        (
            "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore",
            "Out of memory allocating 9 bytes. more",
        ),
    ],
)
def test_what_the_machine_lacks_is_one_line(error, expected, sample, tmp_path, monkeypatch, capsys):
    import jax

    from trainer import Trainer

    if isinstance(error, str):
        error = jax.errors.JaxRuntimeError(error)

    def train(self, *arguments, **options):
        raise error

    line = [
        *DFXP,
        "--data",
        str(sample),
        "--sample",
        "--out",
        str(tmp_path / "run"),
        "--stop-after",
    ]
    assert main.main([*line, "0"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(Trainer, "_train", train)
    threads = threading.active_count()
    assert main.main([*line, "1"]) == 1
    err = capsys.readouterr().err
    assert expected in err and err.count("\n") == 1 and "the same command resumes" in err
    assert threading.active_count() == threads


def test_an_output_and_a_disk_that_are_full_at_once(sample, tmp_path, monkeypatch, capsys):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(self, arrays, facts, said):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(self.path))

    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    monkeypatch.setattr(Checkpoints, "_write_files", full)
    monkeypatch.setattr(sys, "stdout", Full())
    line = [
        "PI_MNIST",
        "FLP",
        "--data",
        str(sample),
        "--sample",
        "--out",
        str(tmp_path),
        "--stop-after",
        "1",
    ]
    with small_pi_mnist():
        assert main.main(line) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and os.strerror(errno.EDQUOT) in err and "checkpoint.npz" in err
    assert not ignored


def test_no_thread_is_left_behind(tmp_path):
    threads = threading.active_count()
    run, trainer = small_run(tmp_path / "run", svhn("DFXP", epochs=2))
    with pytest.raises(Stopped):
        list(follow(run, trainer, 2, StopAfter(5)))
    assert threading.active_count() == threads
    run, trainer = small_run(tmp_path / "run", svhn("DFXP", epochs=2))
    broken, whole = trainer.feed.examples, trainer.feed.examples.read

    class Broken:
        n_features = broken.n_features

        def __len__(self):
            return len(broken)

        def read(self, start, stop):
            if stop > 24:
                raise DataError("the disk is gone")
            return whole(start, stop)

    trainer.feed.examples = Broken()
    with pytest.raises(DataError, match="the disk is gone"):
        list(follow(run, trainer, 2))
    assert threading.active_count() == threads


# ----------------------------------------------------------------------------------- command lines

NUMBERS = (
    ("-64", "0", "5", "64"),
    ("1", "9", "31"),
    ("2", "11", "+31"),
    ("1", "100", "1000000000"),
    ("0", "1e-4", "0.0001", "1", ".5"),
    ("0", "2", "1000000"),
)
BAD_NUMBERS = (
    ("-65", "5.0", "x", "", "99999999999999999999"),
    ("0", "32", "-1", "9 "),
    ("0", "32", "nine", "١"),
    ("0", "1e2", "-100"),
    ("1.1", "-0.1", "nan", "inf", "1e", "1_0"),
    ("-1", "2.5", "1000001"),
)
OPTIONS = (
    ("--epochs", "3"),
    ("--stop-after", "0"),
    ("--seed", "7"),
    ("--device", "cpu"),
    ("--streams", "published"),
    ("--sample",),
    ("--deterministic",),
    ("--data=there",),
    ("--out", "here"),
)
BAD_OPTIONS = (
    ("--epochs", "0"),
    ("--epochs", "x"),
    ("--stop-after", "-1"),
    ("--seed", "-1"),
    ("--seed", "4294967296"),
    ("--device", "tpu"),
    ("--streams", ""),
    ("--out="),
    ("--data="),
    ("--nonsense",),
    ("--sample=1",),
    ("--seed",),
    ("-x",),
    ("--epoch", "3"),
    ("--resume", "--out", "missing"),
)


def command_line(rng, bad):
    """A command line, bad in at least one way or in none."""
    number_format = rng.choice(["FLP", "HFLP", "FXP", "DFXP"])
    words = [rng.choice(list(TASKS)), number_format]
    needed = FORMAT_ARGUMENTS[number_format].needs
    words += [rng.choice(NUMBERS[i]) for i in range(needed)]
    options = [list(o) for o in rng.sample(OPTIONS, rng.randrange(4))]
    if bad:
        kind = rng.choice(["task", "format", "number", "missing", "option", "many"])
        if kind == "task":
            words[0] = rng.choice(["", "pi_mnist", "MNIST ", "CIFAR", "\0", "é" * 300])
        elif kind == "format":
            words[1] = rng.choice(["", "flp", "FLOAT", "D"])
        elif kind == "many":
            words += ["7"] * (9 - len(words))
        elif kind == "option" or not needed:
            option = rng.choice(BAD_OPTIONS)
            options.append([option] if isinstance(option, str) else list(option))
        elif kind == "number":
            k = rng.randrange(needed)
            words[2 + k] = rng.choice(BAD_NUMBERS[k])
        else:
            del words[rng.randrange(2, len(words)) :]
    if options and options[-1] == ["--seed"]:
        return words + [w for option in options for w in option]
    rng.shuffle(options)
    at = rng.randrange(len(words) + 1)
    return words[:at] + [w for option in options for w in option] + words[at:]


def test_fuzzed_command_lines(tmp_path, monkeypatch, capsys):
    """2,000: good ones get to training, bad ones to one line and status 2, and leave nothing."""
    trained = []
    monkeypatch.setattr(main, "train", lambda a, *_: trained.append(a.settings))
    monkeypatch.setattr(main, "print_result", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    rng = random.Random(4)
    for i in range(2000):
        bad = i % 4 != 0
        line = command_line(rng, bad)
        trained.clear()
        try:
            status = main.main(line)
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        assert status == (2 if bad else 0) and len(trained) == (not bad), line
        if bad:
            assert (
                out == ""
                and err.startswith("main.py: ")
                and err.rstrip("\n").count("\n") <= err.count("ignores")
            ), line
        else:
            assert trained[0].task in TASKS
        assert list(tmp_path.iterdir()) == [], line


def test_fuzzed_command_lines_as_the_user_has_them(tmp_path, program):
    rng, lines = random.Random(6), []
    while len(lines) < 50:
        line = command_line(rng, True)
        lines += [line] if not any("\0" in word for word in line) else []
    for line in lines:
        done = program(*line, cwd=tmp_path)
        assert done.returncode == 2 and done.stdout == "", line
        assert (
            all(text.startswith("main.py: ") for text in done.stderr.splitlines()) and done.stderr
        ), line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"epochs": 1e999}', '{"data": [[1, 1], ["a", 2]]}', '{"versions": null}'],
)
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_odd_json_is_one_line_or_nothing(name, text, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / name
    if name == "config.json" and not text.startswith("["):
        text = json.dumps(json.loads(path.read_text()) | json.loads(text))
    path.write_text(text + "\n")
    try:
        run = RunFolder(tmp_path / "run")
        run.check_settings(beginner().settings)
        run.check_data({})
        machine.difference(run.config(), machine.environment("cpu: cpu"))
        if run.finished() is None:
            list(follow(run, beginner(), 3))
        assert_same_run(finished, tmp_path / "run")
    except RunError as error:
        assert "config.json" in str(error) and name == "config.json"


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "OTHER"},
        {"prop_bits": 99},
        {"prop_bits": "9"},
        {"seed": -1},
        {"streams": "x"},
        {"epochs": 0},
        {"more": 1},
        {"max_overflow": float("nan")},
        {"format": "FOO"},
        {"initial_range": True},
        {"epochs": 7},
    ],
)
def test_a_config_from_others_is_checked(changes, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    path = Path(tmp_path / "run" / "config.json")
    config = json.loads(path.read_text())
    config["settings"] |= {"task": "PI_MNIST"} | changes
    path.write_text(json.dumps(config))
    assert main.main(["--resume", "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "config.json" in err and err.count("\n") == 1
