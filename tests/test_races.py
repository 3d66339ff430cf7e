"""Two processes and one folder: one of them trains there, the other is refused with one line.

A lock is held against everybody who has opened its file anew, also in the same process: the
second process is played by a second call of main within the first.
"""

import functools
import json
import shutil

import pytest
from small_network import small_pi_mnist

import datasets
import main
import trainer
from errors import RunError
from records import folder as folders
from records import follow
from records.checkpoints import Checkpoints
from records.folder import RunFolder
from settings import Settings
from xla import device, program_cache

# Where a process may be stopped while another does all of its work: what main.py calls, in order.
MOMENTS = [
    (main, "open_run"),
    (datasets, "load"),
    (device, "select_device"),
    (RunFolder, "lock"),
    (RunFolder, "claim"),
    (trainer.Trainer, "__init__"),
    (device, "device_name"),
    (follow, "begin"),
    (folders, "write_json"),
    (Checkpoints, "restore"),
    (RunFolder, "write_records"),
    (RunFolder, "add"),
    (Checkpoints, "save"),
    (follow._Book, "close"),
]


@pytest.fixture(autouse=True, scope="module")
def small():
    with small_pi_mnist():
        yield


@pytest.fixture
def line(sample, tmp_path):
    """line(bits, *options): the command line of a small run with so many bits."""

    def words(bits, *options):
        where = f"--epochs 2 --data {sample} --sample --out {tmp_path / 'run'}"
        return ["PI_MNIST", "FXP", "5", str(bits), "19", *where.split(), *options]

    return words


def interrupt(monkeypatch, owner, name, others_work, before):
    """Let `others_work` be done once, before or after the first call of owner.name."""
    call = getattr(owner, name)
    left = [others_work]

    @functools.wraps(call)
    def stopped(*arguments, **options):
        if before and left:
            left.pop()()
        result = call(*arguments, **options)
        if left:
            left.pop()()
        return result

    monkeypatch.setattr(owner, name, stopped)


def settings_of(folder):
    return json.loads((folder / "config.json").read_text())["settings"]


CASES = [(*moment, True, "1") for moment in MOMENTS]
CASES += [(*moment, False, "2") for moment in MOMENTS[:1]]


@pytest.mark.parametrize(("owner", "name", "before", "stop"), CASES)
def test_one_of_two_processes_trains(
    owner, name, before, stop, line, tmp_path, monkeypatch, capsys
):
    """The other one ends its run, or its first epoch, while the first is stopped."""
    statuses = {}
    monkeypatch.setattr(program_cache.PROGRAMS, "folder", tmp_path.parent / "programs")

    def others_work():
        statuses[9] = main.main(line(9, "--stop-after", stop))

    interrupt(monkeypatch, owner, name, others_work, before)
    statuses[19] = main.main(line(19))
    assert sorted(statuses.values()) == [0, 2], statuses
    winner = next(bits for bits, status in statuses.items() if status == 0)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and ("is in use by" in err or "holds another run" in err), err
    run = RunFolder(tmp_path / "run")
    assert settings_of(run.folder)["prop_bits"] == winner
    assert run.records()[-1]["epoch"] == (2 if winner == 19 else int(stop))
    run.check_sums()


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("name", ["lock", "claim"])
@pytest.mark.parametrize("options", [[], ["--resume"]])
def test_a_run_that_is_replaced_before_it_is_locked(
    options, name, before, line, tmp_path, monkeypatch, capsys
):
    """It was there when the process began; then somebody removed it and made another."""
    assert main.main(line(19, "--stop-after", "1")) == 0
    done = []

    def others_work():
        shutil.rmtree(tmp_path / "run")
        done.append(main.main(line(9)))

    interrupt(monkeypatch, RunFolder, name, others_work, before)
    capsys.readouterr()
    assert main.main(line(19, *options)) == 2
    out, err = capsys.readouterr()
    assert done == [0] and err.count("\n") == 1
    assert settings_of(tmp_path / "run")["prop_bits"] == 9
    assert len(RunFolder(tmp_path / "run").records()) == 3
    RunFolder(tmp_path / "run").check_sums()


def test_a_run_that_is_removed_before_it_is_resumed(line, tmp_path, monkeypatch, capsys):
    assert main.main(line(19, "--stop-after", "1")) == 0
    capsys.readouterr()
    remove = functools.partial(shutil.rmtree, tmp_path / "run")
    interrupt(monkeypatch, main, "open_run", remove, before=False)
    assert main.main(["--resume", *line(19)[5:][2:]]) == 2
    err = capsys.readouterr().err
    assert "was removed meanwhile" in err and err.count("\n") == 1


def test_a_folder_that_gets_a_strangers_file_before_it_is_locked(
    line, tmp_path, monkeypatch, capsys
):
    def others_work():
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("precious")

    interrupt(monkeypatch, main, "open_run", others_work, before=False)
    assert main.main(line(19)) == 2
    assert "is not a run folder (thesis.tex is in the way)" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"thesis.tex", ".lock"}


@pytest.mark.parametrize(
    ("owner", "name", "before"),
    [(RunFolder, "add", False), (Checkpoints, "save", True), (follow._Book, "close", True)],
)
def test_a_folder_that_is_taken_while_it_is_trained_in(
    owner, name, before, line, tmp_path, monkeypatch, capsys
):
    """The process that lost it writes nothing into the other's run."""
    monkeypatch.setattr("records.follow.CHECKPOINT_SECONDS", 0)
    run = tmp_path / "run"
    kept = {}

    def others_work():
        run.rename(tmp_path / "elsewhere")
        assert main.main(line(9, "--stop-after", "1")) == 0
        kept.update({path.name: path.read_bytes() for path in run.iterdir()})

    interrupt(monkeypatch, owner, name, others_work, before)
    assert main.main(line(19)) == 2
    err = capsys.readouterr().err
    assert "was removed, or taken by another process" in err and err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in run.iterdir()} == kept


def test_a_sweep_does_not_take_another_run_either(sample, tmp_path):
    """Its folder was free when the sweep was planned."""
    from utilities.sweep_jobs import Options, plan
    from utilities.sweeping import Sweep

    own = Settings("PI_MNIST", "FXP", 5, 19, 19, epochs=1)
    options = Options(tmp_path, sample, sample=True)
    (job,) = jobs = plan([own], options)
    words = f"PI_MNIST FXP 5 9 19 --epochs 1 --data {sample} --sample --out {job.run.folder}"
    assert main.main(words.split()) == 0
    Sweep(jobs, options).train()
    assert job.status == "failed" and "prop_bits 9 there, 19 here" in job.why
    assert settings_of(job.run.folder)["prop_bits"] == 9
    with pytest.raises(RunError, match="holds another run"):
        plan([own], options)
