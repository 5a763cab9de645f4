"""Which nodes of a program become one TRANSPOSE_CONV or RESIZE_NEAREST_NEIGHBOR.

Of tflite/write_upsampling.py too.
"""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn

from ana_fx.targets.channels_last.upsamplings import NearestResize, SpreadConvolution, upsamplings
from ana_fx.targets.tflite.tflite_file import read_tflite
from tests.targets.tflite.test_tflite_program import program, written


def forms(model, *shape):
    """What the upsamplings of a program compute."""
    return [each.form for each in upsamplings(program(model, *shape)).values()]


class Function(nn.Module):
    """A convolution, a function of its output, and another convolution."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.first, self.last = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 3)

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def spread(x):
    """Zeros between numbers, as users may write them: two rows and two columns from each."""
    n, c, h, w = x.shape
    return F.pad(x.reshape(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * h, 2 * w)


@pytest.mark.parametrize(
    ("settings", "strides", "margins", "same"),
    [
        ({"kernel_size": 4, "stride": 2, "padding": 1}, (2, 2), (1, 1), True),
        ({"kernel_size": 2, "stride": 2}, (2, 2), (0, 0), True),
        ({"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}, (2, 2), (1, 1), False),
        ({"kernel_size": 3, "stride": 2, "padding": 3}, (2, 2), (3, 3), False),
        ({"kernel_size": 1, "stride": 3, "output_padding": 2}, (3, 3), (0, 0), True),
        ({"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 2}, (2, 2), (2, 2), False),
        ({"kernel_size": (3, 4), "stride": (1, 2), "padding": 1, "groups": 2}, (1, 2), (1, 1), True),
    ],
)
def test_a_transposed_convolution_is_one_operator(settings, strides, margins, same, tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 4, **settings))
    (form,) = forms(model, 1, 7, 6)
    assert (form.strides, form.margins) == (strides, margins)
    operators = written(tmp_path, model, 1, 7, 6).contents().operators
    assert operators == {"CONV_2D": 1, "TRANSPOSE_CONV": 1} | ({} if same else {"STRIDED_SLICE": 1})


def test_a_transposed_convolution_of_stride_one_is_a_convolution(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 4, 3, padding=1))
    assert written(tmp_path, model, 1, 7, 6).contents().operators == {"CONV_2D": 2}


def test_a_file_with_a_transposed_convolution_takes_one_sample(tmp_path):
    """No reader can resize the batch, which is a part of the operator's output shape."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 4, 2, 2))
    file = written(tmp_path, model, 1, 7, 6)
    assert not any("shape_signature" in tensor for tensor in file.graph["tensors"])
    other = written(tmp_path, model[:1], 1, 7, 6)
    assert all(tensor["shape_signature"][0] == -1 for tensor in other.graph["tensors"] if "shape_signature" in tensor)


def test_what_users_spread_themselves_is_a_transposed_convolution():
    (form,) = forms(Function(spread), 1, 5, 5)
    assert isinstance(form, SpreadConvolution)
    assert (form.strides, form.margins) == ((2, 2), (2, 2))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: spread(x)[:, :, :-3],  # a row of numbers, not of zeros, is cut off: fine, no number reaches beyond
        lambda x: spread(x)[:, :, 1:, 2:],
    ],
)
def test_what_is_cropped_is_a_transposed_convolution_if_nothing_is_put_back(function):
    model = Function(function)
    assert len(forms(model, 1, 5, 5)) == 1
    model.last = nn.Conv2d(2, 2, 3, padding=1)  # zeros stand where numbers were
    assert forms(model, 1, 5, 5) == []


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.pad(x.reshape(-1, 2, 5, 1, 5, 1), (1, 0, 0, 0, 0, 1)).reshape(-1, 2, 10, 10),  # zeros in front
        lambda x: F.pad(x.reshape(-1, 2, 1, 5, 5, 1), (0, 1, 0, 0, 0, 0, 0, 1)).reshape(
            -1, 2, 10, 10
        ),  # rows behind rows
        lambda x: F.pad(x.reshape(-1, 2, 5, 1, 5, 1), (0, 1, 0, 0, 0, 1)).reshape(-1, 2, 5, 20),
        lambda x: F.pad(spread(x), (0, 0, 4, 0)),  # rows that no number reaches
    ],
)
def test_other_paddings_are_none(function):
    assert forms(Function(function), 1, 5, 5) == []


def test_what_another_node_reads_is_no_part_of_one():
    class Both(Function):
        def forward(self, x):
            wide = spread(self.first(x))
            return self.last(wide), wide

    assert forms(Both(None), 1, 5, 5) == []


@pytest.mark.parametrize(
    ("resize", "factors"),
    [
        (nn.Upsample(scale_factor=2), (2, 2)),
        (nn.Upsample(size=(15, 10), mode="nearest-exact"), (3, 2)),
        (nn.Upsample(scale_factor=(1, 3)), None),
        (nn.Upsample(size=(7, 10)), None),
    ],
)
def test_a_resize_by_whole_factors_is_one_operator(resize, factors, tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), resize, nn.Conv2d(2, 2, 3))
    assert forms(model, 1, 5, 5) == ([] if factors is None else [NearestResize(factors)])
    operators = written(tmp_path, model, 1, 5, 5).contents().operators
    assert ("GATHER" in operators) == (factors is None)
    assert ("RESIZE_NEAREST_NEIGHBOR" in operators) == (factors is not None)


def test_two_resizes_in_a_row_are_two_operators(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=3))
    assert written(tmp_path, model, 1, 3, 3).contents().operators == {"CONV_2D": 1, "RESIZE_NEAREST_NEIGHBOR": 2}


def test_its_operators_can_be_read_again(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Upsample(scale_factor=2), nn.ConvTranspose2d(2, 2, 2, 2))
    file = written(tmp_path, model, 1, 5, 5)
    assert read_tflite(file.path).contents().operators == {
        "CONV_2D": 1,
        "RESIZE_NEAREST_NEIGHBOR": 1,
        "TRANSPOSE_CONV": 1,
    }
