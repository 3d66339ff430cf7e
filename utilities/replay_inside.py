"""What passes through the layers in a step of a replay, and the state after it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer import Gradients, Seen
from model import Network
from utilities.trace import STATE, Values
from xla.graphs import compiled
from xla.layout import batch_first, flat


def intermediates(seen: Seen, gradients: Gradients) -> dict[str, Any]:
    """What passed through a layer, by the names and in the shapes of the recorded traces."""
    named = {
        "fixed_W": seen.W,
        "fixed_b": seen.b,
        "fixed_x": flat(seen.x),
        "z": batch_first(seen.pre.before_z),
        "fixed_z": batch_first(seen.pre.z),
        "y": flat(seen.before_y),
        "fixed_y": flat(seen.y),
        "fixed_dEdy": batch_first(gradients.dEdy),
        "fixed_dEdz": batch_first(gradients.dEdz),
        "fixed_dEdW": gradients.dEdW,
        "fixed_dEdb": gradients.dEdb,
    }
    if seen.pre.u is not seen.pre.z:  # something lies between them
        named["u"] = batch_first(seen.pre.before_u)
        named["fixed_u"] = batch_first(seen.pre.u)
    return named


class Intermediates:
    """What happens inside a step, and the state after it, compiled with more outputs.

    It is a program of its own: where sums are rounded, theirs may be in another order than
    those of the training program.
    """

    def __init__(self, network: Network, batch_size: int) -> None:
        self.network = network
        self.batch_size = batch_size
        self.names: list[tuple[int, str]] = []
        self.function: Callable | None = None

    def of(self, state: Any, values: dict[str, Any], masks: list[np.ndarray]) -> Values:
        """All that passes through a batch, and its state after it; masks (B, layer inputs)."""
        if self.function is None:
            self.function = self._compiled()
        values = values | {f"mask{k}": mask.astype("float32") for k, mask in enumerate(masks)}
        computed = map(np.asarray, self.function(values, state))
        return dict(zip(self.names, computed, strict=True))

    def _compiled(self) -> Callable:
        inputs = self.network.training_inputs(self.batch_size)
        passes = self.network.passes(inputs)
        named = {
            (k, name): v
            for k, passed in enumerate(passes)
            for name, v in intermediates(*passed).items()
        }
        after = {str(v.name): new for v, new in self.network.updates(inputs, passes).items()}
        for k in range(len(passes)):
            named |= {(k, name): after[f"layer{k}/{name}"] for name in STATE}
        self.names = list(named)
        return compiled(inputs, self.network.state, list(named.values()))
