"""The portable target: standard integer operators only, no float anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.pair_sums import PAIR_LIMIT
from ana_fx.operators.average import Average
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.normalization import Normalization
from ana_fx.operators.product import Product
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.resampling import Resampling
from ana_fx.operators.sum import Sum
from ana_fx.program.integer_modules import IntegerHead, IntegerMap, IntegerSoftmax, IntegerTable
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.convolution_attributes import has_one_window, pooling_attributes
from ana_fx.targets.onnx.emitter import Carrier, Emitter, NodeReport, numpy
from ana_fx.targets.onnx.file_borders import scalar, shift
from ana_fx.targets.onnx.integer_arithmetic import (
    Scribe,
    levels,
    write_normalization,
    write_reduction,
    write_resampling,
    write_softmax,
    write_table,
)
from ana_fx.targets.onnx.weight_bytes import WeightBytes, largest_byte, store_weight

__all__ = ["IntegerEmitter"]

_INT32 = 2**31 - 1
_LOWEST_BYTE = -128
_MAX_DIVISION = 30  # tract divides by 31 bits at most; two divisions that truncate are one
_NUMPY = {ir.DataType.INT32: np.int32, ir.DataType.INT64: np.int64}


@dataclass(frozen=True)
class IntegerEmitter(Emitter):
    """ConvInteger and MatMulInteger, then Mul, Add, Div, Clip.

    With an offset that makes the lowest level 0, a truncating Div equals the shift wherever the
    Clip at 0 lets the difference through. Where the product could leave 32 bits, the accumulator
    is clipped to the thresholds first, outside which the staircase is constant.
    """

    def container(self, integer_type: IntegerType) -> tuple[ir.DataType, int]:
        """int8 or uint8, zero point 0 if the type has no other."""
        if integer_type.zero_point is not None:
            return ir.DataType.UINT8, integer_type.zero_point
        return (ir.DataType.INT8 if integer_type.signed else ir.DataType.UINT8), 0

    def integer_map(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        shape: tuple[int, ...],
    ) -> tuple[Carrier, NodeReport]:
        """The accumulator, then the multiply-shift requantizer."""
        accumulator, operator, weight = self._accumulate(builder, path, module, inputs, shape)
        dtype, zero_point = self.container(module.integer_type)
        requantizer = _Requantizer(builder, path, shape, module.operator.channel_axis(len(shape) + 1))
        value = requantizer.write(module, accumulator, dtype, zero_point)
        carrier = Carrier(value, zero_point, shape, module.hi + zero_point, module.lo + zero_point)
        return carrier, _report(path, operator, requantizer.arithmetic, weight)

    def table(
        self, builder: Builder, path: str, module: IntegerTable, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """A Gather from the table of the function."""
        dtype, zero_point = self.container(module.integer_type)
        value = write_table(Scribe(builder, path), module, x, shape, dtype, zero_point)
        carrier = Carrier(value, zero_point, shape, module.hi + zero_point, module.lo + zero_point)
        return carrier, NodeReport(path, "Gather", "table")

    def softmax(
        self, builder: Builder, path: str, module: IntegerSoftmax, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """Exponentials from a table, and a Div."""
        dtype, zero_point = self.container(module.integer_type)
        value = write_softmax(Scribe(builder, path), module, x, shape, dtype, zero_point)
        carrier = Carrier(value, zero_point, shape, module.highest + zero_point, zero_point)
        return carrier, NodeReport(path, "Gather, Div", "int32")

    def head(
        self, builder: Builder, path: str, module: IntegerHead, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """Stored weights are `factor` times the trained ones; the bias is added in int32."""
        assert module.weight is not None
        weight = module.weight.to(torch.int32) * module.factor
        value, operator, stored = self._weigh(builder, path, module.operator, weight, x, shape)
        requantizer = _Requantizer(builder, path, shape, module.operator.channel_axis(len(shape) + 1))
        value = requantizer.apply("Add", value, module.bias.expand(weight.shape[0]), neutral=0)
        return Carrier(value, 0, shape), _report(path, operator, "int32", stored)

    def _accumulate(
        self, builder: Builder, path: str, module: IntegerMap, inputs: Sequence[Carrier], shape: tuple[int, ...]
    ) -> tuple[ir.Value, str, WeightBytes | None]:
        """The raw int32 accumulators, the operator that computes them, and its weight if it has one."""
        operator, x = module.operator, inputs[0]
        scribe = Scribe(builder, path)
        if isinstance(operator, MatMul):
            return _matrix_product(scribe, inputs, shape), "MatMulInteger", None
        if isinstance(operator, Product):
            return scribe.op("Mul", [levels(scribe, each) for each in inputs], shape), "Mul", None
        if isinstance(operator, Sum):
            return _weighted_sum(scribe, module, inputs, shape), "Add", None
        if isinstance(operator, Identity):
            return levels(scribe, x), "Cast", None
        if isinstance(operator, Reduce):
            return write_reduction(builder, path, operator.axes, operator.keepdim, x, shape), "ReduceSum", None
        if isinstance(operator, Normalization):
            assert module.weight is not None
            return write_normalization(builder, path, operator, module.weight, module.bound, x), "normalization", None
        if isinstance(operator, Resampling) and not has_one_window(operator, x.shape):
            return write_resampling(builder, path, operator.matrices((1, *x.shape)), x), "MatMul", None
        weight = module.weight
        if isinstance(operator, Average):
            weight = torch.ones((x.shape[0], 1, *operator.kernel), dtype=torch.int32)
        assert weight is not None
        return self._weigh(builder, path, operator, weight, x, shape)

    def _weigh(
        self, builder: Builder, path: str, operator: Any, weight: Tensor, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[ir.Value, str, WeightBytes]:
        """ConvInteger or MatMulInteger; weights [out, in, …] that fit int8."""
        is_matrix = isinstance(operator, Linear)
        stored = store_weight(weight, x, self.target, adds_pairs=is_matrix)
        op_type = "MatMulInteger" if is_matrix else "ConvInteger"
        attributes = {} if is_matrix else pooling_attributes(operator, x.shape[0])
        inputs = [x.value, builder.constant(stored.array.T.copy() if is_matrix else stored.array, f"{path}.weight")]
        if x.zero_point or stored.zero_point:
            inputs.append(_zero_point(builder, path, x.dtype, x.zero_point))
        if stored.zero_point:
            inputs.append(_zero_point(builder, path, ir.DataType.UINT8, stored.zero_point))
        int32 = ir.DataType.INT32
        value = builder.op(op_type, inputs, path=path, dtype=int32, shape=shape, attributes=attributes)
        return value, op_type, stored


def _zero_point(builder: Builder, path: str, dtype: ir.DataType, zero_point: int) -> ir.Value:
    return builder.constant(scalar(zero_point, dtype), f"{path}.zero_point")


def _report(path: str, operator: str, arithmetic: str, weight: WeightBytes | None) -> NodeReport:
    if weight is None:
        return NodeReport(path, operator, arithmetic)
    return NodeReport(path, operator, arithmetic, weight.needs_vnni, weight.reason, weight.pair_sum)


def _weighted_sum(scribe: Scribe, module: IntegerMap, inputs: Sequence[Carrier], shape: tuple[int, ...]) -> ir.Value:
    assert module.weight is not None
    terms = []
    for x, coefficient in zip(inputs, module.weight.tolist(), strict=True):
        if x.constant is not None:
            terms.append(scribe.number(x.constant.astype(np.int64) * coefficient, "constant"))
        else:
            terms.append(scribe.op("Mul", [levels(scribe, x), scribe.number(coefficient, "coefficient")], x.shape))
    return scribe.op("Add", terms, shape)


def _matrix_product(scribe: Scribe, inputs: Sequence[Carrier], shape: tuple[int, ...]) -> ir.Value:
    """MatMulInteger of two tensors of levels, unsigned by signed bytes or both alike, within 16 bits in pairs.

    Signed bytes by unsigned ones are not implemented everywhere, and unsigned ones are never added in pairs.
    """
    first, second = inputs
    is_wide = 2 * largest_byte(first) * max(second.largest, -second.smallest) > PAIR_LIMIT
    is_lowest = second.smallest == _LOWEST_BYTE  # which NEON multiplies with −128, as it takes byte 0 of unsigned ones
    if second.dtype is ir.DataType.UINT8 or is_wide or is_lowest:
        first, second = _unsigned(scribe, first), _unsigned(scribe, second)
    values = [first.value, second.value]
    if first.zero_point or second.zero_point:
        values += [_zero_point(scribe.builder, scribe.path, x.dtype, x.zero_point) for x in (first, second)]
    return scribe.op("MatMulInteger", values, shape)


def _unsigned(scribe: Scribe, x: Carrier) -> Carrier:
    """Levels as unsigned bytes, signed ones with zero point 128."""
    if x.dtype is ir.DataType.UINT8:
        return x
    if x.constant is not None:
        value = scribe.builder.constant((x.constant + 128).astype(np.uint8), f"{scribe.path}.constant")
    else:
        value = shift(scribe.builder, scribe.path, x.value, x.shape, 128, ir.DataType.UINT8)
    return Carrier(value, 128, x.shape, x.largest + 128, x.smallest + 128)


class _Requantizer:
    """Writes int32 accumulators to stored levels, in the narrowest arithmetic that is proven to fit."""

    def __init__(self, builder: Builder, path: str, shape: tuple[int, ...], channel_axis: int) -> None:
        self.builder = builder
        self.path = path
        self.shape = shape
        self.broadcast = [-1] + [1] * (len(shape) - channel_axis)
        self.dtype = ir.DataType.INT32

    @property
    def arithmetic(self) -> str:
        """int32 or int64."""
        return self.dtype.name.lower()

    def write(self, module: IntegerMap, value: ir.Value, container: ir.DataType, zero_point: int) -> ir.Value:
        """The chain (Max, Min,) Mul, Add, Div, Clip, (correction,) Add, Cast, without the steps that do nothing."""
        code = module.multiply_shift
        value = self.apply("Mul", value, module.sign, neutral=1)
        low, high = module.signed_range()
        lo, hi = int(code.lo), int(code.hi)
        offset = code.offset - (torch.full_like(code.shift, lo) << code.shift)
        if not _fits(code.multiplier, offset, code.shift, low, high):
            low, high = _clipped_range(module)
            value = self.apply("Min", self.apply("Max", value, low), high)
            if not _fits(code.multiplier, offset, code.shift, low, high):
                self.dtype = ir.DataType.INT64
        accumulator = value
        if self.dtype is ir.DataType.INT64:
            value = self._cast(value, self.dtype)
            first, offset = _split(code.multiplier, offset)
            value = self.apply("Add", value, first, neutral=0)
        value = self.apply("Mul", value, code.multiplier, neutral=1)
        value = self.apply("Add", value, offset, neutral=0)
        for bits in ((code.shift - _MAX_DIVISION).clamp_min(0), code.shift.clamp_max(_MAX_DIVISION)):
            value = self.apply("Div", value, torch.ones_like(bits) << bits, neutral=1)
        if self.dtype is ir.DataType.INT64:  # levels by now; onnxruntime's Clip is wrong on int64
            value = self._cast(value, ir.DataType.INT32)
        bounds = [self._scalar(bound, name) for name, bound in (("min", 0), ("max", hi - lo))]
        value = self._op("Clip", [value, *bounds], ir.DataType.INT32)
        if code.correction is not None:
            value = self._correct(value, accumulator, code.correction)
        if lo + zero_point:
            value = self._op("Add", [value, self._scalar(lo + zero_point, "lowest")], ir.DataType.INT32)
        return self._cast(value, container)

    def _correct(self, index: ir.Value, accumulator: ir.Value, correction: Tensor) -> ir.Value:
        """One level less where the accumulator does not reach the threshold of the level it was given."""
        table = correction.clamp_min(-_INT32).flatten().to(torch.int32)
        first = torch.arange(len(correction), dtype=torch.int32) * correction.shape[1]
        self.dtype = ir.DataType.INT32
        row = self.apply("Add", index, first, neutral=0)
        constant = self.builder.constant(numpy(table), f"{self.path}.thresholds")
        threshold = self._op("Gather", [constant, row], ir.DataType.INT32)
        is_short = self._op("Less", [accumulator, threshold], ir.DataType.BOOL)
        return self._op("Sub", [index, self._cast(is_short, ir.DataType.INT32)], ir.DataType.INT32)

    def _scalar(self, number: int, name: str) -> ir.Value:
        return self.builder.constant(np.int32(number), f"{self.path}.{name}")

    def apply(self, op_type: str, value: ir.Value, channels: Tensor, neutral: int | None = None) -> ir.Value:
        """Apply an operator with a number for each channel, unless all are neutral."""
        if neutral is not None and bool((channels == neutral).all()):
            return value
        same = bool((channels == channels[0]).all())
        array = numpy(channels[0] if same else channels.reshape(self.broadcast)).astype(_NUMPY[self.dtype])
        constant = self.builder.constant(array, f"{self.path}.{op_type.lower()}")
        return self._op(op_type, [value, constant], self.dtype)

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        return self._op("Cast", [value], dtype, {"to": dtype})

    def _op(
        self,
        op_type: str,
        inputs: list[ir.Value],
        dtype: ir.DataType,
        attributes: dict[str, Any] | None = None,
    ) -> ir.Value:
        return self.builder.op(op_type, inputs, path=self.path, dtype=dtype, shape=self.shape, attributes=attributes)


def _fits(multiplier: Tensor, offset: Tensor, shift: Tensor, low: Tensor, high: Tensor) -> bool:
    """Whether every intermediate of the chain stays inside 32 bits."""
    products = torch.stack([multiplier * low, multiplier * high])
    sums = products + offset
    worst = max(int(t.abs().max()) for t in (multiplier, offset, products, sums))
    return worst <= _INT32 and int(shift.max()) <= _MAX_DIVISION


def _split(multiplier: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """What to add before and after the multiplication, so that no constant leaves 32 bits, which tract cuts."""
    if int(offset.abs().max()) <= _INT32:
        return torch.zeros_like(offset), offset
    first = torch.where(multiplier > 0, offset // multiplier.clamp_min(1), 0)
    return first, offset - first * multiplier


def _clipped_range(module: IntegerMap) -> tuple[Tensor, Tensor]:
    """For each channel, accumulators outside which the staircase is constant."""
    low, high = module.signed_range()
    thresholds = module.staircase.thresholds(low, high)
    return torch.maximum(low, thresholds.amin(1) - 1), torch.minimum(high, thresholds.amax(1))
