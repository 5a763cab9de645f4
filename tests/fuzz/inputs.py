"""Inputs that reach what random ones do not: extremes of the range, halves between levels, zeros, one hot numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

from ana_fx.graph import calls_to, module_of
from ana_fx.quantizers import InputQuantizer

__all__ = ["hard_inputs"]

SAMPLES = 12


@torch.no_grad()
def hard_inputs(qat: GraphModule, examples: dict[str, Tensor], seed: int) -> tuple[Tensor, ...]:
    """For each input of a calibrated model the examples, then `SAMPLES` more."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for node in calls_to(qat, InputQuantizer):
        quantizer = module_of(node)
        assert isinstance(quantizer, InputQuantizer)
        given = examples[str(node.all_input_nodes[0].target)]
        found.append(torch.cat([given, _samples(quantizer, tuple(given.shape[1:]), generator)]))
    return tuple(found)


def _samples(quantizer: InputQuantizer, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    low, high = quantizer.integer_type.qmin, quantizer.integer_type.qmax
    step = quantizer.real(torch.tensor(1)) - quantizer.real(torch.tensor(0))
    levels = torch.randint(low, high + 1, (SAMPLES, *shape), generator=generator)
    ends = torch.where(torch.rand(shape, generator=generator) < 0.5, low, high)
    levels[0], levels[1], levels[2], levels[3] = low, high, ends, 0
    levels[4] = torch.where(torch.rand(shape, generator=generator) < 0.2, ends, 0)
    real = quantizer.real(levels)
    real[5] += step / 2  # where rounding decides
    real[6] = torch.nextafter(real[6] + step / 2, torch.tensor(torch.inf))
    real[7] = torch.nextafter(real[7] + step / 2, torch.tensor(-torch.inf))
    real[8] = torch.randn(shape, generator=generator) * 1e9
    real[9] = torch.randn(shape, generator=generator) * step
    real[10] = -0.0
    return real
