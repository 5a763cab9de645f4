"""Sums of products of int8 numbers in int32, as Triton kernels.

A block of accumulators is a chain of int8 matrix products (`tl.dot` with int32 accumulators), which processors define
as integer arithmetic: no rounding, no order that would matter. Numbers are laid out with the channels last.
"""

# ruff: noqa: N803 - Triton's custom: constants of a kernel in capitals
# Triton has no types, and gives a kernel's arguments those of each call:
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "combine",
    "convolve",
    "convolve_depthwise",
    "finished",
    "level_of",
    "multiply",
    "read_flat_levels",
    "write_flat_levels",
    "write_levels",
]

_WINDOW = [  # one compiled kernel for all values of these
    *("num_rows", "num_places", "D", "H", "W", "OH", "OW", "KH", "KW", "taps", "stride_d", "stride_h", "stride_w"),
    *("pad_d", "pad_h", "pad_w", "dil_d", "dil_h", "dil_w", "out_sample", "pad_level", "factor"),
]
_INTEGERS = tl.constexpr(1.5 * 2.0**23)  # a number below 2**22 added to it loses its fraction, rounded half to even
_SMALLEST, _LARGEST = tl.constexpr(2.0**-60), tl.constexpr(2.0**60)


@triton.jit
def level_of(x_ptr, at, is_there, scale_ptr):
    """round(x / scale), float32."""
    scale = tl.maximum(tl.abs(tl.load(scale_ptr).to(tl.float32)), _SMALLEST)
    x = tl.load(x_ptr + at, mask=is_there, other=0.0).to(tl.float32)
    return (tl.div_rn(x, scale) + _INTEGERS) - _INTEGERS


@triton.jit
def write_flat_levels(x_ptr, scale_ptr, levels_ptr, num_numbers, shift, BLOCK: tl.constexpr):
    """The levels in the order of the reals."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_there = at < num_numbers
    level = level_of(x_ptr, at, is_there, scale_ptr) - shift
    tl.store(levels_ptr + at, level.to(tl.int32).to(tl.int8), mask=is_there)


@triton.jit
def read_flat_levels(levels_ptr, scale_ptr, x_ptr, num_numbers, shift, BLOCK: tl.constexpr):
    """The reals that `write_flat_levels` read, if they were multiples of the scale."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_there = at < num_numbers
    scale = tl.minimum(tl.maximum(tl.abs(tl.load(scale_ptr)), _SMALLEST), _LARGEST)
    level = tl.load(levels_ptr + at, mask=is_there, other=0).to(tl.float32) + shift
    tl.store(x_ptr + at, level * scale, mask=is_there)


@triton.jit
def write_levels(
    x_ptr, scale_ptr, levels_ptr, num_places, num_channels, shift, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """The levels as [sample, place, channel], from [sample, channel, place]."""
    place = (tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P))[:, None]
    channel = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    first = tl.program_id(2).to(tl.int64) * num_places * num_channels
    is_there = (place < num_places) & (channel < num_channels)
    level = level_of(x_ptr, first + channel * num_places + place, is_there, scale_ptr) - shift
    tl.store(levels_ptr + first + place * num_channels + channel, level.to(tl.int32).to(tl.int8), mask=is_there)


@triton.jit
def finished(acc, slope_ptr, bias_ptr, ends_ptr, channel, is_channel, factor):
    """The QLinear formula of `ana_fx.requantizers.staircase`, then the reals."""
    stored = acc * factor + tl.load(bias_ptr + channel, mask=is_channel, other=0)
    scaled = stored.to(tl.float32) * tl.load(slope_ptr + channel, mask=is_channel, other=0.0)
    lo, hi = tl.load(ends_ptr), tl.load(ends_ptr + 1)
    level = (tl.minimum(tl.maximum(scaled, lo), hi) + _INTEGERS) - _INTEGERS
    return level * tl.load(ends_ptr + 2)


@triton.jit(do_not_specialize=_WINDOW)
def convolve(
    x_ptr, w_ptr, correction_ptr, out_ptr, slope_ptr, bias_ptr, ends_ptr,
    num_rows, num_places, in_channels, out_channels, total_in, total_out,
    D, H, W, OH, OW, KH, KW, taps, stride_d, stride_h, stride_w, pad_d, pad_h, pad_w, dil_d, dil_h, dil_w,
    out_sample, out_place, out_channel, pad_level, factor,
    FINISHES: tl.constexpr, IS_FLAT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Windows of [N, D, H, W, total_in] times [total_out, taps, in_channels], for one group of channels."""
    group = tl.program_id(2)
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    sample, place = row // num_places, row % num_places
    d0 = place // (OH * OW) * stride_d - pad_d
    h0 = place // OW % OH * stride_h - pad_h
    w0 = place % OW * stride_w - pad_w
    channel = group * out_channels + column
    is_row, is_column = row < num_rows, column < out_channels
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    first = sample.to(tl.int64) * D * H * W
    blocks = tl.cdiv(taps * in_channels if IS_FLAT else in_channels, BLOCK_K)
    for step in range(blocks if IS_FLAT else taps * blocks):
        if IS_FLAT:  # the products of all taps in one row
            k = step * BLOCK_K + tl.arange(0, BLOCK_K)
            tap, kk, is_k, weight_k = k // in_channels, k % in_channels, k < taps * in_channels, k
        else:
            tap = step // blocks
            kk = step % blocks * BLOCK_K + tl.arange(0, BLOCK_K)
            is_k, weight_k = kk < in_channels, tap * in_channels + kk
        d = d0[:, None] + tap // (KH * KW) * dil_d
        h = h0[:, None] + tap // KW % KH * dil_h
        w = w0[:, None] + tap % KW * dil_w
        is_inside = (d >= 0) & (d < D) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
        at = (first[:, None] + (d * H + h) * W + w) * total_in + group * in_channels + kk[None, :]
        x = tl.load(x_ptr + at, mask=is_inside & is_row[:, None] & is_k[None, :], other=pad_level)
        weight_at = channel[None, :] * taps * in_channels + weight_k[:, None]
        weight = tl.load(w_ptr + weight_at, mask=is_column[None, :] & is_k[:, None], other=0)
        acc = tl.dot(x, weight, acc, out_dtype=tl.int32)
    acc += tl.load(correction_ptr + channel, mask=is_column, other=0)[None, :]
    out_at = sample.to(tl.int64)[:, None] * out_sample + place[:, None] * out_place + channel[None, :] * out_channel
    if FINISHES:
        y = finished(acc, slope_ptr, bias_ptr, ends_ptr, channel[None, :], is_column[None, :], factor)
        tl.store(out_ptr + out_at, y, mask=is_row[:, None] & is_column[None, :])
    else:
        tl.store(out_ptr + out_at, acc, mask=is_row[:, None] & is_column[None, :])


@triton.jit(do_not_specialize=_WINDOW)
def convolve_depthwise(
    x_ptr, w_ptr, correction_ptr, out_ptr, slope_ptr, bias_ptr, ends_ptr,
    num_rows, num_places, multiple, total_in, total_out,
    D, H, W, OH, OW, KH, KW, taps, stride_d, stride_h, stride_w, pad_d, pad_h, pad_w, dil_d, dil_h, dil_w,
    out_sample, out_place, out_channel, pad_level, factor,
    FINISHES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The same where each input channel has `multiple` output channels of its own: [total_out, taps] weights."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    sample, place = row // num_places, row % num_places
    d0 = place // (OH * OW) * stride_d - pad_d
    h0 = place // OW % OH * stride_h - pad_h
    w0 = place % OW * stride_w - pad_w
    is_row, is_channel = row < num_rows, channel < total_out
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for tap in range(taps):
        d = d0 + tap // (KH * KW) * dil_d
        h = h0 + tap // KW % KH * dil_h
        w = w0 + tap % KW * dil_w
        is_inside = is_row & (d >= 0) & (d < D) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
        at = (((sample.to(tl.int64) * D + d) * H + h) * W + w) * total_in
        x = tl.load(
            x_ptr + at[:, None] + (channel // multiple)[None, :],
            mask=is_inside[:, None] & is_channel[None, :], other=pad_level,
        )  # fmt: skip
        weight = tl.load(w_ptr + channel * taps + tap, mask=is_channel, other=0)
        acc += x.to(tl.int32) * weight.to(tl.int32)[None, :]
    acc += tl.load(correction_ptr + channel, mask=is_channel, other=0)[None, :]
    out_at = sample.to(tl.int64)[:, None] * out_sample + place[:, None] * out_place + channel[None, :] * out_channel
    if FINISHES:
        y = finished(acc, slope_ptr, bias_ptr, ends_ptr, channel[None, :], is_channel[None, :], factor)
        tl.store(out_ptr + out_at, y, mask=is_row[:, None] & is_channel[None, :])
    else:
        tl.store(out_ptr + out_at, acc, mask=is_row[:, None] & is_channel[None, :])


@triton.jit(do_not_specialize=["M", "a_batch", "b_batch", "a_shift", "b_shift", "factor"])
def multiply(
    a_ptr, b_ptr, out_ptr, sign_ptr, slope_ptr, bias_ptr, ends_ptr,
    M, N, K, a_batch, a_row, a_inner, b_batch, b_inner, b_column, a_shift, b_shift, factor,
    FINISHES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """(a + a_shift) · (b + b_shift) of each pair of int8 matrices, [batch, M, N], or its staircase; one channel."""
    batch = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    a_at = a_ptr + batch * a_batch + row[:, None] * a_row
    b_at = b_ptr + batch * b_batch + column[None, :] * b_column
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    a_sum = tl.zeros((BLOCK_M,), tl.int32)
    b_sum = tl.zeros((BLOCK_N,), tl.int32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a = tl.load(a_at + k[None, :] * a_inner, mask=(row < M)[:, None] & (k < K)[None, :], other=0)
        b = tl.load(b_at + k[:, None] * b_inner, mask=(column < N)[None, :] & (k < K)[:, None], other=0)
        acc = tl.dot(a, b, acc, out_dtype=tl.int32)
        a_sum += tl.sum(a.to(tl.int32), 1)
        b_sum += tl.sum(b.to(tl.int32), 0)
    acc += (a_sum * b_shift)[:, None] + (b_sum * a_shift + K * a_shift * b_shift)[None, :]
    at = out_ptr + batch * M * N + row[:, None] * N + column[None, :]
    is_there = (row < M)[:, None] & (column < N)[None, :]
    if FINISHES:
        acc *= tl.load(sign_ptr).to(tl.int32)
        y = finished(acc, slope_ptr, bias_ptr, ends_ptr, tl.zeros_like(acc), is_there, factor)
        tl.store(at, y, mask=is_there)
    else:
        tl.store(at, acc, mask=is_there)


@triton.jit(do_not_specialize=["factor"])
def combine(
    a_ptr, b_ptr, a_scale_ptr, b_scale_ptr, coefficients_ptr, sign_ptr, out_ptr, slope_ptr, bias_ptr, ends_ptr,
    num_numbers, factor, BLOCK: tl.constexpr,
):  # fmt: skip
    """The staircase of c₀ · a + c₁ · b, of tensors laid out alike; one channel."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_there = index < num_numbers
    a, b = level_of(a_ptr, index, is_there, a_scale_ptr), level_of(b_ptr, index, is_there, b_scale_ptr)
    acc = a.to(tl.int32) * tl.load(coefficients_ptr).to(tl.int32)
    acc += b.to(tl.int32) * tl.load(coefficients_ptr + 1).to(tl.int32)
    acc *= tl.load(sign_ptr).to(tl.int32)
    y = finished(acc, slope_ptr, bias_ptr, ends_ptr, tl.zeros_like(acc), is_there, factor)
    tl.store(out_ptr + index, y, mask=is_there)
