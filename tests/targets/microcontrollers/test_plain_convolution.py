"""Layers with windows as convolutions without groups and dilation: the same sums."""

import pytest
import torch
import torch.nn.functional as F

from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.reduce import Reduce
from ana_fx.targets.microcontrollers.plain_convolution import plain_convolution

SHAPE = (4, 6, 8)
EVEN = ((1, 1), (1, 1))
LAYERS = {
    "plain": (Convolution((1, 2), EVEN, (1, 1), 1), (8, 4, 3, 3), 1),
    "dilated": (Convolution((1, 1), ((2, 1), (0, 3)), (2, 3), 1), (8, 4, 3, 2), 1),
    "grouped": (Convolution((1, 1), EVEN, (1, 1), 2), (8, 2, 3, 3), 1),
    "depthwise": (Convolution((2, 2), EVEN, (1, 1), 4), (4, 1, 3, 3), 4),
    "depthwise, twice as many": (Convolution((1, 1), EVEN, (1, 1), 4), (8, 1, 3, 3), 1),
    "grouped and dilated": (Convolution((1, 1), EVEN, (2, 2), 2), (6, 2, 2, 2), 1),
    "average": (Average(2, (2, 3), (2, 1), (1, 1)), None, 4),
    "adaptive average": (Average(2, output_size=(3, 2)), None, 4),
    "mean": (Reduce((2, 3), False, True), None, 4),
    "identity": (Identity(), None, 4),
}


@pytest.mark.parametrize(("operator", "size", "groups"), LAYERS.values(), ids=LAYERS)
def test_sums_are_equal(operator, size, groups):
    x = torch.randint(-8, 8, (2, *SHAPE)).double()
    weight = None if size is None else torch.randint(-8, 8, size)
    conv = plain_convolution(operator, weight, SHAPE)
    assert conv.groups == groups
    assert conv.attributes()["dilations"] == [1, 1]
    pads = [pad for pair in reversed(conv.padding) for pad in pair]
    found = F.conv2d(F.pad(x, pads), conv.weight.double(), stride=conv.stride, groups=groups)
    wanted = operator.accumulate((x,), None if weight is None else weight.double())
    assert torch.equal(found.reshape(wanted.shape), wanted)


def test_a_single_window_has_stride_1():
    conv = plain_convolution(Average(2, (6, 8), (6, 8), (0, 0)), None, SHAPE)
    assert conv.stride == (1, 1)


@pytest.mark.parametrize("operator", [Linear(), Reduce((1,), False, True), Average(2, output_size=(4, 3))])
def test_other_maps_are_none(operator):
    assert plain_convolution(operator, None, SHAPE) is None


def test_a_layer_over_features_is_none():
    assert plain_convolution(Identity(), None, (4,)) is None
