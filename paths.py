"""Paths as users write them, and where there is no home."""

import os
import re
from pathlib import Path

from errors import SettingsError

NO_HOME = os.devnull  # nobody can make a folder in it


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
