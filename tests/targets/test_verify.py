"""Verification: it counts what it compared, and raises at the first difference.

They cover `compare.py`, `program_outputs.py`, `arrays_of_tensors.py`, `onnx/float_output.py`,
`writers/write_float_layer.py` too.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import ana_fx
from ana_fx.targets.compare import verify_against
from ana_fx.targets.onnx.onnx_file import borders
from ana_fx.targets.runtimes.kernel_families import KernelFamily, this_family
from tests.models import Chain, OneDimensional, Residual, example
from tests.programs import converted

IMAGES = torch.linspace(0, 1, 4 * 3 * 6 * 6).reshape(4, 3, 6, 6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of the four-bit chain."""
    ana_fx.export(converted(Chain, "int4"), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def refusal(path: Path, program: torch.fx.GraphModule | None = None) -> str:
    with pytest.raises(ana_fx.VerifyError) as caught:
        ana_fx.verify(program or converted(Chain, "int4"), path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def tamper(path: Path, name: str, index: int, *, bit: int = 0) -> None:
    """Flip one bit of one number of one constant."""
    model = onnx.load(path)
    (constant,) = (each for each in model.graph.initializer if each.name == name)
    array = numpy_helper.to_array(constant).copy()
    array.flat[index] ^= 1 << bit
    constant.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, path)


@pytest.mark.parametrize("batch", [1, 5])
def test_a_report_counts_what_was_compared(path, batch):
    report = ana_fx.verify(converted(Chain, "int4"), path, example(Chain, batch))
    assert (report.num_outputs, report.num_different) == (batch * 10, 0)
    assert report.runtimes == (f"onnxruntime {onnxruntime.__version__}",)
    assert str(report).startswith(f"{path}: 0 of {batch * 10} outputs differ ({report.runtimes[0]}")


def test_a_report_says_what_ran_the_file_and_for_which_kernels_it_is_proven(path):
    report = ana_fx.verify(converted(Chain, "int4"), path)
    assert report.processor is this_family()
    assert report.proven_for == tuple(KernelFamily)
    assert str(report).endswith("proven for every processor)")


def test_a_file_with_all_eight_bits_is_not_proven_for_processors_that_add_pairs(tmp_path):
    program = converted(Chain, "int8", target="onnxruntime-vnni")
    ana_fx.export(program, tmp_path / "model.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert metadata["ana_fx.needs_vnni"] == '["features.0", "features.5", "hidden", "head"]'
    if this_family() is not KernelFamily.PAIRS:
        assert KernelFamily.PAIRS not in ana_fx.verify(program, tmp_path / "model.onnx").proven_for


def test_a_difference_on_a_processor_that_adds_pairs_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr("ana_fx.targets.verify.this_family", lambda: KernelFamily.PAIRS)
    program, path = converted(Chain, "int8", target="onnxruntime-vnni"), tmp_path / "model.onnx"
    ana_fx.export(program, path)
    tamper(path, "head.add", 0)
    found = refusal(path, program)
    assert "this processor (x86 AVX2 or AVX-512 without VNNI) adds two products in 16 bits" in found
    assert "features.0, features.5, hidden, head" in found
    assert "'onnxruntime'" in found


def test_nan_is_outside_the_tolerance_of_a_float_layer(tmp_path):
    x, precision, path = example(Chain), ana_fx.Precision("int4", output="float"), tmp_path / "model.onnx"
    program = ana_fx.convert(ana_fx.prepare(Chain().eval(), x, precision=precision, calibration=[x]))
    ana_fx.export(program, path)
    model = onnx.load(path)
    (bias,) = (each for each in model.graph.initializer if each.name == "head.bias")
    bias.CopyFrom(numpy_helper.from_array(np.append(numpy_helper.to_array(bias)[:-1], np.float32("nan")), bias.name))
    onnx.save(model, path)
    assert "found nan" in refusal(path, program)


def test_without_inputs_random_levels_are_compared(path):
    assert ana_fx.verify(converted(Chain, "int4"), str(path)).num_outputs == 16 * 10


def test_files_of_the_integer_target_run_in_the_reference_evaluator_too(path):
    ana_fx.export(converted(Chain, "int4"), path, target="integer")
    report = ana_fx.verify(converted(Chain, "int4"), path, example(Chain, 5))
    assert report.runtimes == (f"onnxruntime {onnxruntime.__version__}", f"onnx.reference {onnx.__version__}")
    assert report.num_outputs == 5 * 10 + 2 * 10


@pytest.mark.parametrize("io", ["integer", "float"])
@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
def test_a_changed_weight_is_found_with_the_first_number_that_differs(target, io, path):
    ana_fx.export(converted(Chain, "int4"), path, target=target, io=io)
    tamper(path, "head.weight", 0)
    assert re.search(
        r"output 0 in onnxruntime differs from the program at \d+ of 160 numbers, first at \(\d+, 0\): "
        r"found .*, needed .*; was the file written from this program, and is it unchanged\?",
        refusal(path),
    )


@pytest.mark.parametrize(
    ("constant", "bit"), [("hidden.bias", 14), ("features.5.bias", 16), ("features.5.x_zero_point", 3), ("head.add", 0)]
)
def test_other_changed_constants_are_found(constant, bit, path):
    tamper(path, constant, 0, bit=bit)
    assert "differs from the program" in refusal(path)


def test_the_number_that_differs_is_the_one_that_is_named(path):
    tamper(path, "head.add", 7)
    program, x = converted(Chain, "int4"), example(Chain, 3)
    with pytest.raises(ana_fx.VerifyError, match=r"at 3 of 30 numbers, first at \(0, 7\): found (-?\d+), needed"):
        ana_fx.verify(program, path, x)


def test_a_file_of_another_program_is_found(path):
    assert "differs from the program" in refusal(path, converted(Chain, "ternary"))


def test_a_file_of_a_program_with_another_input_shape_is_found(path):
    refusal(path, converted(Residual, "int4"))


def test_a_file_of_a_program_with_another_rank_and_output_type_is_found(path):
    refusal(path, converted(OneDimensional, "int4"))


def test_a_file_of_a_program_with_other_outputs_is_found(path):
    model = nn.Sequential(nn.Conv2d(3, 10, 10), nn.Flatten(), nn.Linear(10, 7))
    x = example(Chain)
    refusal(path, ana_fx.convert(ana_fx.prepare(model, x, calibration=[x])))


def test_a_truncated_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-100])
    assert f"cannot load {path}: " in refusal(path)


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x00" * 1000])
def test_a_file_that_is_no_model_is_refused(content, path):
    path.write_bytes(content)
    assert "needed a file that export() wrote" in refusal(path)


def test_a_missing_file_is_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "missing.onnx")


def test_a_folder_is_refused(tmp_path):
    assert "needed a file that export() wrote" in refusal(tmp_path)


def test_a_model_of_another_tool_is_refused(path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 10, 10])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", [value], [value])
    graph.output[0].name = "y"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9), path)
    refusal(path)


def test_inputs_of_the_user_decide_what_is_compared(tmp_path):
    """A fault that shows only where the input is not zero."""
    model = nn.Sequential(nn.Linear(4, 3))
    x = torch.eye(4)
    program = ana_fx.convert(ana_fx.prepare(model, x, calibration=[x]))
    path = tmp_path / "model.onnx"
    ana_fx.export(program, path)
    tamper(path, "0.weight", 3 * 2 + 1)  # input 2 to output 1
    assert ana_fx.verify(program, path, x[[0, 1, 3]]).num_outputs == 9
    with pytest.raises(ana_fx.VerifyError, match=r"1 of 12 numbers, first at \(2, 1\)"):
        ana_fx.verify(program, path, x)


def test_verification_leaves_the_file_alone(path):
    before = path.read_bytes()
    ana_fx.verify(converted(Chain, "int4"), path)
    assert path.read_bytes() == before


def test_verification_compares_all_of_several_outputs(tmp_path):
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.a(x), self.b(x)

    x = torch.rand(5, 4)
    program = ana_fx.convert(ana_fx.prepare(TwoHeads(), x, calibration=[x]))
    ana_fx.export(program, tmp_path / "model.onnx")
    assert ana_fx.verify(program, tmp_path / "model.onnx", x).num_outputs == 5 * (3 + 2)
    tamper(tmp_path / "model.onnx", "b.add", 1)
    with pytest.raises(ana_fx.VerifyError, match=r"output 1 in onnxruntime .* first at \(0, 1\)"):
        ana_fx.verify(program, tmp_path / "model.onnx", x)


def test_a_report_of_a_float_file_counts_the_same_numbers(path):
    ana_fx.export(converted(Chain, "int4"), path, io="float")
    report = ana_fx.verify(converted(Chain, "int4"), path, example(Chain, 5).to(torch.float64))
    assert report.num_outputs == 50
    assert np.isscalar(report.num_different)


@pytest.mark.parametrize("target", ["deeploy", "dory"])
def test_files_for_code_generators_run_in_the_arithmetic_of_their_kernels(target, tmp_path):
    program, path = converted(Residual, "int4", target=target), tmp_path / "network.onnx"
    ana_fx.export(program, path)
    report = ana_fx.verify(program, path, example(Residual, 3))
    assert report.runtimes == (f"reference-kernels {onnx.__version__}",)
    assert (report.num_outputs, report.num_different) == (30, 0)
    assert ana_fx.verify(program, path).num_outputs == 40
    with pytest.raises(ana_fx.VerifyError, match="differs from the program"):
        ana_fx.verify(converted(Residual, "int8", target=target), path)
    with pytest.raises(ana_fx.VerifyError, match=r"does not take this program's inputs"):
        ana_fx.verify(converted(Chain, "int4", target="deeploy"), path)


@pytest.mark.parametrize("target", ["deeploy", "dory"])
def test_reals_become_levels_at_borders_where_floats_hold_integers(target, tmp_path):
    program, path = converted(Residual, "int4", target=target), tmp_path / "network.onnx"
    ana_fx.export(program, path)
    report = verify_against(path, program, [example(Residual, 3).numpy()])
    assert (report.num_outputs, report.num_different) == (30, 0)
    ((border,), _) = borders(onnx.load(path))
    assert not border.is_float
    assert border.store(np.float32([0.5])) == np.rint(np.float32(0.5) / np.float32(border.scale))


def test_a_program_that_raises_is_told_in_one_line(path):
    class Raising(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("first\nsecond \x1b[31m")

    with pytest.raises(ana_fx.VerifyError, match=r"the program does not run on inputs of .*: RuntimeError: first$"):
        verify_against(path, Raising(), [example(Chain, 2).numpy()])
