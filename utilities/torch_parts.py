"""What the PyTorch peer is made of: networks, values stored in few bits, where its time goes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Shape of an input; maps, pieces, filter side, padding, pooling window and the share of
# inputs that dropout leaves, of each convolution; units, pieces and that share, of each
# dense layer.
NETWORKS: dict[str, tuple[tuple[int, ...], list[tuple], list[tuple]]] = {
    "PI_MNIST": ((784,), [], [(240, 5, 0.8), (240, 5, 0.5), (10, 1, 0.5)]),
    "MNIST": (
        (1, 28, 28),
        [(48, 2, 8, 0, 4, 0.8), (48, 2, 8, 3, 4, 0.5), (24, 4, 5, 3, 2, 0.5)],
        [(10, 1, 0.5)],
    ),
    "CIFAR10": (
        (3, 32, 32),
        [(64, 2, 5, 2, 3, 0.8), (128, 2, 5, 2, 3, 0.5), (128, 2, 5, 2, 3, 0.5)],
        [(400, 5, 0.5), (10, 1, 0.5)],
    ),
}
NETWORKS["SVHN"] = NETWORKS["CIFAR10"]
SIGNALS = ("z", "dEdz", "y", "dEdy", "w", "b", "dEdw", "dEdb", "update_w", "update_b")
CONVOLUTIONS = "convolutions"
PRODUCTS = "matrix products"
REST = "the rest"
# PyTorch's names of what does the work of a part.
OPERATORS = {
    CONVOLUTIONS: ("aten::mkldnn_convolution", "aten::convolution_backward"),
    PRODUCTS: ("aten::mm", "aten::addmm"),
}


def fixed_point(x: Tensor, bits: int, noib: Tensor) -> Tensor:
    """x on the grid of `bits` bits and a range: what each signal is rounded to."""
    top = 2.0**bits - 1
    scale = torch.exp2(bits - noib)
    return torch.clamp(torch.round(x * scale), -top, top) / scale


def qpytorch(x: Tensor, bits: int, noib: Tensor) -> Tensor:
    """The same, by QPyTorch."""
    from qtorch.quant import fixed_point_quantize

    return fixed_point_quantize(
        x.contiguous(), wl=bits + 1, fl=bits - int(noib), symmetric=True, rounding="nearest"
    )


def overflow(v: Tensor, bits: int, noib: Tensor) -> Tensor:
    """Rates at or beyond the grid's end, at the range and one integer bit less: (2,)."""
    v = v.detach().abs()
    top = (2.0**bits - 1) * torch.exp2(noib - bits)
    return torch.stack([(v >= top).float().mean(), (v >= top / 2).float().mean()])


class Store(torch.autograd.Function):
    """Quantize a value on the way forward and its gradient on the way back.

    The gradient of `slot` (2,) carries the overflow rates of the quantized gradient out
    of the backward pass.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        slot: Tensor,
        forward_quantizer: Callable,
        backward_quantizer: Callable,
        statistics: Callable,
    ) -> Tensor:
        ctx.quantizer = backward_quantizer
        ctx.statistics = statistics
        return forward_quantizer(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:  # type: ignore[override]
        g = ctx.quantizer(g)
        return g, ctx.statistics(g), None, None, None


def weights(task: str, layout: torch.memory_format) -> list[Tensor]:
    """Random ones of every layer, filters in a memory layout."""
    shape, convs, dense = NETWORKS[task]
    W = []
    width = shape[0]
    side = shape[-1]
    for maps, pieces, k, pad, pool, _ in convs:
        w = (torch.rand(maps * pieces, width, k, k) - 0.5).mul_(0.1)
        W.append(w.to(memory_format=layout))
        width = maps
        side = -(-(side + 2 * pad - k + 1 - pool) // 2) + 1
    width *= side**2 if convs else 1
    for units, pieces, _ in dense:
        W.append((torch.rand(width, units * pieces) - 0.5).mul_(0.1))
        width = units
    return W


def parts(measure: Callable[[int], list[float]], batches: int) -> dict[str, float]:
    """Milliseconds a batch of each part, by PyTorch's profiler; on a CPU.

    Parameters
    ----------
    measure
        Trains so many batches, and returns their milliseconds.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        whole = sum(measure(batches)) / batches
    found = {CONVOLUTIONS: 0.0, PRODUCTS: 0.0}
    for row in profile.key_averages():
        for part, operators in OPERATORS.items():
            if row.key in operators:
                found[part] += row.self_cpu_time_total / 1e3 / batches
    return found | {REST: whole - sum(found.values())}
