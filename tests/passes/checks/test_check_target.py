"""Refusing at `prepare` what a target cannot hold."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.passes import prepare as prepare_module
from ana_fx.target_registry import target_called


@pytest.fixture
def narrow(monkeypatch):
    """A target without softmax, tables and float layers, with weights of up to four bits."""
    target = replace(
        target_called("integer"),
        name="narrow",
        operators=frozenset({"convolution", "linear"}),
        weight_bits=(2, 4),
        holds_floats=False,
        per_channel=False,
    )
    monkeypatch.setattr(prepare_module, "target_called", lambda name: target)
    return target


@pytest.mark.usefixtures("narrow")
def test_every_layer_map_that_does_not_fit_is_named_at_once():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.SiLU(), nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(ana_fx.PrecisionError) as caught:
        ana_fx.prepare(model, torch.rand(2, 1, 8, 8), precision=ana_fx.Precision("int8", output="float"))
    message = str(caught.value)
    assert "target 'narrow' cannot hold the model:" in message
    assert message.count("module '0'") == 2
    for reason in (
        "weights have 8 bits (int8), needed 2 to 4",
        "its channels have slopes of their own, needed one for all",
        "it is a table, needed one of convolution, linear",
        "it stays in floats, needed integers",
    ):
        assert reason in message


@pytest.mark.usefixtures("narrow")
def test_a_target_without_slopes_for_channels_gets_one_step_for_a_weight():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    qat = ana_fx.prepare(model, torch.rand(2, 1, 8, 8), precision="int4")
    assert qat.get_submodule("0").weight_quantizer.scale.numel() == 1


def test_what_fits_is_not_changed():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    qat = ana_fx.prepare(model, torch.rand(2, 4), precision="int4")
    assert [str(node.target) for node in qat.graph.nodes if node.op == "call_module"][-1] == "3"
