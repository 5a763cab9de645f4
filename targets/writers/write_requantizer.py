"""Writing requantizers, from int32 accumulators to stored levels, in standard integer operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from ana_fx.program.integer_layers import IntegerMap
from ana_fx.requantizers.multiply_shift import MultiplyShift
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.onnx.dialect import Writer
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor

__all__ = ["channel_numbers", "per_channel", "requantized", "write_requantizer"]

_INT32, _INT64 = ir.DataType.INT32, ir.DataType.INT64
_LARGEST = 2**31 - 1
_MAX_DIVISION = 30  # tract divides by 31 bits at most; two divisions that truncate are one


def requantized(write_accumulators: Callable[[NodeWriter, Any], ir.Value]) -> Writer:
    """Make the writer of a layer map from that of its accumulators."""

    def write(w: NodeWriter, op: object) -> StoredTensor:
        accumulator = write_accumulators(w, op)
        producer = accumulator.producer()
        assert producer is not None
        w.notes.setdefault("operator", producer.op_type)
        return w.stored(write_requantizer(w, accumulator))

    return write


def write_requantizer(w: NodeWriter, accumulator: ir.Value) -> ir.Value:
    """Write the multiply-shift requantizer, in the narrowest arithmetic that is proven to fit.

    The chain is (Max, Min,) Mul, Add, Div, Clip, (correction,) Add, Cast, without the steps that do nothing. With an
    offset that makes the lowest level 0, a truncating Div equals the shift wherever the Clip at 0 lets the difference
    through. Where the product could leave 32 bits, the accumulator is clipped to the thresholds first, outside which
    the staircase is constant.
    """
    module: IntegerMap = w.module
    code = module.multiply_shift
    dtype, zero_point = w.container
    lo, hi = int(code.lo), int(code.hi)
    offset = code.offset - (torch.full_like(code.shift, lo) << code.shift)
    value = per_channel(w, "Mul", accumulator, module.sign, neutral=1)
    low, high = module.signed_range()
    is_narrow = _fits(code, offset, low, high)
    if not is_narrow:
        low, high = _clipped_range(module)
        value = per_channel(w, "Min", per_channel(w, "Max", value, low), high)
        is_narrow = _fits(code, offset, low, high)
    index = _divided(w if is_narrow else w.typed(_INT64), value, code, offset)
    index = w.op("Clip", index, w.number(0, "min"), w.number(hi - lo, "max"))
    w.note(arithmetic="int32" if is_narrow or code.correction is not None else "int64")
    if code.correction is not None:
        index = _corrected(w, index, value, code.correction)
    if lo + zero_point:
        index = w.op("Add", index, w.number(lo + zero_point, "lowest"))
    return w.op("Cast", index, dtype=dtype, to=dtype)


def _divided(w: NodeWriter, value: ir.Value, code: MultiplyShift, offset: Tensor) -> ir.Value:
    """Write (multiplier · value + offset) / 2^shift in the type of the arithmetic; the result is int32."""
    if w.dtype is _INT64:
        value = w.cast(value, _INT64)
        first, offset = _split(code.multiplier, offset)
        value = per_channel(w, "Add", value, first, neutral=0)
    value = per_channel(w, "Mul", value, code.multiplier, neutral=1)
    value = per_channel(w, "Add", value, offset, neutral=0)
    for bits in ((code.shift - _MAX_DIVISION).clamp_min(0), code.shift.clamp_max(_MAX_DIVISION)):
        value = per_channel(w, "Div", value, torch.ones_like(bits) << bits, neutral=1)
    return w.cast(value, _INT32)  # levels by now; onnxruntime's Clip is wrong on int64


def _corrected(w: NodeWriter, index: ir.Value, accumulator: ir.Value, correction: Tensor) -> ir.Value:
    """Write one level less where the accumulator does not reach the threshold of the level it was given."""
    table = correction.clamp_min(-_LARGEST).flatten().to(torch.int32)
    first = torch.arange(len(correction), dtype=torch.int32) * correction.shape[1]
    row = per_channel(w, "Add", index, first, neutral=0)
    threshold = w.op("Gather", w.constant(numpy(table), "thresholds"), row)
    is_short = w.op("Less", accumulator, threshold, dtype=ir.DataType.BOOL)
    return w.op("Sub", index, w.cast(is_short, _INT32))


def per_channel(w: NodeWriter, op_type: str, value: ir.Value, channels: Tensor, neutral: int | None = None) -> ir.Value:
    """Write an operator with a number for each channel, unless all are neutral."""
    if neutral is not None and bool((channels == neutral).all()):
        return value
    return w.op(op_type, value, channel_numbers(w, channels, op_type.lower()))


def channel_numbers(w: NodeWriter, channels: Tensor, name: str) -> ir.Value:
    """A constant with a number for each channel, which broadcasts against what the node gives; one if all are alike."""
    rank = len(w.shape) + 1
    axes_behind = rank - 1 - w.module.operator.channel_axis(rank)
    is_same = bool((channels == channels[0]).all())
    return w.number(numpy(channels[0] if is_same else channels.reshape([-1] + [1] * axes_behind)), name)


def _fits(code: MultiplyShift, offset: Tensor, low: Tensor, high: Tensor) -> bool:
    """Whether every intermediate of the chain stays inside 32 bits."""
    products = torch.stack([code.multiplier * low, code.multiplier * high])
    worst = max(int(t.abs().max()) for t in (code.multiplier, offset, products, products + offset))
    return worst <= _LARGEST and int(code.shift.max()) <= _MAX_DIVISION


def _split(multiplier: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Split an offset into what is added before and after the multiplication, so that no constant leaves 32 bits.

    tract cuts constants to 32 bits.
    """
    if int(offset.abs().max()) <= _LARGEST:
        return torch.zeros_like(offset), offset
    first = torch.where(multiplier > 0, offset // multiplier.clamp_min(1), 0)
    return first, offset - first * multiplier


def _clipped_range(module: IntegerMap) -> tuple[Tensor, Tensor]:
    """Return for each channel the accumulators outside which the staircase is constant."""
    low, high = module.signed_range()
    thresholds = module.staircase.thresholds(low, high)
    return torch.maximum(low, thresholds.amin(1) - 1), torch.minimum(high, thresholds.amax(1))
