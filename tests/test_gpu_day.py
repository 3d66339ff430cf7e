"""utilities/gpu_day.py: what `make gpu` does, with steps that take no time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datasets import mnist
from datasets.source import OFFLINE
from errors import DataError
from utilities import gpu_day
from utilities.gpu_day import Step, steps

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def day(monkeypatch):
    """day(*steps): these are the day's; each notes that it was taken."""
    monkeypatch.setattr(gpu_day, "device_found", lambda name: f"{name}: a device")

    def choose(*chosen):
        monkeypatch.setattr(gpu_day, "steps", lambda a: list(chosen))

    return choose


def note(name, out, then="", **options):
    code = f"print('step {name}'); open({str(out / 'taken')!r}, 'a').write({name!r}); {then}"
    return Step(name, ["-c", code], **options)


def test_what_is_done_is_not_done_again(day, tmp_path, capfd):
    failing = f"import pathlib, sys; sys.exit(pathlib.Path({str(tmp_path / 'no')!r}).exists())"
    day(
        note("a", tmp_path),
        note("b", tmp_path, failing),
        note("c", tmp_path, repeats=True),
    )
    (tmp_path / "no").touch()
    words = ["--out", str(tmp_path / "day")]
    taken = tmp_path / "taken"
    assert gpu_day.main(words) == 1
    assert taken.read_text() == "abc"  # what fails keeps nothing from being done
    out, err = capfd.readouterr()
    assert "step a" in out and err == "gpu_day: not everything went well: b\n"
    (tmp_path / "no").unlink()
    assert gpu_day.main(words) == 0
    assert taken.read_text() == "abcbc"
    assert gpu_day.main([*words, "--again"]) == 0
    assert taken.read_text() == "abcbcabc"


def test_the_report(day, tmp_path):
    table = tmp_path / "table.md"
    show = note("shown", tmp_path, f"open({str(table)!r}, 'w').write('| a table |')", shown=table)
    day(show, note("printed", tmp_path, "raise SystemExit(3)"))
    assert gpu_day.main(["--out", str(tmp_path / "day")]) == 1
    report = (tmp_path / "day" / "report.md").read_text()
    assert report.startswith("# gpu: a device\n")
    assert "\n| a table |\n" in report and "\n    step printed\n" in report
    assert "\n    step shown\n" not in report
    assert "| shown | done |" in report and "| printed | exit status 3 |" in report
    assert (tmp_path / "day" / "shown.txt").read_text() == "step shown\n"


def test_another_device_has_another_folder(day, tmp_path, monkeypatch, capsys):
    day(note("a", tmp_path))
    words = ["--out", str(tmp_path / "day")]
    assert gpu_day.main(words) == 0
    assert gpu_day.main([*words, "--device", "cpu"]) == 2
    assert "another --out" in capsys.readouterr().err
    (tmp_path / "day" / "steps.json").write_text("{")
    assert gpu_day.main(words) == 2


def test_nothing_is_downloaded(day, tmp_path, monkeypatch):
    report = str(tmp_path / "day" / "report.md")  # it is there from the first
    code = f"import os; assert os.environ[{OFFLINE!r}] and os.path.exists({report!r})"
    day(note("a", tmp_path, code))
    assert gpu_day.main(["--out", str(tmp_path / "day")]) == 0
    monkeypatch.setenv(OFFLINE, "1")
    monkeypatch.setattr("datasets.source.reachable", lambda *a: pytest.fail("the network"))
    with pytest.raises(DataError, match="no download was tried"):
        mnist.load(tmp_path / "none")


def test_the_steps_are_programs_with_these_options(tmp_path):
    """Each starts, as far as its own help."""
    a = gpu_day.parser().parse_args(
        ["--out", str(tmp_path), "--sample", "--data", str(tmp_path), "--scale", "small"]
    )
    taken = steps(a)
    assert [step.name for step in taken][:2] == ["tests", "benchmark_PI_MNIST"]
    assert taken[-1].name == "table_SVHN"
    assert (ROOT / taken[0].words[-1]).exists()
    from utilities import benchmark, reproduce

    for step in taken[1:]:
        main = {"utilities.benchmark": benchmark, "utilities.reproduce": reproduce}[
            step.words[1]
        ].main
        with pytest.raises(SystemExit) as end:
            main([*step.words[2:], "--help"])
        assert end.value.code == 0


def test_a_signal_ends_the_step_too(tmp_path):
    """It may have something to keep."""
    ended = tmp_path / "ended"
    step = (
        "import signal, sys, time, pathlib\n"
        f"end = lambda *a: (pathlib.Path({str(ended)!r}).touch(), sys.exit(0))\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    code = (
        "import sys; from utilities import gpu_day\n"
        "gpu_day.device_found = lambda name: 'a device'\n"
        f"gpu_day.steps = lambda a: [gpu_day.Step('long', ['-c', {step!r}])]\n"
        f"sys.exit(gpu_day.main(['--out', {str(tmp_path / 'day')!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.stdout.readline() != "ready\n":
        pass
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert ended.exists()
    assert process.stderr.read() == "gpu_day: interrupted; the same command goes on\n"
    process.stdout.close()
    process.stderr.close()
