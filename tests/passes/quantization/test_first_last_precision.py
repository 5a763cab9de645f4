"""First and last layers get the weights that `Precision(first=…, last=…)` gives them."""

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps


class TwoEnds(nn.Module):
    """Padding before two first layers, one of them a last one too; a flatten after the other last one."""

    def __init__(self):
        super().__init__()
        self.pad = nn.ZeroPad2d(1)
        self.conv = nn.Conv2d(2, 4, 3)
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 4)
        self.short = nn.Conv2d(2, 3, 6)

    def forward(self, x):
        x = self.pad(x)
        y = self.head(torch.relu(self.middle(torch.relu(self.conv(x)))))
        return y.flatten(1), self.short(x)


def weights(precision):
    qat = ana_fx.prepare(TwoEnds(), torch.rand(2, 2, 4, 4), precision=precision)
    return {path: str(layer_map.weight_quantizer.integer_type) for path, layer_map in layer_maps(qat).items()}


def test_ends_have_their_own_weights():
    found = weights(ana_fx.Precision("ternary", "uint2", first="int8", last="int4"))
    assert found == {"conv": "int8 within ±63", "middle": "ternary", "head": "int4", "short": "int4"}


def test_without_ends_all_layers_are_alike():
    assert set(weights("ternary").values()) == {"ternary"}


def test_overrides_win_over_ends():
    precision = ana_fx.Precision("ternary", "uint2", first="int8", last="int8", overrides={"co*": "int3"})
    assert weights(precision) == {"conv": "int3", "middle": "ternary", "head": "int8", "short": "int8 within ±63"}


def test_end_layers_change_no_activation():
    qat = ana_fx.prepare(
        TwoEnds(), torch.rand(2, 2, 4, 4), precision=ana_fx.Precision("ternary", "uint2", first="int8")
    )
    assert str(layer_maps(qat)["conv"].output_quantizer.integer_type) == "uint2"


def test_unsigned_weights_at_an_end_are_refused():
    with pytest.raises(ValueError, match="weights are signed, got uint8"):
        ana_fx.Precision("ternary", "uint2", last="uint8")
