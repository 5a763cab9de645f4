"""The quantizer's inner loops as Triton kernels: each tensor is read and written once.

Imported only where Triton is and the tensors lie on a GPU. `ana_fx.layers.fake_quantize` is the reference, and these
give its numbers bit for bit: quotients are rounded as IEEE says, and no product is fused with a sum. A scale has a row
of `row_size` numbers for each of its steps; a program works on one block of one row.
"""

# ruff: noqa: N803 - Triton's custom: constants of a kernel in capitals
# Triton has no types, and gives a kernel's arguments those of each call:
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "parts_backward",
    "quantize_backward",
    "quantize_forward",
    "quantize_many",
    "scale_backward",
    "sum_parts",
]

_ALL = tl.constexpr(tl.PropagateNan.ALL)
_SMALLEST, _LARGEST = tl.constexpr(2.0**-60), tl.constexpr(2.0**60)
_SQRT3_INCLUDED = tl.constexpr(3.0**0.5 * (1.0 + 2.0**-20))
_DENSITY = tl.constexpr(0.5 / 3.0**0.5)
_PARTS = tl.constexpr(125.0)  # of a bin, numbered from 1; see `ana_fx.kernels.kept_bytes`
_BELOW, _ABOVE = tl.constexpr(0.0), tl.constexpr(127.0)  # in place of the number of a part
_INTEGERS = tl.constexpr(1.5 * 2.0**23)  # a number below 2**22 added to it loses its fraction, rounded half to even


@triton.jit
def _rint(x):
    return (x + _INTEGERS) - _INTEGERS


@triton.jit
def _step_and_levels(scale_ptr, row, lowest, highest, minimum, maximum):
    """The step of a row, and the levels that the clip range leaves."""
    scale = tl.minimum(tl.maximum(tl.abs(tl.load(scale_ptr + row)), _SMALLEST), _LARGEST)
    inverse = tl.div_rn(1.0, scale)
    lo = tl.minimum(_rint(tl.maximum(inverse * minimum, lowest)), 0.0)
    hi = tl.maximum(_rint(tl.minimum(inverse * maximum, highest)), 0.0)
    return scale, lo, hi


@triton.jit
def _slope_of_step(scale_ptr, row):
    """The derivative of the step with respect to the scale that it is made of."""
    scale = tl.load(scale_ptr + row)
    is_inside = (tl.abs(scale) >= _SMALLEST) & (tl.abs(scale) <= _LARGEST)
    return tl.where(is_inside, tl.where(scale < 0.0, -1.0, 1.0), 0.0)


@triton.jit
def _is_near(v, std, lo, hi):
    """Whether noise reaches from v to the nearest threshold; in v the thresholds are lo + 1 … hi."""
    threshold = _rint(tl.minimum(tl.maximum(v, lo, propagate_nan=_ALL), hi + 1.0, propagate_nan=_ALL))
    threshold = tl.maximum(tl.minimum(threshold, hi), lo + 1.0)
    return tl.abs(threshold - v) < tl.where(hi > lo, std * _SQRT3_INCLUDED, 0.0)


@triton.jit
def _density(std):
    return tl.div_rn(1.0, tl.maximum(std, _SMALLEST)) * _DENSITY


@triton.jit
def _kept_noise(kept_ptr, tail_at):
    """Mean and standard deviation, as `quantize_forward` kept them."""
    tail = (kept_ptr + tail_at).to(tl.pointer_type(tl.float32))
    return tl.load(tail), tl.load(tail + 1)


@triton.jit
def quantize_forward(
    x_ptr, scale_ptr, mean_ptr, std_ptr, y_ptr, kept_ptr,
    row_size, tail_at, lowest, highest, offset, minimum, maximum,
    KEEPS_NEAR: tl.constexpr, KEEPS_PARTS: tl.constexpr, KEEPS_TAIL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = step · level of x − mean. Kept: a byte for each number that is near a threshold; or one that tells in which
    part of its bin the number lies, or on which side of all bins. Behind the bytes, as float32, the mean and the
    standard deviation, and as int32 a zero, by which the programs of `parts_backward` count; and room.
    """
    blocks = tl.cdiv(row_size, BLOCK)
    row = tl.program_id(0) // blocks
    column = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    index = row.to(tl.int64) * row_size + column
    is_there = column < row_size
    scale, lo, hi = _step_and_levels(scale_ptr, row, lowest, highest, minimum, maximum)
    mean, std = tl.load(mean_ptr), tl.load(std_ptr)
    x = tl.load(x_ptr + index, mask=is_there).to(tl.float32)
    v = tl.div_rn(x, scale) + (offset - mean)
    level = tl.minimum(tl.floor(v), hi, propagate_nan=_ALL)
    level = tl.maximum(level, lo, propagate_nan=_ALL)
    tl.store(y_ptr + index, (level * scale).to(y_ptr.dtype.element_ty), mask=is_there)
    if KEEPS_NEAR:
        tl.store(kept_ptr + index, _is_near(v, std, lo, hi).to(tl.uint8), mask=is_there)
    if KEEPS_PARTS:
        beyond = tl.where(v < lo + 1.0, _BELOW, _ABOVE)
        part = tl.where(_is_near(v, std, lo, hi), (v - level) * _PARTS + 1.0, beyond)
        tl.store(kept_ptr + index, part.to(tl.uint8), mask=is_there)
    if KEEPS_TAIL:
        tail, is_first = kept_ptr + tail_at, tl.program_id(0) == 0
        tl.store(tail.to(tl.pointer_type(tl.float32)), mean, mask=is_first)
        tl.store(tail.to(tl.pointer_type(tl.float32)) + 1, std, mask=is_first)
        tl.store(tail.to(tl.pointer_type(tl.int32)) + 2, 0, mask=is_first)


@triton.jit
def quantize_backward(grad_ptr, kept_ptr, grad_x_ptr, num_numbers, tail_at, BLOCK: tl.constexpr):
    """The gradient where noise reaches a threshold, from what `quantize_forward` kept."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_there = index < num_numbers
    is_near = tl.load(kept_ptr + index, mask=is_there, other=0) != 0
    grad = tl.load(grad_ptr + index, mask=is_there & is_near, other=0.0)
    _mean, std = _kept_noise(kept_ptr, tail_at)
    grad_x = grad.to(tl.float32) * _density(std)
    tl.store(grad_x_ptr + index, grad_x.to(grad_x_ptr.dtype.element_ty), mask=is_there)


@triton.jit
def parts_backward(
    grad_ptr, kept_ptr, scale_ptr, grad_x_ptr, grad_scale_ptr,
    num_numbers, tail_at, lowest, highest, offset, minimum, maximum, scale_gradient,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """As `scale_backward` for a scale of one step, from the parts that `quantize_forward` kept.

    The program that is done last adds up what each has left behind the tail, always in the same order.
    """
    _scale, lo, hi = _step_and_levels(scale_ptr, 0, lowest, highest, minimum, maximum)
    mean, std = _kept_noise(kept_ptr, tail_at)
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_there = index < num_numbers
    part = tl.load(kept_ptr + index, mask=is_there, other=0).to(tl.float32)
    grad = tl.load(grad_ptr + index, mask=is_there, other=0.0).to(tl.float32)
    is_near = (part != _BELOW) & (part != _ABOVE)
    slope = tl.where(is_near, _density(std), 0.0)
    tl.store(grad_x_ptr + index, (grad * slope).to(grad_x_ptr.dtype.element_ty), mask=is_there)
    inside = (offset - mean) - (part - 0.5) / _PARTS
    by_step = tl.where(is_near, inside, tl.where(part == _BELOW, lo, hi)) * scale_gradient
    partial_ptr = (kept_ptr + tail_at).to(tl.pointer_type(tl.float32)) + 4
    tl.store(partial_ptr + tl.program_id(0), tl.sum(tl.where(is_there, grad * by_step, 0.0)))
    counter_ptr = (kept_ptr + tail_at).to(tl.pointer_type(tl.int32)) + 2
    others_done = tl.atomic_add(counter_ptr, 1)  # after it, what they have left is seen
    if others_done == tl.num_programs(0) - 1:
        totals = tl.zeros((BLOCK,), tl.float32)
        for first in range(0, tl.num_programs(0), BLOCK):
            program = first + tl.arange(0, BLOCK)
            is_one = program < tl.num_programs(0)
            totals += tl.load(partial_ptr + program, mask=is_one, other=0.0, cache_modifier=".cg")
        tl.store(grad_scale_ptr, tl.sum(totals) * _slope_of_step(scale_ptr, 0))
        tl.store(counter_ptr, 0)  # backward may come again


@triton.jit
def scale_backward(
    grad_ptr, x_ptr, scale_ptr, kept_ptr, grad_x_ptr, partial_ptr,
    row_size, lowest, highest, offset, minimum, maximum, scale_gradient,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of x, and for each block its part of the gradient of the row's step, from x itself."""
    blocks = tl.cdiv(row_size, BLOCK)
    row = tl.program_id(0) // blocks
    column = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    index = row.to(tl.int64) * row_size + column
    is_there = column < row_size
    scale, lo, hi = _step_and_levels(scale_ptr, row, lowest, highest, minimum, maximum)
    mean, std = _kept_noise(kept_ptr, 0)
    u = tl.div_rn(tl.load(x_ptr + index, mask=is_there, other=0.0).to(tl.float32), scale)
    v = u + (offset - mean)
    level = tl.maximum(tl.minimum(tl.floor(v), hi, propagate_nan=_ALL), lo, propagate_nan=_ALL)
    is_near, density = _is_near(v, std, lo, hi), _density(std)
    slope = tl.where(is_near, density, 0.0)
    grad = tl.load(grad_ptr + index, mask=is_there, other=0.0).to(tl.float32)
    tl.store(grad_x_ptr + index, (grad * slope).to(grad_x_ptr.dtype.element_ty), mask=is_there)
    scale_slope = (tl.where(is_near, u * density, 0.0) - level) * -scale_gradient  # u may be infinite
    total = tl.sum(tl.where(is_there, grad * scale_slope, 0.0))
    tl.store(partial_ptr + tl.program_id(0), total * _slope_of_step(scale_ptr, row))


@triton.jit
def quantize_many(
    pointers_ptr, grids_ptr, blocks_ptr, noise_ptr, result_ptr, by_scale_ptr,
    IS_BACKWARD: tl.constexpr, LEARNS_SCALE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """As `quantize_forward`, of many float32 tensors (see `ana_fx.kernels.fused_weights`); or the derivative at each
    number, and that of what it gives with respect to the scale, times the factor of that gradient.

    Forward keeps mean and standard deviation of each tensor's noise, backward takes them.
    """
    which = tl.load(blocks_ptr + 2 * tl.program_id(0))
    first = tl.load(blocks_ptr + 2 * tl.program_id(0) + 1)
    index = first + tl.arange(0, BLOCK)
    entry, grid = pointers_ptr + 7 * which, grids_ptr + 6 * which
    x_ptr = tl.load(entry).to(tl.pointer_type(tl.float32))
    scale_ptr = tl.load(entry + 1).to(tl.pointer_type(tl.float32))
    if IS_BACKWARD:
        mean, std = tl.load(noise_ptr + 2 * which), tl.load(noise_ptr + 2 * which + 1)
    else:
        mean = tl.load(tl.load(entry + 2).to(tl.pointer_type(tl.float32)))
        std = tl.load(tl.load(entry + 3).to(tl.pointer_type(tl.float32)))
        tl.store(noise_ptr + 2 * which, mean, mask=first == 0)
        tl.store(noise_ptr + 2 * which + 1, std, mask=first == 0)
    is_there = index < tl.load(entry + 4)
    row = tl.where(is_there, index // tl.load(entry + 5), 0)
    at = tl.load(entry + 6) + index
    lowest, highest, offset = tl.load(grid), tl.load(grid + 1), tl.load(grid + 2)
    scale, lo, hi = _step_and_levels(scale_ptr, row, lowest, highest, tl.load(grid + 3), tl.load(grid + 4))
    u = tl.div_rn(tl.load(x_ptr + index, mask=is_there, other=0.0), scale)
    v = u + (offset - mean)
    level = tl.maximum(tl.minimum(tl.floor(v), hi, propagate_nan=_ALL), lo, propagate_nan=_ALL)
    if IS_BACKWARD:
        result = tl.where(_is_near(v, std, lo, hi), _density(std), 0.0)
        if LEARNS_SCALE:
            by_step = level - tl.where(result != 0.0, u * result, 0.0)  # u may be infinite
            by_scale = by_step * _slope_of_step(scale_ptr, row) * tl.load(grid + 5)
            tl.store(by_scale_ptr + at, by_scale, mask=is_there)
    else:
        result = level * scale
    tl.store(result_ptr + at, result.to(result_ptr.dtype.element_ty), mask=is_there)


@triton.jit
def sum_parts(x_ptr, parts_ptr, sums_ptr, BLOCK: tl.constexpr):
    """The sums of parts of float32 numbers, each of which has a start and a size."""
    start, size = tl.load(parts_ptr + 2 * tl.program_id(0)), tl.load(parts_ptr + 2 * tl.program_id(0) + 1)
    totals = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, size, BLOCK):
        index = first + tl.arange(0, BLOCK)
        totals += tl.load(x_ptr + start + index, mask=index < size, other=0.0)
    tl.store(sums_ptr + tl.program_id(0), tl.sum(totals))
