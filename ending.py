"""How programs end, whatever ends them: one line at most on stderr, and the exit status.

    0         done
    1         the machine failed: no memory, a full disk, an output that cannot be written
    2         what the user gave cannot be used
    128 + n   signal n

Imported before anything that takes long, so that `watch` guards the other imports, too.
"""

import sys

if not hasattr(sys.flags, "safe_path"):  # what follows cannot be loaded there
    sys.exit(f"{sys.argv[0]}: it needs Python 3.11 or newer, and this is {sys.version.split()[0]}")

import contextlib
import functools
import gc
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from errors import (
    MissingPackage,
    ProgramError,
    SettingsError,
    Stopped,
    TooLittleMemory,
    printable,
)
from paths import NO_HOME, USERS, reason
from signals import Signals, end_at_once, heard

LEAST_ADDRESSES = 1.75 * 2**30  # bytes; with 1.6e9 PI_MNIST aborted on two cores
INSTALL = "install requirements.txt, with enough memory"

Main = Callable[[list[str] | None], int]


def say(name: str, message: object) -> None:
    """One line on stderr, if anything can be written there."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"{name}: {printable(message)}", file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------- imports


def check_address_space() -> None:
    """Before anything of XLA's is loaded: with less it aborts, or tries for ever.

    TooLittleMemory if the process is limited to less (ulimit -v).
    """
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESSES:
        raise TooLittleMemory(
            f"the address space is limited to {limit / 2**30:.2f} GiB, at least "
            f"{LEAST_ADDRESSES / 2**30:g} GiB are needed; raise the limit (ulimit -v)"
        )


@contextlib.contextmanager
def importing(xla: bool = False) -> Iterator[None]:
    """Around imports that take long: a signal waits, since an exception in the midst of one may
    crash C code. What they make stays, so the garbage collector need not look for it: not
    now, and not whenever a program is traced.

    Parameters
    ----------
    xla
        They load XLA.

    Raises
    ------
    MissingPackage
        Something is not installed, or there is no memory to load it.
    TooLittleMemory
    Stopped
    """
    if xla:
        check_address_space()
    collects = gc.isenabled()
    loaded = len(sys.modules)
    with Signals() as signals:
        gc.disable()
        try:
            yield
            if len(sys.modules) > loaded:
                gc.freeze()
        except ImportError as error:
            raise MissingPackage(f"{error}; {INSTALL}") from None
        except ValueError as error:  # JAX's of a variable of the environment
            raise SettingsError(f"{error}; unset that variable") from None
        finally:
            if collects:
                gc.enable()
    signals.check()


def give_a_home() -> None:
    """Where there is no home, as of a user that the system does not know, one that never is.

    PyTensor looks for its settings there, and cannot be loaded without.
    """
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = NO_HOME


def make_threads_a_number() -> None:
    """Of OpenMP's list of them, a number for each level, the first; nothing of what is none.

    PyTensor cannot be loaded with anything but a number in OMP_NUM_THREADS.
    """
    text = os.environ.get("OMP_NUM_THREADS", "")
    if number := re.match(r"\s*([0-9]+)\s*(,|$)", text):
        os.environ["OMP_NUM_THREADS"] = number[1]
    elif text:
        del os.environ["OMP_NUM_THREADS"]


# ------------------------------------------------------------------------------ streams


def open_streams() -> None:
    """Give closed streams /dev/null, and let those of few letters take any text.

    The next file that is opened would else take the number of a closed one, and C libraries
    write their messages there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, open(descriptor, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a test's
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _silence(stream: Any) -> None:
    """Nothing more goes there, not even at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _flushed(name: str, status: int) -> int:
    """The exit status once everything is printed: 1 for 0 if it cannot be."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _silence(sys.stdout)
        if not status:
            message, status = failure(error) or ("", 1)
            say(name, message)
    try:
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)
    return status


# --------------------------------------------------------------------------------- ends


def failure(error: BaseException) -> tuple[str, int] | None:
    """(what is said of it, exit status); None of a mistake in the program."""
    if isinstance(error, ProgramError):
        return str(error), error.status
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({str(error) or type(error).__name__})", 1
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return f"there is not enough memory, or too many threads ({error})", 1
    if isinstance(error, ImportError):
        return f"{error}; {INSTALL}", 1
    if not isinstance(error, OSError):
        return None
    what = reason(error)
    if where := real_name(error):
        return f"{what}: {where}", 2 if error.errno in USERS else 1
    if isinstance(error, BrokenPipeError):
        return "nobody reads the output any more", 1
    return f"{what} (the output cannot be written)", 1


def real_name(error: OSError) -> str:
    """The file that an error is about, "" if none: not the temporary one that is to become it."""
    given = error.filename2 or error.filename
    name = os.fsdecode(given) if isinstance(given, (str, bytes, os.PathLike)) else ""
    if os.path.isdir(name):
        return name
    return re.sub(r"(^|/)\.([^/]+)\.partial(?=/|$)", r"\1\2", name)


def program(name: str, kept: str = "") -> Callable[[Callable[[list[str]], int]], Main]:
    """The function `main` of a program, which then ends with a line and a status.

    Parameters
    ----------
    name
        What its lines begin with.
    kept
        What there is when it was interrupted.
    """

    def ended(main: Callable[[list[str]], int], words: list[str]) -> int:
        with Signals() as signals:
            try:
                with signals.at_once():
                    return main(words)
            except (Stopped, KeyboardInterrupt) as error:
                say(name, f"interrupted; {kept}" if kept else "interrupted")
                number = error.args[0] if error.args else signals.received
                return 128 + (number or signal.SIGINT)
            except Exception as error:
                if (said := failure(error)) is None:
                    raise
                say(name, said[0])
                return said[1]

    def decorate(main: Callable[[list[str]], int]) -> Main:
        @functools.wraps(main)
        def whole(arguments: list[str] | None = None) -> int:
            open_streams()
            give_a_home()
            make_threads_a_number()
            try:
                status = ended(main, sys.argv[1:] if arguments is None else arguments)
            except SystemExit as stop:  # the parser's
                raise SystemExit(_flushed(name, int(stop.code or 0))) from None
            return _flushed(name, status)

        return whole

    return decorate


def watch() -> None:
    """While the modules of a program are imported a signal has nothing to lose, nor to tell.

    On Windows that is the end: it has no locks of this kind, and PyTensor and JAX no GPU there.
    """
    open_streams()
    give_a_home()
    make_threads_a_number()
    if sys.platform == "win32":
        say(Path(sys.argv[0]).name, "it runs on Linux and macOS; on Windows use it in WSL")
        os._exit(2)
    for number in heard():
        signal.signal(number, end_at_once)
    sys.excepthook = _not_loaded


def run(main: Main) -> NoReturn:
    """Run a program; `main` is what `program` gives."""
    sys.excepthook = sys.__excepthook__
    sys.unraisablehook = _unraisable
    status = main(None)
    if status > 128:
        os._exit(status)  # threads may be in the midst of something that takes long
    sys.exit(status)


def _not_loaded(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """One line instead of a traceback, of what the machine lacks."""
    if (said := failure(error)) is None:
        return sys.__excepthook__(kind, error, traceback)
    say(Path(sys.argv[0]).name, f"it cannot be loaded: {said[0]}")


def _unraisable(hooked: "sys.UnraisableHookArgs") -> None:
    """A stop that a callback of C code was about to swallow ends the process."""
    if not isinstance(hooked.exc_value, Stopped):
        return sys.__unraisablehook__(hooked)
    say(Path(sys.argv[0]).stem, "interrupted")
    end_at_once(*hooked.exc_value.args or (signal.SIGINT,))
