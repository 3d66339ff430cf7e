"""PI_MNIST as a small network, for tests in which its size does not matter."""

import contextlib
import functools

import pytest

import model
from utilities import workers

SIZE = {"units": 16, "pieces": 2}
# The same for python -c, before the program is imported.
CODE = (
    "import functools, model; from utilities import workers; workers.automatic = lambda *_: 1; "
    f"model.NETWORKS['PI_MNIST'] = functools.partial(model.pi_mnist, **{SIZE}); "
)


@contextlib.contextmanager
def small_pi_mnist():
    """Within it, trainers of PI_MNIST in this process have it; sweeps begin no others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "automatic", lambda *told: 1)
        patch.setitem(model.NETWORKS, "PI_MNIST", functools.partial(model.pi_mnist, **SIZE))
        yield patch
