"""Replay a trace recorded from the published program through the compiled training step.

    python -m utilities.replay_trace tests/reference/PI4warm_FXPmixed_9_11.npz

The file of inputs lies beside the trace. For every batch and tensor: how many entries are equal.
Exit status 0 if everything is within the limits of docs/fidelity.md, 1 if not. Where float32 sums
are rounded (19 bits, HFLP) the recorded entries replace the computed ones after every batch, and
a value may differ only where a half step is within reach of a sum in another order; the last
line says how many may. --resync does so in the other formats, too. A recorded run with range
initialisation is replayed event by event.
"""

import sys
from functools import partial
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import terminal
from errors import FileError
from terminal import Parser
from utilities.trace import Report, Trace

# What numbers and text of any kind raise where a trace's should be.
DAMAGE = (
    FileError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    StopIteration,
    TypeError,
    ValueError,
)


@terminal.program("replay_trace")
def main(arguments: list[str]) -> int:
    parser = Parser("python -m utilities.replay_trace", __doc__)
    parser.add_argument("trace", type=terminal.path, help="a recorded trace, .npz")
    parser.add_argument(
        "--resync", action="store_true", help="judge each batch alone, in every format"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print only what is out of tolerance, and the summary"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "gpu"), default="cpu", help="default cpu"
    )
    a = parser.parse_args(arguments)
    try:
        trace = Trace(a.trace)
    except DAMAGE as error:
        raise FileError(f"{a.trace} is not a recorded trace ({error})") from None
    with terminal.importing(xla=True):
        from utilities.replay import replay
        from utilities.replay_run import replay_run
        from xla.device import select_device

    with terminal.held_back():
        select_device(a.device, tell=partial(terminal.say, "replay_trace"))
    report = Report(a.quiet)
    try:
        if "events_json" in trace:
            replay_run(trace, report)
        else:
            replay(trace, report, a.resync)
    except DAMAGE as error:
        raise FileError(f"{a.trace} is damaged ({type(error).__name__}: {error})") from None
    outcome = "everything within tolerance"
    if report.failures:
        outcome = f"{report.failures} comparisons out of tolerance"
    print(f"{a.trace.name}: {report.counts}; {outcome}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    terminal.run(main)
