"""What a terminal shows while a run trains."""

import re
import sys

from small_network import small_pi_mnist

import bars
import main
from bars import Bar, Pace

WORDS = "PI_MNIST DFXP 5 9 11 10 0.0001 2 --sample --epochs 3".split()


class Terminal:
    """A stderr of 100 columns."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def shown(self):
        """What has stood on its line, one after the other."""
        return [line.strip() for line in re.split(r"[\r\n]", self.text) if line.strip()]


def on_terminal(monkeypatch):
    """What has the place of stderr from now on."""
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "24")
    return stderr


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_speed_is_known_from_the_first_batches_and_compiling_takes_no_time():
    clock = Clock()
    pace = Pace(clock)
    clock.now = 5  # what comes before the first batches tells nothing of the rest
    pace.look(0)
    with pace.apart():
        clock.now = 65
        assert pace.compiling == 60
    clock.now = 67
    pace.look(4)
    assert (pace.compiling, pace.speed, pace.left(10)) == (None, 2, 5)
    clock.now = 71  # an evaluation
    pace.look(0)
    assert pace.speed == 2 and pace.left(10) == 15


def test_what_is_compiled_is_said_with_its_seconds(monkeypatch):
    terminal = on_terminal(monkeypatch)
    clock = Clock()
    bar = Bar()
    bar.pace = Pace(clock)
    bar.open(10, 0, 100, "untrained network")
    with bar.compiling():
        clock.now = 78
        bar._show()
    bar.advance(5, "range initialisation 1 of 2, 50 %")
    bar.close()
    lines = terminal.shown()
    assert lines[0].startswith("untrained network ") and "images/s" not in lines[0]
    assert any(line.startswith("compiling, 78 s ") for line in lines)
    assert lines[-1].startswith("range initialisation 1 of 2, 50 % ") and "50 %," in lines[-1]
    assert re.search(r" left, [\d,]+ images/s$", lines[-1])


def test_a_bar_ticks_by_itself(monkeypatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(bars, "TICK", 0.001)
    bar = Bar()
    bar.open(10, 0, 100, "here")
    seen = len(terminal.shown())
    with bar.compiling():
        while len(terminal.shown()) < seen + 5:
            pass
    bar.close()


def test_the_epoch_is_shown_beside_the_run_and_a_resumed_run_says_so(
    sample, tmp_path, monkeypatch, capsys
):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # nothing is compiled yet
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    line = [*WORDS, "--data", str(sample), "--out", str(tmp_path / "run")]
    with small_pi_mnist():
        assert main.main([*line, "--stop-after", "1"]) == 0
        first = terminal.text
        terminal.text = ""
        assert "resuming" not in capsys.readouterr().out
        assert main.main(line) == 0
        assert capsys.readouterr().out.startswith("resuming after epoch 1\nepoch 2: ")
        assert main.main(line) == 0
        assert "resuming" not in capsys.readouterr().out  # it is finished
    for words in ("compiling, 0 s", "range initialisation 2 of 2, ", "epoch 1 of 1, "):
        assert words in first, words
    assert "epoch 0 " not in first
    assert "epoch 2 of 3, " in terminal.text and "epoch 3 of 3, testing" in terminal.text


def test_a_terminal_that_goes_away_ends_nothing(sample, tmp_path, monkeypatch):
    terminal = on_terminal(monkeypatch)

    def gone(text):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(terminal, "write", gone)
    line = [*WORDS[:-1], "1", "--data", str(sample), "--out", str(tmp_path / "run")]
    with small_pi_mnist():
        assert main.main(line) == 0
