"""Integer maps of single numbers and of rows as Triton kernels: tables, softmax, normalisation.

All of it is integer arithmetic, as `ana_fx.layers.table_map`, `ana_fx.layers.softmax_map` and
`ana_fx.operators.normalization` say it, so the order of sums does not matter. Levels come from reals as everywhere, by
one division and one rounding.
"""

# ruff: noqa: N803 - Triton's custom: constants of a kernel in capitals
# Triton has no types, and gives a kernel's arguments those of each call:
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl

from ana_fx.kernels.triton_products import level_of

__all__ = ["look_up", "normalize", "round_input", "softmax"]

_ALL = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def round_input(
    x_ptr, scale_ptr, y_ptr, num_numbers, lowest, highest, KEEPS_NAN: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """clip(round(x / step)) · step; what is not a number stays so, or becomes the lowest level."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_there = at < num_numbers
    level = level_of(x_ptr, at, is_there, scale_ptr)
    if not KEEPS_NAN:
        level = tl.where(level == level, level, lowest)
    level = tl.minimum(tl.maximum(level, lowest, propagate_nan=_ALL), highest, propagate_nan=_ALL)
    scale = tl.maximum(tl.abs(tl.load(scale_ptr)), 2.0**-60)
    tl.store(y_ptr + at, level * scale, mask=is_there)


@triton.jit
def look_up(
    x_ptr, scale_ptr, table_ptr, output_scale_ptr, y_ptr,
    num_numbers, lowest, num_levels, num_places, num_rows, BLOCK: tl.constexpr,
):  # fmt: skip
    """The entry of each level in the row of its channel, times the output's scale."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_there = at < num_numbers
    level = level_of(x_ptr, at, is_there, scale_ptr).to(tl.int32)
    entry = tl.minimum(tl.maximum(level - lowest, 0), num_levels - 1)
    row = at // num_places % num_rows
    y = tl.load(table_ptr + row * num_levels + entry, mask=is_there, other=0.0)
    tl.store(y_ptr + at, y * tl.load(output_scale_ptr), mask=is_there)


@triton.jit
def softmax(
    x_ptr, scale_ptr, table_ptr, output_scale_ptr, y_ptr, length, num_levels, highest,
    IS_NEAREST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """⌊(2·q·e + Σ e) / (2·Σ e)⌋ of a row, or ⌊q·e / Σ e⌋, times the output's scale."""
    column = tl.arange(0, BLOCK)
    at = tl.program_id(0).to(tl.int64) * length + column
    is_there = column < length
    n = tl.where(is_there, level_of(x_ptr, at, is_there, scale_ptr).to(tl.int32), -(2**30))
    distance = tl.minimum(tl.max(n, 0) - n, num_levels - 1)
    e = tl.where(is_there, tl.load(table_ptr + distance).to(tl.int32), 0)
    total = tl.sum(e, 0)
    if IS_NEAREST:
        y = (2 * highest * e + total) // (2 * total)
    else:
        y = highest * e // total
    tl.store(y_ptr + at, y.to(tl.float32) * tl.load(output_scale_ptr), mask=is_there)


@triton.jit
def normalize(
    x_ptr, scale_ptr, epsilon_ptr, root_ptr, multiplier_ptr, offset_ptr, shift_ptr, ends_ptr, y_ptr,
    length, num_channels, num_places,
    IS_CENTERED: tl.constexpr, MAX_EXPONENT: tl.constexpr, MANTISSA_BITS: tl.constexpr, SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The normalised levels of a row, then the shift staircase of each number's channel."""
    column = tl.arange(0, BLOCK)
    at = tl.program_id(0).to(tl.int64) * length + column
    is_there = column < length
    n = level_of(x_ptr, at, is_there, scale_ptr).to(tl.int64)
    total = tl.sum(n, 0) if IS_CENTERED else tl.sum(n * 0, 0)
    variance = tl.sum(n * n, 0) * length - total * total + tl.load(epsilon_ptr)
    exponent = tl.zeros_like(variance)
    power = exponent + 1
    for _ in range(MAX_EXPONENT):
        power = power * 4
        exponent += (variance >= power).to(tl.int64)
    mantissa = (variance << MANTISSA_BITS) >> (2 * exponent)
    root = tl.load(root_ptr + (mantissa - (1 << MANTISSA_BITS)))
    u = ((n * length - total) * root) >> (exponent + SHIFT)
    channel = at // num_places % num_channels
    product = u * tl.load(multiplier_ptr + channel, mask=is_there, other=0)
    shift = tl.load(shift_ptr + channel, mask=is_there, other=0)
    level = ((product + tl.load(offset_ptr + channel, mask=is_there, other=0)) >> shift).to(tl.float32)
    level = tl.minimum(tl.maximum(level, tl.load(ends_ptr)), tl.load(ends_ptr + 1))
    tl.store(y_ptr + at, level * tl.load(ends_ptr + 2), mask=is_there)
