"""Paths as users write them, and where there is no home."""

import errno
import os
import re
import stat
from pathlib import Path

from errors import SettingsError

NO_HOME = os.devnull  # nobody can make a folder in it
# What a path was given for that it cannot serve; all other failures are the machine's.
USERS = (
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.EPERM,
    errno.EROFS,
)


def no_folder(path: str | Path) -> str:
    """What is to be said of a path that is no folder one can look at; "" if it is one."""
    try:
        return "" if stat.S_ISDIR(os.stat(path).st_mode) else "is no folder"
    except FileNotFoundError:
        if not os.path.islink(path):
            return "is not there"
        return f"is a link to {os.readlink(path)}, which is not there"
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"


def reason(error: OSError) -> str:
    """What an error says; of a folder that cannot be made since something is there, what."""
    if error.errno == errno.EEXIST and error.filename and (what := no_folder(error.filename)):
        return f"{error.filename} {what}"
    return error.strerror or str(error) or type(error).__name__


def expanded(text: str) -> Path:
    """The path that a user's words stand for: ~ and $VARIABLES by what they are here.

    A path with a $ that is there is taken as it is. SettingsError if it stands for none.
    """
    if not text:
        raise SettingsError("it is empty")
    if "\0" in text:
        raise SettingsError(f"{text!r} is no path")
    if "$" in text and not os.path.lexists(text):
        text = os.path.expandvars(text)
        if unset := re.search(r"\$(\w+|{\w+})", text):
            raise SettingsError(f"{text!r}: {unset[0]} is not set")
    home = os.path.expanduser(text)
    if text.startswith("~") and (home == text or Path(home).is_relative_to(NO_HOME)):
        raise SettingsError(f"{text!r}: there is no such home folder; ./~ is a folder of that name")
    return Path(home)
