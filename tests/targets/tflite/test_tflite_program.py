"""What stands in a .tflite file, and which programs are refused.

Of channels_last/aligned_pair.py, channels_last/free_moves.py, channels_last/held_tensor.py,
channels_last/kernel_product.py, channels_last/layout_family.py, channels_last/layout_file.py,
channels_last/layout_limits.py, channels_last/layout_program.py, channels_last/layout_writer.py,
channels_last/product_writers.py, channels_last/writer_dialect.py, files/flat_schema.py, tflite/model_builder.py,
tflite/tflite_dialect.py, tflite/tflite_family.py, tflite/tflite_limits.py, tflite/tflite_writer.py,
tflite/write_clips.py, tflite/write_joins.py, tflite/write_moves.py, tflite/write_pads.py and
tflite/write_products.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.errors import ExportError, PrecisionError
from ana_fx.graph import quantizers
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.targets.channels_last.held_tensor import HeldTensor, channels_last, zero_point_of
from ana_fx.targets.tflite.schema import Activation, Padding
from ana_fx.targets.tflite.tflite_file import read_tflite
from ana_fx.targets.tflite.write_pads import kernel_padding
from examples.networks import DSCNN, VGG8, ResNet20
from tests.models import OneDimensional


def program(model, *shape, target="litert", precision="int8"):
    qat = ana_fx.prepare(model, torch.rand(2, *shape), precision=precision, target=target)
    qat.train()(torch.rand(4, *shape))
    return ana_fx.convert(qat.eval())


def written(tmp_path, model, *shape, **settings):
    ana_fx.export(program(model, *shape, **settings), tmp_path / "m.tflite")
    return read_tflite(tmp_path / "m.tflite")


def options(file, table):
    return [values for each in file.graph["operators"] for name, values in [each["options"]] if name == table]


@pytest.mark.parametrize(
    ("make", "shape", "wanted"),
    [
        (lambda: VGG8(16), (3, 32, 32), {"CONV_2D": 8, "MAX_POOL_2D": 3, "RESHAPE": 2}),
        (DSCNN, (1, 49, 10), {"CONV_2D": 6, "DEPTHWISE_CONV_2D": 5, "RESHAPE": 1}),
        (
            ResNet20,
            (3, 32, 32),
            {"CONV_2D": 20, "ADD": 9, "DEPTHWISE_CONV_2D": 1, "PAD": 4, "STRIDED_SLICE": 2, "RESHAPE": 1},
        ),
    ],
)
def test_a_network_has_the_operators_of_its_layers_and_no_transposition(make, shape, wanted, tmp_path):
    assert written(tmp_path, make(), *shape).contents().operators == wanted


def test_few_levels_cost_no_operator(tmp_path):
    """Kernels clip them with a ReLU below, and above because the highest level is the highest byte."""
    file = written(tmp_path, VGG8(16), 3, 32, 32, precision="ternary")
    assert file.contents().operators == {"CONV_2D": 8, "MAX_POOL_2D": 3, "RESHAPE": 2}
    fused = [each.get("fused_activation_function") for each in options(file, "Conv2DOptions")]
    assert fused == [Activation.RELU] * 7 + [Activation.NONE]


def test_an_activation_that_ends_below_the_highest_level_is_clipped(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(-1.0, 1.0), nn.Conv2d(4, 2, 3))
    operators = written(tmp_path, model, 3, 8, 8, precision="int4").contents().operators
    assert operators.keys() >= {"MINIMUM", "MAXIMUM"}


def test_weights_of_four_bits_take_half_a_byte_where_all_kernels_of_the_target_read_them(tmp_path):
    def constants(target):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 3))
        return written(tmp_path, model, 3, 8, 8, precision="int4", target=target).contents().constants

    num_weights, packed = 4 * 27 + 4 * 9 + 2 * 36, constants("tflite-micro")
    assert packed["int4"] == num_weights / 2
    for target in ("litert", "tflite"):
        assert constants(target)["int8"] == num_weights + packed["int8"]  # of what clips


def test_head_room_of_narrow_weights_leaves_them_their_four_bits(tmp_path):
    file = written(tmp_path, VGG8(16), 3, 32, 32, precision="ternary", target="tflite-micro")
    assert "int8" not in file.contents().constants
    (first, *_) = (np.frombuffer(each["data"], np.uint8) for each in file.model["buffers"][1:])
    assert set(np.unique(first & 0xF)) == {0, 7, 9}  # seven-fold, so that the bias is seven times finer


def test_a_lowest_weight_that_a_negative_gain_turns_around_is_stored_in_a_byte(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([-1.0, 0.2]).reshape(2, 1, 1, 1))
        model[1].weight[0] = -1.0
        model[3].weight.copy_(torch.tensor([[0.3, 0.1], [0.2, 0.3]]).reshape(2, 2, 1, 1))
    integer = program(model, 1, 4, 4, precision="int4", target="tflite-micro")
    ana_fx.export(integer, tmp_path / "m.tflite")
    held = read_tflite(tmp_path / "m.tflite").contents().constants
    assert int(integer.get_submodule("0").stored_weight().max()) == 8
    assert (held["int8"], held["int4"]) == (2, 2)


def test_its_borders_are_those_of_the_program(tmp_path):
    file = written(tmp_path, DSCNN(), 1, 49, 10)
    (x,), (y,) = file.inputs, file.outputs
    assert (x.name, x.shape, x.dtype.name, x.held) == (
        "cepstra",
        (1, 49, 10),
        "uint8",
        "int8 Nx49x10x1, zero point -128",
    )
    assert (y.name, y.shape, y.dtype.name, y.held) == ("output", (12,), "int8", "")


def test_labels_are_kept(tmp_path):
    integer = program(nn.Sequential(nn.Linear(8, 2)), 8)
    ana_fx.export(integer, tmp_path / "m.tflite", labels=["cat", "dog"])
    assert read_tflite(tmp_path / "m.tflite").labels == ("cat", "dog")
    assert "labels: cat, dog" in str(ana_fx.inspect(tmp_path / "m.tflite"))


def test_the_same_program_is_the_same_file(tmp_path):
    integer = program(OneDimensional(), *(4, 32))
    for name in ("a.tflite", "b.tflite"):
        ana_fx.export(integer, tmp_path / name)
    assert (tmp_path / "a.tflite").read_bytes() == (tmp_path / "b.tflite").read_bytes()


@pytest.mark.parametrize("target", ["litert", "tflite-micro", "tflite"])
def test_logits_leave_as_bytes_unless_the_precision_says_otherwise(target):
    model = nn.Sequential(nn.Linear(8, 2))
    with pytest.raises(PrecisionError, match="its output is int32, needed output='int8'"):
        ana_fx.prepare(
            model, torch.rand(2, 8), precision=ana_fx.Precision("int4", "uint4", output="int32"), target=target
        )


def test_weights_leave_head_room_where_all_kernels_must_agree():
    qat = ana_fx.prepare(VGG8(16), torch.rand(2, 3, 32, 32), precision="int8", target="tflite")
    assert {str(q.integer_type) for _, q in quantizers(qat) if "weight" in q.name} == {"int8 within ±63"}
    assert "8 layer map(s) keep weights within ±63, so that all kernels round them alike." in qat.meta["notes"]


def test_channels_on_which_kernels_differ_are_refused_by_name(tmp_path):
    integer = program(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3)), 1, 8, 8, target="litert")
    integer.meta["target"] = "tflite"  # its staircases were fitted for XNNPACK alone
    with pytest.raises(
        ExportError, match=r"module '0'.* kernels round 2 of 2 channels \(0, 1\) differently, needed none"
    ):
        ana_fx.export(integer, tmp_path / "m.tflite")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Conv3d(1, 2, 3)), "3 spatial axes, needed 1 or 2"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=2, mode="bilinear")), "it is an interpolation"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(6)), "it is a normalization"),
    ],
)
def test_what_no_kernel_computes_exactly_is_refused_at_prepare(model, reason):
    x = torch.rand(2, 1, *[8] * (3 if isinstance(model[0], nn.Conv3d) else 2))
    model(x)
    with pytest.raises(PrecisionError, match=reason):
        ana_fx.prepare(model, x, precision="int8", target="litert")


class DilatedPool(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, dilation=2)

    def forward(self, x):
        return self.pool(self.conv(x))


def test_what_depends_on_sizes_is_refused_at_export(tmp_path):
    with pytest.raises(ExportError, match=r"max pool has dilation \(2, 2\), needed 1"):
        ana_fx.export(program(DilatedPool(), 1, 8, 8), tmp_path / "m.tflite")


class Mean(nn.Module):
    def __init__(self, axes):
        super().__init__()
        self.conv, self.axes = nn.Conv2d(1, 2, 3), axes

    def forward(self, x):
        return self.conv(x).mean(self.axes)


@pytest.mark.parametrize("axes", [2, 3, (2, 3)])
def test_a_mean_over_axes_of_an_image_is_a_kernel_that_spans_them(axes, tmp_path):
    assert written(tmp_path, Mean(axes), 1, 8, 8).contents().operators.keys() >= {"CONV_2D", "DEPTHWISE_CONV_2D"}


def test_a_mean_over_channels_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"mean over axes \(1,\), needed axes behind the channels"):
        ana_fx.export(program(Mean(1), 1, 8, 8), tmp_path / "m.tflite")


@pytest.mark.parametrize(
    ("prepared", "target"), [("onnxruntime", "tflite-micro"), ("integer", "litert"), ("litert", "tflite-micro")]
)
def test_a_program_for_other_kernels_is_refused(prepared, target, tmp_path):
    integer = program(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3)), 1, 8, 8, target=prepared
    )
    with pytest.raises(ExportError, match=f"needed .*prepare the model with target='{target}'|staircase"):
        ana_fx.export(integer, tmp_path / "m.tflite", target=target)


@pytest.mark.parametrize(
    ("sizes", "padding", "kernel", "stride", "wanted"),
    [
        ((8, 8), ((0, 0), (0, 0)), (3, 3), (2, 2), Padding.VALID),
        ((8, 8), ((1, 1), (1, 1)), (3, 3), (1, 1), Padding.SAME),
        ((8, 8), ((1, 1), (1, 1)), (3, 3), (2, 2), None),  # SAME pads behind alone
        ((8, 8), ((0, 1), (0, 1)), (3, 3), (2, 2), Padding.SAME),
        ((9, 9), ((1, 1), (1, 1)), (3, 3), (2, 2), Padding.SAME),
        ((8, 8), ((2, 2), (2, 2)), (3, 3), (1, 1), None),
    ],
)
def test_paddings_that_kernels_know(sizes, padding, kernel, stride, wanted):
    assert kernel_padding(sizes, padding, kernel, stride) is wanted


@pytest.mark.parametrize(("name", "wanted"), [("uint8", -128), ("uint4", 112), ("int8", 0), ("ternary", 0)])
def test_the_highest_level_of_an_unsigned_type_is_the_highest_byte(name, wanted):
    assert zero_point_of(IntegerType.parse(name)) == wanted


def test_a_tensor_knows_how_its_numbers_lie():
    held = HeldTensor(0, 0, 1.0, 0, (24,), (2, 3, 4), channels_last(3))
    assert held.dims == (3, 4, 2)
    assert held.positions.tolist()[:4] == [0, 12, 1, 13]
    assert held.lies((2, 12), (1, 0))
    assert not held.lies((24,), (0,))
