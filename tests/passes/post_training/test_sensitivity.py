"""Sensitivities: each number is that of a whole run with one tensor quantised; searched widths can be prepared."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
def test_an_error_is_that_of_the_network_with_one_quantised_output():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    x = torch.rand(50, 4)
    (row,) = ana_fx.sensitivity(model, [x], widths=("int2",)).activations
    quantizer = layer_maps(ana_fx.prepare(model, x, precision="int2", calibration=[x]))["0"].output_quantizer
    hidden, wanted = model[:2](x), model(x)
    error = float((model[2](quantizer(hidden)) - wanted).square().sum() / wanted.square().sum())
    assert row.errors["uint2"] == pytest.approx(error, rel=1e-3)  # float32 sums in another order


@torch.no_grad()
def test_weights_are_rounded_as_reconstruct_does_it():
    model, x = nn.Sequential(nn.Linear(8, 3)).eval(), torch.randn(500, 2) @ torch.randn(2, 8)  # correlated
    (row,) = ana_fx.sensitivity(model, [x], widths=("int2",)).weights
    qat = ana_fx.prepare(model, x, precision="int2", calibration=[x])
    quantizer, weight = layer_maps(qat)["0"].weight_quantizer, model[0].weight
    wanted, nearest = model(x), quantizer.quantize(weight) * quantizer.scale
    lost = x @ (nearest - weight).T
    assert row.errors["int2"] < 0.5 * float((lost - lost.mean(0)).square().sum() / wanted.square().sum())


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
    assert [each.shapes for each in found.weights] == [
        ("convolution 3x16x16->4x14x14 weight 4x3x3x3",),
        ("linear 784->2 weight 2x784",),
    ]


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


@given(networks(), st.integers(2, 3))
@settings(max_examples=12)
def test_widths_within_a_latency_can_be_prepared_on_a_target_without_two_bits(drawn, lowest):
    """The table is by shape, groups that are joined have one width, and no width is one that the target lacks."""
    model, x = drawn
    wide = replace(target_called("onnxruntime"), weight_bits=(lowest + 1, 8), activation_bits=(lowest + 1, 8))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ana_fx.passes.post_training.sensitivity.target_called", lambda _: wide)
        try:
            found = ana_fx.sensitivity(model, [x], widths=WIDTHS)
        except ana_fx.AnaFxError:
            return  # what prepare refuses
    table = ana_fx.LatencyTable({(shape, w, a): float(w * a) for _, shape, w, a in found.products()})
    most, least = (cost_of(found, width, table).latency for width in ("int8", "int4"))
    budget = 0.5 * (most + least) + 1e-9
    precision = ana_fx.search_widths(found, latency=budget, latency_table=table)
    assert cost_of(found, precision, table).latency <= budget
    qat = ana_fx.prepare(model, x, precision=precision, calibration=[x])
    for layer_map in layer_maps(qat).values():
        assert all(quantizer.integer_type.bits > lowest for quantizer in layer_map.quantizers())
