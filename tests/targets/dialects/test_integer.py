"""The portable target: every path of its requantizer, exact in two runtimes.

They cover `writers/write_accumulators.py`, `writers/write_requantizer.py`, `writers/write_normalization.py`,
`writers/write_resampling.py`, `writers/write_table.py`, `writers/write_constant.py`,
`writers/convolution_attributes.py` too.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.program.integer_layers import IntegerMap
from tests.models import INPUT_SHAPES, Depthwise, Residual, example
from tests.programs import converted, trained

FEATURES, LARGEST = 39, 63  # what MatMulInteger multiplies exactly on every processor
TOP = 255 * (1 + LARGEST * (FEATURES - 1))  # the largest accumulator of the staircases below


def staircases(slopes: list[float], target: str, rounding: str) -> GraphModule:
    """A program of one linear layer whose channels have these levels per accumulator, each reachable.

    Its weights are 1, 63, 63, …, so that inputs can be found for every accumulator.
    """
    model = nn.Sequential(nn.Linear(FEATURES, len(slopes)), nn.BatchNorm1d(len(slopes)))
    model[0].weight.data.fill_(float(LARGEST))[:, 0] = 1.0
    model[1].weight.data = torch.tensor(slopes)
    model[1].running_var.fill_(1 - model[1].eps)
    precision = ana_fx.Precision("int8", "uint8", input="uint8", rounding=rounding)
    qat = ana_fx.prepare(model, torch.rand(2, FEATURES), target=target, precision=precision)
    layer_map = layer_maps(qat)["0"]
    for quantizer in (qat.get_submodule("input_1_quantizer"), *layer_map.quantizers()):
        quantizer.set_scale(torch.ones_like(quantizer.scale))
    return ana_fx.convert(qat)


def inputs_for(accumulators: Tensor) -> Tensor:
    """Levels that give these accumulators."""
    hundreds = (accumulators // LARGEST).clamp_max(255 * (FEATURES - 1))
    rest = [(hundreds - 255 * index).clamp(0, 255) for index in range(FEATURES - 1)]
    return torch.stack([accumulators - LARGEST * hundreds, *rest], 1).float()


def operators(path: Path, layer: str = "0") -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node if node.name.startswith(f"{layer}/")]


def integer_map(program: GraphModule) -> IntegerMap:
    return next(module for module in program.modules() if isinstance(module, IntegerMap))


CHAIN = ["Mul", "Add", "Div", "Clip"]
PATHS: dict[str, tuple[list[float], str, list[str], str]] = {
    "int32": ([0.3712], "integer", [*CHAIN, "Add", "Cast"], "int32"),
    "int32 between its thresholds": ([0.01], "integer", ["Max", "Min", *CHAIN, "Add", "Cast"], "int32"),
    "int64": (
        [4.123e-4],
        "integer",
        ["Max", "Min", "Cast", "Add", "Mul", "Add", "Div", "Cast", "Clip", "Add", "Cast"],
        "int64",
    ),
    "corrected": (
        torch.linspace(1e-4, 5e-4, 64).tolist(),
        "onnxruntime",
        [*CHAIN, "Add", "Gather", "Less", "Cast", "Sub", "Add", "Cast"],
        "int32",
    ),
    "many slopes and signs": (
        [3.0, -1e-3, 0.0, 4e-4, -0.1],
        "integer",
        ["Max", "Min", "Cast", "Add", "Mul", "Add", "Div", "Cast", "Clip", "Add", "Cast"],
        "int64",
    ),
}


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize(("slopes", "target", "chain", "arithmetic"), PATHS.values(), ids=PATHS)
def test_every_path_of_the_requantizer_is_exact_on_both_sides_of_every_threshold(
    slopes, target, chain, arithmetic, rounding, tmp_path
):
    program, path = staircases(slopes, target, rounding), tmp_path / "model.onnx"
    report = ana_fx.export(program, path, target="integer")
    assert operators(path) == ["MatMulInteger", *chain]
    assert report.nodes[0].arithmetic == arithmetic
    low, high = integer_map(program).signed_range()
    thresholds = integer_map(program).staircase.thresholds(low, high).flatten().abs()
    points = torch.cat([thresholds - 1, thresholds, thresholds + 1, torch.tensor([0, 1, TOP - 1, TOP])])
    x = inputs_for(points.clamp(0, TOP).unique())
    assert ana_fx.verify(program, path, x).num_outputs == (len(x) + 2) * len(slopes)


def test_inputs_are_found_for_every_accumulator():
    wanted = torch.randint(0, TOP + 1, (1000,))
    weight = torch.tensor([1.0] + [float(LARGEST)] * (FEATURES - 1), dtype=torch.float64)
    x = inputs_for(wanted)
    assert torch.equal((x.double() @ weight).long(), wanted)
    assert bool(((x >= 0) & (x <= 255)).all())


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
@pytest.mark.parametrize("kind", INPUT_SHAPES)
def test_the_networks_are_exact_in_onnxruntime_and_in_the_reference(kind, precision, rounding, tmp_path):
    settings = {"rounding": rounding, "target": "integer"}
    program, path = converted(kind, precision, **settings), tmp_path / "model.onnx"
    ana_fx.export(program, path)
    report = ana_fx.verify(program, path)
    assert [runtime.split()[0] for runtime in report.runtimes] == ["onnxruntime", "onnx.reference"]
    ana_fx.verify(program, path, example(kind, 3))
    ana_fx.export(program, path, io="float")
    x = example(kind, 5)
    (found,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": x.numpy()})
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(found), trained(kind, precision, **settings)(x))


@pytest.mark.parametrize("kind", [Residual, Depthwise])
def test_awkward_networks_that_were_prepared_for_onnxruntime_are_exact_too(kind, tmp_path):
    program, path = converted(kind, "int8", awkward=True), tmp_path / "model.onnx"
    ana_fx.export(program, path, target="integer")
    ana_fx.verify(program, path)
    ana_fx.verify(program, path, example(kind, 7, signed=True) * 10)


def test_layer_maps_are_chains_of_integer_operators(tmp_path):
    path = tmp_path / "model.onnx"
    report = ana_fx.export(converted(Residual, "ternary", target="integer"), path)
    requantize = ["Mul", "Add", "Div", "Clip", "Cast"]
    assert operators(path, "stem.0") == ["ConvInteger", *requantize]
    assert operators(path, "blocks.0.add") == ["Cast", "Mul", "Cast", "Mul", "Add", *requantize]
    assert operators(path, "mean") == ["ConvInteger", *requantize]
    assert operators(path, "head") == ["MatMulInteger", "Add"]
    assert {node.name: node.operator for node in report.nodes}["blocks.0.add"] == "Add"


@pytest.mark.parametrize("precision", ["ternary", "int4"])
def test_narrow_networks_need_32_bits_only(precision, tmp_path):
    report = ana_fx.export(converted(Residual, precision, target="integer"), tmp_path / "model.onnx")
    assert {node.arithmetic for node in report.nodes} == {"int32"}


def test_no_clip_works_on_64_bits(tmp_path):
    """onnxruntime's is wrong there."""
    path = tmp_path / "model.onnx"
    ana_fx.export(converted(Residual, "int8", target="integer"), path)
    graph = onnx.load(path).graph
    wide = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.INT64}
    assert wide & {name for node in graph.node if node.op_type in ("Mul", "Div") for name in node.input}
    assert not wide & {name for node in graph.node if node.op_type in ("Clip", "Min", "Max") for name in node.input}


def test_signed_levels_are_stored_as_int8_without_a_zero_point(tmp_path):
    path = tmp_path / "model.onnx"
    ana_fx.export(converted(Residual, "int4", awkward=True, target="integer"), path)
    graph = onnx.load(path).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.input, *graph.value_info]}
    assert types["x"] == onnx.TensorProto.INT8
    assert types["blocks.0.conv2/Cast"] == onnx.TensorProto.INT8
    assert types["blocks.0.conv1/Cast"] == onnx.TensorProto.UINT8
    assert all(len(node.input) == 2 for node in graph.node if node.op_type == "ConvInteger")
