"""QDQ: what the files hold, that onnxruntime fuses and gives the same bits, how small they are."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn

import ana_fx
from examples.networks import VGG8
from tests.models import INPUT_SHAPES, Chain, Depthwise, Residual, example
from tests.programs import converted, written


def weight_types(model: onnx.ModelProto) -> dict[str, int]:
    return {t.name: t.data_type for t in model.graph.initializer if t.name.endswith(".weight")}


def opset(model: onnx.ModelProto) -> tuple[int, int]:
    return next(each.version for each in model.opset_import if not each.domain), model.ir_version


def fused(model: onnx.ModelProto, path) -> Counter[str]:
    """The operators that onnxruntime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    ("precision", "kind", "version"),
    [
        ("ternary", TensorProto.INT2, (25, 13)),
        ("int4", TensorProto.INT4, (21, 10)),
        ("int8", TensorProto.INT8, (19, 9)),
    ],
)
def test_weights_are_stored_in_the_narrowest_type_and_the_opset_is_the_first_that_has_it(precision, kind, version):
    model = written(Chain, precision, to="qdq")
    assert set(weight_types(model).values()) == {kind}
    assert opset(model) == version


@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
def test_qdq_int8_stores_bytes(precision):
    model = written(Chain, precision, to="qdq-int8")
    assert set(weight_types(model).values()) == {TensorProto.INT8}
    assert opset(model) == (19, 9)


def test_weights_of_three_bits_take_four(tmp_path):
    x = example(Chain)
    precision = ana_fx.Precision("int3", "uint4", overrides={"hidden": "int5"})
    qat = ana_fx.prepare(Chain(), x, precision=precision)
    qat.train()(x)
    program = ana_fx.convert(qat.eval())
    ana_fx.export(program, tmp_path / "model.onnx", target="qdq")
    types = weight_types(onnx.load(tmp_path / "model.onnx"))
    assert types["features.0.weight"] == TensorProto.INT4
    assert types["hidden.weight"] == TensorProto.INT8
    assert ana_fx.verify(program, tmp_path / "model.onnx", x).num_different == 0


def test_biases_are_int32_with_the_product_of_the_scales():
    model = written(Chain, "int8", to="qdq")
    numbers = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert numbers["hidden.bias"].dtype == np.int32
    product = numbers["hidden.scale"] * numbers["hidden.weight_scale"]
    assert np.array_equal(numbers["hidden.bias_scale"], np.broadcast_to(product, numbers["hidden.bias"].shape))


def test_only_floats_are_multiplied():
    model = written(Residual, "int4", to="qdq")
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "Add"):
            assert types[node.output[0]] == TensorProto.FLOAT


@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
@pytest.mark.parametrize("target", ["qdq", "qdq-int8"])
def test_onnxruntime_fuses_every_layer_but_the_head(target, precision, tmp_path):
    found = fused(written(Residual, precision, to=target), tmp_path / "fused.onnx")
    assert (found["QLinearConv"], found["QLinearAdd"], found["Conv"], found["Add"]) == (7, 2, 0, 0)
    assert found["QuantizeLinear"] == 0


def test_onnxruntime_fuses_hidden_linear_layers(tmp_path):
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    x = torch.rand(8, 5, 6)  # five rows a sample
    program = ana_fx.convert(ana_fx.prepare(Rows(), x, precision="int4", calibration=[x]))
    path = tmp_path / "model.onnx"
    ana_fx.export(program, path, target="qdq")
    assert fused(onnx.load(path), tmp_path / "fused.onnx")["QGemm"] >= 2
    assert ana_fx.verify(program, path, x).num_different == 0


@pytest.mark.parametrize("io", ["integer", "float"])
@pytest.mark.parametrize("target", ["qdq", "qdq-int8"])
@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
@pytest.mark.parametrize("kind", INPUT_SHAPES)
def test_the_networks_are_exact_in_onnxruntime(kind, precision, target, io, tmp_path):
    program = converted(kind, precision)
    ana_fx.export(program, tmp_path / "model.onnx", target=target, io=io)
    report = ana_fx.verify(program, tmp_path / "model.onnx", example(kind, 16))
    assert (report.num_different, len(report.runtimes)) == (0, 1)


def test_awkward_batch_norms_are_exact_in_onnxruntime(tmp_path):
    program = converted(Depthwise, "int4", awkward=True)
    ana_fx.export(program, tmp_path / "model.onnx", target="qdq")
    assert ana_fx.verify(program, tmp_path / "model.onnx", example(Depthwise, 16, signed=True)).num_different == 0


def test_a_changed_weight_is_found_in_onnxruntime(tmp_path):
    path = tmp_path / "model.onnx"
    ana_fx.export(converted(Chain, "int4"), path, target="qdq")
    model = onnx.load(path)
    (weight,) = (each for each in model.graph.initializer if each.name == "head.weight")
    weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
    onnx.save(model, path)
    with pytest.raises(ana_fx.VerifyError, match="output 0 in onnxruntime differs from the program"):
        ana_fx.verify(converted(Chain, "int4"), path)


def test_a_float_tail_keeps_its_floats(tmp_path):
    x = torch.rand(8, 6)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    precision = ana_fx.Precision("int4", "uint4", output="float")
    program = ana_fx.convert(ana_fx.prepare(model, x, precision=precision, calibration=[x]))
    ana_fx.export(program, tmp_path / "model.onnx", target="qdq")
    assert ana_fx.verify(program, tmp_path / "model.onnx", x).num_different == 0


def test_logits_that_floats_do_not_hold_are_computed_in_integers(tmp_path):
    program = copy.deepcopy(converted(Chain, "int4"))
    program.get_submodule("head").bias += 2**24
    report = ana_fx.export(program, tmp_path / "model.onnx", target="qdq")
    assert report.nodes[-1].operator == "MatMulInteger"
    assert ana_fx.verify(program, tmp_path / "model.onnx").num_different == 0


def test_shift_staircases_are_refused_by_name(tmp_path):
    with pytest.raises(ana_fx.ExportError, match=r"'hidden' has a staircase of integer shifts"):
        ana_fx.export(converted(Chain, "int4", target="integer"), tmp_path / "model.onnx", target="qdq")


@pytest.mark.slow  # fourteen million weights
def test_vgg8_with_ternary_weights_is_less_than_a_fourteenth_of_its_floats(tmp_path):
    torch.manual_seed(0)
    model, x = VGG8(), torch.rand(2, 3, 32, 32)
    floats = 4 * sum(each.numel() for each in model.parameters())
    qat = ana_fx.prepare(model, x, precision="ternary")
    qat.train()(x)
    report = ana_fx.export(ana_fx.convert(qat.eval()), tmp_path / "model.onnx", target="qdq")
    assert report.bytes * 14 < floats
