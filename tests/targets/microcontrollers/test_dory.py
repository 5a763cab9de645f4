"""The DORY dialect: what its Quantlab front end asks for, equal numbers in its arithmetic, golden files.

They cover `microcontrollers/dory_layout.py`, `microcontrollers/dory_limits.py`, `microcontrollers/float_typed.py`,
`microcontrollers/float_typed_limits.py`, `onnx/foreign_attributes.py` too.
"""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.target_registry import target_called
from ana_fx.targets.microcontrollers.dory import DORY
from ana_fx.targets.onnx.foreign_attributes import without_attributes
from ana_fx.targets.runtimes.emulation import ADD_ATTRIBUTES
from tests.models import Chain, Residual, Shared
from tests.programs import converted
from tests.targets.dialect_helpers import (
    INT32,
    NAMES,
    PRECISIONS,
    assert_equal_to_program,
    assert_static,
    attributes,
    constants,
    integers,
    network,
    program,
    shapes,
    written,
)

ACCEPTED = {"Conv", "MatMul", "Gemm", "Mul", "Add", "Div", "Floor", "Clip", "Cast", "MaxPool", "Reshape"}
SKIPPED = {"Floor", "Cast", "Reshape"}  # the parser gives their output to the node before them
CHAIN = ["Mul", "Add", "Div", "Floor", "Clip"]


def assert_dialect(model: onnx.ModelProto) -> None:
    """What DORY's front end parses into its own nodes."""
    assert_static(model)
    nodes, known = list(model.graph.node), constants(model)
    outputs = [int(name) for node in nodes for name in node.output]
    assert [int(value.name) for value in model.graph.input] == [0]
    assert outputs == list(range(1, len(nodes) + 1))
    previous = "0"
    for node in nodes:
        assert node.op_type in ACCEPTED
        if node.op_type in SKIPPED:
            assert node.input[0] == previous
        previous = node.output[0]
    layers = [node for node in nodes if node.op_type not in SKIPPED]
    for index, node in enumerate(layers):
        given, following = attributes(node), [each.op_type for each in layers[index + 1 : index + 5]]
        if node.op_type in ("Conv", "MatMul"):
            assert following == [name for name in CHAIN if name not in SKIPPED]
        if node.op_type in ("Conv", "MatMul", "Gemm"):
            _weight(node, given, known, shapes(model))
        elif node.op_type == "Clip":
            _clip(given["min"], given["max"], given["out_bits"])
        elif node.op_type == "Add" and node.input[1] not in known:
            _sum(given)
        elif node.op_type == "MaxPool":
            assert set(given) == {"kernel_shape", "pads", "strides"}
            assert len(set(given["strides"])) == 1
        elif node.op_type in CHAIN:
            _constant(node, known[node.input[1]], shapes(model)[node.input[0]][1])


def _weight(node, given, known, sizes):
    weight, bits = known[node.input[1]], given["weight_bits"]
    assert node.input[1].startswith("weight_")
    assert "bias" not in node.input[1]
    assert bits in (2, 4, 8)
    assert -(2 ** (bits - 1)) <= weight.min()
    assert weight.max() < 2 ** (bits - 1)
    if node.op_type == "Conv":
        assert set(given["dilations"]) == {1}
        assert len(set(given["strides"])) == 1
        assert given["group"] in (1, len(weight))
        assert weight[0].size * bits % 8 == 0
    else:  # the parser takes a square matrix for [in, out]
        assert weight.shape[0] == sizes[node.input[0]][1]
    if node.op_type == "Gemm":
        assert "bias" in node.input[2]
        assert known[node.input[2]].shape == weight.shape[1:]


def _clip(low, high, bits):
    assert bits in (2, 4, 8)
    assert (low, high) in {(0, 2**bits - 1), (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)}


def _sum(given):
    assert set(given) == ADD_ATTRIBUTES
    assert all(isinstance(number, int) for number in given.values())
    assert [given[f"in{index}_{name}"] for index in (1, 2) for name in ("mul", "add", "shift")] == [1, 0, 0] * 2
    assert given["out_n_levels"] in (4, 16, 256)
    assert max(abs(given["out_mul"]), abs(given["out_add"])) <= INT32
    assert 0 <= given["out_shift"] <= 30


def _constant(node, constant, channels):
    if node.op_type == "Div":
        assert constant.shape == ()
        assert np.log2(constant.item()) in range(31)
        return
    assert constant.shape[0] == constant.size == channels  # a scalar would be taken for another pattern
    assert (constant == np.rint(constant)).all()
    assert abs(constant).max() <= INT32


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_networks_are_in_the_dialect_and_equal(name, precision, tmp_path):
    integer = network(name, precision, "dory")
    model = written(integer, tmp_path)
    assert_dialect(model)
    assert_equal_to_program(integer, model)


def test_values_below_2_to_the_24_stay_in_float32_and_are_equal_in_onnxruntime(tmp_path):
    """A chain with larger ones is in float64, and the attributes are all that onnxruntime does not know."""
    integer = network("vgg8", "ternary", "dory")
    model = written(integer, tmp_path)
    assert not any(node.op_type == "Cast" for node in model.graph.node)
    session = onnxruntime.InferenceSession(without_attributes(model, DORY.foreign_attributes).SerializeToString())
    levels = torch.randint(0, 256, (5, 3, 32, 32))
    (logits,) = integers(integer, integer.get_submodule("images_quantizer").real(levels))
    for sample, wanted in zip(levels, logits, strict=True):
        (found,) = session.run(None, {"0": sample[None].numpy().astype(np.float32)})
        assert np.array_equal(found[0], wanted)


def test_larger_numbers_get_chains_in_float64(tmp_path):
    model = written(network("residual", "int8", "dory"), tmp_path)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    names = {node.op_type: types[node.output[0]] for node in model.graph.node if node.output[0] in types}
    assert names["Mul"] == onnx.TensorProto.DOUBLE
    assert names["Conv"] == onnx.TensorProto.FLOAT


def test_golden_files_are_what_the_tool_reads_beside_the_model(tmp_path):
    integer = network("residual", "int4", "dory")
    report = ana_fx.export(integer, tmp_path / "network.onnx")
    layers = [name for name in report.companions if name.startswith("out_layer")]
    assert layers == [f"out_layer{index}.txt" for index in range(len(layers))]
    assert {*report.companions} == {"config.json", "input.txt", *layers}
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "BNRelu_bits": 32,
        "onnx_file": "network.onnx",
        "code reserved space": 152000,
        "n_inputs": 1,
        "input_bits": 8,
        "input_signed": False,
    }
    x = integer.meta["example_inputs"][0][:1]
    levels = integer.get_submodule("x_quantizer")(x).numpy()
    assert np.array_equal(text(tmp_path / "input.txt"), np.moveaxis(levels[0], 0, -1).ravel())
    (logits,) = integers(integer, x)
    assert np.array_equal(text(tmp_path / layers[-1]), logits.ravel())
    assert (tmp_path / "out_layer0.txt").read_text().startswith("# shape [8, 8, 8]\n")


def text(path):
    return np.loadtxt(path, delimiter=",", dtype=np.int64, usecols=[0])


def test_signed_inputs_are_written_as_bytes_because_the_tool_reads_no_sign(tmp_path):
    integer = program(nn.Sequential(nn.Flatten(), nn.Linear(8, 4)), torch.rand(4, 2, 2, 2) - 0.5, target="dory")
    ana_fx.export(integer, tmp_path / "network.onnx")
    assert json.loads((tmp_path / "config.json").read_text())["input_signed"] is True
    levels = integer.get_submodule("input_1_quantizer")(integer.meta["example_inputs"][0][:1]).numpy()
    assert levels.min() < 0
    wanted = np.moveaxis(levels[0], 0, -1).astype(np.uint8).ravel()
    assert np.array_equal(text(tmp_path / "input.txt"), wanted)


def test_borders_keep_their_names_in_the_metadata(tmp_path):
    model = written(network("residual", "int4", "dory"), tmp_path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["0.name"] == "x"
    assert metadata["0.type"] == "uint8"
    assert metadata[f"{model.graph.output[0].name}.name"] == "output"


class Clipped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = nn.functional.relu6(self.first(x))
        return y + self.second(y) * 3


def refused(model: nn.Module, reason: str, tmp_path, shape=(3, 4, 4), precision="int4"):
    with pytest.raises(ana_fx.ExportError, match=reason):
        ana_fx.export(program(model, torch.rand(4, *shape), precision, "dory"), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_strides_that_differ_are_refused(tmp_path):
    refused(nn.Sequential(nn.Conv2d(3, 4, 1, (1, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)), "strides", tmp_path)
    pool = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.MaxPool2d(2, (1, 2)), nn.Flatten(), nn.Linear(24, 3))
    refused(pool, "its strides are", tmp_path)


def test_channels_that_do_not_fill_bytes_are_refused(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3))
    refused(net, "its 6 channels of 2 bits do not fill bytes", tmp_path, precision="ternary")


def test_clips_that_kernels_do_not_have_are_refused(tmp_path):
    """Of a program for another target, where a ReLU6 has the scale of what its output is added to."""
    integer = program(Clipped(), torch.rand(8, 3, 4, 4) * 50, "int8", "deeploy")
    with pytest.raises(ana_fx.ExportError, match=r"needed 0 to 255 \(uint8\), to which kernels clip"):
        ana_fx.export(integer, tmp_path / "network.onnx", target="dory")


def test_clips_at_negative_numbers_are_refused_by_prepare():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardtanh(-0.1, 3))
    with pytest.raises(ana_fx.PrecisionError, match="its activation clips at a negative number"):
        ana_fx.prepare(net, torch.rand(2, 3, 4, 4), precision="int4", target="dory")


def test_reshapes_that_flatten_nothing_are_refused(tmp_path):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 2, 1))
    refused(net, "DORY flattens only", tmp_path, shape=(4,))


def test_an_input_with_several_readers_is_refused(tmp_path):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.first(x) + self.second(x)

    refused(Twice(), "2 layers read the input", tmp_path)


class NormalizedSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.norm.weight.data = torch.tensor([1.0, 2.0, 3.0, 4.0])

    def forward(self, x):
        y = torch.relu(self.first(x))
        return self.norm(y + self.second(y))


def test_a_sum_with_a_slope_for_each_channel_is_refused(tmp_path):
    refused(NormalizedSum(), "needed one for a sum", tmp_path)


@pytest.mark.parametrize("precision", ["int3", "all-ternary"])
def test_activations_without_a_clip_are_refused_by_prepare(precision):
    with pytest.raises(ana_fx.PrecisionError, match="needed all levels of 2, 4 or 8 bits"):
        ana_fx.prepare(Residual(), torch.rand(2, 3, 8, 8), precision=precision, target="dory")


def test_a_reshape_behind_another_branch_is_refused(tmp_path):
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.left, self.right = nn.Linear(64, 4), nn.Linear(64, 4)
            for layer in (self.first, self.second, self.left, self.right):
                nn.init.ones_(layer.bias)  # so that no ReLU is dead

        def forward(self, x):
            x = torch.relu(self.first(x))
            y = torch.relu(self.second(x))
            return torch.relu(self.left(x.flatten(1))) + torch.relu(self.right(y.flatten(1)))

    refused(Branches(), "something stands between it and what it reshapes", tmp_path)


def test_programs_that_only_fit_another_target_are_refused(tmp_path):
    with pytest.raises(ana_fx.ExportError, match="prepare the model with target='dory'"):
        ana_fx.export(converted(Chain, "int8", target="integer"), tmp_path / "network.onnx", target="dory")
    with pytest.raises(ana_fx.PrecisionError, match="it has 1 spatial axes, needed 2"):
        ana_fx.prepare(nn.Conv1d(1, 2, 3), torch.rand(2, 1, 8), target="dory")


def test_a_shared_layer_is_written_for_each_call(tmp_path):
    integer = converted(Shared, "int8", target="dory")
    model = written(integer, tmp_path)
    assert_dialect(model)
    assert_equal_to_program(integer, model)


def test_descriptions_differ_in_ranges_alone():
    deeploy, dory = target_called("deeploy"), target_called("dory")
    assert replace(
        dory, name="deeploy", summary=deeploy.summary, emitter=deeploy.emitter, whole_ranges=False,
        spatial_axes=deeploy.spatial_axes,
    ) == deeploy  # fmt: skip


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_clipped_activation_ends_at_the_highest_level(precision, tmp_path):
    integer = program(Clipped(), torch.rand(8, 3, 4, 4) * 50, precision, "dory")
    model = written(integer, tmp_path)
    assert_dialect(model)
    assert_equal_to_program(integer, model)
