"""Writing the nodes of the QONNX dialect: Quant, BipolarQuant and MultiThreshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from torch import Tensor

from ana_fx.numerics.codebook import Codebook
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.dialects.float_staircase import FloatStaircase, thresholds_of
from ana_fx.targets.onnx.node_writer import NodeWriter

__all__ = ["apply", "codebook_levels", "multi_threshold", "quant", "quantized_weight", "round_to_levels"]

_DOMAIN = "qonnx.custom_op.general"
_CHANNELS_FIRST = {2: "NC", 3: "NCW", 4: "NCHW", 5: "NCDHW"}
_CHANNELS_LAST = {2: "NC", 3: "NWC", 4: "NHWC", 5: "NDHWC"}


def quantized_weight(w: NodeWriter, array: np.ndarray[Any, Any], weight: Tensor) -> ir.Value:
    """Write a weight behind a Quant or a BipolarQuant."""
    stored = w.number(array, "weight")
    if bool((weight.abs() == 1).all()):
        return w.constant_op("BipolarQuant", stored, w.number(1, "weight_scale"), shape=array.shape, domain=_DOMAIN)
    low, high = int(weight.min()), int(weight.max())
    bits = max(2, max(high, -low - 1).bit_length() + 1)
    integer_type = IntegerType(bits, signed=True, narrow=low > -(2 ** (bits - 1)))
    settings, attributes = _quant_settings(w, integer_type, "weight")
    return w.constant_op("Quant", stored, *settings, shape=array.shape, domain=_DOMAIN, **attributes)


def round_to_levels(w: NodeWriter, staircase: FloatStaircase, value: ir.Value) -> ir.Value:
    """Write Mul, Add, Mul and Quant, without the steps that do nothing."""
    module = w.module
    value = apply(w, "Mul", value, staircase.before * module.sign)
    value = apply(w, "Add", value, staircase.offset)
    value = apply(w, "Mul", value, staircase.after)
    integer_type: IntegerType = module.integer_type
    if (module.lo, module.hi) != (integer_type.qmin, integer_type.qmax):
        value = w.op("Clip", value, *(w.number(bound, "bound") for bound in (module.lo, module.hi)))
    return quant(w, value, integer_type, rounding="FLOOR" if staircase.is_floor else "ROUND")


def multi_threshold(w: NodeWriter, accumulator: ir.Value) -> ir.Value:
    """Write the number of thresholds that an accumulator reaches, plus the lowest level."""
    module = w.module
    settings = {"out_dtype": _type_name(module.integer_type), "out_scale": 1.0, "out_bias": float(module.lo)}
    return _reached(w, accumulator, thresholds_of(module), settings)


def codebook_levels(w: NodeWriter, accumulator: ir.Value) -> ir.Value:
    """Write the levels of a codebook: a MultiThreshold, and a Gather where its jumps are uneven."""
    codebook: Codebook = w.module.integer_type.codebook
    jump, *others = codebook.jumps
    if all(other == jump for other in others):
        settings = {"out_scale": float(jump), "out_bias": float(codebook.values[0])}
        name = _type_name(w.module.integer_type)
        return _reached(w, accumulator, w.module.thresholds, {"out_dtype": name, **settings})
    count = f"UINT{(len(codebook.values) - 1).bit_length()}"
    settings = {"out_scale": 1.0, "out_bias": 0.0}
    index = _reached(w, accumulator, w.module.thresholds, {"out_dtype": count, **settings})
    return w.op("Gather", w.number(np.array(codebook.values), "levels"), w.cast(index, ir.DataType.INT32))


def _reached(w: NodeWriter, accumulator: ir.Value, wanted: Tensor, settings: dict[str, Any]) -> ir.Value:
    """Write a MultiThreshold of accumulators that are signed as the channel's gain is."""
    rank = len(w.shape) + 1
    value = apply(w, "Mul", accumulator, w.module.sign)
    thresholds = numpy(wanted)
    if (thresholds == thresholds[:1]).all():
        thresholds = thresholds[:1]
    layouts = _CHANNELS_FIRST if w.module.operator.channel_axis(rank) == 1 else _CHANNELS_LAST
    numbers = w.number(thresholds, "thresholds")
    return w.op("MultiThreshold", value, numbers, domain=_DOMAIN, **settings, data_layout=layouts[rank])


def _type_name(integer_type: IntegerType) -> str:
    """What qonnx calls a type."""
    if integer_type.bits == 1:
        return "BIPOLAR" if integer_type.signed else "BINARY"
    return f"{'INT' if integer_type.signed else 'UINT'}{integer_type.bits}"


def apply(w: NodeWriter, op_type: str, value: ir.Value, channels: Tensor) -> ir.Value:
    """Apply an operator with a number for each channel, unless that changes nothing."""
    if bool((channels == (1 if op_type == "Mul" else 0)).all()):
        return value
    if bool((channels == channels[0]).all()):
        channels = channels[:1]
    axis = w.module.operator.channel_axis(len(w.shape) + 1)
    array = numpy(channels).reshape([-1] + [1] * (len(w.shape) - axis))
    return w.op(op_type, value, w.number(array, op_type.lower()))


def quant(w: NodeWriter, value: ir.Value, integer_type: IntegerType, *, rounding: str = "ROUND") -> ir.Value:
    """Write a Quant with scale 1, and zero point 0 if the type has no other."""
    settings, attributes = _quant_settings(w, integer_type, "output", rounding)
    return w.op("Quant", value, *settings, domain=_DOMAIN, **attributes)


def _quant_settings(
    w: NodeWriter, integer_type: IntegerType, name: str, rounding: str = "ROUND"
) -> tuple[list[ir.Value], dict[str, Any]]:
    """Write the inputs of a Quant behind the first; return them with its attributes."""
    zero_point = integer_type.zero_point
    settings = {"scale": 1, "zero_point": zero_point or 0, "bits": integer_type.bits}
    is_signed = integer_type.signed and zero_point is None
    attributes = {"signed": int(is_signed), "narrow": int(integer_type.narrow), "rounding_mode": rounding}
    return [w.number(number, f"{name}_{key}") for key, number in settings.items()], attributes
