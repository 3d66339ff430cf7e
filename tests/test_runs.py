"""Run folders."""

import json

import numpy as np
import pytest

from runs import Run, RunError, Settings, default_name, load_npz, write_atomically

SETTINGS = Settings("PI_MNIST", "FXP", 5, 9, 11)


def test_names_are_made_of_the_arguments():
    plain = ["PI_MNIST", "FXP", "5", "9", "11"]
    assert default_name(SETTINGS, plain, False) == "PI_MNIST_FXP_5_9_11"
    other = Settings("PI_MNIST", "FXP", 5, 9, 11, epochs=3, seed=7, streams="published")
    assert default_name(other, plain, True) == "PI_MNIST_FXP_5_9_11_epochs3_seed7_published_sample"


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of the new")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"


def test_config_round_trip_and_comparison(tmp_path):
    run = Run(tmp_path / "run")
    run.lock()
    run.start(["main.py"], SETTINGS, 800, {"file": "md5"}, "cpu: cpu")
    again = Run(tmp_path / "run")
    again.check(SETTINGS)
    again.check_data({"file": "md5"})
    with pytest.raises(RunError, match="seed 1234 there, 5 here"):
        again.check(Settings("PI_MNIST", "FXP", 5, 9, 11, seed=5))
    with pytest.raises(RunError, match="other data"):
        again.check_data({"file": "another"})
    assert again.finished() is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": 3}', "\x00", '{"settings": {}, "data": {}}'])
def test_a_damaged_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json cannot be read"):
        Run(tmp_path).config()


def test_a_record_cut_short_is_not_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"epoch": 0}) + "\n" + '{"epoch": 1, "LR": 0.')
    assert Run(tmp_path).records() == [{"epoch": 0}]


def test_only_one_process_at_a_time(tmp_path):
    first = Run(tmp_path / "run")
    first.lock()
    with pytest.raises(RunError, match="in use"):
        Run(tmp_path / "run").lock()


def test_damaged_arrays_are_named_and_pickles_refused(tmp_path):
    path = tmp_path / "checkpoint.npz"
    np.savez(path, a=np.arange(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"checkpoint\.npz cannot be read"):
        load_npz(path)
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(RunError, match=r"checkpoint\.npz cannot be read"):
        load_npz(path)
