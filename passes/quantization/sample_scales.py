"""First scales of quantizers, chosen so that no tensor is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.fx import Node

from ana_fx.graph import layer_map_of
from ana_fx.layers.quantizers import Quantizer
from ana_fx.passes.fusion.observation import observation_of

__all__ = ["scale_from_samples", "scale_of_zeros", "settle_zeros"]


def scale_from_samples(quantizer: Quantizer, samples: Tensor) -> None:
    """Take a scale from samples; all zeros tell none.

    They go before what a norm tells, which knows their mean and spread, but not how long their tails are. If they
    hardly differ, so that their own scale makes all of them zero or an end of the range, the next coarser one is taken,
    which leaves a level above them.
    """
    if not quantizer.calibrate(samples) or not quantizer.loses(samples):
        return
    level = abs(int(quantizer.quantize(samples.flatten()[0])))
    if level > 1 and not quantizer.fills_range:
        quantizer.set_scale(quantizer.scale.detach() * level / (level - 1))


def settle_zeros(group: Mapping[Node, Quantizer]) -> None:
    """Settle the scales of tensors that held nothing but zeros, once the others of their scale group have theirs.

    Zeros fit the scale of the others. A constant that is alone may learn; it gets a range of one. The first training
    batch settles the rest.
    """
    is_known = any(quantizer.is_calibrated for quantizer in group.values())
    for node, quantizer in group.items():
        if quantizer.is_calibrated or observation_of(node).samples is None:
            continue
        if is_known:
            quantizer.set_scale(quantizer.scale.detach())
        elif len(group) == 1 and (layer_map := layer_map_of(node)) is not None and not layer_map.takes_scales:
            quantizer.set_scale(torch.tensor(1.0 / quantizer.integer_type.qmax))


def scale_of_zeros(weight: Tensor, quantizer: Quantizer) -> Tensor:
    """The scale of a weight that starts at zero: that of the range in which torch starts one of its size."""
    return torch.full_like(quantizer.scale, 1.0 / (math.sqrt(weight[0].numel()) * quantizer.integer_type.qmax))
