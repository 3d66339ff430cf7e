"""What a training step may make of a state, whatever the order of its float32 sums.

docs/published_program.md, "Training pass" to "Test-time pass", in intervals (see
`bounds`), from the recorded state before each batch. Entries that are not recorded keep
the interval of what they may be. Tensors are (B, features) or (B, maps, rows, columns).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from files import Arrays
from format import PARAMETERS, SIGNALS
from layers import ConvMaxout, DenseMaxout
from model import N_CLASSES, Network
from utilities.bounds import (
    Interval,
    Sums,
    exactly,
    fixed_point,
    half_precision,
    rounded,
)
from utilities.bounds_layers import (
    activation,
    add,
    correlation,
    gradients,
    max_pool,
    overflow_rates,
    routed,
    shrunk,
    unpooled,
)
from utilities.trace import SIGNAL_OF, STATE, Trace

Named = dict[str, Interval]
Pins = Mapping[tuple[int, str], np.ndarray]


@dataclass
class Passing:
    """What a layer's step came to: `bounds` of each value, and the `values` it went on from."""

    bounds: Named = field(default_factory=dict)
    values: Named = field(default_factory=dict)


@dataclass
class Step:
    """What a batch may have made of a state.

    Parameters
    ----------
    inside, after
        For each layer what passed through it, and its parameters and momentum, by name.
    rates
        (2, layers, 10): overflow rates at each range and at one bit less.
    """

    inside: list[Passing]
    after: list[Named]
    rates: Interval

    def bounds(self, k: int, name: str) -> Interval:
        """Those of one of them."""
        return (self.after[k] if name in STATE else self.inside[k].bounds)[name]


class Bounds:
    """The steps of a trace.

    Attributes
    ----------
    state
        For each layer the intervals of its parameters and momentum, by name.
    ranges
        (layers, 10).
    """

    def __init__(self, trace: Trace, network: Network, initial: Arrays) -> None:
        self.trace = trace
        self.layers = network.layers
        self.state = self.known_state(initial)
        self.ranges = np.array(trace.meta["initial_ranges"])
        self.pins: Pins = {}

    def known_state(self, arrays: Arrays) -> list[Named]:
        """A state without uncertainty."""
        return [
            {name: exactly(arrays[f"layer{k}/{name}"]) for name in STATE} for k in self.trace.layers
        ]

    def quantize(self, k: int, signal: str, a: Interval, stored: bool = False) -> Interval:
        """A signal of layer k as it is stored; stored: from batch to batch."""
        m = self.trace.meta
        if self.trace.on_grid:
            nob = m["update_precision"] if stored else m["comp_precision"]
            return fixed_point(a, nob, int(self.ranges[k, SIGNALS.index(signal)]))
        return half_precision(a) if m["format"] == "HFLP" else a

    def step(
        self,
        x: np.ndarray,
        t: np.ndarray,
        masks: list[np.ndarray],
        state: list[Named] | None = None,
        pins: Pins | None = None,
    ) -> Step:
        """One batch.

        Parameters
        ----------
        x, t
            float32 (B, inputs) and (B, classes).
        masks
            (B, layer inputs), one a layer.
        state
            If not that of the trace.
        pins
            By layer and name (of what passes through, or of the state after the batch): values
            that are known, all or a sample of them; whatever follows, follows from these.
        """
        state = state or self.state
        self.pins = pins or {}
        seen: list[Passing] = []
        y = exactly(x)
        for k, mask in enumerate(masks):
            seen.append(self._forward(k, state[k], y, mask))
            y = seen[-1].values["fixed_y"]
        e = y.rising(lambda v: rounded(v - t) / N_CLASSES)
        for k in reversed(range(len(masks))):
            e = self._backward(k, seen[k], e, masks[k])
        rates = self._rates(state, [s.values for s in seen])
        after = [self._updated(k, state[k], s.values) for k, s in enumerate(seen)]
        return Step(seen, after, rates)

    def _put(self, k: int, s: Passing, name: str, a: Interval) -> None:
        s.bounds[name] = a
        s.values[name] = self._pinned(k, name, a)

    def _pinned(self, k: int, name: str, a: Interval) -> Interval:
        return a.given(self.pins[k, name]) if (k, name) in self.pins else a

    def _forward(self, k: int, state: Named, below: Interval, mask: np.ndarray) -> Passing:
        layer = self.layers[k]
        s = Passing()
        v = s.values
        self._put(k, s, "fixed_x", below.each(lambda v: v * mask))
        self._put(k, s, "fixed_W", self.quantize(k, "w", state["W"]))
        self._put(k, s, "fixed_b", self.quantize(k, "b", state["b"]))
        if isinstance(layer, ConvMaxout):
            self._put(k, s, "z", correlation(layer, v["fixed_x"], v["fixed_W"]))
            self._put(k, s, "fixed_z", self.quantize(k, "z", v["z"]))
            pooled = v["fixed_z"].each(partial(max_pool, layer))
            self._put(k, s, "u", add(pooled, v["fixed_b"].each(lambda v: v[:, None, None])))
            self._put(k, s, "fixed_u", self.quantize(k, "z", v["u"]))
        else:
            sums = Sums.of_products(v["fixed_x"], v["fixed_W"])
            self._put(k, s, "z", sums.plus(v["fixed_b"]).interval())
            self._put(k, s, "fixed_z", self.quantize(k, "z", v["z"]))
        self._put(k, s, "y", activation(layer, v.get("fixed_u", v["fixed_z"])))
        self._put(k, s, "fixed_y", self.quantize(k, "y", v["y"]))
        return s

    def _backward(self, k: int, s: Passing, e: Interval, mask: np.ndarray) -> Interval:
        layer = self.layers[k]
        v = s.values
        e = e.each(lambda v: v.reshape(len(v), *layer.output_shape))
        self._put(k, s, "fixed_dEdy", self.quantize(k, "dEdy", e))
        du = v["fixed_dEdy"]
        if isinstance(layer, ConvMaxout | DenseMaxout):
            du = routed(layer, v.get("fixed_u", v["fixed_z"]), du)
        du = self.quantize(k, "dEdz", du)
        if isinstance(layer, ConvMaxout):
            dz = self.quantize(k, "dEdz", unpooled(layer, v["fixed_z"], du))
        else:
            dz = du
        self._put(k, s, "fixed_dEdz", dz)
        dW, below = gradients(layer, v["fixed_x"], v["fixed_W"], v["fixed_dEdz"])
        axes = tuple(axis for axis in range(du.lo.ndim) if axis != 1)
        db = Sums.of(du).each(lambda v: v.sum(axis=axes))
        self._put(k, s, "fixed_dEdW", self.quantize(k, "dEdw", dW.interval()))
        self._put(k, s, "fixed_dEdb", self.quantize(k, "dEdb", db.interval()))
        return below.interval().each(lambda v: v * mask)

    def _rates(self, state: list[Named], seen: list[Named]) -> Interval:
        """Overflow rates, of DFXP only."""
        lo, hi = np.zeros((2, 2, len(self.layers), len(SIGNALS)))
        m = self.trace.meta
        if m["format"] != "DFXP":
            return Interval(lo, hi)
        for k, (stored, s) in enumerate(zip(state, seen, strict=True)):
            observed = {signal: s[f"fixed_{signal}"] for signal in ("z", "dEdz", "y", "dEdy")}
            observed |= {"dEdw": s["fixed_dEdW"], "dEdb": s["fixed_dEdb"]}
            observed |= {SIGNAL_OF[name]: a for name, a in stored.items()}
            for i, signal in enumerate(SIGNALS):
                parameter = signal in PARAMETERS
                nob = m["update_precision"] if parameter else m["comp_precision"]
                for before in (0, 1):
                    noib = int(self.ranges[k, i]) - before
                    rates = overflow_rates(observed[signal], nob, noib)
                    lo[before, k, i], hi[before, k, i] = rates
        return Interval(lo, hi)

    def _updated(self, k: int, state: Named, s: Named) -> Named:
        layer = self.layers[k]
        after: Named = {}
        for name, signal, scale in (("W", "w", layer.w_LR_scale), ("b", "b", layer.b_LR_scale)):
            LR = float(np.float32(self.trace.meta["LR"]) * np.float32(scale))
            M = float(np.float32(self.trace.meta["M"]))
            kept = state[f"update_{name}"].times(M)
            taken = s[f"fixed_dEd{name}"].times(LR)
            update = Interval(rounded(kept.lo - taken.hi), rounded(kept.hi - taken.lo))
            update = self.quantize(k, f"update_{signal}", update)
            after[f"update_{name}"] = update
            moved = add(state[name], self._pinned(k, f"update_{name}", update))
            after[name] = self.quantize(k, signal, moved, stored=True)
        W = shrunk(after["W"], layer.max_col_norm)
        after["W"] = self.quantize(k, "w", W, stored=True)
        return after

    def go_on(self, step: Step, recorded: Pins, ranges: np.ndarray) -> None:
        """The state after a step, with what is recorded of it."""
        self.pins = recorded
        self.state = [
            {name: self._pinned(k, name, a) for name, a in layer.items()}
            for k, layer in enumerate(step.after)
        ]
        self.ranges = ranges

    def test(self, x: np.ndarray) -> list[Interval]:
        """The outputs of all layers at test time, flat."""
        outputs = [exactly(x)]
        for k, layer in enumerate(self.layers):
            scale = float(np.float32(layer.scale))
            W, b = (
                self.quantize(k, signal, self.state[k][name]).times(scale)
                for name, signal in (("W", "w"), ("b", "b"))
            )
            if isinstance(layer, ConvMaxout):
                linear = correlation(layer, outputs[-1], W)
                pooled = linear.each(partial(max_pool, layer))
                u = add(pooled, b.each(lambda v: v[:, None, None]))
            else:
                u = Sums.of_products(outputs[-1], W).plus(b).interval()
            y = activation(layer, self.quantize(k, "z", u))
            outputs.append(self.quantize(k, "y", y))
        return outputs[1:]
