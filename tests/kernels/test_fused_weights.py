"""Weights quantised by one kernel: the numbers and the gradients of each quantised alone."""

from __future__ import annotations

import pytest
import torch

from ana_fx.kernels import fused_weights
from ana_fx.kernels.fused_weights import Layout, quantize_together
from tests.kernel_helpers import DEVICE, needs_kernels
from tests.prepared.test_parameter_bank import weighted_layers


@needs_kernels
@pytest.mark.parametrize(("schedule", "segment"), [("best-static", 8192), ("lsq", 8192), ("lsq", 16)])
@pytest.mark.parametrize("precision", ["int8", "ternary"])
def test_weights_quantised_together_are_those_quantised_alone_and_so_are_their_gradients(
    precision, schedule, segment, monkeypatch
):
    monkeypatch.setattr(fused_weights, "_SEGMENT", segment)  # a row of weights is added up in one go or in several
    chosen = weighted_layers(precision, schedule, DEVICE)
    quantizers = [each.weight_quantizer for each in chosen]
    with torch.no_grad():
        quantizers[0].scale[0].mul_(-1)  # one that crossed zero
    weights, scales = [each.weight for each in chosen], [each.scale for each in quantizers]
    sources = [(weight, each.scale, each.mean, each.std) for weight, each in zip(weights, quantizers, strict=True)]
    factors = [quantizer.scale_gradient(weight) for quantizer, weight in zip(quantizers, weights, strict=True)]
    layout = Layout.of([each.grid() for each in quantizers], factors, sources, [])
    grads = [torch.randn_like(weight) for weight in weights]
    together = quantize_together(weights, scales, layout, torch.float32)
    alone = [quantizer(weight) for quantizer, weight in zip(quantizers, weights, strict=True)]
    assert all(map(torch.equal, together, alone))
    learned = [*weights, *scales * (schedule == "lsq")]
    found = torch.autograd.grad(together, learned, grads, retain_graph=True)
    expected = torch.autograd.grad(alone, learned, grads)
    assert all(map(torch.equal, found[: len(weights)], expected[: len(weights)]))
    for one, other in zip(found[len(weights) :], expected[len(weights) :], strict=True):  # sums in another order
        torch.testing.assert_close(one, other, rtol=2.0**-16, atol=2.0**-16)
    grads[0].requires_grad_()
    if schedule == "lsq":
        with pytest.raises(RuntimeError, match="prepare the model with a schedule that leaves scales as they are"):
            torch.autograd.grad(together, weights, grads, create_graph=True)
    else:
        slope, *_ = torch.autograd.grad(together, weights, [torch.ones_like(grad) for grad in grads], retain_graph=True)
        (again, *_), total = torch.autograd.grad(together, weights, grads, create_graph=True), grads[0] * 3
        assert torch.equal(torch.autograd.grad(again, grads[0], total.detach())[0], slope * total.detach())
