from __future__ import annotations

import copy

import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.prepared.weight_bank import Layout, quantize_together
from tests.kernel_helpers import DEVICE, needs_cuda, needs_kernels

X = torch.rand(4, 3, 8, 8)


def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 70),
    )


def trained_layers(precision: str) -> list[OperatorMap]:
    qat = ana_fx.prepare(model(), X, precision=precision).train()
    qat(X)
    ana_fx.Annealer(qat, 100)
    return [
        each for each in layer_maps(qat.to(DEVICE)).values() if isinstance(each, OperatorMap) and each.weight_quantizer
    ]


@needs_kernels
def test_weights_quantised_together_are_those_quantised_alone_and_so_are_their_gradients():
    for precision in ("int8", "ternary"):
        chosen = trained_layers(precision)
        sources = [
            (each.weight, each.weight_quantizer.scale, each.weight_quantizer.mean, each.weight_quantizer.std)
            for each in chosen
        ]
        layout = Layout.of(chosen, sources, [])
        weights = [each.weight for each in chosen]
        grads = [torch.randn_like(weight) for weight in weights]
        together = quantize_together(weights, layout, torch.float32)
        alone = [each.weight_quantizer(each.weight) for each in chosen]
        assert all(map(torch.equal, together, alone))
        found = torch.autograd.grad(together, weights, grads)
        assert all(map(torch.equal, found, torch.autograd.grad(alone, weights, grads)))


def test_a_weight_that_is_written_after_it_was_handed_is_quantised_anew():
    layer_map = trained_layers("int8")[0]
    layer_map.hand_weight(torch.zeros_like(layer_map.weight))
    with torch.no_grad():
        layer_map.weight.mul_(0.5)
    x = X.to(layer_map.weight.device)
    expected = layer_map.real((x,))
    layer_map.hand_weight(torch.zeros_like(layer_map.weight))
    handed = layer_map.real((x,))
    assert not torch.equal(handed, expected)
    assert torch.equal(layer_map.real((x,)), expected)  # what was handed is for one call


@needs_cuda
def test_a_step_with_the_bank_is_a_step_without_on_a_gpu():
    torch.backends.cudnn.deterministic = True
    qat = ana_fx.prepare(model(), X).cuda().train()
    qat(X.cuda())
    ana_fx.Annealer(qat, 100)
    alone = copy.deepcopy(qat)
    alone._forward_pre_hooks.clear()
    for each in (qat, alone):
        each(X.cuda()).square().mean().backward()
    assert all(
        torch.equal(a.grad, b.grad)
        for a, b in zip(qat.parameters(), alone.parameters(), strict=True)
        if a.grad is not None
    )
