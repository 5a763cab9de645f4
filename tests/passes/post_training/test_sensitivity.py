"""Sensitivities: each number is that of a whole run with one tensor quantised; searched widths can be prepared."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import ana_fx
from ana_fx.analysis.search_widths import cost_of
from ana_fx.graph import layer_maps
from ana_fx.target_registry import target_called
from tests.models import Depthwise, Residual, Shared
from tests.random_graphs import networks

X = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
WIDTHS = ("int2", "int4", "int8")


@torch.no_grad()
def test_an_error_is_that_of_the_network_with_one_quantised_weight():
    model = Residual().eval()
    found = ana_fx.sensitivity(model, [X], widths=WIDTHS)
    row = next(each for each in found.weights if each.layers == ("blocks.0.conv2",))
    qat = ana_fx.prepare(model, X, precision="int2", calibration=[X])
    layer_map = layer_maps(qat)["blocks.0.conv2"]
    wanted = model(X).double()
    model.blocks[0].conv2.weight.copy_(
        layer_map.weight_quantizer.quantize(layer_map.weight) * layer_map.weight_quantizer.scale
    )
    error = float((model(X).double() - wanted).square().sum() / wanted.square().sum())
    assert row.errors["int2"] == pytest.approx(error, rel=1e-3)  # float32 sums in another order


@pytest.mark.parametrize("make", [Residual, Depthwise, Shared])
def test_fewer_bits_cost_more(make):
    found = ana_fx.sensitivity(make().eval(), [X], widths=WIDTHS)
    for each in (*found.weights, *found.activations):
        errors = list(each.errors.values())
        assert errors == sorted(errors, reverse=True)


def test_products_are_counted():
    found = ana_fx.sensitivity(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 2)), [X])
    assert [each.num_products for each in found.weights] == [(14 * 14 * 4 * 27,), (784 * 2,)]
    assert [each.inputs for each in found.weights] == [(None,), (0,)]


def test_layers_that_share_a_weight_are_one_row():
    found = ana_fx.sensitivity(Shared().eval(), [X], widths=WIDTHS)
    assert len(next(each for each in found.weights if "conv" in each.layers[0] and len(each.layers) > 1).layers) == 2


def test_widths_that_the_target_does_not_hold_are_not_measured(monkeypatch):
    from ana_fx.passes.post_training import sensitivity

    wide = replace(target_called("onnxruntime"), weight_bits=(4, 8))
    monkeypatch.setattr(sensitivity, "target_called", lambda _: wide)
    found = ana_fx.sensitivity(nn.Sequential(nn.Linear(4, 2)), [torch.rand(9, 4)], widths=WIDTHS)
    assert set(found.weights[0].errors) == {"int4", "int8"}
    with pytest.raises(ValueError, match="holds none of int2; it has 4 to 8 bits"):
        ana_fx.sensitivity(nn.Linear(4, 2), [torch.rand(9, 4)], widths=("int2",))


def test_unknown_widths_are_refused():
    with pytest.raises(ValueError, match="int9"):
        ana_fx.sensitivity(nn.Linear(4, 2), [torch.rand(9, 4)], widths=("int9",))


@given(networks())
@settings(max_examples=12)
def test_widths_that_were_searched_can_be_prepared_and_are_within_the_budget(drawn):
    model, x = drawn
    try:
        found = ana_fx.sensitivity(model, [x], widths=WIDTHS)
    except ana_fx.AnaFxError:
        return  # what prepare refuses
    most, least = (cost_of(found, width).weight_bytes for width in ("int8", "int2"))
    budget = 0.5 * (most + least)
    precision = ana_fx.search_widths(found, weight_bytes=budget + 1e-9)
    assert cost_of(found, precision).weight_bytes <= budget + 1e-9
    qat = ana_fx.prepare(model, x, precision=precision, calibration=[x])
    stored = {id(each.weight): each for each in layer_maps(qat).values() if each.weight_quantizer is not None}
    bits = sum(each.weight.numel() * each.weight_quantizer.integer_type.bits for each in stored.values())
    assert bits / 8 <= budget + 1e-9
