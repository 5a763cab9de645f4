"""The part of TOSA's schema that `export` writes; the tests hold it against the classes of the package `tosa-tools`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from ana_fx.targets.files.flat_schema import Field, FlatSchema

__all__ = ["ATTRIBUTES", "NEAREST", "PROPAGATE", "SINGLE_ROUND", "TOSA_SCHEMA", "VERSION", "DataType", "Op"]

VERSION = (1, 0, 0)
"""Of the specification: the first whose files every later reader takes."""
SINGLE_ROUND = 1
"""Of the ways in which RESCALE rounds, the one that every profile has."""


NEAREST = 1
"""Of the ways of RESIZE."""
PROPAGATE = 1
"""Of what operators make of NaN, of which integers have none."""


class DataType(IntEnum):
    """Types of tensors."""

    INT8 = 3
    INT32 = 5


class Op(IntEnum):
    """Numbers of operators, and of their attributes."""

    CONV2D = 3
    DEPTHWISE_CONV2D = 5
    MAX_POOL2D = 8
    TRANSPOSE_CONV2D = 10
    CLAMP = 11
    ADD = 15
    INTDIV = 20
    MAXIMUM = 26
    MINIMUM = 27
    MUL = 28
    SUB = 30
    TABLE = 31
    REDUCE_MAX = 51
    REDUCE_SUM = 54
    CONCAT = 55
    PAD = 56
    RESHAPE = 57
    SLICE = 59
    TRANSPOSE = 61
    GATHER = 62
    RESIZE = 64
    RESCALE = 66
    CONST = 67
    IDENTITY = 68
    CONST_SHAPE = 75


ATTRIBUTES: Mapping[Op, str] = {
    Op.CONV2D: "Conv2dAttribute",
    Op.DEPTHWISE_CONV2D: "DepthwiseConv2dAttribute",
    Op.MAX_POOL2D: "MaxPool2dAttribute",
    Op.TRANSPOSE_CONV2D: "TransposeConv2dAttribute",
    Op.CLAMP: "ClampAttribute",
    Op.ADD: "AddAttribute",
    Op.INTDIV: "IntDivAttribute",
    Op.MAXIMUM: "MaximumAttribute",
    Op.MINIMUM: "MinimumAttribute",
    Op.MUL: "MulAttribute",
    Op.SUB: "SubAttribute",
    Op.TABLE: "TableAttribute",
    Op.REDUCE_MAX: "ReduceMaxAttribute",
    Op.REDUCE_SUM: "ReduceSumAttribute",
    Op.CONCAT: "ConcatAttribute",
    Op.PAD: "PadAttribute",
    Op.RESHAPE: "ReshapeAttribute",
    Op.SLICE: "SliceAttribute",
    Op.TRANSPOSE: "TransposeAttribute",
    Op.GATHER: "GatherAttribute",
    Op.RESIZE: "ResizeAttribute",
    Op.RESCALE: "RescaleAttribute",
    Op.CONST: "ConstAttribute",
    Op.IDENTITY: "IdentityAttribute",
    Op.CONST_SHAPE: "ConstShapeAttribute",
}
"""For each operator the table of its attributes."""

_CONVOLUTION: Mapping[str, Field] = {
    "pad": (0, "[int32]"),
    "stride": (1, "[int32]"),
    "dilation": (2, "[int32]"),
    "acc_type": (4, "uint32"),
}
_TABLES: Mapping[str, Mapping[str, Field]] = {
    "TosaGraph": {"version": (0, "Version"), "regions": (1, "[TosaRegion]")},
    "Version": {"_major": (0, "int32"), "_minor": (1, "int32"), "_patch": (2, "int32"), "_draft": (3, "uint8")},
    "TosaRegion": {"name": (0, "string"), "blocks": (1, "[TosaBasicBlock]")},
    "TosaBasicBlock": {
        "name": (0, "string"),
        "operators": (1, "[TosaOperator]"),
        "tensors": (2, "[TosaTensor]"),
        "inputs": (3, "[string]"),
        "outputs": (4, "[string]"),
        "shapes": (5, "[TosaShape]"),
    },
    "TosaTensor": {"name": (0, "string"), "shape": (1, "[int32]"), "type": (2, "uint32"), "data": (3, "bytes")},
    "TosaShape": {"name": (0, "string"), "rank": (1, "uint32"), "data": (2, "bytes")},
    "TosaOperator": {
        "op": (0, "uint32"),
        "attribute_type": (1, "uint8"),
        "attribute": (2, "union"),
        "inputs": (3, "[string]"),
        "outputs": (4, "[string]"),
        "location": (5, "OpLocation"),
    },
    "OpLocation": {"text": (0, "string")},
    **{table: {} for table in ATTRIBUTES.values()},
    "Conv2dAttribute": _CONVOLUTION,
    "DepthwiseConv2dAttribute": _CONVOLUTION,
    "TransposeConv2dAttribute": {"out_pad": (0, "[int32]"), "stride": (1, "[int32]"), "acc_type": (3, "uint32")},
    "MaxPool2dAttribute": {
        "kernel": (0, "[int32]"),
        "stride": (1, "[int32]"),
        "pad": (2, "[int32]"),
        "nan_mode": (3, "uint32"),
    },
    "ClampAttribute": {"min_val": (0, "bytes"), "max_val": (1, "bytes"), "nan_mode": (2, "uint32")},
    "MaximumAttribute": {"nan_mode": (0, "uint32")},
    "MinimumAttribute": {"nan_mode": (0, "uint32")},
    "ReduceMaxAttribute": {"axis": (0, "int32"), "nan_mode": (1, "uint32")},
    "ReduceSumAttribute": {"axis": (0, "int32")},
    "ConcatAttribute": {"axis": (0, "int32")},
    "TransposeAttribute": {"perms": (0, "[int32]")},
    "ResizeAttribute": {"mode": (0, "uint32")},
    "RescaleAttribute": {
        "scale32": (0, "uint8"),
        "rounding_mode": (1, "uint32"),
        "per_channel": (2, "uint8"),
        "input_unsigned": (3, "uint8"),
        "output_unsigned": (4, "uint8"),
    },
}

TOSA_SCHEMA = FlatSchema("TOSA", b"TOSA", "TosaGraph", _TABLES, {op.value: table for op, table in ATTRIBUTES.items()})
"""What `pack_tables` and `unpack_tables` take."""
