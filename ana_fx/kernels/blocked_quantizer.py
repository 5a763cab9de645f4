"""The noisy quantizer on CPUs, a block of numbers at a time, which stays in the cache, and in few operations.

For noise that reaches one threshold at most, uniform and under `mode`; everything else is
`ana_fx.layers.fake_quantize`'s, whose numbers these are, bit for bit.

Backward reads a parameter again, which is there anyway. Of other numbers it keeps a byte each: whether noise reaches a
threshold from there; and if the scale learns, where in its bin the number lies. The gradient of the scale is a sum of
grad · c, with c = level − x / step between thresholds and the end of the range beyond: a byte tells c to ± 1 / 250.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ana_fx.kernels.bins import Bins, bins_of
from ana_fx.kernels.fused_quantizer import Grid, refuse_graph
from ana_fx.kernels.int8_levels import is_dense, laid_out
from ana_fx.numerics.scale_search import positive, positive_number, slope_of_positive

__all__ = [
    "blocked_fake_quantize",
    "flat",
    "gradient_where_near",
    "gradients_from_parts",
    "is_blocked",
    "near_in_place",
    "one_step",
    "parts_in_place",
    "parts_tell",
]

_BLOCK = 2**18  # numbers for each thread
_PARTS = 125.0  # of a bin, numbered from 1
_FIRST_PART = torch.ones((), device="cpu")
_BELOW, _ABOVE = 0.0, 127.0  # in place of the number of a part
_HUGE = 1e30  # times the distance of any two floats: beyond all parts
_NO_STEPS = torch.ones((), device="cpu")  # where blocks need none


def one_step(scale: Tensor) -> tuple[float, float, Tensor]:
    """The step of a scale of one number, the slope of that with respect to the scale, and the step as a tensor."""
    number = float(scale)
    step, slope = positive_number(number)
    return step, slope, scale if step == number and not scale.ndim else torch.tensor(step)


def parts_tell(bins: Bins) -> bool:
    """Whether the gradient of a scale of one step follows from the part of its bin in which each number lies."""
    return bins.is_whole and bins.height == 1.0


def is_blocked(x: Tensor) -> bool:
    """Whether numbers can be quantised block by block."""
    return x.is_cpu and not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def blocked_fake_quantize(
    x: Tensor,
    scale: Tensor,
    noise: tuple[float, float],
    *,
    grid: Grid,
    scale_gradient: float = 1.0,
) -> Tensor:
    """See `ana_fx.kernels.fused_quantizer.fused_fake_quantize`, whose other arguments these are.

    If the scale has several steps, the clip range is all numbers or those from 0.

    Args:
        noise: Mean and standard deviation, in steps.
    """
    x = x if is_dense(x) else x.contiguous()
    steps = scale.detach()
    if scale.numel() == 1:
        step, slope, steps = one_step(steps)
    else:
        step, slope, steps = 1.0, 1.0, positive(steps)
    bins = bins_of(grid, step, *noise)
    if not (torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad)):
        return _quantized(x, steps, bins)
    is_there_anyway = x.is_leaf and x.requires_grad
    settings = (steps, bins, slope * scale_gradient, is_there_anyway)
    out: Tensor = _BlockedFakeQuantize.apply(x, scale, *settings)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


def _blocks(steps: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same block of each tensor, of one layout, and its steps; in the order of memory."""
    size, num_rows = tensors[0].numel(), steps.numel()
    most = _BLOCK * torch.get_num_threads()
    if size <= most:
        yield *tensors, steps
    elif num_rows == 1:
        yield from ((*parts, steps) for parts in zip(*(flat(each).split(most) for each in tensors), strict=True))
    else:
        row = size // num_rows
        rows = [each.as_strided((num_rows, row), (row, 1)) for each in tensors]
        together = max(1, most // row)
        yield from zip(*(each.split(together) for each in (*rows, steps.reshape(num_rows, 1))), strict=True)


def flat(x: Tensor) -> Tensor:
    """Its numbers in the order of memory."""
    return x.as_strided((x.numel(),), (1,))


class _Rooms(threading.local):
    """A thread's room for intermediate numbers; to ask the system for it each time would take as long as to use it."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)

    def like(self, block: Tensor, number: int) -> list[Tensor]:
        """So many tensors in the layout of a block, until somebody asks again."""
        size, buffer = block.numel(), self._buffer
        if buffer.numel() < number * size:
            buffer = torch.empty(number * size)
            if size <= _BLOCK * torch.get_num_threads():  # a longer row has its own
                self._buffer = buffer
        return [buffer.as_strided(block.shape, block.stride(), index * size) for index in range(number)]


_ROOMS = _Rooms()


def _quantized(x: Tensor, steps: Tensor, bins: Bins) -> Tensor:
    """The value alone."""
    y = torch.empty_like(x, dtype=torch.float32)
    for numbers, out, step in _blocks(steps, x, y):
        _in_steps(numbers, step, bins, out).floor_().clamp_(bins.lo, bins.hi).mul_(step)
    return y


def _in_steps(x: Tensor, step: Tensor, bins: Bins, out: Tensor) -> Tensor:
    """v, as `Bins` says."""
    divided = torch.div(x, step, out=out) if x.dtype == torch.float32 else out.copy_(x).div_(step)
    return divided.add_(bins.shift)


def _near_(v: Tensor, clipped: Tensor, bins: Bins) -> Tensor:
    """1.0 where noise reaches a threshold, else 0.0. It overwrites v; `clipped` is v clipped as `Bins` says."""
    if bins.is_whole:
        return v.eq_(clipped)
    threshold = torch.round(clipped).clamp_(bins.lo + 1.0, max(bins.lo + 1.0, bins.hi))
    return v.sub_(threshold).abs_().lt_(bins.width)


class _BlockedFakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, steps: Tensor, bins: Bins, factor: float, is_there_anyway: bool
    ) -> Tensor:
        learns_scale = ctx.needs_input_grad[1]
        ctx.bins, ctx.factor, ctx.dtype, ctx.shape = bins, factor, x.dtype, scale.shape
        if is_there_anyway or (learns_scale and not (scale.numel() == 1 and parts_tell(bins))):
            ctx.save_for_backward(x, scale, steps.clone())  # a scale may be written before backward
            return _quantized(x, steps, bins)
        y, kept = (_quantized_and_parts if learns_scale else _quantized_and_near)(x, steps, bins)
        ctx.save_for_backward(kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        learns_scale = ctx.needs_input_grad[1]
        if grad.requires_grad:  # somebody wants gradients of gradients
            refuse_graph(learns_scale=learns_scale)
            return grad * _gradients(ctx, torch.ones_like(grad), learns_scale=False)[0], *(None,) * 5
        return *_gradients(ctx, grad, learns_scale=learns_scale), *(None,) * 4


@torch.no_grad()
def _gradients(ctx: Any, grad: Tensor, *, learns_scale: bool) -> tuple[Tensor, Tensor | None]:
    """The gradients of x and of the scale."""
    kept, *others = ctx.saved_tensors
    grad = laid_out(grad, kept.stride())
    if not others:
        if not learns_scale:
            return gradient_where_near(grad, kept, ctx.bins, ctx.dtype), None
        grad_x, grad_step = gradients_from_parts(grad, kept, ctx.bins, ctx.dtype)
        return grad_x, torch.full(ctx.shape, grad_step * ctx.factor)
    scale, steps = others
    grad_x, grad_steps = _gradients_from_x(grad, kept, steps, ctx.bins, learns_scale=learns_scale)
    if grad_steps is None:
        return grad_x, None
    grad_scale = grad_steps.reshape(scale.shape).mul_(ctx.factor)
    return grad_x, grad_scale.mul_(slope_of_positive(scale)) if scale.numel() > 1 else grad_scale


def _quantized_and_near(x: Tensor, steps: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    """The value, and for each number whether noise reaches a threshold."""
    y = torch.empty_like(x, dtype=torch.float32)
    near = torch.empty_like(x, dtype=torch.int8)
    for numbers, out, byte, step in _blocks(steps, x, y, near):
        (v,) = _ROOMS.like(numbers, 1)
        _in_steps(numbers, step, bins, v)
        _write_near(v, step, bins, byte, clipped=out, out=out)
    return y, near


def _quantized_and_parts(x: Tensor, steps: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    """The value, and in which part of its bin each number lies; of numbers beyond the bins, on which side."""
    y = torch.empty_like(x, dtype=torch.float32)
    parts = torch.empty_like(x, dtype=torch.int8)
    for numbers, out, byte, step in _blocks(steps, x, y, parts):
        v, clipped = _ROOMS.like(numbers, 2)
        _in_steps(numbers, step, bins, v)
        _write_parts(v, step, bins, byte, clipped=clipped, level=out, out=out)
    return y, parts


def near_in_place(v: Tensor, step: Tensor, bins: Bins) -> Tensor:
    """Turn v, as `Bins` says, into the value; and give for each number whether noise reaches a threshold, int8."""
    near = torch.empty_like(v, dtype=torch.int8)
    for numbers, byte, _ in _blocks(_NO_STEPS, v, near):
        (clipped,) = _ROOMS.like(numbers, 1)
        _write_near(numbers, step, bins, byte, clipped=clipped, out=numbers)
    return near


def parts_in_place(v: Tensor, step: Tensor, bins: Bins) -> Tensor:
    """Turn v into the value; and give the part of its bin in which each number lies, or its side of all bins, int8."""
    parts = torch.empty_like(v, dtype=torch.int8)
    for numbers, byte, _ in _blocks(_NO_STEPS, v, parts):
        clipped, level = _ROOMS.like(numbers, 2)
        _write_parts(numbers, step, bins, byte, clipped=clipped, level=level, out=numbers)
    return parts


def _write_near(v: Tensor, step: Tensor, bins: Bins, byte: Tensor, *, clipped: Tensor, out: Tensor) -> None:
    """The value into `out`, which is v or `clipped`, and whether noise reaches a threshold into `byte`."""
    torch.clamp(v, bins.lower, bins.upper, out=clipped)
    byte.copy_(_near_(v, clipped, bins))
    torch.floor(clipped, out=out).mul_(step)


def _write_parts(
    v: Tensor, step: Tensor, bins: Bins, byte: Tensor, *, clipped: Tensor, level: Tensor, out: Tensor
) -> None:
    """The value into `out`, which is v or `level`, and the part of its bin in which v lies into `byte`."""
    torch.clamp(v, bins.lower, bins.upper, out=clipped)
    torch.floor(clipped, out=level)
    beyond, part = v.sub_(clipped), torch.add(_FIRST_PART, clipped.sub_(level), alpha=_PARTS, out=clipped)
    byte.copy_(part.add_(beyond, alpha=_HUGE).clamp_(_BELOW, _ABOVE))
    torch.mul(level, step, out=out)


def gradient_where_near(grad: Tensor, near: Tensor, bins: Bins, dtype: torch.dtype) -> Tensor:
    """The gradient of x, given whether noise reaches a threshold."""
    grad_x = torch.empty_like(grad)
    for upstream, byte, out, _ in _blocks(_NO_STEPS, grad, near, grad_x):
        slope = out.copy_(byte)
        if bins.height != 1.0:
            slope.mul_(bins.height)
        slope.mul_(upstream)
    return grad_x.to(dtype)


def gradients_from_parts(grad: Tensor, parts: Tensor, bins: Bins, dtype: torch.dtype) -> tuple[Tensor, float]:
    """The gradients of x and of the step, given what `parts_tell`."""
    grad_x = torch.empty_like(grad)
    inside = inside_parts = above = everywhere = 0.0
    for upstream, byte, out, _ in _blocks(_NO_STEPS, grad, parts, grad_x):
        part, near = _ROOMS.like(upstream, 2)
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


def _gradients_from_x(
    grad: Tensor, x: Tensor, steps: Tensor, bins: Bins, *, learns_scale: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradients of x and of the steps."""
    grad_x = torch.empty_like(grad, dtype=x.dtype)
    grad_steps: list[Tensor] = []
    for upstream, numbers, out, step in _blocks(steps, grad, x, grad_x):
        v, clipped, room = _ROOMS.like(upstream, 3)
        _in_steps(numbers, step, bins, v)
        torch.clamp(v, bins.lower, bins.upper, out=clipped)
        slope = _near_(v, clipped, bins)
        if bins.height != 1.0:
            slope.mul_(bins.height)
        if learns_scale:
            level = torch.floor(clipped, out=room)
            level.addcmul_(clipped.sub_(bins.offset), slope, value=-1.0)
            grad_steps.append(level.mul_(upstream).sum_to_size(step.shape))
        torch.mul(slope, upstream, out=out)
    if not learns_scale:
        return grad_x, None
    return grad_x, torch.cat(grad_steps) if steps.numel() > 1 else torch.stack(grad_steps).sum()
