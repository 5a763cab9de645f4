"""The Deeploy dialect: what its parser asks for, equal numbers in its arithmetic, golden files."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.targets.microcontrollers import deeploy
from ana_fx.targets.runtimes.emulation import emulate
from tests.models import Chain, Depthwise, OneDimensional, Residual, Shared, example
from tests.programs import converted
from tests.targets.dialect_helpers import (
    INT32,
    NAMES,
    PRECISIONS,
    assert_equal_to_program,
    assert_static,
    attributes,
    constants,
    network,
    program,
    shapes,
    written,
)
from tests.targets.dialects.test_integer import staircases

AWKWARD = [Chain, Residual, Depthwise, OneDimensional, Shared]


def assert_dialect(model: onnx.ModelProto) -> None:
    """What Deeploy's generic platform parses, binds and computes rightly."""
    assert_static(model)
    checks = {
        "Conv": _conv,
        "Gemm": _gemm,
        "MaxPool": _max_pool,
        "RequantShift": _requant_shift,
        "Pad": _pad,
        "Add": _add,
        "Reshape": lambda node, *_: None,
    }
    for node in model.graph.node:
        checks[node.op_type](node, attributes(node), constants(model), shapes(model))


def _conv(node, given, known, sizes):
    weight = known[node.input[1]]
    befores, afters = np.split(np.array(given["pads"]), 2)
    assert len(node.input) == 2  # its integer kernels have no bias
    assert set(given["dilations"]) == {1}
    assert given["group"] == 1 or (given["group"] == sizes[node.input[0]][1] == len(weight) and weight.shape[1] == 1)
    assert befores.tolist() == afters.tolist()
    assert list(weight.shape[2:]) == given["kernel_shape"]
    assert weight.dtype == np.float32
    assert abs(weight).max() <= 127
    assert (weight == np.rint(weight)).all()


def _gemm(node, given, known, sizes):
    assert given == {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    assert isinstance(given["alpha"], float)  # the parser calls is_integer()
    weight, bias = (known[name] for name in node.input[1:])
    assert weight.shape == (sizes[node.input[0]][1], sizes[node.output[0]][1])
    assert bias.shape == weight.shape[1:]  # the kernel reads one for each output
    assert abs(weight).max() <= 127


def _max_pool(node, given, known, sizes):
    assert set(given) == {"ceil_mode", "kernel_shape", "pads", "strides"}
    assert given["ceil_mode"] == 0
    assert not any(given["pads"])
    assert len(given["kernel_shape"]) == 2


def _requant_shift(node, given, known, sizes):
    assert node.domain == "PACTOps"
    div, num_levels, signed = (onnx.numpy_helper.to_array(given[name]) for name in ("div", "n_levels_out", "signed"))
    assert div.size == num_levels.size == signed.size == 1
    assert np.log2(div.item()) in range(31)
    assert num_levels.item() % 2 == 0
    assert 2 <= num_levels.item() <= 256
    channels = sizes[node.input[0]][1]
    for name in node.input[1:]:
        constant = known[name].astype(np.float64)
        assert constant.size == constant.shape[0] == channels
        assert (constant == np.rint(constant)).all()
        assert abs(constant).max() <= INT32


def _pad(node, given, known, sizes):
    pads = given["pads"]
    befores, afters = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    assert given["mode"] == b"constant"
    assert given["value"] == 0.0
    assert len(node.input) == 1
    assert befores[:-1] == afters[:-1]
    assert not any(befores[:2])


def _add(node, given, known, sizes):
    assert sizes[node.input[0]] == sizes[node.input[1]] == sizes[node.output[0]]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_networks_are_in_the_dialect_and_equal(name, precision, tmp_path):
    integer = network(name, precision, "deeploy")
    model = written(integer, tmp_path)
    assert_dialect(model)
    assert_equal_to_program(integer, model)


@pytest.mark.parametrize("precision", ["all-ternary", "int3"])
@pytest.mark.parametrize("kind", AWKWARD)
def test_uneven_pads_groups_dilations_and_one_axis_are_written_plainly(kind, precision, tmp_path):
    integer = converted(kind, precision, target="deeploy")
    model = written(integer, tmp_path)
    assert_dialect(model)
    assert_equal_to_program(integer, model)


def test_a_layer_is_followed_by_its_requantizer(tmp_path):
    model = written(converted(Residual, "int4", target="deeploy"), tmp_path)
    operators = {}
    for node in model.graph.node:
        operators.setdefault(node.name.rpartition("/")[0], []).append(node.op_type)
    assert operators["stem.0"] == ["Conv", "RequantShift"]
    assert operators["blocks.0.add"] == ["Add", "RequantShift"]
    assert operators["mean"] == ["Conv", "RequantShift"]
    assert operators["head"] == ["Gemm"]


def test_golden_files_hold_a_sample_and_what_the_program_makes_of_it(tmp_path):
    integer = converted(Residual, "int4", target="deeploy")
    report = ana_fx.export(integer, tmp_path / "network.onnx")
    assert report.companions == ("inputs.npz", "outputs.npz", "activations.npz")
    inputs, outputs, activations = (dict(np.load(tmp_path / name)) for name in report.companions)
    x = example(Residual)[:1]
    quantize = integer.get_submodule("x_quantizer")
    assert np.array_equal(inputs["x"], quantize(integer.meta["example_inputs"][0][:1]).numpy())
    assert inputs["x"].dtype == np.int64
    assert inputs["x"].shape == x.shape
    assert list(activations)[-1] == "head"
    assert np.array_equal(outputs["output"], activations["head"])
    (found,) = emulate(onnx.load(tmp_path / "network.onnx"), inputs)
    assert np.array_equal(found, outputs["output"])


def test_the_same_program_gives_the_same_bytes(tmp_path):
    integer = converted(Residual, "int4", target="deeploy")
    names = ("network.onnx", "inputs.npz", "activations.npz")
    first = [written(integer, tmp_path) and (tmp_path / name).read_bytes() for name in names]
    second = [written(integer, tmp_path) and (tmp_path / name).read_bytes() for name in names]
    assert first == second


class Broadcast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        y = torch.relu(self.conv(x))
        return y + y.mean((2, 3), keepdim=True)


REFUSALS = {
    "a sum that repeats one of its tensors": (Broadcast(), {}, "its tensors have different shapes"),
    "a movement that is no reshape": (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.PixelShuffle(2), nn.Flatten(), nn.Linear(64, 3)),
        {},
        "needed a reshape, the only movement there is",
    ),
    "a linear layer over images": (
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)),
        {},
        "needed one axis: flatten its input",
    ),
    "raw accumulators of a convolution": (
        nn.Conv2d(3, 4, 1),
        {"output": "int32"},
        "needed a linear last layer or output='int8'",
    ),
    "windows of several sizes": (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 3)),
        {},
        "needed windows of one size",
    ),
    "a pool of negative levels with pads": (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(3, padding=1), nn.Flatten(), nn.Linear(16, 3)),
        {},
        "put a ReLU before it",
    ),
    "a pool with gaps": (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.MaxPool2d(2, dilation=2), nn.Flatten(), nn.Linear(4, 3)),
        {},
        "its windows have gaps",
    ),
}


@pytest.mark.parametrize(("model", "settings", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_what_has_no_operator_is_refused(model, settings, reason, tmp_path):
    x = torch.rand(4, 3, 4, 4)
    precision = ana_fx.Precision("int4", "uint4", **settings)
    with pytest.raises(ana_fx.ExportError, match=reason) as caught:
        ana_fx.export(program(model, x, precision), tmp_path / "network.onnx")
    assert "module '" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_programs_for_other_targets_are_refused_all_at_once_with_the_way_out(tmp_path):
    with pytest.raises(ana_fx.ExportError) as caught:
        ana_fx.export(converted(Residual, "int8", target="integer"), tmp_path / "network.onnx", target="deeploy")
    message = str(caught.value)
    assert "needed at most 2147483647 and 30 (32 bits, one shift for all channels)" in message
    assert "needed one scale for both" in message
    assert "prepare the model with target='deeploy'" in message


def test_the_offset_that_the_tool_adds_to_accumulators_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(deeploy, "_INT32", 10_000)
    with pytest.raises(ana_fx.ExportError, match="with Deeploy's offset, needed at most 10000"):
        ana_fx.export(converted(Residual, "int4", target="deeploy"), tmp_path / "network.onnx")


def test_a_range_that_no_clips_make_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(deeploy, "requant_steps", lambda line, lo, hi: None)
    with pytest.raises(ana_fx.ExportError, match="needed a range that even clips make"):
        ana_fx.export(converted(Residual, "int4", target="deeploy"), tmp_path / "network.onnx")


def test_a_table_of_thresholds_is_refused(tmp_path):
    corrected = staircases(torch.linspace(1e-4, 5e-4, 64).tolist(), "onnxruntime", "nearest")
    with pytest.raises(ana_fx.ExportError, match="corrected by a table of thresholds"):
        ana_fx.export(corrected, tmp_path / "network.onnx", target="deeploy")


def test_float_borders_and_float_layers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="takes io='integer'"):
        ana_fx.export(converted(Residual, target="deeploy"), tmp_path / "network.onnx", io="float")
    with pytest.raises(ana_fx.PrecisionError, match="it stays in floats"):
        ana_fx.prepare(
            nn.Linear(4, 2), torch.rand(2, 4), precision=ana_fx.Precision("int4", output="float"), target="deeploy"
        )


def test_images_with_a_zero_point_are_refused(tmp_path):
    precision = ana_fx.Precision("int4", input=ana_fx.ImageInput((0.5,), (0.25,)))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(ana_fx.ExportError, match="needed a zero point of 0"):
        ana_fx.export(program(model, torch.rand(4, 1, 4, 4) * 4 - 2, precision), tmp_path / "network.onnx")
