"""The fast target: QLinear operators where they are proven, integer arithmetic elsewhere.

They cover `dialects/product_form.py`, `dialects/qlinear_proofs.py`, `dialects/clip_behind_pool.py` too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.requantizers.staircase import QLinearStaircase
from tests.graphs import Written, WrittenForTwo
from tests.models import INPUT_SHAPES, Depthwise, OneDimensional, Residual, Volume, example
from tests.programs import converted, trained, written

LEVELS = list(onnxruntime.GraphOptimizationLevel.__members__.values())
f32 = np.float32
Array = np.ndarray[Any, Any]


def constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def operators(model: onnx.ModelProto, layer: str) -> list[str]:
    return [node.op_type for node in model.graph.node if node.name.startswith(f"{layer}/")]


def sum_program(
    types: tuple[str, str], scales: tuple[float, float, float], activation: str = "uint8", rounding: str = "nearest"
) -> GraphModule:
    """x + y with these input types and scales of x, y and the sum; a max pool keeps the sum inside."""
    x, y = (nn.ReLU() if name.startswith("u") else nn.Hardtanh(-1e9, 1e9) for name in types)
    model = WrittenForTwo(lambda m, x, y: F.max_pool1d(m.x(x) + m.y(y), 1), x=x, y=y)
    overrides = {letter: ana_fx.Precision("int8", name) for letter, name in zip("xy", types, strict=True)}
    precision = ana_fx.Precision("int8", activation, rounding=rounding, overrides=overrides)
    qat = ana_fx.prepare(model, (torch.rand(1, 1, 4), torch.rand(1, 1, 4)), precision=precision)
    for path, scale in zip(("x", "y", "add"), scales, strict=True):
        layer_maps(qat)[path].output_quantizer.set_scale(torch.tensor(scale))
    for name in ("x_quantizer", "y_quantizer"):
        qat.get_submodule(name).set_scale(torch.tensor(1.0))
    return ana_fx.convert(qat)


def all_pairs(program: GraphModule) -> tuple[Tensor, Tensor]:
    """All pairs of levels of both operands of the sum."""
    ranges = [torch.arange(module.lo, module.hi + 1) for module in (program.get_submodule(n) for n in "xy")]
    grid = torch.meshgrid(*ranges, indexing="ij")
    return grid[0].flatten(), grid[1].flatten()


def float32_forms(a: Array, b: Array, c: dict[str, Array]) -> dict[str, Array]:
    """What a kernel may compute of stored bytes before it rounds; fused: a product that is not rounded."""
    za, zb, zc = (f32(c[f"add.{name}_zero_point"]) for name in "aby")
    ra, rb = c["add.a_scale"] / c["add.y_scale"], c["add.b_scale"] / c["add.y_scale"]
    fixed = zc - (ra * za + rb * zb)
    a, b, wide = a.astype(f32), b.astype(f32), np.float64

    def fused(x: Array, r: Array, y: Array) -> Array:
        return (x.astype(wide) * wide(r) + y.astype(wide)).astype(f32)

    reals = (a - za) * c["add.a_scale"] + (b - zb) * c["add.b_scale"]
    return {
        "fused": fused(a, ra, fused(b, rb, np.broadcast_to(fixed, b.shape))),
        "fused, b first": fused(b, rb, fused(a, ra, np.broadcast_to(fixed, a.shape))),
        "unfused": a * ra + (b * rb + fixed),
        "unfused, b first": b * rb + (a * ra + fixed),
        "unfused, constant last": (a * ra + b * rb) + fixed,
        "zero points first": ((a - za) * ra + (b - zb) * rb) + zc,
        "real": reals / c["add.y_scale"] + zc,
        "real, times the inverse": reals * (f32(1) / c["add.y_scale"]) + zc,
    }


def exported_sum(program: GraphModule, path: Path) -> tuple[onnx.ModelProto, ana_fx.ExportReport]:
    report = ana_fx.export(program, path)
    return onnx.load(path), report


@given(
    st.tuples(st.sampled_from(["uint8", "int8", "uint4"]), st.sampled_from(["uint8", "int8", "uint2"])),
    st.tuples(*[st.floats(-4, 4).map(lambda exponent: 2.0**exponent)] * 3),
    st.sampled_from(["uint8", "uint4", "uint2"]),
)
@settings(max_examples=40)
def test_a_qlinear_add_is_chosen_only_if_every_float32_form_gives_the_staircase(
    tmp_path_factory, types, scales, activation
):
    program = sum_program(types, scales, activation)
    model, report = exported_sum(program, tmp_path_factory.mktemp("sum") / "model.onnx")
    add = next(node for node in report.nodes if node.name == "add")
    if add.operator != "QLinearAdd":
        assert add.reason
        return
    a, b = all_pairs(program)
    module, stored = program.get_submodule("add"), constants(model)
    wanted = module(a[None, None], b[None, None]).flatten().numpy().astype(np.int64)
    za, zb, zc = (int(stored[f"add.{name}_zero_point"]) for name in "aby")
    for name, real in float32_forms(a.numpy() + za, b.numpy() + zb, stored).items():
        found = np.clip(np.clip(np.rint(real), 0, 255) - zc, module.lo, module.hi)
        np.testing.assert_array_equal(found, wanted, err_msg=name)


def verify_all_pairs(program: GraphModule, path: Path) -> None:
    a, b = all_pairs(program)
    scales = [float(program.get_submodule(name).output_scale) for name in "xy"]
    x, y = ((levels * scale).reshape(-1, 1, 4) for levels, scale in zip((a, b), scales, strict=True))
    assert ana_fx.verify(program, path, (x, y)).num_outputs == len(a)


@pytest.mark.parametrize("types", [("uint8", "uint8"), ("int8", "int8"), ("uint8", "int8"), ("uint4", "uint4")])
def test_a_proven_sum_is_a_qlinear_add_that_equals_it_for_all_pairs(types, tmp_path):
    program, path = sum_program(types, (1.0, 0.7, 1.3)), tmp_path / "model.onnx"
    model, report = exported_sum(program, path)
    assert [node.operator for node in report.nodes if node.name == "add"] == ["QLinearAdd"]
    assert "QLinearAdd" in operators(model, "add")
    verify_all_pairs(program, path)


@pytest.mark.parametrize("types", [("uint8", "uint8"), ("int8", "uint8")])
def test_floor_rounding_has_a_bias_and_falls_back_to_exact_integer_arithmetic(types, tmp_path):
    program, path = sum_program(types, (1.0, 0.7, 1.3), rounding="floor"), tmp_path / "model.onnx"
    model, report = exported_sum(program, path)
    (add,) = (node for node in report.nodes if node.name == "add")
    assert (add.operator, add.reason) == ("Add", "QLinearAdd has no bias")
    assert "QLinearAdd" not in operators(model, "add")
    assert "Div" in operators(model, "add")
    verify_all_pairs(program, path)


def test_a_sum_with_batch_norm_falls_back_to_exact_integer_arithmetic(tmp_path):
    model = Written(lambda m, x: m.norm(m.conv(x) + x), conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3))
    nn.init.uniform_(model.norm.weight, -1, 1)
    x = torch.rand(4, 3, 5, 5)
    program, path = ana_fx.convert(ana_fx.prepare(model, x, calibration=[x])), tmp_path / "model.onnx"
    report = ana_fx.export(program, path)
    assert report.nodes[-1].operator == "Add"
    assert report.nodes[-1].reason
    ana_fx.verify(program, path, x)


def test_sums_of_the_networks_are_qlinear_adds(tmp_path):
    report = ana_fx.export(converted(Residual), tmp_path / "model.onnx")
    found = {node.name: node.operator for node in report.nodes if node.name.endswith("add")}
    assert found == {"blocks.0.add": "QLinearAdd", "blocks.1.add": "QLinearAdd"}


@pytest.mark.parametrize("precision", ["ternary", "int8"])
@pytest.mark.parametrize("kind", INPUT_SHAPES)
def test_graph_optimisations_change_no_bit(kind, precision):
    model, x = written(kind, precision, io="float").SerializeToString(), example(kind, 9)
    with torch.no_grad():
        wanted = trained(kind, precision)(x).numpy()
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_array_equal(found, wanted, err_msg=str(level))


@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
def test_a_qlinear_conv_holds_the_numbers_of_its_staircase(precision):
    program, stored = converted(Residual, precision), constants(written(Residual, precision))
    for name, module in program.named_modules():
        if not isinstance(module, IntegerMap) or not module.operator.has_weight:
            continue
        staircase = module.staircase
        assert isinstance(staircase, QLinearStaircase)
        slope = (stored[f"{name}.x_scale"] * stored[f"{name}.weight_scale"]) / stored[f"{name}.y_scale"]
        np.testing.assert_array_equal(slope, staircase.stored_slope.numpy())
        np.testing.assert_array_equal(stored[f"{name}.bias"], staircase.bias.numpy())
        np.testing.assert_array_equal(stored[f"{name}.weight"], module.weight.numpy() * staircase.factor)


@pytest.mark.parametrize(("precision", "largest"), [("ternary", 127), ("int2", 126), ("int4", 120), ("int8", 63)])
def test_narrow_weights_are_stored_with_head_room(precision, largest):
    stored = constants(written(Residual, precision))
    found = [np.abs(array.astype(int)).max() for name, array in stored.items() if name.endswith("conv1.weight")]
    assert max(found) == largest


def test_all_levels_are_stored_as_bytes_and_signed_ones_with_zero_point_128():
    stored = constants(written(Residual, "int4", awkward=True))
    zero_points = {
        name: int(array) for name, array in stored.items() if name.endswith(("x_zero_point", "y_zero_point"))
    }
    assert zero_points["stem.0.x_zero_point"] == 128  # the input is signed
    assert zero_points["stem.0.y_zero_point"] == 0  # behind a ReLU
    assert zero_points["blocks.0.conv2.y_zero_point"] == 128  # before a sum
    assert set(zero_points.values()) == {0, 128}


def test_averages_and_rescales_are_depthwise_convolutions():
    model = written(Depthwise)
    groups = {
        node.name.split("/")[0]: attribute.i
        for node in model.graph.node
        if node.op_type == "QLinearConv"
        for attribute in node.attribute
        if attribute.name == "group"
    }
    assert (groups["pool"], groups["adaptive_avg_pool2d"], groups["depthwise.0"]) == (16, 16, 8)


def test_a_clip_follows_only_where_levels_are_fewer_than_those_of_a_byte():
    assert operators(written(Volume, "int8"), "conv") == ["QLinearConv"]
    assert operators(written(Volume, "int4"), "conv") == ["QLinearConv", "Clip"]


def hidden(*layers: nn.Module) -> nn.Module:
    """The layers between a convolution without activation, whose levels are signed, and another."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers, nn.Conv2d(4, 2, 1))


IMAGE, ROWS = (3, 8, 8), (7, 5)
TROUBLE: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear over rows": (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)), ROWS),
    "a sum that broadcasts": (
        Written(lambda m, x: m.a(x) + m.b(x).mean((2, 3), keepdim=True), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 1)),
        IMAGE,
    ),
    "a sum that broadcasts the first": (
        Written(lambda m, x: m.b(x).mean((2, 3), keepdim=True) + m.a(x), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 1)),
        IMAGE,
    ),
    "a tensor added to itself": (Written(lambda m, x: (lambda y: y + y)(m.a(x)), a=nn.Conv2d(3, 4, 1)), IMAGE),
    "the input added": (Written(lambda m, x: m.a(x) + x, a=nn.Conv2d(3, 3, 1)), IMAGE),
    "an activation of the input": (nn.Sequential(nn.ReLU6(), nn.Conv2d(3, 2, 1)), IMAGE),
    "a batch norm of the input": (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)), IMAGE),
    "a max pool with padding of signed levels": (hidden(nn.MaxPool2d(3, 2, 1)), IMAGE),
    "a max pool with ceil mode": (hidden(nn.MaxPool2d(3, 2, 1, ceil_mode=True)), IMAGE),
    "a max pool with a window beyond the edge": (hidden(nn.MaxPool2d(2, 3, ceil_mode=True)), IMAGE),
    "a dilated max pool": (hidden(nn.MaxPool2d(2, 1, dilation=3)), IMAGE),
    "an average with padding of signed levels": (hidden(nn.AvgPool2d(3, 2, 1)), IMAGE),
    "an adaptive average": (hidden(nn.AdaptiveAvgPool2d((4, None))), IMAGE),
    "padding of signed levels": (hidden(nn.ZeroPad2d((2, 0, 1, 3)), nn.Conv2d(4, 4, 3)), IMAGE),
    "two activations": (hidden(nn.Hardtanh(-0.05, 3), nn.ReLU6()), IMAGE),
    "a narrow clip": (hidden(nn.Hardtanh(-0.01, 0.02)), IMAGE),
    "grouped and strided": (hidden(nn.Conv2d(4, 4, (3, 1), (2, 3), (1, 0), (2, 1), groups=2), nn.ReLU()), IMAGE),
    "a reshape of maps": (
        Written(lambda m, x: m.b(m.a(x).view(-1, 2, 64)), a=nn.Conv2d(3, 4, 1), b=nn.Linear(64, 3)),
        IMAGE,
    ),
    "a volume with strides": (
        nn.Sequential(nn.Conv3d(1, 2, 3, (1, 2, 1), (0, 1, 1)), nn.AvgPool3d((1, 2, 2))),
        (1, 4, 6, 6),
    ),
}


@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
@pytest.mark.parametrize(("model", "shape"), TROUBLE.values(), ids=TROUBLE)
def test_every_shape_of_trouble_is_exact(model, shape, target, tmp_path):
    x = torch.randn(6, *shape)
    program = ana_fx.convert(ana_fx.prepare(model, x, precision="int4", calibration=[x]))
    for io in ("integer", "float"):
        ana_fx.export(program, tmp_path / "model.onnx", target=target, io=io)
        assert ana_fx.verify(program, tmp_path / "model.onnx", x).num_different == 0
        assert ana_fx.verify(program, tmp_path / "model.onnx").num_different == 0


@pytest.mark.parametrize("kind", [Residual, OneDimensional])
def test_threads_and_batches_change_no_bit(kind):
    model, x = written(kind, "int8", io="float").SerializeToString(), example(kind, 33)
    outputs = []
    for threads in (1, 2):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        outputs += [session.run(None, {"x": x.numpy()})[0]]
        outputs += [np.concatenate([session.run(None, {"x": part.numpy()})[0] for part in x.split(5)])]
    for found in outputs:
        np.testing.assert_array_equal(found, trained(kind, "int8")(x).detach().numpy())


@pytest.mark.parametrize("precision", ["ternary", "int4"])
def test_levels_are_clipped_behind_max_pools(precision, tmp_path):
    pools = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(3, 1, padding=1))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pools, nn.Flatten(), nn.Linear(36, 5))
    x = torch.rand(4, 3, 8, 8)
    program = ana_fx.convert(ana_fx.prepare(model, x, precision=precision, calibration=[x]))
    path = tmp_path / "model.onnx"
    ana_fx.export(program, path)
    found = [node.op_type for node in onnx.load(path).graph.node]
    assert found[: found.index("Clip") + 1] == ["QLinearConv", "MaxPool", "MaxPool", "Clip"]
    assert ana_fx.verify(program, path).num_different == 0


def test_a_clip_with_another_reader_stays_before_the_max_pool(tmp_path):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = torch.relu(self.conv(x))
            return torch.nn.functional.max_pool2d(y, 2), y

    x = torch.rand(4, 3, 8, 8)
    program = ana_fx.convert(ana_fx.prepare(Both(), x, precision="int4", calibration=[x]))
    path = tmp_path / "model.onnx"
    ana_fx.export(program, path)
    assert ana_fx.verify(program, path).num_different == 0
