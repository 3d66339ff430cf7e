"""Everything that can be wrong, on one page.

An error is one line for the user: what is wrong and what to do. `status` is the exit status
of the program that it ends.

    ProgramError            2
        SettingsError       2   a number, a task or a format that cannot be
        FileError           2   a file that is damaged, or is something else
        DataError           2   data that cannot be used
            NotOurs         2   ... and are not to be replaced by what is made anew
        DownloadError       2   data that cannot be had
        RunError            2   a run folder that cannot be used
            RunInUse        2   ... because another process uses it
        DeviceMissing       2   a device that is not there
        MissingPackage      1   a package that is not installed, or cannot be loaded
        TooLittleMemory     1   ... for it, as far as is known beforehand
        TooLittleRoom       1   a disk that is full, or a limit on files
        Diverged            1   the weights became NaN or infinite
        DeviceFailed        1   a device that is out of memory, or gone
    Stopped                     not an error: somebody asked the run to end
"""

MOST = 600  # characters of a line; what is in a file can be as long as the file
LONGEST_PATH = 4096  # bytes on Linux


def printable(message: object, most: int = MOST) -> str:
    """One line that a terminal only shows: control characters escaped, the middle left out.

    What is wrong stands at the beginning of a message, what to do at its end.
    """
    text = str(message)
    if len(text) > 2 * most:  # not all of it needs to be looked at
        text = f"{text[:most]} ... {text[-most:]}"
    line = " ".join(text.splitlines())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    if len(line) <= most:
        return line
    return f"{line[: most * 2 // 3]} ... {line[-most // 3 :]}"


def printable_path(path: object) -> str:
    """A path that a program tells, in one line, as long as it is."""
    return printable(path, LONGEST_PATH)


class ProgramError(Exception):
    """One line that says what is wrong and what to do; `printable`."""

    status = 2

    def __init__(self, message: object) -> None:
        super().__init__(printable(message))


class SettingsError(ProgramError, ValueError):
    """A setting that no run can have."""


class FileError(ProgramError):
    """A file that cannot be read as what it should be."""


class DataError(ProgramError):
    """Data that cannot be used."""


class NotOurs(DataError):
    """Data in a file that is sound or somebody else's: nothing may take its place."""


class DownloadError(ProgramError):
    """A download that failed, or brought something else."""


class RunError(ProgramError):
    """A run folder that cannot be used."""

    @property
    def fact(self) -> str:
        """What is wrong, without the advice to somebody who wants to train in it."""
        what, _, advice = str(self).rpartition("; ")
        return what if "--out" in advice else str(self)


class RunInUse(RunError):
    """A run folder that another process uses."""


class DeviceMissing(ProgramError):
    """A device that JAX does not find."""


class MissingPackage(ProgramError):
    """A package that cannot be imported."""

    status = 1


class TooLittleMemory(ProgramError):
    """There is not the memory that is known to be needed."""

    status = 1


class TooLittleRoom(ProgramError):
    """A disk has no room for what is to be written, or a limit allows no such file."""

    status = 1


class Diverged(ProgramError):
    """The weights became NaN or infinite: there is nothing to learn from the epochs left."""

    status = 1


class DeviceFailed(ProgramError):
    """A device, or the host, that ran out of memory or went away while it computed."""

    status = 1


class Stopped(BaseException):
    """Somebody asked the run to end before its last epoch.

    As KeyboardInterrupt, no Exception: what is raised at any moment must not be taken for damage.
    """
