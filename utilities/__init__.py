"""Programs: python -m utilities.NAME -h."""

import sys

import ending

if sys.argv[0] == "-m":  # as it is while `python -m` looks for one of them
    ending.watch()
