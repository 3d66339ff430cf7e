"""What several test modules share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """A data folder with the generated MNIST sample."""
    from utilities.sample_data import ensure_sample

    folder = tmp_path_factory.mktemp("sample")
    ensure_sample(folder, ["mnist"])
    return folder


@pytest.fixture(scope="session")
def program():
    """program(*arguments, cwd=...): main.py as a subprocess."""

    def run(*arguments, cwd, **options):
        command = [sys.executable, str(ROOT / "main.py"), *map(str, arguments)]
        environment = {k: v for k, v in os.environ.items() if k != "PYLEARN2_DATA_PATH"}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, **options)

    return run
