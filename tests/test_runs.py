"""Run folders."""

import json

import numpy as np
import pytest

from errors import FileError, RunError, RunInUse, Stopped
from files import load_npz, write_atomically
from records import machine
from records.folder import RunFolder
from settings import Settings

SETTINGS = Settings("PI_MNIST", "FXP", 5, 9, 11)


def test_runs_are_told_apart_by_what_counts():
    assert SETTINGS.words() == ["PI_MNIST", "FXP", "5", "9", "11"]
    assert Settings("MNIST", "FLP", 5, 9, 11).words() == ["MNIST", "FLP"]
    other = Settings(
        "SVHN", "DFXP", -5, 9, 11, 100, 0.0001, 2, epochs=3, seed=7, streams="published"
    )
    assert other.words() == [
        "SVHN",
        "DFXP",
        "-5",
        "9",
        "11",
        "100",
        "0.0001",
        "2",
        "epochs3",
        "seed7",
        "published",
    ]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of the new")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, write)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_config_round_trip_and_comparison(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.lock()
    run.start(["main.py"], SETTINGS, {"file": "md5"}, "cpu: cpu")
    again = RunFolder(tmp_path / "run")
    again.check_settings(SETTINGS)
    again.check_data({"file": "md5"})
    with pytest.raises(RunError, match="seed 1234 there, 5 here"):
        again.check_settings(Settings("PI_MNIST", "FXP", 5, 9, 11, seed=5))
    with pytest.raises(RunError, match="other data"):
        again.check_data({"file": "another"})
    assert again.finished() is None
    run.unlock()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"settings": 3}', "\x00", '{"settings": {}, "data": {}}']
)
def test_a_damaged_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json cannot be read"):
        RunFolder(tmp_path).config()


def test_a_record_cut_short_is_not_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    record = {
        "epoch": 0,
        "validation_error": 90.0,
        "test_error": 90.0,
        "best_epoch": 0,
        "best_validation_error": 90.0,
        "best_test_error": 90.0,
    }
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n" + '{"epoch": 1, "LR": 0.')
    assert RunFolder(tmp_path).records() == [record]


@pytest.mark.parametrize("damage", [b"{\n", b"[]\n", b"\xff\n", b'{"epoch": 0}\n'])
def test_damaged_records_are_named(tmp_path, damage):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_bytes(damage)
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged"):
        RunFolder(tmp_path).records()


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": 10**400},
        {"seconds": "abc"},
        {"seconds": 10**400},
    ],
)
def test_records_of_other_kinds_are_damaged(tmp_path, change):
    errors = ("validation_error", "test_error", "best_validation_error", "best_test_error")
    record = {"epoch": 0, "best_epoch": 0, **dict.fromkeys(errors, 90.0)}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record | change) + "\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged"):
        RunFolder(tmp_path).records()


def test_only_one_process_at_a_time(tmp_path):
    first = RunFolder(tmp_path / "run")
    first.lock()
    with pytest.raises(RunInUse, match="in use"):
        RunFolder(tmp_path / "run").lock()
    first.unlock()
    second = RunFolder(tmp_path / "run")
    second.lock()
    second.unlock()


def test_damaged_arrays_are_named_and_pickles_refused(tmp_path):
    path = tmp_path / "checkpoint.npz"
    np.savez(path, a=np.arange(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"checkpoint\.npz cannot be read"):
        load_npz(path)
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(FileError, match=r"checkpoint\.npz cannot be read"):
        load_npz(path)


def test_the_machine_is_named(tmp_path, monkeypatch):
    here = machine.environment("cpu: cpu")["machine"]
    assert here["processor"] and here["cores"] >= 1 and here["memory_gib"] > 0
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 550.54.15'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    expected = {"name": "NVIDIA H100", "memory": "81559 MiB", "driver": "550.54.15"}
    assert machine.environment("gpu: NVIDIA H100")["machine"]["gpus"] == [expected]
    fake.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == []


def test_another_machine_is_told():
    here = machine.environment("cpu: cpu")
    assert machine.difference(here, here) == ""
    old = {name: value for name, value in here.items() if name != "machine"}
    assert machine.difference(old, here) == ""
    there = here | {"machine": here["machine"] | {"cores": 99}}
    assert machine.difference(there, here) == ""  # it does not matter who has computed nothing
    there = here | {"machine": here["machine"] | {"threads": 99}}
    words = f"threads 99 then, {here['machine']['threads']} now"
    assert machine.difference(there, here) == words
    del there["machine"]["threads"]  # as it was before it could be chosen
    assert machine.difference(there, here) == ""
    there["machine"]["cores"] = 99
    assert machine.difference(there, here) == words


def test_flags_of_xla_are_told(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    before = machine.environment("cpu: cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    here = machine.environment("cpu: cpu")
    assert "xla_flags None then, --xla_cpu_enable_fast" in machine.difference(before, here)
    assert machine.difference(here, here) == ""


def test_a_stop_while_a_file_is_read_is_no_damage(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", a=np.arange(3))

    def stop(*arguments):
        raise Stopped

    monkeypatch.setattr(np, "frombuffer", stop)
    with pytest.raises(Stopped):
        load_npz(tmp_path / "a.npz")


def test_a_checkpoint_that_lost_its_name_is_still_kept(tmp_path):
    """A second renaming that failed: the one before is there, and is used."""
    run = RunFolder(tmp_path)
    assert "nothing was kept yet" in run.checkpoints.what_is_kept()
    run.checkpoints.previous_path.touch()
    assert "the same command resumes from it" in run.checkpoints.what_is_kept()
