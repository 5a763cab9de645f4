"""Patches times the weight are what the operator gives at the same places."""

import pytest
import torch
from torch import nn

from ana_fx.layers.operator_map import OperatorMap
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.linear import Linear
from ana_fx.passes.post_training.patches import has_patches, patches, rows_of

LAYERS = {
    "conv": (nn.Conv2d(4, 6, 3, padding=1, stride=2), (2, 4, 7, 9)),
    "dilated": (nn.Conv2d(4, 6, (3, 2), dilation=(2, 1)), (2, 4, 8, 9)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (3, 4, 7, 6)),
    "depthwise": (nn.Conv1d(4, 8, 5, groups=4, padding="same"), (3, 4, 11)),
    "volume": (nn.Conv3d(2, 3, 2), (2, 2, 4, 5, 3)),
    "linear": (nn.Linear(5, 3), (4, 7, 5)),
}


@pytest.mark.parametrize("wanted", [5, 10**6])
@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_patches_times_the_weight_are_the_outputs(name, wanted):
    layer, shape = LAYERS[name]
    operator = Linear() if isinstance(layer, nn.Linear) else Convolution.of(layer)
    layer_map = OperatorMap(operator, layer.weight)
    x = torch.randint(-3, 4, shape).float()
    weight = torch.randint(-3, 4, layer.weight.shape).float()  # integers, so that sums are exact
    seen = patches(layer_map, x, wanted)
    outputs = seen @ weight.reshape(len(seen), -1, seen.shape[2]).mT
    assert torch.equal(outputs.movedim(0, 1).flatten(1), rows_of(layer_map, operator.real((x,), weight), wanted))


def test_sums_have_none():
    from ana_fx.operators.sum import Sum

    assert not has_patches(OperatorMap(Sum()))
