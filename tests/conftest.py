"""What several test modules share."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from files import load_npz

# A shell starts what runs in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Two XLA programs on the same cores slow each other badly: each worker has its own.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
# Without a GPU, JAX's CUDA packages are nothing that programs need to mention.
if not Path("/dev/nvidiactl").exists() and os.environ.get("TEST_DEVICE") != "gpu":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
ROOT = Path(__file__).resolve().parent.parent
# main.py with a checkpoint after every segment, for python -c.
OFTEN = """
import sys
import main
from records import follow
follow.CHECKPOINT_SECONDS = 0
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True, scope="module")
def own_programs():
    """That main.py caches programs from now on, in this process, ends with the module."""
    from xla.program_cache import PROGRAMS

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PROGRAMS, "folder", None)
        yield


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """A data folder with the generated MNIST sample."""
    from datasets.sample import ensure_sample

    folder = tmp_path_factory.mktemp("sample")
    ensure_sample(folder, ["mnist"])
    return folder


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """A data folder with the generated sample of every data set; nothing is to be changed in it."""
    from datasets.sample import ensure_sample

    folder = tmp_path_factory.mktemp("generated")
    ensure_sample(folder)
    return folder


@pytest.fixture(scope="session")
def program():
    """program(*arguments, cwd=...): main.py as a subprocess."""

    def run(*arguments, cwd, **options):
        command = [sys.executable, str(ROOT / "main.py"), *map(str, arguments)]
        environment = {k: v for k, v in os.environ.items() if k != "PYLEARN2_DATA_PATH"}
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )

    return run


def assert_same_run(one, other):
    """Two run folders hold the same, but for times."""
    for name in ("final.npz", "best.npz", "checkpoint.npz"):
        a, b = load_npz(one / name), load_npz(other / name)
        assert a.keys() == b.keys()
        for with_times in ("facts", "sums"):  # the records are compared below
            a.pop(with_times, None)
        assert all(np.array_equal(a[key], b[key]) for key in a), name
    timeless = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("seconds", "images_per_second")}
            for line in (run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (one, other)
    ]
    assert timeless[0] == timeless[1]
