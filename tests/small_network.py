"""PI_MNIST as a small network, for tests in which its size does not matter."""

import contextlib
import functools

import pytest

import model

SIZE = {"units": 16, "pieces": 2}
# The same for python -c, before the program is imported.
CODE = (
    "import functools, model; "
    f"model.NETWORKS['PI_MNIST'] = functools.partial(model.pi_mnist, **{SIZE}); "
)


@contextlib.contextmanager
def small_pi_mnist():
    """Within it, trainers of PI_MNIST have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model.NETWORKS, "PI_MNIST", functools.partial(model.pi_mnist, **SIZE))
        yield
