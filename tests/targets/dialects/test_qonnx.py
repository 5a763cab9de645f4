"""QONNX: what the files hold, which staircases become what, and what is refused; test_consumers.py runs them.

They cover `dialects/float_staircase.py`, `dialects/qonnx_nodes.py` too.
"""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

import ana_fx
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.targets.dialects.float_staircase import float_staircase, thresholds_of
from tests.models import Chain, OneDimensional, Residual
from tests.programs import converted, written

DOMAIN = "qonnx.custom_op.general"


def nodes(model: onnx.ModelProto, op_type: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == op_type]


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def maps(kind: type[nn.Module], precision: str, **settings: object) -> list[IntegerMap]:
    program = converted(kind, precision, **settings)
    return [module for module in program.modules() if isinstance(module, IntegerMap)]


@pytest.mark.parametrize("io", ["integer", "float"])
def test_all_tensors_are_floats_and_every_scale_is_one(io):
    model = written(Chain, "int4", to="qonnx", io=io)
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    numbers = constants(model)
    types = {value.type.tensor_type.elem_type for value in values if value.name not in numbers}
    assert types == {TensorProto.FLOAT}
    quants = nodes(model, "Quant")
    assert {node.domain for node in quants} == {DOMAIN}
    assert {float(numbers[node.input[1]]) for node in quants} == {1.0}
    assert {float(numbers[node.input[2]]) for node in quants} == {0.0}


def test_weights_are_integers_behind_a_quant_of_their_width():
    model = written(Chain, "int4", to="qonnx")
    numbers = constants(model)
    quants = {node.input[0]: node for node in nodes(model, "Quant") if node.input[0] in numbers}
    assert set(quants) == {"features.0.weight", "features.5.weight", "hidden.weight", "head.weight"}
    for name, node in quants.items():
        weight, bits = numbers[name], int(numbers[node.input[3]])
        assert bits <= 4
        assert attributes(node)["signed"] == 1
        assert np.array_equal(weight, np.round(weight))
        assert np.abs(weight).max() <= 2 ** (bits - 1)


def test_ternary_weights_without_zeros_are_bipolar():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.where(torch.rand(4, 6) < 0.5, -1.0, 1.0))
    x = torch.rand(8, 6)
    program = ana_fx.convert(ana_fx.prepare(model, x, precision="ternary", calibration=[x]))
    file = exported(program)
    assert [node.input[0] for node in nodes(file, "BipolarQuant")] == ["0.weight"]


def exported(program: torch.fx.GraphModule, target: str = "qonnx", **settings: object) -> onnx.ModelProto:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        ana_fx.export(program, Path(folder) / "model.onnx", target=target, **settings)
        return onnx.load(Path(folder) / "model.onnx")


@pytest.mark.parametrize("kind", [Chain, Residual, OneDimensional])
@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
def test_every_qlinear_staircase_is_a_chain_of_float_operators(kind, precision):
    """At each threshold and next to it the chain, computed in float32, gives the staircase's own level."""
    for module in maps(kind, precision):
        chain = float_staircase(module)
        assert chain is not None
        low, high = module.signed_range()
        thresholds = thresholds_of(module)
        near = torch.cat([thresholds - 1, thresholds, thresholds + 1, low[:, None], high[:, None]], 1)
        near = near.clamp(low[:, None], high[:, None])
        assert torch.equal(chain.level(near, module.lo, module.hi), module.staircase.level(near, 0))


def test_multipliers_and_shifts_are_preferred_to_the_float_formula():
    chains = [float_staircase(module) for module in maps(Chain, "ternary")]
    assert all(chain.is_floor for chain in chains)
    assert all(torch.equal(chain.after, torch.ones_like(chain.after)) for chain in chains)


def test_a_staircase_that_no_chain_equals_is_a_multithreshold():
    """A multiplier of 16 bits times accumulators of 20 does not fit float32."""
    model = written(Chain, "int8", to="qonnx", target="integer")
    found = nodes(model, "MultiThreshold")
    assert found
    assert [node.name.split("/")[0] for node in found] == [
        path
        for path, module in converted(Chain, "int8", target="integer").named_modules()
        if isinstance(module, IntegerMap) and float_staircase(module) is None
    ]


def test_the_multithreshold_target_writes_the_thresholds_themselves():
    model = written(Chain, "int4", to="qonnx-multithreshold")
    found = {node.name.split("/")[0]: node for node in nodes(model, "MultiThreshold")}
    assert set(found) == {"features.0", "features.5", "hidden"}
    program, numbers = converted(Chain, "int4"), constants(model)
    for path, node in found.items():
        module = program.get_submodule(path)
        assert np.array_equal(numbers[node.input[1]], thresholds_of(module).numpy())
        assert attributes(node)["out_dtype"] == b"UINT4"
        assert (attributes(node)["out_scale"], attributes(node)["out_bias"]) == (1.0, 0.0)
    layouts = {path: attributes(node)["data_layout"] for path, node in found.items()}
    assert layouts == {"features.0": b"NCHW", "features.5": b"NCHW", "hidden": b"NC"}


def test_the_lowest_level_of_a_signed_type_is_the_bias_of_its_multithreshold():
    model = written(Residual, "all-ternary", to="qonnx-multithreshold")
    settings = {(attributes(n)["out_dtype"], attributes(n)["out_bias"]) for n in nodes(model, "MultiThreshold")}
    assert (b"INT2", -1.0) in settings


def test_max_pools_say_their_pads():
    pools = nodes(written(Chain, "int4", to="qonnx"), "MaxPool")
    assert [attributes(node)["pads"] for node in pools] == [[0, 0, 0, 0]] * 2


def test_the_opset_of_the_dialect_is_imported():
    imports = {each.domain: each.version for each in written(Chain, "int4", to="qonnx").opset_import}
    assert imports == {"": 19, DOMAIN: 1}


def test_only_the_operators_of_a_finn_like_flow_stand_in_a_convolutional_network():
    found = Counter(node.op_type for node in written(Chain, "ternary", to="qonnx").graph.node)
    assert set(found) == {"Quant", "Conv", "MatMul", "Mul", "Add", "MaxPool", "Reshape"}


def test_an_accumulator_that_float32_does_not_hold_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(4096, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.ones_(model[0].weight)
    x = torch.rand(4, 4096)
    program = ana_fx.convert(ana_fx.prepare(model, x, precision="int8", calibration=[x]))
    with pytest.raises(ana_fx.ExportError, match=r"accumulator can reach \d+, needed 25 bits"):
        ana_fx.export(program, tmp_path / "model.onnx", target="qonnx")
    assert not list(tmp_path.iterdir())


def test_logits_that_float32_does_not_hold_are_refused(tmp_path):
    program = copy.deepcopy(converted(Chain, "int4"))
    program.get_submodule("head").bias += 2**24
    with pytest.raises(ana_fx.ExportError, match=r"its logits can reach \d+, needed less than 16777216 \(float32\)"):
        ana_fx.export(program, tmp_path / "model.onnx", target="qonnx")


def test_a_float_layer_is_refused(tmp_path):
    x = torch.rand(4, 6)
    precision = ana_fx.Precision("int4", "uint4", output="float")
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    program = ana_fx.convert(ana_fx.prepare(model, x, precision=precision, calibration=[x]))
    with pytest.raises(ana_fx.ExportError, match="it stays in floats, needed integers"):
        ana_fx.export(program, tmp_path / "model.onnx", target="qonnx")
