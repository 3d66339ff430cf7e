"""Whether arrays on the device are finite."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from xla.program_cache import Program


def _finite(arrays: list[jax.Array]) -> jax.Array:
    """Whether each is; one array, which is one transfer."""
    return jnp.stack([jnp.isfinite(v).all() for v in arrays])


FINITE = Program(_finite, lambda: ("finite",))  # to compile it takes a third of a second


def not_finite(state: Mapping[str, jax.Array], names: Iterable[str]) -> list[str]:
    """Those of the named state arrays that hold a NaN or an infinity."""
    names = sorted(names)
    good = np.asarray(FINITE([state[name] for name in names]))
    return [name for name, is_good in zip(names, good, strict=True) if not is_good]
