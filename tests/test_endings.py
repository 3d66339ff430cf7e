"""How every program ends: streams that are closed, full or unread, signals, lack of memory."""

import contextlib
import errno
import gc
import importlib
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from endings import status_of
from fake_runs import DFXP, fake_run

import ending
import main
import terminal
from errors import DataError, Diverged, ProgramError, RunError, SettingsError, Stopped
from signals import Signals
from utilities import sweep

PROGRAMS = {
    "main.py": "main.py",
    **{
        name: f"-m utilities.{name}"
        for name in (
            "benchmark",
            "cifar10_preprocessing",
            "demo",
            "evaluate",
            "export",
            "figures",
            "formats_figure",
            "gpu_day",
            "replay_trace",
            "report",
            "reproduce",
            "results",
            "sample_data",
            "svhn_preprocessing",
            "sweep",
        )
    },
}


def shell(line, **environment):
    """A line of bash in the root: `$PYTHON` is this Python."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=ROOT,
        env=os.environ | {"PYTHON": shlex.quote(sys.executable)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_help_that_cannot_be_written(program):
    """Also when it is started as a file, by a Python that looks for no modules beside that."""
    file = program if program == "main.py" else f"utilities/{program}.py"
    status, _, err = shell(f"cd tests && $PYTHON ../{file} -h > /dev/full", PYTHONSAFEPATH="1")
    assert status == 1 and err.count("\n") == 1 and os.strerror(errno.ENOSPC) in err, err


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_bad_argument_without_streams(program):
    """None of the three is open: only the status is left to tell."""
    status, out, err = shell(f"$PYTHON {PROGRAMS[program]} --nonsense <&- >&- 2>&-")
    assert (status, out, err) == (2, "", "")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs in folders whose names are not ASCII."""
    folder = tmp_path_factory.mktemp("läufe")
    fake_run(folder / "flp", 2.0)
    fake_run(folder / "dfxp", 2.0, **DFXP)
    (folder / "empty").mkdir()
    return folder


def test_tables_in_every_stream(runs):
    results = f"$PYTHON -m utilities.results {shlex.quote(str(runs))}"
    for line, expected, lines in (
        (f"{results} | true", 1, 1),
        (f"{results} > /dev/full", 1, 1),
        (f"{results} >&- 2>&- <&-", 0, 0),
        (f"{results} 2>&- | cat", 0, 0),
        (f"LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {results}/none", 2, 1),
        (f"PYTHONIOENCODING=ascii {results}", 0, 0),
    ):
        status, _, err = shell(line)
        assert status == expected and err.count("\n") == lines, (line, err)


def test_a_picture_is_whole_though_nothing_can_be_said(runs, tmp_path):
    """And whatever the backend of a notebook is, and though there is no home for its fonts."""
    words = f"curves {shlex.quote(str(runs))}/flp -o {tmp_path}/c.png"
    backend = "module://matplotlib_inline.backend_inline"
    line = f"$PYTHON -m utilities.figures {words} | true"
    status, _, err = shell(line, MPLBACKEND=backend, HOME="/dev/null", XDG_CACHE_HOME="")
    assert status == 1 and err == "figures: nobody reads the output any more\n"
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_integers_that_nobody_reads(tmp_path):
    status, _, err = shell(f"$PYTHON -m utilities.integer_network {tmp_path}/none > /dev/full")
    assert status == 2 and err.count("\n") == 1


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"])
@pytest.mark.parametrize("program", ["main.py", "utilities.sweep", "utilities.evaluate"])
def test_a_signal_while_modules_are_imported(program, name, tmp_path):
    """A module that takes long to import sends it."""
    if name == "SIGHUP" and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        pytest.skip("nohup runs the tests")
    (tmp_path / "argparse.py").write_text(
        f"import os, signal, time\nos.kill(os.getpid(), signal.{name})\ntime.sleep(60)\n"
    )
    words = [str(ROOT / "main.py")] if program == "main.py" else ["-m", program]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (128 + getattr(signal, name), "")


def kill(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_signals_that_may_come_twice_for_one_reason_end_nothing_at_once(number):
    usual = signal.signal(number, signal.SIG_DFL)
    try:
        with Signals() as signals:
            kill(number)
            kill(number)
            kill(signal.SIGTERM)  # os._exit, were it the second of those that insist
            assert signals.received == number
            with pytest.raises(Stopped):
                signals.check()
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, usual)


def test_what_nohup_ignores_stays_ignored():
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            kill(signal.SIGHUP)
            assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, usual)


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (RunError("no run"), 2, "no run"),
        (Diverged("NaN"), 1, "NaN"),
        (MemoryError(), 1, "not enough memory (MemoryError)"),
        (RuntimeError("can't start new thread"), 1, "not enough memory, or too many threads"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "nobody reads the output any more"),
        (OSError(errno.EIO, "Input/output error"), 1, "(the output cannot be written)"),
        (OSError(errno.ENOSPC, "No space left", "a"), 1, "No space left: a"),
        (OSError(errno.EROFS, "Read-only", "a/b"), 2, "Read-only: a/b"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x/.a.npz.partial"), 2, ": x/a.npz"),
        (OSError(errno.ENOSPC, "No space left", "x/.out.partial/w.npz"), 1, ": x/out/w.npz"),
        (ImportError("no module"), 1, "install requirements.txt"),
        (Stopped(signal.SIGHUP), 129, "interrupted; kept"),
        (KeyboardInterrupt(), 130, "interrupted; kept"),
    ],
)
def test_an_end_is_one_line_and_a_status(error, status, expected, capsys):
    @ending.program("name", kept="kept")
    def failing(words):
        raise error

    assert failing([]) == status
    err = capsys.readouterr().err
    assert err.startswith("name: ") and expected in err and err.count("\n") == 1


def test_a_setting_of_jax_that_it_cannot_read(sample, tmp_path):
    words = f"PI_MNIST FLP --sample --data {sample} --out {tmp_path}/run"
    status, _, err = shell(f"$PYTHON main.py {words}", JAX_DEBUG_NANS="maybe")
    assert status == 2 and err.count("\n") == 1 and "unset that variable" in err


@pytest.mark.parametrize(
    "given, taken",
    [("4,2", "4"), ("3", "3"), (" 2 ,1", "2"), ("", ""), ("all", None), ("x,1", None)],
)
def test_openmp_may_have_a_list_of_threads(given, taken, monkeypatch):
    """As clusters set it; PyTensor, which computes nothing here, takes only a number."""
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    seen = []
    assert ending.program("name")(lambda words: seen.append(os.environ.copy()) or 0)([]) == 0
    assert seen[0].get("OMP_NUM_THREADS") == taken


def test_windows_is_refused_in_one_line():
    windows = "import sys; sys.platform = 'win32'; import ending; ending.watch()"
    status, out, err = shell(f'$PYTHON -c "{windows}"')
    assert status == 2 and out == "" and err.count("\n") == 1 and "WSL" in err


FILES = {name: name if name == "main.py" else f"utilities/{name}.py" for name in PROGRAMS}


@pytest.mark.parametrize("file", FILES.values())
def test_a_python_without_packages_is_one_line(file, tmp_path):
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(\"No module named 'numpy'\")")
    status, out, err = shell(f"$PYTHON {file} -h", PYTHONPATH=str(tmp_path))
    if file != "utilities/benchmark.py":  # which needs none for its help
        assert status == 1 and out == "" and "install requirements.txt" in err
        assert err.count("\n") == 1


def test_an_older_python_is_refused_in_one_line():
    """One without the flag that came with 3.11."""
    older = (
        "import sys; names = [n for n in dir(sys.flags) if n[0] != '_' and n != 'safe_path']; "
        "sys.flags = type('Flags', (), {n: getattr(sys.flags, n) for n in names}); import ending"
    )
    status, out, err = shell(f'$PYTHON -c "{older}"')
    assert status == 1 and out == "" and err.count("\n") == 1 and "needs Python 3.11" in err


def test_a_mistake_in_a_program_is_none_of_these_ends():
    @ending.program("name")
    def mistaken(words):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        mistaken([])


@pytest.mark.parametrize("program", ["main.py", "utilities.sweep", "utilities.replay_trace"])
def test_too_small_an_address_space_is_one_line(program, sample):
    words = "PI_MNIST FLP --sample --data {0} --out {0}/never --stop-after 0"
    if program == "utilities.replay_trace":
        words = "tests/reference/PI4warm_FXPmixed_9_11.npz"
    start = program if program == "main.py" else f"-m {program}"
    for limit in (1_000_000, 1_400_000):
        line = f"ulimit -v {limit}; $PYTHON {start} {words.format(shlex.quote(str(sample)))}"
        status, _, err = shell(line)
        assert status == 1 and err.count("\n") == 1 and "ulimit -v" in err, err


# -------------------------------------------------------------------------------- paths


def test_paths_are_what_their_words_stand_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", "here")
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a$b").mkdir()
    assert terminal.path("~/x") == tmp_path / "x"
    assert str(terminal.path("$PLACE/${PLACE}")) == "here/here"
    assert str(terminal.path("a$b")) == "a$b"
    for bad in ("", "$NOWHERE/x", "~nobody-of-that-name/x", "a\0b"):
        with pytest.raises(SettingsError):
            terminal.expanded(bad)
    monkeypatch.setenv("PYLEARN2_DATA_PATH", "~/data")
    assert terminal.data_folder(None, sample=False) == tmp_path / "data"
    assert status_of(main.main, ["PI_MNIST", "FLP", "--out", "$NOWHERE/x"]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"a$b"}


@pytest.mark.parametrize(
    "target, said", [("gone", "a link to gone, which is not there"), ("link", "Too many levels")]
)
def test_a_link_that_leads_nowhere_is_named(target, said, tmp_path, monkeypatch, capsys):
    """As to a disk that is not mounted: what is said is not that a file exists."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(target)
    run, here = ["PI_MNIST", "FLP", "--sample", "--epochs", "1"], ["--out", "here"]
    for program, words in (
        (main, [*run, "--out", "link"]),
        (main, [*run, "--out", "link/run"]),
        (main, [*run, *here, "--data", "link"]),
        (main, ["PI_MNIST", "FLP", "--data-set", "link", *here]),
        (sweep, [*run, "--out", "link/runs"]),
        (sweep, [*run, "--out", "link"]),
    ):
        assert status_of(program.main, words) == 2, words
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1, (words, err)


@pytest.mark.parametrize("name", ["evaluate", "export"])
def test_nothing_is_made_in_a_data_folder_that_is_not_there(name, tmp_path):
    program = importlib.import_module(f"utilities.{name}")
    with pytest.raises(DataError, match="is not there"):
        program.terminal.existing_data_folder(tmp_path / "typo", True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [None, ImportError, KeyError])
@pytest.mark.parametrize("new", [True, False])
def test_the_collector_rests_while_packages_are_imported(new, error, monkeypatch):
    """It forgets what is there once something has been imported, and only then."""
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    with contextlib.suppress(ProgramError, KeyError), ending.importing():
        assert not gc.isenabled()
        if new:
            monkeypatch.setitem(sys.modules, "a new package", None)
        if error:
            raise error
    assert gc.isenabled()
    assert (gc.get_freeze_count() > frozen) == (new and error is None)
    gc.unfreeze()
