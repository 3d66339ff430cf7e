"""The same training step in PyTorch, as one would write it there: the benchmark's peer.

    python -m utilities.torch_peer TASK FORMAT --variant eager|compile|qpytorch

Autograd with straight-through quantizers, and for DFXP the overflow statistics and
ranges of the ten signals of every layer. Random data of the real shapes. Convolutions
use the faster of the two memory layouts. PyTorch's gradient of ties differs from the
published one, so this is for speed only. It needs torch, `qpytorch` also qtorch, ninja
and a C++ compiler; of this project only the settings. On stdin a line "N" asks for N
batches; the answer is a JSON list of their milliseconds. "N parts" asks where a batch's
time goes: milliseconds by part.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import ending
from settings import Settings
from tasks import TASKS
from utilities.torch_parts import (
    NETWORKS,
    SIGNALS,
    Store,
    fixed_point,
    overflow,
    parts,
    qpytorch,
    weights,
)

# What has a slot; u: z once more, after the bias of a convolution.
STORED = ("z", "y", "w", "b", "u")
LR = 0.05
M = 0.5
MAX_NORM = 1.9365

Rates = dict[tuple[int, str], Tensor]  # (2,) by layer and signal


class Pass(NamedTuple):
    """What the forward pass has at hand, and the overflow rates that it collects."""

    parameters: list[Tensor]
    slots: list[dict[str, Tensor]]
    ranges: Tensor
    rates: Rates


class Peer:
    """Parameters, momentum, ranges, and one training step over them."""

    def __init__(self, task: str, number_format: str, variant: str, channels_last: bool) -> None:
        shape, self.convs, self.dense = NETWORKS[task]
        numbers = Settings.published(task, "DFXP")
        self.batch = TASKS[task].batch_size
        self.format = number_format
        self.prop = numbers.prop_bits
        self.up = numbers.up_bits
        self.every = numbers.range_update_frequency
        self.max_overflow = numbers.max_overflow
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.quantizer = qpytorch if variant == "qpytorch" else fixed_point
        torch.manual_seed(0)
        W = weights(task, self.layout)
        b = [torch.zeros(w.shape[0] if w.dim() == 4 else w.shape[1]) for w in W]
        self.parameters = [p.to(self.device) for p in W + b]
        self.momentum = [torch.zeros_like(p) for p in self.parameters]
        self.layers = len(W)
        initial = float(numbers.initial_range)
        self.ranges = torch.full((self.layers, len(SIGNALS)), initial, device=self.device)
        self.rates = torch.zeros(self.layers, len(SIGNALS), 2, device=self.device)
        x = torch.rand(self.batch, *shape, device=self.device)
        self.x = x.to(memory_format=self.layout) if self.convs else x
        self.t = F.one_hot(torch.randint(0, 10, (self.batch,)), 10).float().to(self.device)
        self.batches = 0
        self.forward: Callable = self._forward
        self.finish: Callable = self._finish
        if variant == "compile":
            self.forward = torch.compile(self._forward)
            self.finish = torch.compile(self._finish)

    # The forward pass.

    def quantize(
        self, x: Tensor, ranges: Tensor, layer: int, signal: str, bits: int | None = None
    ) -> Tensor:
        if self.format == "FLP":
            return x
        noib = ranges[layer, SIGNALS.index(signal)]
        return self.quantizer(x, self.prop if bits is None else bits, noib)

    def statistics(
        self, v: Tensor, ranges: Tensor, layer: int, signal: str, bits: int | None = None
    ) -> Tensor:
        if self.format != "DFXP":
            return torch.zeros(2, device=self.device)
        noib = ranges[layer, SIGNALS.index(signal)]
        return overflow(v, self.prop if bits is None else bits, noib)

    def _apply(self, at: Pass, v: Tensor, layer: int, signal: str) -> Tensor:
        """A value, and on the way back its gradient, as they are stored."""
        gradient = f"dEd{signal}"
        return Store.apply(
            v,
            at.slots[layer][signal],
            lambda a: self.quantize(a, at.ranges, layer, signal),
            lambda a: self.quantize(a, at.ranges, layer, gradient),
            lambda a: self.statistics(a, at.ranges, layer, gradient),
        )

    def _biased(self, at: Pass, z: Tensor, layer: int) -> Tensor:
        """z of a convolution after the bias; its overflow has been counted."""
        if self.format == "FLP":
            return z
        return Store.apply(
            z,
            at.slots[layer]["u"],
            lambda a: self.quantize(a, at.ranges, layer, "z"),
            lambda a: self.quantize(a, at.ranges, layer, "dEdz"),
            lambda a: a.new_zeros(2),
        )

    def _store(self, at: Pass, v: Tensor, layer: int, signal: str) -> Tensor:
        """A propagated value."""
        if self.format == "FLP":
            return v
        v = self._apply(at, v, layer, signal)
        at.rates[layer, signal] = self.statistics(v, at.ranges, layer, signal)
        return v

    def _parameter(self, at: Pass, layer: int, signal: str) -> Tensor:
        """Weights or biases."""
        v = at.parameters[layer if signal == "w" else self.layers + layer]
        if self.format == "FLP":
            return v
        at.rates[layer, signal] = self.statistics(v, at.ranges, layer, signal, self.up)
        return self._apply(at, v, layer, signal)

    def _convolution(self, at: Pass, h: Tensor, layer: int) -> Tensor:
        _, pieces, _, pad, pool, p = self.convs[layer]
        h = h * (torch.rand_like(h) < p)
        z = self._store(at, F.conv2d(h, self._parameter(at, layer, "w"), padding=pad), layer, "z")
        b = self._parameter(at, layer, "b")
        z = F.max_pool2d(z, pool, 2, ceil_mode=True) + b[:, None, None]
        z = self._biased(at, z, layer)
        return self._store(at, z.unflatten(1, (-1, pieces)).amax(2), layer, "y")

    def _forward(
        self,
        parameters: list[Tensor],
        slots: list[dict[str, Tensor]],
        ranges: Tensor,
        x: Tensor,
        t: Tensor,
    ) -> tuple[Tensor, Rates]:
        """The loss, and the overflow rates of what passed forward."""
        at = Pass(parameters, slots, ranges, {})
        h = x
        for layer in range(len(self.convs)):
            h = self._convolution(at, h, layer)
        h = z = h.flatten(1)
        for layer, (units, pieces, p) in enumerate(self.dense, len(self.convs)):
            h = h * (torch.rand_like(h) < p)
            z = h @ self._parameter(at, layer, "w") + self._parameter(at, layer, "b")
            z = self._store(at, z, layer, "z")
            if layer < self.layers - 1:
                h = self._store(at, z.view(-1, units, pieces).amax(2), layer, "y")
        last = self.layers - 1
        if self.format == "DFXP":
            at.rates[last, "y"] = self.statistics(z.softmax(1), ranges, last, "y")
        return F.cross_entropy(z, t, reduction="sum") / 10, at.rates

    # Updates.

    def _finish(
        self,
        parameters: list[Tensor],
        momentum: list[Tensor],
        gradients: list[Tensor],
        ranges: Tensor,
        total: Tensor,
        rates: Rates,
        due: bool,
    ) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
        """New parameters, momentum, ranges and rates."""
        moved = []
        moving = []
        rates = dict(rates)
        for k, (p, v, g) in enumerate(zip(parameters, momentum, gradients, strict=True)):
            layer = k % self.layers
            name = "wb"[k // self.layers]
            update = f"update_{name}"
            if self.format == "DFXP":
                rates[layer, update] = self.statistics(v, ranges, layer, update)
            v = self.quantize(M * v - LR * g, ranges, layer, update)
            p = self.quantize(p + v, ranges, layer, name, self.up)
            if name == "w":
                norm = p.square().sum(0).sqrt()
                p = p * (norm.clamp(0, MAX_NORM) / (1e-7 + norm))
                p = self.quantize(p, ranges, layer, name, self.up)
            moved.append(p)
            moving.append(v)
        if self.format == "DFXP":
            ranges, total = self._follow(ranges, total, rates, due)
        return moved, moving, ranges, total

    def _follow(
        self, ranges: Tensor, total: Tensor, rates: Rates, due: bool
    ) -> tuple[Tensor, Tensor]:
        """Ranges and sums of overflow rates after a batch."""
        zero = torch.zeros(2, device=self.device)
        rows = [
            torch.stack([rates.get((layer, signal), zero) for signal in SIGNALS])
            for layer in range(self.layers)
        ]
        total = total + torch.stack(rows)
        if not due:
            return ranges, total
        mean = total / self.every
        grow = mean[..., 0] > self.max_overflow
        stay = mean[..., 1] > self.max_overflow
        step = torch.where(grow, 1.0, torch.where(stay, 0.0, -1.0))
        return ranges + step, torch.zeros_like(total)

    def step(self) -> None:
        """Train on the batch."""
        parameters = [p.detach().requires_grad_() for p in self.parameters]
        slots = [
            {s: torch.zeros(2, device=self.device, requires_grad=True) for s in STORED}
            for _ in range(self.layers)
        ]
        loss, rates = self.forward(parameters, slots, self.ranges, self.x, self.t)
        counted = [(i, s) for i in range(self.layers) for s in ("z", "y", "w", "b")]
        counted.remove((self.layers - 1, "y"))  # no maxout there
        if self.format == "FLP":
            counted = []
        wanted = parameters + [slots[i][s] for i, s in counted]
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        own = gradients[: len(parameters)]
        rates = {key: v.detach() for key, v in rates.items()}
        for (i, s), v in zip(counted, gradients[len(parameters) :], strict=True):
            if v is not None:
                rates[i, f"dEd{s}"] = v
        self.batches += 1
        due = self.batches % self.every == 0
        with torch.no_grad():
            self.parameters, self.momentum, self.ranges, self.rates = self.finish(
                self.parameters, self.momentum, own, self.ranges, self.rates, rates, due
            )

    def measure(self, batches: int) -> list[float]:
        """Milliseconds of each of so many batches."""
        times = []
        for _ in range(batches):
            start = time.perf_counter()
            self.step()
            if self.device == "cuda":
                torch.cuda.synchronize()
            times.append(1e3 * (time.perf_counter() - start))
        return times


def fastest(task: str, number_format: str, variant: str) -> Peer:
    """A warm peer in the memory layout that is faster for it."""
    peers: list[tuple[float, int, Peer]] = []
    for channels_last in (False, True) if NETWORKS[task][1] else (False,):
        peer = Peer(task, number_format, variant, channels_last)
        peer.measure(3)
        peers.append((min(peer.measure(3)), len(peers), peer))
    return min(peers)[-1]


@ending.program("torch_peer")
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=sorted(NETWORKS))
    parser.add_argument("format", choices=["FLP", "FXP", "DFXP"])
    parser.add_argument("--variant", choices=["eager", "compile", "qpytorch"], default="eager")
    options = parser.parse_args(arguments)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    peer = fastest(options.task, options.format, options.variant)
    layout = "channels_last" if peer.layout is torch.channels_last else "contiguous"
    print(
        json.dumps({"torch": torch.__version__, "device": peer.device, "layout": layout}),
        flush=True,
    )
    for line in sys.stdin:
        batches, *what = line.split()
        peer.measure(1)
        answer = parts(peer.measure, int(batches)) if what else peer.measure(int(batches))
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    ending.run(main)
