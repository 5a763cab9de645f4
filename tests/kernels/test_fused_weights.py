"""Weights quantised by one kernel: the numbers and the gradients of each quantised alone."""

from __future__ import annotations

import torch

from ana_fx.kernels.fused_weights import Layout, quantize_together
from tests.kernel_helpers import DEVICE, needs_kernels
from tests.prepared.test_parameter_bank import weighted_layers


@needs_kernels
def test_weights_quantised_together_are_those_quantised_alone_and_so_are_their_gradients():
    for precision in ("int8", "ternary"):
        chosen = weighted_layers(precision, DEVICE)
        quantizers = [each.weight_quantizer for each in chosen]
        weights = [each.weight for each in chosen]
        sources = [(weight, each.scale, each.mean, each.std) for weight, each in zip(weights, quantizers, strict=True)]
        layout = Layout.of([each.grid() for each in quantizers], sources, [])
        grads = [torch.randn_like(weight) for weight in weights]
        together = quantize_together(weights, layout, torch.float32)
        alone = [quantizer(weight) for quantizer, weight in zip(quantizers, weights, strict=True)]
        assert all(map(torch.equal, together, alone))
        found = torch.autograd.grad(together, weights, grads)
        assert all(map(torch.equal, found, torch.autograd.grad(alone, weights, grads)))
