"""QuantizeLinear and DequantizeLinear around float operators, with weights as narrow as they are."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from ana_fx.operators.average import Average
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.reduce import Reduce
from ana_fx.program.integer_modules import IntegerHead, IntegerMap
from ana_fx.requantizers.staircase import QLinearStaircase
from ana_fx.targets.dialects.float_staircase import EXACT
from ana_fx.targets.dialects.qlinear import (
    OnnxRuntimeEmitter,
    add_scales,
    clip_levels,
    product_report,
    qlinear_staircase,
    stored_weight,
)
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.convolution_attributes import pooling_attributes
from ana_fx.targets.onnx.emitter import Carrier, NodeReport, numpy
from ana_fx.targets.onnx.file_borders import dequantize_linear, scalar
from ana_fx.targets.onnx.weight_bytes import WeightBytes, store_weight

__all__ = ["QdqEmitter", "WideQdqEmitter"]

_LEAST = {ir.DataType.INT2: -2, ir.DataType.INT4: -8, ir.DataType.INT8: -128}  # lowest level of each type
_FLOAT, _INT8 = ir.DataType.FLOAT, ir.DataType.INT8


@dataclass(frozen=True)
class QdqEmitter(OnnxRuntimeEmitter):
    """Float operators between DequantizeLinear and QuantizeLinear.

    onnxruntime fuses these to the QLinear operators whose formula the staircases are, so it gives the same bits;
    a runtime that computes in floats may round otherwise near a tie. Weights of up to four bits are stored as INT4
    or INT2 and widened to the INT8 that the fused operators multiply. Heads are exact in any float arithmetic: their
    scales are 1.
    """

    packs_weights: ClassVar[bool] = True

    def integer_map(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        shape: tuple[int, ...],
    ) -> tuple[Carrier, NodeReport]:
        """As the base class decides; a mean over whole images is a convolution with kernels of their size."""
        kernel, is_qlinear = inputs[0].shape[1:], isinstance(module.staircase, QLinearStaircase)
        if not is_qlinear or not _is_of_whole_images(module.operator, len(kernel)):
            return super().integer_map(builder, path, module, inputs, shape)
        pool = copy(module)
        pool.operator = Average(len(kernel), kernel, kernel, (0,) * len(kernel))
        carrier, report = super().integer_map(builder, path, pool, inputs, (shape[0], *[1] * len(kernel)))
        return replace(carrier, value=builder.reshape(carrier.value, shape, path=path), shape=shape), report

    def head(
        self, builder: Builder, path: str, module: IntegerHead, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """Integers in floats, where they hold them; else as the base class writes it."""
        assert module.weight is not None
        stored = module.weight.to(torch.int32) * module.factor
        if module.bound * module.factor + int(module.bias.abs().max()) >= EXACT:
            return super().head(builder, path, module, x, shape)
        one, weight = np.ones((), np.float32), self._bytes(module.operator, stored, x)
        operands = [
            dequantize_linear(builder, path, x.value, x.zero_point, one, x.shape),
            self._weight(builder, path, weight, module.factor, one),
            _dequantized(builder, path, _bias(builder, path, module.bias.expand(len(stored))), one, "bias"),
        ]
        value, operator = _multiply(builder, path, module.operator, operands, x.shape, shape)
        return Carrier(value, 0, shape), product_report(path, operator, weight)

    def dequantize(self, builder: Builder, path: str, x: Carrier, scale: np.ndarray[Any, Any]) -> ir.Value:
        """DequantizeLinear, or a Mul of what is in floats already."""
        if x.dtype is not _FLOAT:
            return super().dequantize(builder, path, x, scale)
        factor = builder.constant(scale, f"{path}.scale")
        return builder.op("Mul", [x.value, factor], path=path, dtype=_FLOAT, shape=x.shape)

    def _gemm(
        self, builder: Builder, path: str, module: IntegerMap, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """Gemm over the rows."""
        return self._convolve(builder, path, module, x, shape)

    def _convolve(
        self, builder: Builder, path: str, module: IntegerMap, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """Conv or Gemm between DequantizeLinear and QuantizeLinear; averages and rescales are depthwise."""
        staircase = qlinear_staircase(module)
        operator = module.operator
        weight = self._bytes(operator, stored_weight(module, x.shape), x)
        image_in, image_out = x.shape, shape
        if isinstance(operator, Linear):
            image_in, image_out = x.shape[-1:], shape[-1:]  # a row each
        elif isinstance(operator, Identity):
            image_in = image_out = (x.shape[0], int(np.prod(x.shape[1:])), 1)
            operator = Convolution((1, 1), ((0, 0), (0, 0)), (1, 1), groups=x.shape[0])
        scale, bias = staircase.weight_scale, staircase.bias.to(torch.int32).expand(len(weight.array))
        value = builder.reshape(x.value, image_in, path=path)
        operands = [
            dequantize_linear(builder, path, value, x.zero_point, numpy(staircase.x_scale), image_in),
            self._weight(builder, path, weight, staircase.factor, numpy(scale), is_trained=module.operator.has_weight),
            _dequantized(
                builder,
                path,
                _bias(builder, path, bias),
                numpy((staircase.x_scale * scale).expand(len(weight.array))),
                "bias",
            ),
        ]
        value, op_type = _multiply(builder, path, operator, operands, image_in, image_out)
        carrier = self._quantized(builder, path, module, value, image_out)
        value = builder.reshape(carrier.value, shape, path=path)
        return replace(carrier, value=value, shape=shape), product_report(path, op_type, weight)

    def _bytes(self, operator: Operator, stored: Tensor, x: Carrier) -> WeightBytes:
        """The stored weight; onnxruntime fuses to kernels that add pairs, but not for depthwise convolutions."""
        is_dense = isinstance(operator, Linear) or (operator.has_weight and not operator.is_depthwise(stored))
        return store_weight(stored, x, self.target, adds_pairs=is_dense)

    def _multiply(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        shape: tuple[int, ...],
        operator: str,
    ) -> tuple[Carrier, NodeReport]:
        """MatMul or Mul of two tensors of levels."""
        staircase = qlinear_staircase(module)
        scales = [numpy(staircase.x_scale), numpy(staircase.weight_scale.reshape(()))]
        return self._pair(builder, path, module, inputs, scales, operator.removeprefix("QLinear"), shape)

    def _add(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        shape: tuple[int, ...],
    ) -> tuple[Carrier, NodeReport]:
        """Add with scales in the ratio of the integer coefficients."""
        scales = [np.asarray(scale, np.float32) for scale in add_scales(module)]
        return self._pair(builder, path, module, inputs, scales, "Add", shape)

    def _pair(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        scales: Sequence[np.ndarray[Any, Any]],
        operator: str,
        shape: tuple[int, ...],
    ) -> tuple[Carrier, NodeReport]:
        operands = [
            dequantize_linear(builder, path, x.value, x.zero_point, scale, x.shape, has_batch=x.constant is None)
            for x, scale in zip(inputs, scales, strict=True)
        ]
        value = builder.op(operator, operands, path=path, dtype=_FLOAT, shape=shape)
        return self._quantized(builder, path, module, value, shape), NodeReport(path, operator, "float32")

    def _quantized(
        self, builder: Builder, path: str, module: IntegerMap, value: ir.Value, shape: tuple[int, ...]
    ) -> Carrier:
        """QuantizeLinear, and a Clip where the levels are fewer than a byte's."""
        dtype, zero_point = self.container(module.integer_type)
        inputs = [
            value,
            builder.constant(numpy(qlinear_staircase(module).y_scale), f"{path}.y_scale"),
            builder.constant(scalar(zero_point, dtype), f"{path}.y_zero_point"),
        ]
        value = builder.op("QuantizeLinear", inputs, path=path, dtype=dtype, shape=shape)
        value = clip_levels(builder, path, value, module, zero_point, shape)
        return Carrier(value, zero_point, shape, module.hi + zero_point)

    def _weight(
        self,
        builder: Builder,
        path: str,
        weight: WeightBytes,
        factor: int,
        scale: np.ndarray[Any, Any],
        *,
        is_trained: bool = True,
    ) -> ir.Value:
        """The float weight of levels that are stored `factor` times as large."""
        levels = (weight.array.astype(np.int32) - weight.zero_point) // factor
        dtype = _narrowest(levels) if self.packs_weights and is_trained else _INT8
        if dtype is _INT8:
            value = builder.constant(weight.array, f"{path}.weight")
        else:
            packed = builder.constant(levels.astype(dtype.numpy()), f"{path}.weight")
            value = _widened(builder, path, packed, factor, weight)
        array = scale if scale.size > 1 else scale.reshape(())
        return _dequantized(builder, path, value, array, "weight", weight.zero_point)


@dataclass(frozen=True)
class WideQdqEmitter(QdqEmitter):
    """All weights as INT8, for readers that know no narrower type."""

    packs_weights: ClassVar[bool] = False


def _narrowest(levels: np.ndarray[Any, Any]) -> ir.DataType:
    """The narrowest type that ONNX has for these levels."""
    low, high = int(levels.min()), int(levels.max())
    return next(dtype for dtype, least in _LEAST.items() if least <= low and high < -least)


def _widened(builder: Builder, path: str, value: ir.Value, factor: int, weight: WeightBytes) -> ir.Value:
    """A constant of few bits times its head-room, as the bytes of a weight; runtimes fold this when they load."""
    int32, byte = ir.DataType.INT32, ir.DataType.from_numpy(weight.array.dtype)

    def op(op_type: str, inputs: list[ir.Value], dtype: ir.DataType, attributes: dict[str, Any]) -> ir.Value:
        shape = _constant_shape(value)
        return builder.op(op_type, inputs, path=path, dtype=dtype, shape=shape, attributes=attributes, has_batch=False)

    steps = [("Mul", factor, 1, "headroom"), ("Add", weight.zero_point, 0, "zero")]
    steps = [step for step in steps if step[1] != step[2]]
    if steps:
        value = op("Cast", [value], int32, {"to": int32})
    for op_type, number, _, name in steps:
        value = op(op_type, [value, builder.constant(np.int32(number), f"{path}.{name}")], int32, {})
    return op("Cast", [value], byte, {"to": byte})


def _is_of_whole_images(operator: Operator, rank: int) -> bool:
    """Whether a map sums or averages over all `rank` spatial axes."""
    return isinstance(operator, Reduce) and rank > 0 and sorted(operator.axes) == list(range(2, 2 + rank))


def _bias(builder: Builder, path: str, bias: Tensor) -> ir.Value:
    return builder.constant(numpy(bias.to(torch.int32)), f"{path}.bias")


def _dequantized(builder: Builder, path: str, value: ir.Value, scale: Any, name: str, zero_point: int = 0) -> ir.Value:
    """DequantizeLinear of a constant, of each output channel with its scale; onnxruntime's Gemm needs the zero."""
    array = np.asarray(scale, np.float32)
    assert value.dtype is not None
    inputs = [value, builder.constant(array, f"{path}.{name}_scale")]
    if value.dtype is not ir.DataType.INT32:
        zeros = np.full(array.shape, zero_point, value.dtype.numpy())
        inputs.append(builder.constant(zeros, f"{path}.{name}_zero_point"))
    shape = _constant_shape(value)
    attributes = {"axis": 0} if array.ndim else {}
    return builder.op(
        "DequantizeLinear", inputs, path=path, dtype=_FLOAT, shape=shape, attributes=attributes, has_batch=False
    )


def _constant_shape(value: ir.Value) -> tuple[int, ...]:
    assert value.shape is not None
    return tuple(int(size) for size in value.shape.dims)  # type: ignore[arg-type]  # none is symbolic


def _multiply(
    builder: Builder,
    path: str,
    operator: Operator,
    operands: list[ir.Value],
    x_shape: tuple[int, ...],
    shape: tuple[int, ...],
) -> tuple[ir.Value, str]:
    """Conv, or Gemm over the rows, of data, weight and bias."""
    x, weight, bias = operands
    if not isinstance(operator, Linear):
        attributes = pooling_attributes(operator, x_shape[0])
        return builder.op("Conv", operands, path=path, dtype=_FLOAT, shape=shape, attributes=attributes), "Conv"
    rows = builder.reshape(x, x_shape[-1:], path=path)
    value = builder.op(
        "Gemm", [rows, weight, bias], path=path, dtype=_FLOAT, shape=shape[-1:], attributes={"transB": 1}
    )
    return builder.reshape(value, shape, path=path), "Gemm"
