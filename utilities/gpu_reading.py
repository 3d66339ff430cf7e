"""Reading what XLA compiles for a GPU: kernels, bytes, products, instructions."""

import re
from collections import Counter
from dataclasses import dataclass

from xla.described import Compilation

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2}
BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
LAUNCHED = "fusion custom-call copy reduce convolution dot transpose concatenate".split()
# What would make a float32 quotient or root another than a CPU's, by its PTX.
INEXACT = r"\bdiv\.(?:full|approx)\S*f32|\br?sqrt\.approx\S*f32|\brcp\.approx\S*\.f32"
TF32 = r"mma\S*tf32"
ATOMIC = r"\b(?:atom|red)\.\S+"
FUSED = r"\bfma\.rn\S*\.f32"
EXPONENTIAL = r"\bex2\."
# What a segment of batches must not contain: talk with the host, and what has no fixed order.
UNWANTED = ("infeed(", "outfeed(", " send(", " recv(", "callback", " sort(", " scatter(")


@dataclass(frozen=True)
class Counts:
    """What one batch costs on a device.

    Attributes
    ----------
    kernels, outside
        Launches in the loop's body, and those of them that are in no CUDA graph.
    moved
        Bytes that they read and write, each operand whole.
    full, tf32
        Products in full precision and in TF32.
    """

    kernels: int
    outside: int
    moved: int
    full: int
    tf32: int


def counts(compilation: Compilation) -> Counts:
    """Those of the loop over batches."""
    kernels, outside = launches(compilation.thunks)
    precise = products(compilation.hlo)
    return Counts(kernels, outside, moved_bytes(compilation.hlo), precise[True], precise[False])


def launches(thunks: str) -> tuple[int, int]:
    """Launches in the body of the loop, and those outside of CUDA graphs."""
    before, _, after = thunks.partition("body:")
    in_one = re.search(r"^ +\d+: kWhile", before, re.M)  # the loop itself is in a graph
    total = outside = 0
    graph: int | None = None
    found = [re.match(r"( *)\d+: (k\w+)", line) for line in after.splitlines()]
    lines = [match for match in found if match]
    for line in lines:
        depth = len(line[1])
        if depth < len(lines[0][1]):
            break  # after the loop
        if graph is not None and depth <= graph:
            graph = None
        if line[2] == "kCommandBuffer":
            graph = depth
        else:
            total += 1
            outside += graph is None
    return total, 0 if in_one else outside


def products(hlo: str) -> Counter[bool]:
    """How many matrix products and convolutions are, and are not, in full precision."""
    lines = re.findall(r"= [^=\n]*? dot\(.*|= [^\n]*? custom-call\(.*__cud(?:nn|a)?\S*conv.*", hlo)
    lines += re.findall(r"= [^\n]*? custom-call\(.*__cublas.*", hlo)
    return Counter("operand_precision={highest,highest}" in line for line in lines)


def moved_bytes(hlo: str) -> int:
    """What the kernels of the loop's body read and write, each operand whole.

    The set of examples, of which a batch is a small part, is left out.
    """
    found = re.search(r" while\(.*?body=%([\w.\-]+)", hlo)
    body = found and re.search(rf"^%{re.escape(found[1])} \(.*?^}}", hlo, re.M | re.S)
    if not body:
        return 0
    shapes: dict[str, str] = {}
    total = 0
    examples = max((size(s) for s in re.findall(r"f32\[\d{5,},\d+\]", hlo)), default=None)
    for line in body[0].splitlines()[1:]:
        described = re.match(
            r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(?:,|$)", line
        )
        if not described:
            continue
        name, shape, operation, operands = described.groups()
        shapes[name] = shape
        if operation in LAUNCHED:
            read = [size(shapes.get(v, "")) for v in re.findall(r"%([\w.\-]+)", operands)]
            total += size(shape) + sum(n for n in read if n != examples)
    return total


def size(shape: str) -> int:
    """Bytes of an array, or of a tuple of them, as HLO writes its type."""
    total = 0
    for kind, sides in re.findall(r"\b([a-z]+\d+|pred)\[([\d,]*)\]", shape):
        n = BYTES.get(kind, 0)
        for side in filter(None, sides.split(",")):
            n *= int(side)
        total += n
    return total


def with_instruction(compilation: Compilation, pattern: str) -> list[str]:
    """The kernels that have an instruction."""
    return sorted(n for n, text in compilation.kernels.items() if re.search(pattern, text))


def unrounded_rates(hlo: str) -> list[str]:
    """Quotients of overflow rates that are divided again before they are float32.

    The rates of a layer are float64 (2, 10) or (10, 2), those of k runs (k, ...); a division
    by a constant is a product.
    """
    rate = r"f64\[(?:\d+,)?(?:2,10|10,2)\]\S*"
    found = re.findall(rf"%(\S+) = {rate} (?:multiply|divide)\(%(\S+?), ", hlo)
    names = {name for name, _ in found}
    return [name for name, operand in found if operand in names]
