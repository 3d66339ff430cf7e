"""utilities.benchmark --parts: which kernel belongs where, and that times add up."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from small_network import small_pi_mnist

from records import machine
from utilities import benchmark_measure, benchmark_profiles, benchmark_table
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
from xla.profiling import Event, Kernel, kernels, seconds, shares

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
        "dot.1": Kernel((100, 1200), "a/dot_general"),
    }


def test_what_runs_within_a_kernel_is_not_its_own_time():
    events = [
        Event(0, 10, "sort"),
        Event(6, 9, "add"),
        Event(1, 6, "add"),
        Event(2, 3, "copy"),
        Event(10, 14, "add"),
    ]
    assert shares([events]) == {"sort": 2, "add": 11, "copy": 1}
    assert shares([]) == shares([[]]) == {}


def test_threads_share_the_time_in_which_both_run():
    threads = [
        [Event(0, 8, "dot"), Event(10, 12, "copy")],
        [Event(4, 6, "dot"), Event(6, 8, "add"), Event(11, 13, "copy")],
    ]
    assert shares(threads) == {"dot": 7, "add": 1, "copy": 3}


@given(st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=9)))
def test_shares_add_up_to_the_time_in_which_anything_ran(threads):
    """Whatever the events; a thread's may lie within each other, but do not cross."""
    nested = [
        [Event(low, high, f"{low % 3}") for low, high in map(sorted, thread)] for thread in threads
    ]
    for thread in nested:
        for a, b in itertools.combinations(thread, 2):
            assume(not (a.start < b.start < a.end < b.end or b.start < a.start < b.end < a.end))
    ran = {t for thread in nested for e in thread for t in range(int(e.start), int(e.end))}
    assert sum(shares(nested).values()) == pytest.approx(len(ran))


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


def test_parts_of_pytorch_are_reported(monkeypatch):
    """Of the formats that it has, as far as it can compute them."""
    asked = []

    class Answering:
        def __init__(self, python, task, number_format, variant, **environment):
            assert environment == {"CUDA_VISIBLE_DEVICES": ""}  # parts are of the CPU
            self.why = None if number_format == "FLP" else "no such module"

        def read(self):
            pass

        def ask(self, what):
            asked.append(what)
            return {"convolutions": 3.0, "matrix products": 2.0, "the rest": 1.0}

        def close(self):
            pass

    monkeypatch.setattr(benchmark_profiles, "peer", Answering)
    plan = benchmark_measure.Plan(["FLP", "HFLP", "DFXP"], 2, "cpu", peer="python")
    rows = benchmark_profiles.measure_peer_parts("MNIST", plan, lambda text: None)
    assert len(set(asked)) == 1 and asked[0].endswith(" parts")
    assert rows[1] == {"format": "DFXP", "why_not": "no such module"} and len(rows) == 2
    report = {"results": [{"task": "MNIST", "formats": {}, "peer_parts": rows}]}
    head, _, last = benchmark_table.markdown(report).splitlines()[-3:]
    assert head.count("|") == last.count("|")
    assert last.startswith("| MNIST | FLP | 3.0 (3.0 - 3.0) | 2.0 ")


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

    monkeypatch.setattr(benchmark_profiles, "worker", Answering)
    monkeypatch.setattr(machine, "cores", lambda: 8)
    rows = benchmark_profiles.measure_parts("PI_MNIST", ["FLP"], 3, lambda text: None)
    assert told == [(what, "cpu", count) for count in "18" for what in ("floor", "FLP")]
    assert [(row["format"], row["cores"]) for row in rows] == [("FLP", 1), ("FLP", 8)]
    for row in rows:
        assert row["ms_per_batch"] == {"median": 6, "min": 4, "max": 8}
        assert row["floor_ms"]["median"] == 6 and row["parts_ms"][MASKS]["max"] == 1
    report = {"results": [{"task": "PI_MNIST", "formats": {}, "parts": rows}]}
    head, _, last = benchmark_table.markdown(report).splitlines()[-3:]
    assert head.count("|") == last.count("|") and last.startswith(
        "| PI_MNIST | FLP | 8 | 6.00 | 6.00 | 1.00 |"
    )
