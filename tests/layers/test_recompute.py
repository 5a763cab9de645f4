from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ana_fx
from ana_fx.layers.recompute import recomputed
from ana_fx.layers.table_map import Elementwise, TableMap
from ana_fx.numerics.integer_type import IntegerType
from tests.kernel_helpers import DEVICE, needs_kernels

SCALE = torch.tensor(-0.037, device=DEVICE)  # its sign does not count


def quantised(kind: IntegerType, *shape: int) -> Tensor:
    return torch.randint(kind.qmin, kind.qmax + 1, shape, device=DEVICE) * SCALE.abs()


@needs_kernels
@pytest.mark.parametrize("function", [partial(torch.softmax, dim=1), partial(torch.softmax, dim=-1), F.gelu, F.silu])
@pytest.mark.parametrize("kind", [IntegerType(8, True), IntegerType(8, False), IntegerType(4, True)], ids=str)
def test_a_function_and_its_gradient_are_those_of_torch_bit_for_bit(kind, function):
    x = quantised(kind, 3, 7, 197).requires_grad_()
    grad = torch.randn(x.shape, device=DEVICE)
    found, expected = recomputed(function, x, SCALE, kind), function(x)
    assert torch.equal(found, expected)
    assert torch.equal(torch.autograd.grad(found, x, grad)[0], torch.autograd.grad(expected, x, grad)[0])


@needs_kernels
def test_a_byte_of_each_number_is_kept():
    x = quantised(IntegerType(8, True), 4, 200).requires_grad_()
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: sizes.append(kept.nbytes) or kept, lambda kept: kept):
        recomputed(F.gelu, x, SCALE, IntegerType(8, True))
    assert sum(sizes) == x.numel() + 4  # and the scale


@needs_kernels
def test_a_step_that_keeps_levels_is_a_step_that_keeps_floats(monkeypatch):
    x = torch.randn(4, 16)
    model = nn.Sequential(nn.Linear(16, 40), nn.GELU(), nn.Linear(40, 40), nn.Softmax(-1), nn.Linear(40, 3))
    qat = ana_fx.prepare(model, x).to(DEVICE).train()
    qat(x.to(DEVICE))
    ana_fx.Annealer(qat, 100)
    gradients, sizes = [], []
    for recomputes in (True, False):
        monkeypatch.setattr("ana_fx.layers.function_map.recomputes", lambda *_, answer=recomputes: answer)
        each, kept = copy.deepcopy(qat), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.nbytes) or t, lambda t: t):
            y = each(x.to(DEVICE))
        y.square().mean().backward()
        gradients.append([p.grad for p in each.parameters() if p.grad is not None])
        sizes.append(sum(kept))
    assert all(map(torch.equal, *gradients))
    assert sizes[1] - sizes[0] == 2 * (4 * 40 * 3 - 4)  # a byte for four, and the scale, in each of two maps


def test_functions_that_draw_numbers_or_write_into_their_input_are_not_computed_again():
    assert TableMap(nn.GELU()).can_recompute
    assert TableMap(Elementwise(F.silu)).can_recompute
    for function in (nn.SiLU(inplace=True), Elementwise(F.silu, inplace=True), nn.RReLU(), nn.PReLU()):
        assert not TableMap(function).can_recompute
