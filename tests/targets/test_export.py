"""Files: valid, portable, readable, integer where they must be, and written whole or not at all.

They cover `inspection.py`, `node_report.py`, `onnx/program_writer.py`, `onnx/builder.py`, `onnx/onnx_family.py`,
`writers/write_borders.py`, `writers/write_max_pool.py` and `program/program_borders.py` too.
"""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn

import ana_fx
from ana_fx.graph import module_of
from ana_fx.numerics.pair_sums import PAIR_LIMIT
from ana_fx.operators.linear import Linear
from ana_fx.program.data_movement import Reshape
from ana_fx.program.integer_layers import IntegerHead, IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.program.program_borders import Dequantize, Quantize
from ana_fx.targets.runtimes.kernel_families import KernelFamily
from tests.graphs import Written, WrittenForTwo
from tests.models import INPUT_SHAPES, Chain, OneDimensional, Residual, Shared, example
from tests.programs import converted, written

NETWORKS = list(INPUT_SHAPES)
INTEGERS = {TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL}
ARITHMETIC = {"Add", "Cast", "Clip", "Div", "Gather", "Less", "Max", "MaxPool", "Min", "Mul", "Reshape", "Sub"}
ALLOWED = {
    "integer": ARITHMETIC | {"ConvInteger", "MatMulInteger"},
    "onnxruntime": ARITHMETIC | {"ConvInteger", "MatMulInteger", "QLinearConv", "QGemm", "QLinearAdd"},
}
IMAGES = torch.linspace(0, 1, 4 * 3 * 6 * 6).reshape(4, 3, 6, 6)
both_targets = pytest.mark.parametrize("target", ["onnxruntime", "integer"])
both_borders = pytest.mark.parametrize("io", ["integer", "float"])
all_networks = pytest.mark.parametrize("kind", NETWORKS)


def exported(program: torch.fx.GraphModule, folder: Path, **settings: str) -> onnx.ModelProto:
    ana_fx.export(program, folder / "model.onnx", **settings)
    return onnx.load(folder / "model.onnx")


def run_file(model: onnx.ModelProto, *inputs: np.ndarray[Any, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def levels(program: torch.fx.GraphModule, x: torch.Tensor) -> np.ndarray[Any, Any]:
    (quantize,) = (module for module in program.modules() if isinstance(module, Quantize))
    return quantize(x).numpy()


@both_borders
@both_targets
@all_networks
def test_a_file_passes_the_full_check_of_onnx(kind, target, io):
    model = written(kind, to=target, io=io)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


@both_targets
def test_a_file_says_opset_19_and_ir_9(target):
    model = written(Residual, to=target)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    assert model.ir_version == 9
    assert versions == {"": 19} | ({"com.microsoft": 1} if target == "onnxruntime" else {})


@both_borders
@both_targets
@all_networks
def test_the_batch_axis_is_dynamic(kind, target, io):
    program, model = converted(kind), written(kind, to=target, io=io)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    x = example(kind, 7)
    fed = x.numpy() if io == "float" else levels(program, x)
    (seven,), (one,) = run_file(model, fed), run_file(model, fed[:1])
    assert seven.shape[0] == 7
    np.testing.assert_array_equal(one, seven[:1])


@all_networks
@both_targets
def test_other_axes_are_declared_as_they_are(kind, target):
    shape = [dim.dim_value for dim in written(kind, to=target).graph.input[0].type.tensor_type.shape.dim][1:]
    assert shape == list(INPUT_SHAPES[kind])


@both_targets
@all_networks
def test_a_file_holds_only_operators_of_its_target(kind, target):
    for io, borders in (("integer", set()), ("float", {"QuantizeLinear", "DequantizeLinear"})):
        model = written(kind, "int8", awkward=True, to=target, io=io)
        assert {node.op_type for node in model.graph.node} <= ALLOWED[target] | borders


@pytest.mark.parametrize("precision", ["ternary", "int8"])
@all_networks
def test_the_integer_target_has_no_float_anywhere(kind, precision):
    model = written(kind, precision, awkward=True, to="integer")
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    assert {value.type.tensor_type.elem_type for value in values} <= INTEGERS
    assert {constant.data_type for constant in model.graph.initializer} <= INTEGERS
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    assert not [each for each in attributes if each.type in (onnx.AttributeProto.FLOAT, onnx.AttributeProto.FLOATS)]


@both_targets
@all_networks
def test_every_value_of_a_file_is_typed(kind, target):
    graph = written(kind, to=target).graph
    typed = {value.name for value in [*graph.input, *graph.output, *graph.value_info]}
    assert {name for node in graph.node for name in node.output} <= typed


def test_float_borders_of_the_integer_target_are_the_only_floats():
    graph = written(Residual, to="integer", io="float").graph
    floats = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    assert floats == {"x.scale", "output.scale"}
    assert [graph.node[0].op_type, graph.node[-1].op_type] == ["QuantizeLinear", "DequantizeLinear"]


@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
@all_networks
def test_every_convolution_and_linear_layer_is_a_qlinear_operator_but_for_heads(kind, precision, tmp_path):
    program = converted(kind, precision)
    report = ana_fx.export(program, tmp_path / "model.onnx")
    operators = {node.name: node.operator for node in report.nodes}
    for name, module in program.named_modules():
        if isinstance(module, IntegerMap) and module.operator.has_weight:
            assert operators[name] == ("QGemm" if isinstance(module.operator, Linear) else "QLinearConv")
        elif isinstance(module, IntegerHead):
            assert operators[name] == "MatMulInteger"


def test_a_convolutional_head_with_int32_logits_is_conv_integer(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    precision = ana_fx.Precision("int4", "uint4", output="int32")
    program = ana_fx.convert(ana_fx.prepare(model, IMAGES, precision=precision, calibration=[IMAGES]))
    for target in ("onnxruntime", "integer"):
        report = ana_fx.export(program, tmp_path / "model.onnx", target=target)
        assert report.nodes[-1].operator == "ConvInteger"
        ana_fx.verify(program, tmp_path / "model.onnx")


@both_targets
@all_networks
def test_names_of_nodes_begin_with_the_path_of_a_module(kind, target):
    program = converted(kind)
    kinds = (IntegerMap, IntegerHead, IntegerMaxPool, Reshape)
    paths = {str(node.target) for node in program.graph.nodes if isinstance(module_of(node), kinds)}
    model = written(kind, to=target)
    names = [node.name for node in model.graph.node]
    assert {name.split("/")[0] for name in names} - paths <= {"x", "output"}
    assert paths <= {name.split("/")[0] for name in names}
    assert all(node.name.split("/")[1].startswith(node.op_type) for node in model.graph.node)
    assert len(set(names)) == len(names)


@both_borders
@both_targets
@all_networks
def test_the_metadata_describe_each_border_exactly(kind, target, io):
    program, found = converted(kind), metadata(written(kind, to=target, io=io))
    (first,) = (module for module in program.modules() if isinstance(module, Quantize))
    (last,) = (module for module in program.modules() if isinstance(module, Dequantize))
    assert np.float32(found["x.scale"]) == first.scale.numpy()
    assert np.float32(found["output.scale"]) == last.scale.numpy()
    assert (found["x.zero_point"], found["output.zero_point"]) == ("0", "0")
    assert found["x.type"] == "uint8"
    assert found["output.type"] == ("int8" if kind is OneDimensional else "int32")
    assert (found["ana_fx.target"], found["ana_fx.io"]) == (target, io)


@both_targets
@all_networks
def test_the_types_in_the_metadata_are_those_of_the_file(kind, target):
    model = written(kind, awkward=True, to=target)
    for value in [*model.graph.input, *model.graph.output]:
        name = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        assert metadata(model)[f"{value.name}.type"] == name


@both_targets
@all_networks
def test_float_and_integer_borders_agree(kind, target):
    program, x = converted(kind, awkward=True), example(kind, 9, signed=True)
    (floats,) = run_file(written(kind, awkward=True, to=target, io="float"), x.numpy())
    model = written(kind, awkward=True, to=target)
    (integers,) = run_file(model, levels(program, x))
    np.testing.assert_array_equal(integers.astype(np.float32) * np.float32(metadata(model)["output.scale"]), floats)
    np.testing.assert_array_equal(program(x).numpy(), floats)


@both_targets
@pytest.mark.parametrize("width", ["uint8", "int8", "uint4", "int3", "uint2"])
def test_every_input_type_is_clipped_in_the_file_as_in_the_program(width, target, tmp_path):
    precision = ana_fx.Precision("int4", "uint4", input=width)
    qat = ana_fx.prepare(nn.Sequential(nn.Linear(6, 3)), IMAGES[0, 0], precision=precision, calibration=[IMAGES[0, 0]])
    program, x = ana_fx.convert(qat), torch.randn(64, 6) * 3
    (found,) = run_file(exported(program, tmp_path, target=target, io="float"), x.numpy())
    np.testing.assert_array_equal(found, program(x).numpy())


@both_borders
@both_targets
def test_several_inputs_and_outputs_keep_their_order(target, io, tmp_path):
    model = WrittenForTwo(lambda m, x, y: (m.b(y), m.a(x), m.a(x) + m.b(y)), a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(3, 4, 1))
    model.b = nn.Conv2d(3, 2, 1)
    inputs = (IMAGES, IMAGES - 0.5)
    program = ana_fx.convert(ana_fx.prepare(model, inputs, calibration=[inputs]))
    file = exported(program, tmp_path, target=target, io=io)
    assert [value.name for value in file.graph.input] == ["x", "y"]
    assert [value.name for value in file.graph.output] == ["output_0", "output_1", "output_2"]
    assert ana_fx.verify(program, tmp_path / "model.onnx", inputs).num_different == 0


@both_borders
@both_targets
def test_a_float_last_layer_stands_behind_integers(target, io, tmp_path):
    x, precision = example(Chain), ana_fx.Precision("int4", "uint4", output="float")
    program = ana_fx.convert(ana_fx.prepare(Chain(), x, precision=precision, calibration=[x]))
    report = ana_fx.export(program, tmp_path / "model.onnx", target=target, io=io)
    assert report.nodes[-1].operator == "float"
    assert ana_fx.verify(program, tmp_path / "model.onnx", x).num_different == 0


def test_the_target_is_by_default_the_one_that_the_model_was_prepared_for(tmp_path):
    for target in ("onnxruntime", "integer"):
        assert ana_fx.export(converted(Chain, target=target), tmp_path / "model.onnx").target == target


def test_the_same_program_gives_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        ana_fx.export(converted(Shared), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_exporting_leaves_the_program_as_it_was(tmp_path):
    program = converted(Residual)
    state, text = copy.deepcopy(program.state_dict()), str(program.graph)
    for target in ("onnxruntime", "integer"):
        ana_fx.export(program, tmp_path / "model.onnx", target=target)
    assert str(program.graph) == text
    assert all(torch.equal(state[key], value) for key, value in program.state_dict().items())


def test_a_report_says_what_each_layer_map_became(tmp_path):
    report = ana_fx.export(converted(Chain, "ternary"), str(tmp_path / "model.onnx"))
    assert [(node.name, node.operator, node.arithmetic) for node in report.nodes] == [
        ("features.0", "QLinearConv", "float32"),
        ("features.5", "QLinearConv", "float32"),
        ("hidden", "QGemm", "float32"),
        ("head", "MatMulInteger", "int32"),
    ]
    assert report.path == tmp_path / "model.onnx"
    assert report.bytes == report.path.stat().st_size
    for key in ("model.onnx: target onnxruntime, integer borders", f"{report.bytes:,} bytes", "features.0", "hidden"):
        assert key in str(report)


@pytest.mark.parametrize("target", ["onnxruntime", "integer", "qdq", "qdq-int8"])
@pytest.mark.parametrize("precision", ["ternary", *(f"int{bits}" for bits in range(2, 9))])
def test_no_layer_needs_vnni_by_default(precision, target, tmp_path):
    report = ana_fx.export(converted(Residual, precision), tmp_path / "model.onnx", target=target)
    assert report.needs_vnni == ()
    assert report.proven_for == tuple(KernelFamily)
    assert max(node.pair_sum or 0 for node in report.nodes) <= PAIR_LIMIT


def test_all_eight_bits_are_reported_to_need_vnni(tmp_path):
    report = ana_fx.export(converted(Chain, "int8", target="onnxruntime-vnni"), tmp_path / "model.onnx")
    assert report.needs_vnni == ("features.0", "features.5", "hidden", "head")  # MatMulInteger has the same kernel
    assert KernelFamily.PAIRS not in report.proven_for
    assert str(report).count("needs VNNI on x86") == 4
    assert "inexact on x86 without VNNI" in str(report)


def test_a_report_says_that_no_pair_of_products_saturates(tmp_path):
    report = ana_fx.export(converted(Chain, "int8"), tmp_path / "model.onnx")
    assert all(0 < node.pair_sum <= PAIR_LIMIT for node in report.nodes)
    assert "exact on every processor" in str(report)


# what is refused


def test_a_program_for_the_integer_target_is_refused_by_onnxruntime_with_the_way_out(tmp_path):
    with pytest.raises(ana_fx.ExportError) as caught:
        ana_fx.export(converted(Chain, target="integer"), tmp_path / "model.onnx", target="onnxruntime")
    for key in ("'features.0'", "no QLinear operator computes", "prepare the model with target='onnxruntime'"):
        assert key in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_of_a_target_names_all_layer_maps(tmp_path):
    with pytest.raises(ana_fx.ExportError) as caught:
        ana_fx.export(converted(Chain, target="integer"), tmp_path / "model.onnx", target="onnxruntime")
    for path in ("features.0", "features.5", "hidden"):
        assert path in str(caught.value)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown target 'tensorrt'; known are 'onnxruntime', 'onnxruntime-vnni'"):
        ana_fx.export(converted(Chain), tmp_path / "model.onnx", target="tensorrt")
    with pytest.raises(ValueError, match="unknown io 'int8'; known are 'integer', 'float'"):
        ana_fx.export(converted(Chain), tmp_path / "model.onnx", io="int8")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_not_converted_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"needs a program from ana_fx\.convert, got Chain"):
        ana_fx.export(ana_fx.prepare(Chain()), tmp_path / "model.onnx")


def refusal(path: Path) -> str:
    with pytest.raises(ana_fx.ExportError) as caught:
        ana_fx.export(converted(Chain), path)
    return str(caught.value)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    path = tmp_path / "missing" / "model.onnx"
    assert f"cannot write {path}: No such file or directory; needed a regular file" in refusal(path)


def test_a_path_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "model.onnx").mkdir()
    assert f"cannot write {tmp_path / 'model.onnx'}: Is a directory" in refusal(tmp_path / "model.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refusal(tmp_path / "file" / "model.onnx")


@contextmanager
def without_privileges() -> Iterator[None]:
    """As nobody, where this is root, for whom every folder can be written."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written_is_refused():
    with TemporaryDirectory() as name:
        path = Path(name) / "model.onnx"
        assert str(ana_fx.export(converted(Chain), path).path) == str(path)  # everything is imported now
        path.unlink()
        path.parent.chmod(0o555)
        with without_privileges():
            assert f"cannot write {path}: Permission denied" in refusal(path)


@pytest.mark.parametrize("step", ["os.open", "os.fsync", "os.chmod", "os.link", "os.replace"])
def test_a_file_stays_as_it_was_when_any_step_of_writing_fails(step, tmp_path, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "model.onnx"
    path.write_bytes(b"as it was")
    with monkeypatch.context() as patch:
        patch.setattr(step, fails)
        message = refusal(path)
    assert f"cannot write {path}: No space left on device" in message
    assert path.read_bytes() == b"as it was"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_a_file_is_replaced_as_a_whole_and_readable_as_others_are(tmp_path):
    path, other = tmp_path / "model.onnx", tmp_path / "other"
    path.write_bytes(b"x" * 10**6)
    other.touch()
    report = ana_fx.export(converted(Chain), path)
    assert path.stat().st_size == report.bytes
    assert path.stat().st_mode == other.stat().st_mode
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.onnx", "other"]


def test_a_model_without_any_operation_gives_a_file_that_runs(tmp_path):
    program = ana_fx.convert(ana_fx.prepare(nn.Sequential(nn.Identity()), IMAGES, calibration=[IMAGES]))
    ana_fx.export(program, tmp_path / "model.onnx")
    assert ana_fx.verify(program, tmp_path / "model.onnx").num_different == 0


def test_an_input_that_is_called_like_an_output_gives_a_file_that_runs(tmp_path):
    class Renamed(Written):
        def forward(self, output: torch.Tensor) -> torch.Tensor:
            return self.conv(output)

    model = Renamed(lambda m, x: x, conv=nn.Conv2d(3, 2, 1))
    program = ana_fx.convert(ana_fx.prepare(model, IMAGES, calibration=[IMAGES]))
    ana_fx.export(program, tmp_path / "model.onnx")
    assert ana_fx.verify(program, tmp_path / "model.onnx").num_different == 0


class _Named(nn.Module):
    """Two inputs; outputs in a dictionary, one of them twice, one called like an input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x, y):
        maps = self.conv(x) + self.conv(y)
        logits = self.head(maps.mean((2, 3)))
        return {"logits": logits, "maps": (maps, maps), "x": logits}


@pytest.mark.parametrize("io", ["integer", "float"])
def test_outputs_are_named_by_their_keys_and_places(tmp_path, io):
    x = torch.rand(2, 3, 6, 6)
    qat = ana_fx.prepare(_Named(), (x, x), calibration=[(x, x)])
    program = ana_fx.convert(qat)
    ana_fx.export(program, tmp_path / "model.onnx", io=io)
    names = [value.name for value in onnx.load(tmp_path / "model.onnx").graph.output]
    assert names == ["logits", "maps_0", "maps_1", "output_x"]
    assert ana_fx.verify(program, tmp_path / "model.onnx").num_different == 0
