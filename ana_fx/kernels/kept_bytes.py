"""The byte that backward keeps of each number on CPUs, and the gradients that it tells.

Either whether noise reaches a threshold from the number: 1 or 0. Or, for the gradient of a scale too, in which part of
its bin the number lies. That gradient is a sum of grad · c, with c = level − x / step between thresholds and the end of
the range beyond: the byte tells c to ± 1 / 250.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ana_fx.kernels.bins import Bins
from ana_fx.kernels.blocks import ONE, blocks, flat, rooms_like

__all__ = [
    "gradient_where_near",
    "gradients_from_parts",
    "near_",
    "parts_tell",
    "write_near",
    "write_parts",
]

_PARTS = 125.0  # of a bin, numbered from 1
_BELOW, _ABOVE = 0.0, 127.0  # in place of the number of a part
_HUGE = 1e30  # times the distance of any two floats: beyond all parts


def parts_tell(bins: Bins) -> bool:
    """Whether the gradient of a scale of one step follows from the part of its bin in which each number lies."""
    return bins.is_whole and bins.height == 1.0


def near_(v: Tensor, clipped: Tensor, bins: Bins) -> Tensor:
    """1.0 where noise reaches a threshold, else 0.0. It overwrites v; `clipped` is v clipped as `Bins` says."""
    if bins.is_whole:
        return v.eq_(clipped)
    threshold = torch.round(clipped).clamp_(bins.lo + 1.0, max(bins.lo + 1.0, bins.hi))
    return v.sub_(threshold).abs_().lt_(bins.width)


def write_near(v: Tensor, step: Tensor, bins: Bins, byte: Tensor) -> None:
    """Whether noise reaches a threshold from v, as `Bins` says, into `byte`, and the value in place of v."""
    (clipped,) = rooms_like(v, 1)
    torch.clamp(v, bins.lower, bins.upper, out=clipped)
    byte.copy_(near_(v, clipped, bins))
    torch.floor(clipped, out=v).mul_(step)


def write_parts(v: Tensor, step: Tensor, bins: Bins, byte: Tensor) -> None:
    """In which part of its bin v lies, or on which side of all bins, into `byte`, and the value in place of v."""
    clipped, level = rooms_like(v, 2)
    torch.clamp(v, bins.lower, bins.upper, out=clipped)
    torch.floor(clipped, out=level)
    beyond, part = v.sub_(clipped), torch.add(ONE, clipped.sub_(level), alpha=_PARTS, out=clipped)
    byte.copy_(part.add_(beyond, alpha=_HUGE).clamp_(_BELOW, _ABOVE))
    torch.mul(level, step, out=v)


def gradient_where_near(grad: Tensor, near: Tensor, bins: Bins, dtype: torch.dtype) -> Tensor:
    """The gradient of x, given whether noise reaches a threshold."""
    grad_x = torch.empty_like(grad)
    for upstream, byte, out, _ in blocks(ONE, grad, near, grad_x):
        slope = out.copy_(byte)
        if bins.height != 1.0:
            slope.mul_(bins.height)
        slope.mul_(upstream)
    return grad_x.to(dtype)


def gradients_from_parts(grad: Tensor, parts: Tensor, bins: Bins, dtype: torch.dtype) -> tuple[Tensor, float]:
    """The gradients of x and of the step, given what `parts_tell`."""
    grad_x = torch.empty_like(grad)
    inside = inside_parts = above = everywhere = 0.0
    for upstream, byte, out, _ in blocks(ONE, grad, parts, grad_x):
        part, near = rooms_like(upstream, 2)
        part.copy_(byte)
        torch.clamp(part, _BELOW + 1.0, _ABOVE - 1.0, out=near).eq_(part)
        torch.mul(upstream, near, out=out)  # whose slope is 1
        flat_part, flat_upstream, flat_out = flat(part), flat(upstream), flat(out)
        products = float(torch.dot(flat_out, flat_part))
        inside_parts += products
        above += (float(torch.dot(flat_upstream, flat_part)) - products) / _ABOVE
        inside += float(flat_out.sum())
        everywhere += float(flat_upstream.sum())
    below = everywhere - inside - above
    in_bin = (inside_parts - 0.5 * inside) / _PARTS  # Σ grad · (v − ⌊v⌋), in the middle of each part
    grad_step = bins.offset * inside - in_bin + bins.lo * below + bins.hi * above
    return grad_x.to(dtype), grad_step
