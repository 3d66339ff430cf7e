"""The parts of a training step, and which of them a kernel belongs to."""

from collections.abc import Collection, Mapping

Shape = tuple[int, ...]

PRODUCTS = "matrix products"
UNFOLDING = "images unfolded"
POOLING = "pooling"
SIGNALS = "signals"
PARAMETERS = "parameters and updates"
NORMS = "column norms"
COUNTS = "overflow counts"
MASKS = "dropout masks"
BETWEEN = "between kernels"
PARTS = (PRODUCTS, UNFOLDING, POOLING, SIGNALS, PARAMETERS, NORMS, COUNTS, MASKS, BETWEEN)

# The scopes that name a part, as xla/ops.py and xla/masks.py give them.
SCOPES = {
    "Product": PRODUCTS,
    "Correlation": UNFOLDING,
    "CorrelationInputGradient": UNFOLDING,
    "CorrelationFilterGradient": UNFOLDING,
    "MaxPool": POOLING,
    "MaxUnpool": POOLING,
    "ColumnNorm": NORMS,
    "PartialCounts": COUNTS,
    "TotalCounts": COUNTS,
    "masks": MASKS,
}


def part_of(shape: Shape, path: str, parameters: Collection[Shape]) -> str:
    """The part that a kernel of a training step belongs to, by what it ends with.

    Parameters
    ----------
    shape, path
        See `xla.profiling.Kernel`.
    parameters
        The shapes of W and b. What has one of them and no part of its own belongs to them.
    """
    scopes = path.split("/")
    if scopes[-1] == "dot_general":
        return PRODUCTS
    named = [SCOPES[scope] for scope in scopes if scope in SCOPES]
    if named:
        return named[0]
    return PARAMETERS if shape in parameters else SIGNALS


def split(
    seconds: dict[str, float],
    kernels: Mapping[str, tuple[Shape, str]],
    parameters: Collection[Shape],
    elapsed: float,
) -> dict[str, float]:
    """The time of each part.

    Parameters
    ----------
    seconds
        How long each kernel ran, by name.
    kernels
        (shape, path) of each, by name.
    elapsed
        How long all of it took; what no kernel took is between them.
    """
    parts = dict.fromkeys(PARTS, 0.0)
    for name, spent in seconds.items():
        parts[part_of(*kernels[name], parameters)] += spent
    parts[BETWEEN] = elapsed - sum(parts.values())
    return parts
