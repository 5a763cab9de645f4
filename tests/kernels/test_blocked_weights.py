"""Weights quantised at once: the numbers and the gradients of each quantised alone."""

from __future__ import annotations

import pytest
import torch

from ana_fx.kernels.bins import bins_of
from ana_fx.kernels.blocked_quantizer import blocked_fake_quantize
from ana_fx.kernels.blocked_weights import quantize_on_cpu
from tests.kernels.test_fused_quantizer import GRIDS, HALF_A_STEP

SHAPES = [(8, 3, 3, 3), (4, 5), (6, 1, 2, 2), (3, 7)]
NOISE = (0.0, HALF_A_STEP)


@pytest.mark.parametrize("are_steps", [False, True])
@pytest.mark.parametrize("learns_scale", [False, True])
def test_weights_quantised_at_once_are_those_quantised_alone_and_so_are_their_gradients(learns_scale, are_steps):
    grids = [GRIDS[0], GRIDS[3], GRIDS[0], GRIDS[0]]
    weights = [torch.randn(shape, requires_grad=True) for shape in SHAPES]
    scales = [torch.rand(shape[0], *[1] * (len(shape) - 1)) * 0.2 + 0.02 for shape in SHAPES[:3]] + [torch.tensor(0.3)]
    if not are_steps:
        scales[1][0], scales[1][1] = -0.1, 2.0**-70  # one that crossed zero, and one that is none
    scales = [scale.requires_grad_(learns_scale) for scale in scales]
    factors = [0.5, 0.25, 1.0, 2.0]
    bins = [bins_of(grid, 1.0, *NOISE) for grid in grids]
    together = quantize_on_cpu(weights, scales, bins, factors)
    alone = [
        blocked_fake_quantize(weight, scale, NOISE, grid=grid, scale_gradient=factor)
        for weight, scale, grid, factor in zip(weights, scales, grids, factors, strict=True)
    ]
    assert all(map(torch.equal, together, alone))
    grads = [torch.randn(shape) for shape in SHAPES]
    found = torch.autograd.grad(together, [*weights, *scales * learns_scale], grads)
    expected = torch.autograd.grad(alone, [*weights, *scales * learns_scale], grads)
    assert all(map(torch.equal, found[:4], expected[:4]))
    for one, other in zip(found[4:], expected[4:], strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=2.0**-18, atol=2.0**-18)  # sums of 27 products at most


def test_a_weight_that_is_written_before_backward_is_refused():
    weights = [torch.randn(4, 5, requires_grad=True) for _ in range(2)]
    scales = [torch.full((4, 1), 0.1)] * 2
    bins = [bins_of(GRIDS[0], 1.0, *NOISE) for _ in scales]
    loss = sum(each.sum() for each in quantize_on_cpu(weights, scales, bins, [1.0, 1.0]))
    with torch.no_grad():
        weights[0].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
