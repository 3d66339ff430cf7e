"""Programs, each run with python -m utilities.NAME."""
