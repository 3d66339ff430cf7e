"""utilities/gpu_report.py and what it reads, without XLA's compiler for GPUs."""

import pytest

from errors import FileError
from utilities import gpu_reading as reading
from utilities.gpu_devices import DEVICES, gpu
from utilities.gpu_report import main, operations
from xla import cuda_installed
from xla.described import Compilation

HLO = """HloModule jit__run, input_output_alias={ {0}: (0, {}, may-alias) }
%body.1 (p: (s32[], f32[100,10])) -> (s32[], f32[100,10]) {
  %p = (s32[], f32[100,10]{1,0}) parameter(0)
  %x = f32[50000,784]{1,0} get-tuple-element(%p), index=1
  %w = f32[784,10]{1,0} get-tuple-element(%p), index=2
  %gemm = f32[100,10]{1,0} fusion(%x, %w), kind=kCustom, calls=%c
  ROOT %t = (s32[], f32[100,10]{1,0}) tuple(%p, %gemm)
}
ENTRY %main {
  %dot.1 = f32[100,10]{1,0} dot(%a, %b), operand_precision={highest,highest}, metadata={}
  %dot.2 = f32[100,10]{1,0} dot(%a, %b), lhs_contracting_dims={1}
  %conv.1 = (f32[8], u8[0]) custom-call(%a, %b), custom_call_target="__cudnn$convForward"
  ROOT %while.2 = (s32[], f32[100,10]) while(%tuple), condition=%cond, body=%body.1
}
"""
THUNKS = """001: kCopy  [source] kCopy
002: kWhile [prev=001]
condition:
    003: kCustomKernel [source | sink] wrapped_compare
  body:
    000: kCommandBuffer [source]
        004: kCustomKernel [source] loop_add_fusion
        005: kGemm [source] gemm
    006: kMemcpy [source] copy
007: kCustomKernel [prev=002] after_the_loop
"""


def test_a_batch_is_counted():
    found = reading.counts(Compilation(HLO, {}, THUNKS, 0, 0))
    assert found == reading.Counts(
        kernels=3, outside=1, moved=4 * (784 * 10 + 100 * 10), full=1, tf32=2
    )


def test_launches_of_a_loop_that_is_in_a_graph():
    inside = "".join(f"    {line}\n" for line in THUNKS.splitlines())
    assert reading.launches(THUNKS) == (3, 1)
    assert reading.launches("000: kCommandBuffer [source]\n" + inside) == (3, 0)


def test_a_rate_that_is_divided_again_unrounded_is_found():
    rounded = (
        "%a = f64[2,10]{1,0} multiply(%counts, %r), x\n%b = f64[2,10]{1,0} convert(%f)\n"
        "%c = f64[2,10]{1,0} multiply(%b, %r), x\n"
    )
    assert reading.unrounded_rates(rounded) == []
    assert reading.unrounded_rates(rounded.replace("multiply(%b", "multiply(%a")) == ["c"]


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        (reading.INEXACT, "div.full.f32", "div.rn.f64"),
        (reading.INEXACT, "sqrt.approx.f32", "sqrt.rn.f64"),
        (reading.INEXACT, "rcp.approx.ftz.f32", "rcp.approx.ftz.f64"),
        (reading.TF32, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "fma.rn.f32"),
        (reading.ATOMIC, "red.global.add.f32", "st.global.f32"),
        (reading.FUSED, "fma.rn.f32", "mul.rn.f32"),
    ],
)
def test_instructions(pattern, found, not_found):
    kernels = {"one": f"\t{found} \t%r1, %r2;", "other": f"\t{not_found} \t%r1, %r2;"}
    made = Compilation("", kernels, "", 0, 0)
    assert reading.with_instruction(made, pattern) == ["one"]


@pytest.mark.parametrize(
    ("name", "full", "tf32"), [("h100", 66.9e12, 535e12), ("a100", 19.5e12, 156e12)]
)
def test_peaks_are_those_of_the_data_sheets(name, full, tf32):
    device = gpu(name)
    assert device.full == pytest.approx(full, rel=1e-2)
    assert device.tf32 == pytest.approx(tf32, rel=1e-2)
    assert "NVIDIA" in device.name


def test_a_device_from_a_file(tmp_path):
    (tmp_path / "slow.txtpb").write_text(
        DEVICES["a100"].replace("core_count: 108", "core_count: 54")
    )
    assert gpu(str(tmp_path / "slow.txtpb")).full == gpu("a100").full / 2
    (tmp_path / "none.txtpb").write_text("nothing")
    for name in ("none.txtpb", "absent.txtpb"):
        with pytest.raises(FileError):
            gpu(str(tmp_path / name))


@pytest.mark.parametrize(
    ("task", "every", "of_data"), [("PI_MNIST", 0.55, 0.376), ("MNIST", 22.9, 1.39)]
)
def test_operations_of_a_step(task, every, of_data):
    assert operations(task) == pytest.approx((every * 1e9, of_data * 1e9), rel=1e-2)


@pytest.mark.skipif(cuda_installed(), reason="XLA's compiler for GPUs is installed")
def test_what_is_missing_is_said_in_a_line(capsys):
    assert main(["--tasks", "PI_MNIST", "--formats", "FLP"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert main(["--device", "absent"]) == 2
    assert "h100" in capsys.readouterr().err
