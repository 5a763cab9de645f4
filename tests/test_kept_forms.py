"""Integer forms are kept between forward passes in eval mode, and computed anew once anything was written."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx
from ana_fx.graph import layer_maps

X = torch.rand(6, 3, 8, 8)


def prepared() -> GraphModule:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    qat = ana_fx.prepare(model, X, precision="int4").train()
    qat(X)
    return qat


def afresh(qat: GraphModule, x: Tensor = X) -> Tensor:
    """What a copy gives, which has computed nothing yet."""
    return copy.deepcopy(qat).eval()(x)


def optimise(qat: GraphModule) -> None:
    optimizer = torch.optim.AdamW(qat.parameters(), lr=0.1)
    for parameter in qat.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def average(qat: GraphModule) -> None:
    other = prepared()
    optimise(other)
    with torch.no_grad():
        for mine, its in zip(qat.parameters(), other.parameters(), strict=True):
            mine.copy_(its * 0.5 + mine * 0.5)


def load(qat: GraphModule) -> None:
    other = prepared()
    optimise(other)
    qat.load_state_dict(other.state_dict())


def follow_statistics(qat: GraphModule) -> None:
    norm = next(each for each in qat.modules() if isinstance(each, nn.BatchNorm2d))
    norm.train()
    norm(torch.rand(6, 4, 5, 5) * 9)
    norm.eval()


def replace_weight(qat: GraphModule) -> None:
    layer_map = next(each for each in layer_maps(qat).values() if getattr(each, "weight", None) is not None)
    layer_map.weight = nn.Parameter(layer_map.weight.detach() * -1)


def point_elsewhere(qat: GraphModule) -> None:
    for parameter in qat.parameters():
        parameter.data = parameter.detach() * -0.5


def move(qat: GraphModule) -> None:
    optimise(qat)
    qat._apply(torch.clone)


def set_scales(qat: GraphModule) -> None:
    for each in layer_maps(qat).values():
        if each.output_quantizer is not None:
            each.output_quantizer.set_scale(each.output_quantizer.scale * 1.7)


@pytest.mark.parametrize(
    "write",
    [optimise, average, load, follow_statistics, replace_weight, point_elsewhere, move, set_scales],
    ids=lambda f: f.__name__,
)
def test_what_was_written_is_seen_without_a_call_of_eval(write):
    qat = prepared().eval()
    before = qat(X)
    write(qat)
    found = qat(X)
    assert not torch.equal(found, before)
    assert torch.equal(found, afresh(qat))


def test_a_form_is_computed_once_if_nothing_is_written(monkeypatch):
    qat = prepared().eval()
    expected = qat(X)
    for layer_map in layer_maps(qat).values():
        monkeypatch.setattr(type(layer_map), "integer_form", None)
    assert torch.equal(qat(X), expected)
    assert torch.equal(qat(X[:2]), expected[:2])


def test_another_size_of_input_has_its_own_form():
    qat = prepared().eval()
    qat(X)
    larger = torch.rand(2, 3, 11, 9)
    assert torch.equal(qat(larger), afresh(qat, larger))
    assert torch.equal(qat(X), afresh(qat))


def test_forms_of_inference_mode_serve_everywhere():
    qat = prepared().eval()
    with torch.inference_mode():
        found = qat(X)
    assert torch.equal(qat(X), found.clone())
    assert torch.equal(qat(X.clone().requires_grad_()), found.clone())
