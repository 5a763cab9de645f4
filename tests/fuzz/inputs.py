"""Inputs that reach what random ones do not: extremes of the range, halves between levels, zeros, one hot numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

from ana_fx.graph import calls_to, module_of
from ana_fx.layers.input_quantizers import InputQuantizer

__all__ = ["hard_inputs"]

SAMPLES = 12


@torch.no_grad()
def hard_inputs(qat: GraphModule, examples: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """For each input of a calibrated model the examples, then `SAMPLES` more; zeros for one that nothing reads."""
    generator = torch.Generator().manual_seed(seed)
    found = {name: torch.cat([x, torch.zeros(SAMPLES, *x.shape[1:])]) for name, x in examples.items()}
    for node in calls_to(qat, InputQuantizer):
        quantizer, name = module_of(node), str(node.all_input_nodes[0].target)
        assert isinstance(quantizer, InputQuantizer)
        found[name][-SAMPLES:] = _samples(quantizer, tuple(examples[name].shape[1:]), generator)
    return found


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
