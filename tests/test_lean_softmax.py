from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import ana_fx
from ana_fx.lean_softmax import lean_softmax
from ana_fx.numbers import IntegerType
from tests.kernels import DEVICE, needs_cuda, needs_kernels

SCALE = torch.tensor(-0.037, device=DEVICE)  # its sign does not count


def quantised(kind: IntegerType, *shape: int) -> Tensor:
    return torch.randint(kind.qmin, kind.qmax + 1, shape, device=DEVICE) * SCALE.abs()


@needs_kernels
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("kind", [IntegerType(8, True), IntegerType(8, False), IntegerType(4, True)], ids=str)
def test_softmax_and_its_gradient_are_those_of_torch_bit_for_bit(kind, axis):
    x = quantised(kind, 3, 7, 197).requires_grad_()
    grad = torch.randn(x.shape, device=DEVICE)
    found, expected = lean_softmax(x, axis, SCALE, kind), torch.softmax(x, axis)
    assert torch.equal(found, expected)
    assert torch.equal(torch.autograd.grad(found, x, grad)[0], torch.autograd.grad(expected, x, grad)[0])


@needs_kernels
def test_a_byte_of_each_number_is_kept():
    x = quantised(IntegerType(8, True), 4, 200).requires_grad_()
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: sizes.append(kept.nbytes) or kept, lambda kept: kept):
        lean_softmax(x, -1, SCALE, IntegerType(8, True))
    assert sum(sizes) == x.numel() + 4  # and the scale


@needs_cuda
def test_a_step_that_keeps_levels_is_a_step_that_keeps_outputs(monkeypatch):
    x = torch.randn(4, 16)
    qat = ana_fx.prepare(nn.Sequential(nn.Linear(16, 40), nn.Softmax(-1), nn.Linear(40, 3)), x).cuda().train()
    qat(x.cuda())
    ana_fx.Annealer(qat, 100)
    plain = copy.deepcopy(qat)
    qat(x.cuda()).square().mean().backward()
    monkeypatch.setattr("ana_fx.softmax_map.is_lean", lambda *_: False)
    plain(x.cuda()).square().mean().backward()
    pairs = zip(qat.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs if a.grad is not None)
