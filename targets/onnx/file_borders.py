"""The borders of a file: from reals or bytes to stored levels, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.program_borders import Quantize
from ana_fx.targets.onnx.builder import Builder

__all__ = ["dequantize_linear", "natural_type", "quantize_image", "quantize_linear", "scalar", "shift"]


def natural_type(integer_type: IntegerType) -> ir.DataType:
    """The byte that holds levels as they are, or with the zero point of their type."""
    is_signed = integer_type.signed and integer_type.zero_point is None
    return ir.DataType.INT8 if is_signed else ir.DataType.UINT8


def scalar(value: int, dtype: ir.DataType) -> np.generic:
    """A number of that type."""
    number: np.generic = dtype.numpy().type(value)
    return number


def quantize_linear(
    builder: Builder,
    path: str,
    module: Quantize,
    x: ir.Value,
    shape: tuple[int, ...],
    container: tuple[ir.DataType, int],
) -> ir.Value:
    """QuantizeLinear, and a Clip where there are fewer levels than a byte has."""
    dtype, zero_point = container
    integer_type = module.integer_type
    scale = builder.constant(np.asarray(module.scale.detach().cpu().numpy()), f"{path}.scale")
    zero = builder.constant(scalar(zero_point, dtype), f"{path}.zero_point")
    value = builder.op("QuantizeLinear", [x, scale, zero], path=path, dtype=dtype, shape=shape)
    if integer_type.bits == 8 and not integer_type.narrow:
        return value
    limits = (integer_type.qmin + zero_point, integer_type.qmax + zero_point)
    bounds = [builder.constant(scalar(limit, dtype), f"{path}.limit") for limit in limits]
    return builder.op("Clip", [value, *bounds], path=path, dtype=dtype, shape=shape)


def quantize_image(
    builder: Builder,
    path: str,
    gain: np.ndarray[Any, Any],
    offset: np.ndarray[Any, Any],
    x: ir.Value,
    shape: tuple[int, ...],
) -> ir.Value:
    """The uint8 pixels of a normalised image, gain · x + offset rounded half to even."""
    for op_type, channels in (("Mul", gain), ("Add", offset)):
        constant = builder.constant(channels, f"{path}.{op_type.lower()}")
        x = builder.op(op_type, [x, constant], path=path, dtype=ir.DataType.FLOAT, shape=shape)
    inputs = [x, builder.constant(np.float32(1.0), f"{path}.one"), builder.constant(np.uint8(0), f"{path}.zero")]
    return builder.op("QuantizeLinear", inputs, path=path, dtype=ir.DataType.UINT8, shape=shape)


def dequantize_linear(
    builder: Builder,
    path: str,
    x: ir.Value,
    zero_point: int,
    scale: np.ndarray[Any, Any],
    shape: tuple[int, ...],
    *,
    has_batch: bool = True,
) -> ir.Value:
    """DequantizeLinear; bytes have a zero point even if it is 0, since onnxruntime fuses no Gemm without."""
    inputs = [x, builder.constant(scale, f"{path}.scale")]
    assert x.dtype is not None
    if x.dtype is not ir.DataType.INT32:
        inputs.append(builder.constant(scalar(zero_point, x.dtype), f"{path}.zero_point"))
    dtype = ir.DataType.FLOAT
    return builder.op("DequantizeLinear", inputs, path=path, dtype=dtype, shape=shape, has_batch=has_batch)


def shift(
    builder: Builder, path: str, value: ir.Value, shape: tuple[int, ...], distance: int, dtype: ir.DataType
) -> ir.Value:
    """Add a constant to 8-bit numbers whose type changes with it."""
    if value.dtype is dtype and distance == 0:
        return value
    if distance:
        int32 = ir.DataType.INT32
        value = builder.op("Cast", [value], path=path, dtype=int32, shape=shape, attributes={"to": int32})
        constant = builder.constant(np.int32(distance), f"{path}.shift")
        value = builder.op("Add", [value, constant], path=path, dtype=int32, shape=shape)
    return builder.op("Cast", [value], path=path, dtype=dtype, shape=shape, attributes={"to": dtype})
