"""What stands in a .tosa file, and which programs are refused.

Of tosa/graph_builder.py, tosa/tosa_dialect.py, tosa/tosa_family.py, tosa/tosa_limits.py, tosa/tosa_lookups.py,
tosa/tosa_moves.py, tosa/tosa_pairs.py, tosa/tosa_pools.py, tosa/tosa_products.py, tosa/tosa_softmax.py,
tosa/tosa_upsampling.py and tosa/tosa_writer.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.errors import ExportError, PrecisionError
from ana_fx.targets.tosa.graph_builder import GraphBuilder
from ana_fx.targets.tosa.tosa_file import read_tosa
from ana_fx.targets.tosa.tosa_schema import DataType, Op
from examples.networks import DSCNN, VGG8, ResNet20


def program(model, *shape, target="tosa", precision="int8"):
    qat = ana_fx.prepare(model, torch.rand(2, *shape), precision=precision, target=target)
    qat.train()(torch.rand(4, *shape))
    return ana_fx.convert(qat.eval())


def written(tmp_path, model, *shape, **settings):
    ana_fx.export(program(model, *shape, **settings), tmp_path / "m.tosa")
    return read_tosa(tmp_path / "m.tosa")


def operators(file):
    """Its operators but constants."""
    return {name: count for name, count in file.contents().operators.items() if "CONST" not in name}


def attributes(file, op):
    return [each["attribute"][1] for each in file.block["operators"] if each["op"] == op]


@pytest.mark.parametrize(
    ("make", "shape", "wanted"),
    [
        (lambda: VGG8(16), (3, 32, 32), {"CONV2D": 8, "RESCALE": 7, "MAX_POOL2D": 3, "RESHAPE": 2}),
        (DSCNN, (1, 49, 10), {"CONV2D": 6, "DEPTHWISE_CONV2D": 5, "RESCALE": 10, "RESHAPE": 1}),
        (
            ResNet20,
            (3, 32, 32),
            {"CONV2D": 20, "DEPTHWISE_CONV2D": 1, "ADD": 9, "RESCALE": 47, "PAD": 2, "SLICE": 2, "MAX_POOL2D": 2}
            | {"RESHAPE": 1},
        ),
    ],
)
def test_a_network_has_the_operators_of_its_layers_and_no_transposition(make, shape, wanted, tmp_path):
    assert operators(written(tmp_path, make(), *shape)) == wanted


def test_few_levels_are_clamped(tmp_path):
    file = written(tmp_path, VGG8(16), 3, 32, 32, precision="ternary")
    ends = [(each["min_val"], each["max_val"]) for each in attributes(file, Op.CLAMP)]
    assert {tuple(np.frombuffer(end, np.int8).item() for end in pair) for pair in ends} == {(124, 127)}
    assert len(ends) == 7


def test_every_rescale_rounds_once_to_the_nearest(tmp_path):
    for each in attributes(written(tmp_path, DSCNN(), 1, 49, 10), Op.RESCALE):
        assert (each["scale32"], each["rounding_mode"]) == (1, 1)


def test_rows_and_columns_that_no_window_sees_are_left_out(tmp_path):
    """TOSA takes no others: sizes must divide by the stride."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 1, stride=3))
    file = written(tmp_path, model, 1, 8, 8)
    first, second = attributes(file, Op.CONV2D)
    assert (first["pad"].tolist(), second["pad"].tolist()) == ([1, 0, 1, 0], [0, 0, 0, 0])
    assert operators(file).get("SLICE") is None  # 4 × 4, the fourth row and column are where the second window is


def test_a_row_beyond_the_last_window_is_sliced_off(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 2, stride=2), nn.ReLU(), nn.Conv2d(2, 2, 1))
    assert operators(written(tmp_path, model, 1, 7, 7))["SLICE"] == 1


def test_groups_are_convolutions_of_their_own_and_one_rescale(tmp_path):
    file = written(tmp_path, nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 1)), 4, 8, 8)
    assert operators(file) == {"CONV2D": 3, "SLICE": 2, "RESCALE": 2, "CONCAT": 1}
    sizes = {tuple(each["shape"]) for each in file.block["tensors"] if each.get("data") is not None}
    assert (2, 3, 3, 2) in sizes


class Around(nn.Module):
    """Something behind a convolution."""

    def __init__(self, function, conv=nn.Conv2d):
        super().__init__()
        self.conv, self.function = conv(1, 2, 3), function

    def forward(self, x):
        return self.function(self.conv(x))


def test_steps_of_an_image_are_a_pool_of_single_bytes(tmp_path):
    found = operators(written(tmp_path, Around(lambda x: x[:, :, ::2, 1::3]), 1, 8, 8))
    assert (found["MAX_POOL2D"], "GATHER" in found) == (1, False)


def test_steps_of_a_row_are_gathered(tmp_path):
    found = operators(written(tmp_path, Around(lambda x: x[:, :, ::2], nn.Conv1d), 1, 8))
    assert (found["GATHER"], "MAX_POOL2D" in found) == (1, False)


def test_tables_are_tables(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Hardswish(), nn.Conv2d(2, 2, 1), nn.PReLU(2), nn.Conv2d(2, 2, 1))
    with torch.no_grad():
        model[3].weight.copy_(torch.tensor([0.1, 0.5]))
    found = operators(written(tmp_path, model, 1, 4, 4))
    assert (found["TABLE"], found["GATHER"]) == (1, 1)


def test_its_borders_are_those_of_the_program(tmp_path):
    file = written(tmp_path, DSCNN(), 1, 49, 10)
    (x,), (y,) = file.inputs, file.outputs
    assert (x.name, x.shape, x.dtype.name) == ("cepstra", (1, 49, 10), "uint8")
    assert x.held == "int8 Nx49x10x1, zero point -128"
    assert (y.name, y.shape, y.dtype.name, y.held) == ("output", (12,), "int32", "")


def test_labels_are_kept(tmp_path):
    ana_fx.export(program(nn.Sequential(nn.Linear(8, 2)), 8), tmp_path / "m.tosa", labels=["cat", "dog"])
    assert read_tosa(tmp_path / "m.tosa").labels == ("cat", "dog")
    assert "labels: cat, dog" in str(ana_fx.inspect(tmp_path / "m.tosa"))


def test_the_same_program_is_the_same_file(tmp_path):
    integer = program(nn.Sequential(nn.Conv1d(4, 2, 3), nn.ReLU(), nn.Conv1d(2, 2, 1)), 4, 8)
    for name in ("a.tosa", "b.tosa"):
        ana_fx.export(integer, tmp_path / name)
    assert (tmp_path / "a.tosa").read_bytes() == (tmp_path / "b.tosa").read_bytes()


def test_borders_keep_their_names_and_all_others_have_one_of_their_own():
    builder = GraphBuilder()
    one = builder.tensor("layer", (2,))
    x, y = builder.tensor("layer", (2,)), builder.tensor("layer", (2,))
    builder.inputs["layer"], builder.outputs["y"] = x, y
    builder.operator(Op.IDENTITY, [x], one)
    builder.operator(Op.IDENTITY, [one], y)
    assert builder._unique_names() == ["layer.1", "layer", "y"]


def test_equal_constants_are_stored_once_and_equal_bytes_of_another_type_are_not():
    builder = GraphBuilder()
    array = np.zeros(4, np.int8)
    assert builder.constant("a", array) == builder.constant("b", array.copy())
    assert builder.constant("c", np.zeros(1, np.int32)) != builder.constant("a", array)
    assert [each["type"] for each in builder.tensors.values()] == [DataType.INT8, DataType.INT32]


def test_logits_leave_as_int32_unless_the_precision_says_otherwise(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    file = written(tmp_path, model, 1, 8, 8)
    assert [(each.dtype.name, each.levels, each.shape) for each in file.outputs] == [("int32", "int32", (3,))]
    assert operators(file)["RESCALE"] == 1
    file = written(tmp_path, model, 1, 8, 8, precision=ana_fx.Precision("int8", "uint8", output="int8"))
    assert [each.dtype.name for each in file.outputs] == ["int8"]


def test_accumulators_of_a_convolution_may_leave_too(tmp_path):
    model, precision = nn.Sequential(nn.Conv2d(1, 2, 3)), ana_fx.Precision("int8", "uint8", output="int32")
    (y,) = written(tmp_path, model, 1, 8, 8, precision=precision).outputs
    assert (y.shape, y.held) == ((2, 6, 6), "int32 Nx6x6x2, zero point 0")


def test_all_that_it_does_not_hold_is_refused_at_prepare_at_once():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.LayerNorm(6), nn.Conv2d(2, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")
    )
    with pytest.raises(PrecisionError, match=r"(?s)it is a normalization.*it is an interpolation"):
        ana_fx.prepare(model, torch.rand(2, 1, 8, 8), precision="int8", target="tosa")


def test_convolutions_over_volumes_are_refused():
    with pytest.raises(PrecisionError, match="3 spatial axes, needed 1 or 2"):
        ana_fx.prepare(nn.Sequential(nn.Conv3d(1, 2, 3)), torch.rand(2, 1, 8, 8, 8), precision="int8", target="tosa")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (nn.MaxPool2d(2, dilation=2), r"max pool has dilation \(2, 2\), needed 1"),
        (nn.AdaptiveAvgPool2d(4), "windows have several sizes, needed one"),
        (lambda x: x.mean(1), r"mean over axes \(1,\), needed axes behind the channels"),
    ],
)
def test_what_depends_on_sizes_is_refused_at_export(function, reason, tmp_path):
    with pytest.raises(ExportError, match=reason):
        ana_fx.export(program(Around(function), 1, 8, 8), tmp_path / "m.tosa")


def test_a_window_beyond_the_level_is_refused(tmp_path):
    with pytest.raises(ExportError, match="its window spans 8998 numbers, needed 8192"):
        ana_fx.export(program(Around(lambda x: x.mean(2), nn.Conv1d), 1, 9000), tmp_path / "m.tosa")


@pytest.mark.parametrize("prepared", ["onnxruntime", "tflite-micro", "integer"])
def test_a_program_for_other_arithmetic_is_refused(prepared, tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3))
    with pytest.raises(ExportError, match="target='tosa'"):
        ana_fx.export(program(model, 1, 8, 8, target=prepared), tmp_path / "m.tosa", target="tosa")
