"""What the hook of a prepared model hands to its layers, and that a step is the same without.

This covers `layers/handed.py` too.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layers.operator_map import OperatorMap
from tests.kernel_helpers import needs_cuda
from tests.models import Residual, example

X = torch.rand(4, 3, 8, 8)


def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(128, 70),
    )


def prepared(device: torch.device | str = "cpu", **settings: object) -> nn.Module:
    qat = ana_fx.prepare(model(), X, **settings).train()
    qat(X)
    ana_fx.Annealer(qat, 100)
    return qat.to(device)


def weighted_layers(
    precision: str, schedule: str = "best-static", device: torch.device | str = "cpu"
) -> list[OperatorMap]:
    """Layers whose weight learns."""
    qat = prepared(device, precision=precision, schedule=schedule)
    return [each for each in layer_maps(qat).values() if isinstance(each, OperatorMap) and each.weight_quantizer]


def step(qat: nn.Module, *, is_alone: bool) -> dict[str, Tensor]:
    """The output and the gradients of a copy of a model, with its hook or without."""
    qat = copy.deepcopy(qat)
    if is_alone:
        qat._forward_pre_hooks.clear()
    y = qat(X.to(next(qat.parameters()).device))
    y.square().mean().backward()
    return {"output": y, **{name: each.grad for name, each in qat.named_parameters() if each.grad is not None}}


@pytest.mark.parametrize("schedule", ["lsq", "best-static", "best-dynamic", "clipped-relu"])
@pytest.mark.parametrize("precision", ["int8", "int4", "ternary", "binary"])
def test_a_step_with_the_hook_is_a_step_without(precision, schedule):
    qat = prepared(precision=precision, schedule=schedule)
    together, alone = step(qat, is_alone=False), step(qat, is_alone=True)
    assert together.keys() == alone.keys()
    for name, expected in alone.items():
        if name.endswith("scale"):  # sums of at most 70 · 128 products in another order, and differences of such sums
            torch.testing.assert_close(together[name], expected, rtol=2.0**-12, atol=2.0**-16)
        else:
            assert torch.equal(together[name], expected)


def test_each_small_weight_is_handed_in_training(monkeypatch):
    handed = []
    monkeypatch.setattr("ana_fx.layers.handed.Handed.hand_weight", lambda self, *given: handed.append("weight"))
    qat = prepared()
    handed.clear()
    qat(X)
    assert handed == ["weight"] * 3
    handed.clear()
    with torch.no_grad():
        qat(X)
    qat.eval()(X)
    assert handed == []


def test_an_output_is_kept_unless_it_is_read_by_sums_alone():
    qat = ana_fx.prepare(Residual(), example(Residual), precision="int8").train()
    qat(example(Residual))
    kept = {each.output_quantizer.output_is_kept for each in layer_maps(qat).values() if each.output_quantizer}
    assert kept == {True, False}
    for node in qat.graph.nodes:
        reads = [getattr(getattr(qat.get_submodule(str(user.target)), "operator", None), "kind", "")
                 for user in node.users if user.op == "call_module"]  # fmt: skip
        if node.op == "call_module" and reads and set(reads) == {"sum"}:
            quantizer = getattr(qat.get_submodule(str(node.target)), "output_quantizer", None)
            assert quantizer is None or not quantizer.output_is_kept


def test_a_weight_that_is_written_after_it_was_handed_is_quantised_anew():
    layer_map = weighted_layers("int8")[0]
    layer_map.handed.hand_weight(torch.zeros_like(layer_map.weight), layer_map.weight)
    with torch.no_grad():
        layer_map.weight.mul_(0.5)
    expected = layer_map.real((X,))
    layer_map.handed.hand_weight(torch.zeros_like(layer_map.weight), layer_map.weight)
    handed = layer_map.real((X,))
    assert not torch.equal(handed, expected)
    assert torch.equal(layer_map.real((X,)), expected)  # what was handed is for one call


def test_a_penalty_on_the_gradient_is_that_of_layers_on_their_own():
    qat, found = prepared(schedule="best-static"), []
    for is_alone in (False, True):
        own = copy.deepcopy(qat)
        if is_alone:
            own._forward_pre_hooks.clear()
        weights = [each for each in own.parameters() if each.requires_grad and each.ndim > 1]
        grads = torch.autograd.grad(own(X).square().mean(), weights, create_graph=True)
        sum(grad.square().sum() for grad in grads).backward()
        found.append([each.grad for each in own.parameters() if each.grad is not None])
    assert all(map(torch.equal, *found))
    assert any(each.any() for each in found[0])


def test_a_copy_was_handed_nothing():
    layer_map = weighted_layers("int8")[0]
    layer_map.handed.hand_weight(torch.zeros_like(layer_map.weight), layer_map.weight)
    assert not torch.equal(copy.deepcopy(layer_map).real((X,)), layer_map.real((X,)))


@needs_cuda
def test_a_step_with_the_hook_is_a_step_without_on_a_gpu():
    torch.backends.cudnn.deterministic = True
    for schedule in ("best-dynamic", "lsq"):
        qat = prepared("cuda", schedule=schedule)
        together, alone = step(qat, is_alone=False), step(qat, is_alone=True)
        assert all(torch.equal(together[name], each) for name, each in alone.items())
