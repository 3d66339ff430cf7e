"""utilities.benchmark --parts: which kernel belongs where, and that times add up."""

import math

import numpy as np
import pytest
from small_network import small_pi_mnist

from utilities import benchmark_measure, benchmark_table
from utilities.benchmark_parts import (
    BETWEEN,
    COUNTS,
    MASKS,
    NORMS,
    PARAMETERS,
    PARTS,
    PRODUCTS,
    SIGNALS,
    UNFOLDING,
    part_of,
    split,
)
from xla.profiling import Event, Kernel, kernels, own_times, seconds

TEXT = """
HloModule jit__run, is_scheduled=true

%fused (p: f32[2,3]) -> f32[2,3] {
  ROOT %add.1 = f32[2,3]{1,0} add(%p, %p), metadata={op_name="jit(_run)/while/body/add" id=3}
}

ENTRY %main {
  %copy.4 = f32[] copy(%constant.1)
  %while.1 = (s64[], u32[750,1]{1,0}, /*index=5*/u32[4]{0}) while(%tuple), metadata={op_name="a/b"}
  ROOT %dot.1 = f32[100,1200]{1,0} fusion(%x, %y), calls=%fused, metadata={op_name="a/dot_general"}
}
"""


def test_the_kernels_of_a_text():
    assert kernels(TEXT) == {
        "add.1": Kernel((2, 3), "jit(_run)/while/body/add"),
        "copy.4": Kernel((), ""),
        "while.1": Kernel((), "a/b"),
        "dot.1": Kernel((100, 1200), "a/dot_general"),
    }


def test_what_runs_within_a_kernel_is_not_its_own_time():
    events = [
        Event(0, 10, "loop"),
        Event(6, 9, "add"),
        Event(1, 6, "add"),
        Event(2, 3, "copy"),
        Event(10, 14, "add"),
    ]
    assert own_times(events) == {"loop": 2, "add": 11, "copy": 1}
    assert own_times([]) == {}


@pytest.mark.parametrize(
    ("shape", "path", "part"),
    [
        ((3, 4), "jit(_run)/while/body/Product/dot_general", PRODUCTS),
        ((3, 4), "jit(_run)/Correlation/while/body/dot_general", PRODUCTS),
        ((3, 4), "jit(_run)/Correlation/while/body/slice", UNFOLDING),
        ((3, 4), "jit(_run)/while/body/ColumnNorm/add", NORMS),
        ((100, 3), "jit(_run)/while/body/PartialCounts/add", COUNTS),
        ((100, 3), "jit(_run)/while/body/masks/while", MASKS),
        ((3, 4), "jit(_run)/while/body/RoundedProduct/mul", PARAMETERS),
        ((3, 4), "", PARAMETERS),
        ((100, 4), "jit(_run)/while/body/add", SIGNALS),
        ((), "", SIGNALS),
    ],
)
def test_the_part_of_a_kernel(shape, path, part):
    assert part_of(shape, path, {(3, 4), (4,)}) == part


def test_parts_add_up_to_what_all_of_it_took():
    known = kernels(TEXT)
    parts = split({"dot.1": 5.0, "add.1": 2.0, "copy.4": 0.5}, known, {(2, 3)}, 8.0)
    assert list(parts) == list(PARTS)
    assert (parts[PRODUCTS], parts[PARAMETERS], parts[SIGNALS], parts[BETWEEN]) == (5, 2, 0.5, 0.5)


def test_a_training_step_has_its_parts():
    """The scopes' names are in what is compiled, and the kernels that run are known there."""
    from utilities.benchmark_worker import Training
    from xla.device import select_device

    select_device("cpu")
    with small_pi_mnist():
        from model import Network

        training = Training(Network("PI_MNIST", "DFXP", np.random.RandomState(1), 3), "PI_MNIST", 1)
        training.train()
        known = kernels(training.training.program.text)
        spent = seconds(lambda: training.run(2), known)
        assert spent.keys() <= known.keys() and sum(spent.values()) > 0
        parts = training.parts()
    assert all(parts[part] > 0 for part in (PRODUCTS, SIGNALS, PARAMETERS, NORMS, COUNTS, MASKS))
    assert parts[UNFOLDING] == 0 and all(map(math.isfinite, parts.values()))


def test_parts_are_reported(monkeypatch):
    """Medians over the rounds, of a format's process and of the floor's."""
    answers = {part: 1.0 for part in PARTS}
    told = []

    class Answering:
        why = None

        def __init__(self, task, what, device, **environment):
            told.append((what, device, environment["NPROC"]))
            self.times = iter([9.0, 8.0, 4.0, 6.0])

        def ask(self, what):
            return answers if what == "parts" else next(self.times)

        def close(self):
            assert list(self.times) == []

    monkeypatch.setattr(benchmark_measure, "worker", Answering)
    rows = benchmark_measure.measure_parts("PI_MNIST", ["FLP"], 3, lambda text: None)
    assert told == [("floor", "cpu", "1"), ("FLP", "cpu", "1")]
    assert rows["FLP"]["ms_per_batch"] == {"median": 6, "min": 4, "max": 8}
    assert rows["FLP"]["floor_ms"]["median"] == 6 and rows["FLP"]["parts_ms"][MASKS]["max"] == 1
    report = {"results": [{"task": "PI_MNIST", "formats": {}, "parts": rows}]}
    head, _, last = benchmark_table.markdown(report).splitlines()[-3:]
    assert head.count("|") == last.count("|") and last.startswith(
        "| PI_MNIST | FLP | 6.00 | 6.00 | 1.00 |"
    )
