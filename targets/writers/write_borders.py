"""Writers of the borders between reals and levels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ana_fx.program.program_borders import Dequantize, Quantize, QuantizeImage
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.onnx.writer_table import WriterTable

__all__ = ["borders", "scalar", "write_dequantize_linear", "write_pixels", "zero_point_constant"]

_FLOAT, _UINT8 = ir.DataType.FLOAT, ir.DataType.UINT8

borders: WriterTable[StoredTensor] = WriterTable(__name__)


@borders.writes(Quantize)
def write_quantize(w: NodeWriter, module: Quantize) -> StoredTensor:
    """Write QuantizeLinear, and a Clip where there are fewer levels than a byte has."""
    dtype, zero_point = w.container
    integer_type = module.integer_type
    settings = [w.constant(numpy(module.scale), "scale"), zero_point_constant(w, dtype, zero_point)]
    value = w.op("QuantizeLinear", w.x.value, *settings, dtype=dtype)
    if integer_type.bits < 8 or integer_type.narrow:
        limits = (integer_type.qmin + zero_point, integer_type.qmax + zero_point)
        value = w.op("Clip", value, *(w.constant(scalar(limit, dtype), "limit") for limit in limits), dtype=dtype)
    return w.stored(value, integer_type.qmin, integer_type.qmax)


@borders.writes(QuantizeImage)
def write_quantize_image(w: NodeWriter, module: QuantizeImage) -> StoredTensor:
    """Write the pixels of a normalised image, then the levels that the dialect makes of pixels."""
    value = w.dialect.take(w, write_pixels(w, module))
    return w.stored(value, module.integer_type.qmin, module.integer_type.qmax)


@borders.writes(Dequantize)
def write_dequantize(w: NodeWriter, module: Dequantize) -> StoredTensor:
    """Write DequantizeLinear."""
    value = write_dequantize_linear(w, w.x, numpy(module.scale))
    return StoredTensor(value, 0, w.shape, is_real=True)


def write_pixels(w: NodeWriter, module: QuantizeImage) -> ir.Value:
    """Write the uint8 pixels of a normalised image, gain · x + shift rounded half to even."""
    x = w.x.value
    for op_type, channels in (("Mul", module.gain), ("Add", module.shift)):
        x = w.op(op_type, x, w.constant(numpy(channels), op_type.lower()), dtype=_FLOAT)
    one, zero = w.constant(np.float32(1.0), "one"), w.constant(np.uint8(0), "zero")
    return w.op("QuantizeLinear", x, one, zero, dtype=_UINT8)


def write_dequantize_linear(
    w: NodeWriter, x: StoredTensor, scale: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> ir.Value:
    """Write DequantizeLinear; bytes have a zero point even if it is 0, since onnxruntime fuses no Gemm without."""
    settings = [w.constant(scale, "scale")]
    if x.dtype is not ir.DataType.INT32:
        settings.append(zero_point_constant(w, x.dtype, x.zero_point))
    write = w.op if x.constant is None else w.constant_op
    return write("DequantizeLinear", x.value, *settings, shape=x.shape, dtype=_FLOAT)


def zero_point_constant(w: NodeWriter, dtype: ir.DataType, zero_point: int) -> ir.Value:
    """Write a zero point as operators take it, of the type that it belongs to."""
    return w.constant(scalar(zero_point, dtype), "zero_point")


def scalar(value: int, dtype: ir.DataType) -> np.generic:
    """Return a number of that type."""
    number: np.generic = dtype.numpy().type(value)
    return number
