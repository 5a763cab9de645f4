"""The QONNX dialect: integers in float tensors, Quant nodes that say how wide they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.fx import GraphModule

from ana_fx.graph import calls_to, location, module_of
from ana_fx.numerics.integer_type import IntegerType
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
from ana_fx.program.program_borders import Quantize, QuantizeImage
from ana_fx.targets.dialects.float_staircase import EXACT, FloatStaircase, float_staircase, thresholds_of
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.convolution_attributes import has_one_window, pooling_attributes
from ana_fx.targets.onnx.emitter import Carrier, Emitter, NodeReport, numpy
from ana_fx.targets.onnx.integer_arithmetic import (
    Scribe,
    write_normalization,
    write_resampling,
    write_softmax,
    write_table,
)

__all__ = ["MultiThresholdEmitter", "QonnxEmitter"]

_DOMAIN = "qonnx.custom_op.general"
_CHANNELS_FIRST = {2: "NC", 3: "NCW", 4: "NCHW", 5: "NCDHW"}
_CHANNELS_LAST = {2: "NC", 3: "NWC", 4: "NHWC", 5: "NDHWC"}


@dataclass(frozen=True)
class QonnxEmitter(Emitter):
    """Conv and MatMul on integers in float32, which holds them exactly, then Mul, Add and Quant.

    All scales are 1, so that no product of scales rounds; those of the borders stand in the metadata. Where no
    chain of float32 operators is proven equal to a staircase, it is a MultiThreshold.
    """

    pads_max_pools: ClassVar[bool] = True
    writes_zero_pads: ClassVar[bool] = True  # its transformation to channels last reads them

    def misfits(self, program: GraphModule) -> list[str]:
        """Heads whose logits float32 does not hold; accumulators are in the target's description."""
        misfits = []
        for node in calls_to(program, IntegerHead):
            module = module_of(node)
            assert isinstance(module, IntegerHead)
            largest = module.bound * module.factor + int(module.bias.abs().max())
            if largest >= EXACT:
                misfits.append(f"{location(node)}: its logits can reach {largest}, needed less than {EXACT} (float32)")
        return misfits

    def container(self, integer_type: IntegerType) -> tuple[ir.DataType, int]:
        """float32, which holds the level itself."""
        return ir.DataType.FLOAT, 0

    def border(self, natural: ir.DataType) -> ir.DataType:
        """float32, as its readers expect."""
        return ir.DataType.FLOAT

    def take(
        self, builder: Builder, path: str, integer_type: IntegerType, x: ir.Value, shape: tuple[int, ...]
    ) -> ir.Value:
        """The levels as floats, and a Quant that changes nothing but says the type."""
        scribe = Scribe(builder, path, ir.DataType.FLOAT)
        x = scribe.cast(x, scribe.dtype, shape)
        if integer_type.zero_point:
            x = scribe.op("Sub", [x, scribe.number(integer_type.zero_point, "zero_point")], shape)
        return _quant(scribe, x, integer_type, shape)

    def quantize(self, builder: Builder, path: str, module: Quantize, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """A Div by the scale and a Quant with scale 1; an image as in every file."""
        if isinstance(module, QuantizeImage):
            return super().quantize(builder, path, module, x, shape)
        scribe = Scribe(builder, path, ir.DataType.FLOAT)
        levels = scribe.op("Div", [x, scribe.number(numpy(module.scale), "scale")], shape)
        return _quant(scribe, levels, module.integer_type, shape)

    def dequantize(self, builder: Builder, path: str, x: Carrier, scale: np.ndarray[Any, Any]) -> ir.Value:
        """A Mul."""
        scribe = Scribe(builder, path, ir.DataType.FLOAT)
        return scribe.op("Mul", [x.value, scribe.number(scale, "scale")], x.shape)

    def integer_map(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        shape: tuple[int, ...],
    ) -> tuple[Carrier, NodeReport]:
        """The accumulator, then the staircase."""
        scribe = Scribe(builder, path, ir.DataType.FLOAT)
        staircase = self._staircase(module)
        accumulator, operator = _accumulate(scribe, module, inputs, shape)
        if staircase is None:
            value, rounding = _multi_threshold(scribe, module, accumulator, shape), "MultiThreshold"
        else:
            value, rounding = _round(scribe, module, staircase, accumulator, shape), "Quant"
        return Carrier(value, 0, shape, module.hi), NodeReport(path, f"{operator}, {rounding}", "float32")

    def _staircase(self, module: IntegerMap) -> FloatStaircase | None:
        return float_staircase(module)

    def head(
        self, builder: Builder, path: str, module: IntegerHead, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """The accumulator, times the head-room, plus the bias."""
        scribe = Scribe(builder, path, ir.DataType.FLOAT)
        assert module.weight is not None
        value, operator = _multiply(scribe, module.operator, module.weight, x, shape)
        axis = module.operator.channel_axis(len(shape) + 1)
        value = _apply(scribe, "Mul", value, torch.tensor([module.factor]), axis, shape)
        value = _apply(scribe, "Add", value, module.bias, axis, shape)
        return Carrier(value, 0, shape), NodeReport(path, operator, "float32")

    def table(
        self, builder: Builder, path: str, module: IntegerTable, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """A Gather, and a Quant that says the type."""
        value = write_table(Scribe(builder, path), module, x, shape, *self.container(module.integer_type))
        value = _quant(Scribe(builder, path, ir.DataType.FLOAT), value, module.integer_type, shape)
        return Carrier(value, 0, shape, module.hi), NodeReport(path, "Gather", "table")

    def softmax(
        self, builder: Builder, path: str, module: IntegerSoftmax, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """Exponentials from a table, an integer Div, and a Quant that says the type."""
        value = write_softmax(Scribe(builder, path), module, x, shape, *self.container(module.integer_type))
        value = _quant(Scribe(builder, path, ir.DataType.FLOAT), value, module.integer_type, shape)
        return Carrier(value, 0, shape, module.highest), NodeReport(path, "Gather, Div", "int32")


@dataclass(frozen=True)
class MultiThresholdEmitter(QonnxEmitter):
    """As its base class, with a MultiThreshold for every staircase."""

    def _staircase(self, module: IntegerMap) -> FloatStaircase | None:
        return None


def _accumulate(
    scribe: Scribe, module: IntegerMap, inputs: Sequence[Carrier], shape: tuple[int, ...]
) -> tuple[ir.Value, str]:
    """The accumulators as float32, and the operator that computes them."""
    operator, x = module.operator, inputs[0]
    if len(inputs) > 1 and inputs[0].value is inputs[1].value:  # qonnx cannot rename what a node reads twice
        inputs = [x, replace(x, value=scribe.op("Identity", [x.value], x.shape))]
    values = [each.value for each in inputs]
    if isinstance(operator, MatMul):
        return scribe.op("MatMul", values, shape), "MatMul"
    if isinstance(operator, Product):
        return scribe.op("Mul", values, shape), "Mul"
    if isinstance(operator, Sum):
        return _weighted_sum(scribe, module, inputs, shape), "Add"
    if isinstance(operator, Identity):
        return x.value, "Identity"
    if isinstance(operator, Reduce):
        axes = scribe.axes(*(axis % (len(x.shape) + 1) for axis in operator.axes))
        return scribe.op("ReduceSum", [x.value, axes], shape, keepdims=int(operator.keepdim)), "ReduceSum"
    if isinstance(operator, Normalization):
        assert module.weight is not None
        value = write_normalization(scribe.builder, scribe.path, operator, module.weight, module.bound, x)
        return scribe.cast(value, scribe.dtype, shape), "normalization"
    if isinstance(operator, Resampling) and not has_one_window(operator, x.shape):
        value = write_resampling(scribe.builder, scribe.path, operator.matrices((1, *x.shape)), x)
        return scribe.cast(value, scribe.dtype, shape), "MatMul"
    weight = module.weight
    if isinstance(operator, Average):
        weight = torch.ones((x.shape[0], 1, *operator.kernel), dtype=torch.int8)
    assert weight is not None
    return _multiply(scribe, operator, weight, x, shape)


def _weighted_sum(scribe: Scribe, module: IntegerMap, inputs: Sequence[Carrier], shape: tuple[int, ...]) -> ir.Value:
    assert module.weight is not None
    terms = []
    for x, coefficient in zip(inputs, module.weight.tolist(), strict=True):
        term = x.value
        if coefficient != 1:
            term = scribe.op("Mul", [x.value, scribe.number(coefficient, "coefficient")], x.shape)
        terms.append(term)
    return scribe.op("Add", terms, shape)


def _multiply(
    scribe: Scribe, operator: Any, weight: Tensor, x: Carrier, shape: tuple[int, ...]
) -> tuple[ir.Value, str]:
    """Conv or MatMul with weights [out, in, …] behind a Quant or BipolarQuant."""
    array = numpy(weight).astype(np.float32)
    if isinstance(operator, Linear):
        array = array.T.copy()
    stored = _quantized_weight(scribe, array, weight)
    if isinstance(operator, Linear):
        return scribe.op("MatMul", [x.value, stored], shape), "MatMul"
    attributes = pooling_attributes(operator, x.shape[0]) | {"kernel_shape": list(weight.shape[2:])}
    return scribe.op("Conv", [x.value, stored], shape, **attributes), "Conv"


def _quantized_weight(scribe: Scribe, array: np.ndarray[Any, Any], weight: Tensor) -> ir.Value:
    stored = scribe.number(array, "weight")
    if bool((weight.abs() == 1).all()):
        inputs = [stored, scribe.number(1, "weight_scale")]
        return scribe.builder.op(
            "BipolarQuant", inputs, path=scribe.path, dtype=scribe.dtype, shape=array.shape, domain=_DOMAIN,
            has_batch=False,
        )  # fmt: skip
    low, high = int(weight.min()), int(weight.max())
    bits = max(2, max(high, -low - 1).bit_length() + 1)
    integer_type = IntegerType(bits, signed=True, narrow=low > -(2 ** (bits - 1)))
    return _quant(scribe, stored, integer_type, array.shape, has_batch=False, name="weight")


def _quant(
    scribe: Scribe,
    value: ir.Value,
    integer_type: IntegerType,
    shape: tuple[int, ...],
    *,
    rounding: str = "ROUND",
    name: str = "output",
    has_batch: bool = True,
) -> ir.Value:
    """A Quant with scale 1, and zero point 0 if the type has no other."""
    zero_point = integer_type.zero_point
    settings = {"scale": 1, "zero_point": zero_point or 0, "bits": integer_type.bits}
    inputs = [value, *(scribe.number(number, f"{name}_{key}") for key, number in settings.items())]
    is_signed = integer_type.signed and zero_point is None
    attributes = {"signed": int(is_signed), "narrow": int(integer_type.narrow), "rounding_mode": rounding}
    return scribe.builder.op(
        "Quant", inputs, path=scribe.path, dtype=scribe.dtype, shape=shape, attributes=attributes, domain=_DOMAIN,
        has_batch=has_batch,
    )  # fmt: skip


def _round(
    scribe: Scribe, module: IntegerMap, staircase: FloatStaircase, value: ir.Value, shape: tuple[int, ...]
) -> ir.Value:
    """Mul, Add, Mul and Quant, without the steps that do nothing."""
    axis = module.operator.channel_axis(len(shape) + 1)
    value = _apply(scribe, "Mul", value, staircase.before * module.sign, axis, shape)
    value = _apply(scribe, "Add", value, staircase.offset, axis, shape)
    value = _apply(scribe, "Mul", value, staircase.after, axis, shape)
    integer_type = module.integer_type
    if (module.lo, module.hi) != (integer_type.qmin, integer_type.qmax):
        bounds = [scribe.number(bound, "bound") for bound in (module.lo, module.hi)]
        value = scribe.op("Clip", [value, *bounds], shape)
    return _quant(scribe, value, integer_type, shape, rounding="FLOOR" if staircase.is_floor else "ROUND")


def _multi_threshold(scribe: Scribe, module: IntegerMap, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """The number of thresholds that an accumulator reaches, plus the lowest level."""
    rank = len(shape) + 1
    axis = module.operator.channel_axis(rank)
    value = _apply(scribe, "Mul", value, module.sign, axis, shape)
    thresholds = numpy(thresholds_of(module))
    if (thresholds == thresholds[:1]).all():
        thresholds = thresholds[:1]
    attributes = {
        "out_dtype": f"{'INT' if module.integer_type.signed else 'UINT'}{module.integer_type.bits}",
        "out_scale": 1.0,
        "out_bias": float(module.lo),
        "data_layout": (_CHANNELS_FIRST if axis == 1 else _CHANNELS_LAST)[rank],
    }
    inputs = [value, scribe.number(thresholds, "thresholds")]
    return scribe.builder.op(
        "MultiThreshold", inputs, path=scribe.path, dtype=scribe.dtype, shape=shape, attributes=attributes,
        domain=_DOMAIN,
    )  # fmt: skip


def _apply(
    scribe: Scribe, op_type: str, value: ir.Value, channels: Tensor, axis: int, shape: tuple[int, ...]
) -> ir.Value:
    """Apply an operator with a number for each channel, unless that changes nothing."""
    if bool((channels == (1 if op_type == "Mul" else 0)).all()):
        return value
    if bool((channels == channels[0]).all()):
        channels = channels[:1]
    array = numpy(channels).reshape([-1] + [1] * (len(shape) - axis))
    return scribe.op(op_type, [value, scribe.number(array, op_type.lower())], shape)
