"""The part of TFLite's schema that `export` writes: for each table its fields, by their number in the schema.

The tests hold it against the classes that LiteRT generates from the whole schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from ana_fx.targets.files.flat_schema import Field, FlatSchema

__all__ = ["OPTIONS", "TABLES", "TFLITE_SCHEMA", "Activation", "Code", "Kind", "Padding"]


class Kind(IntEnum):
    """Types of tensors."""

    FLOAT32 = 0
    INT32 = 2
    INT8 = 9
    INT4 = 17


class Code(IntEnum):
    """Numbers of operators."""

    ADD = 0
    CONCATENATION = 2
    CONV_2D = 3
    DEPTHWISE_CONV_2D = 4
    FULLY_CONNECTED = 9
    MAX_POOL_2D = 17
    MUL = 18
    RESHAPE = 22
    PAD = 34
    GATHER = 36
    TRANSPOSE = 39
    SUB = 41
    DIV = 42
    STRIDED_SLICE = 45
    CAST = 53
    MAXIMUM = 55
    MINIMUM = 57
    PADV2 = 60
    TRANSPOSE_CONV = 67
    REDUCE_MAX = 82
    RESIZE_NEAREST_NEIGHBOR = 97


class Padding(IntEnum):
    """What a kernel adds around its input."""

    SAME = 0
    VALID = 1


class Activation(IntEnum):
    """The activation that a kernel applies to its result."""

    NONE = 0
    RELU = 1


TABLES: Mapping[str, Mapping[str, Field]] = {
    "Model": {
        "version": (0, "uint32"),
        "operator_codes": (1, "[OperatorCode]"),
        "subgraphs": (2, "[SubGraph]"),
        "description": (3, "string"),
        "buffers": (4, "[Buffer]"),
        "metadata": (6, "[Metadata]"),
        "signature_defs": (7, "[SignatureDef]"),
    },
    "SubGraph": {
        "tensors": (0, "[Tensor]"),
        "inputs": (1, "[int32]"),
        "outputs": (2, "[int32]"),
        "operators": (3, "[Operator]"),
        "name": (4, "string"),
    },
    "Tensor": {
        "shape": (0, "[int32]"),
        "type": (1, "int8"),
        "buffer": (2, "uint32"),
        "name": (3, "string"),
        "quantization": (4, "QuantizationParameters"),
        "shape_signature": (7, "[int32]"),
    },
    "QuantizationParameters": {
        "scale": (2, "[float32]"),
        "zero_point": (3, "[int64]"),
        "quantized_dimension": (6, "int32"),
    },
    "Operator": {
        "opcode_index": (0, "uint32"),
        "inputs": (1, "[int32]"),
        "outputs": (2, "[int32]"),
        "options_type": (3, "uint8"),
        "options": (4, "union"),
    },
    "OperatorCode": {"deprecated_builtin_code": (0, "int8"), "version": (2, "int32"), "builtin_code": (3, "int32")},
    "Buffer": {"data": (0, "bytes")},
    "Metadata": {"name": (0, "string"), "buffer": (1, "uint32")},
    "SignatureDef": {
        "inputs": (0, "[TensorMap]"),
        "outputs": (1, "[TensorMap]"),
        "signature_key": (2, "string"),
        "subgraph_index": (4, "uint32"),
    },
    "TensorMap": {"name": (0, "string"), "tensor_index": (1, "uint32")},
    "Conv2DOptions": {
        "padding": (0, "int8"),
        "stride_w": (1, "int32"),
        "stride_h": (2, "int32"),
        "fused_activation_function": (3, "int8"),
        "dilation_w_factor": (4, "int32"),
        "dilation_h_factor": (5, "int32"),
    },
    "DepthwiseConv2DOptions": {
        "padding": (0, "int8"),
        "stride_w": (1, "int32"),
        "stride_h": (2, "int32"),
        "depth_multiplier": (3, "int32"),
        "fused_activation_function": (4, "int8"),
        "dilation_w_factor": (5, "int32"),
        "dilation_h_factor": (6, "int32"),
    },
    "TransposeConvOptions": {"padding": (0, "int8"), "stride_w": (1, "int32"), "stride_h": (2, "int32")},
    "ResizeNearestNeighborOptions": {},
    "Pool2DOptions": {
        "padding": (0, "int8"),
        "stride_w": (1, "int32"),
        "stride_h": (2, "int32"),
        "filter_width": (3, "int32"),
        "filter_height": (4, "int32"),
        "fused_activation_function": (5, "int8"),
    },
    "FullyConnectedOptions": {"fused_activation_function": (0, "int8")},
    "AddOptions": {"fused_activation_function": (0, "int8")},
    "MulOptions": {"fused_activation_function": (0, "int8")},
    "SubOptions": {"fused_activation_function": (0, "int8")},
    "DivOptions": {"fused_activation_function": (0, "int8")},
    "ReducerOptions": {"keep_dims": (0, "int8")},
    "ConcatenationOptions": {"axis": (0, "int32"), "fused_activation_function": (1, "int8")},
    "ReshapeOptions": {"new_shape": (0, "[int32]")},
    "PadOptions": {},
    "PadV2Options": {},
    "GatherOptions": {"axis": (0, "int32")},
    "CastOptions": {"in_data_type": (0, "int8"), "out_data_type": (1, "int8")},
    "TransposeOptions": {},
    "StridedSliceOptions": {
        "begin_mask": (0, "int32"),
        "end_mask": (1, "int32"),
        "ellipsis_mask": (2, "int32"),
        "new_axis_mask": (3, "int32"),
        "shrink_axis_mask": (4, "int32"),
    },
    "MaximumMinimumOptions": {},
}

OPTIONS: Mapping[Code, tuple[int, str, int]] = {
    Code.ADD: (11, "AddOptions", 2),
    Code.CONCATENATION: (10, "ConcatenationOptions", 2),
    Code.CONV_2D: (1, "Conv2DOptions", 3),
    Code.DEPTHWISE_CONV_2D: (2, "DepthwiseConv2DOptions", 3),
    Code.FULLY_CONNECTED: (8, "FullyConnectedOptions", 4),
    Code.MAX_POOL_2D: (5, "Pool2DOptions", 2),
    Code.MUL: (21, "MulOptions", 2),
    Code.RESHAPE: (17, "ReshapeOptions", 1),
    Code.PAD: (22, "PadOptions", 2),
    Code.GATHER: (23, "GatherOptions", 2),
    Code.TRANSPOSE: (26, "TransposeOptions", 2),
    Code.SUB: (28, "SubOptions", 1),
    Code.DIV: (29, "DivOptions", 1),
    Code.STRIDED_SLICE: (32, "StridedSliceOptions", 2),
    Code.CAST: (37, "CastOptions", 1),
    Code.MAXIMUM: (39, "MaximumMinimumOptions", 2),
    Code.MINIMUM: (39, "MaximumMinimumOptions", 2),
    Code.PADV2: (43, "PadV2Options", 2),
    Code.TRANSPOSE_CONV: (49, "TransposeConvOptions", 3),
    Code.REDUCE_MAX: (27, "ReducerOptions", 2),
    Code.RESIZE_NEAREST_NEIGHBOR: (74, "ResizeNearestNeighborOptions", 2),
}
"""For each operator the number of its options among all options, their table, and the version that takes int8."""

TFLITE_SCHEMA = FlatSchema("TFLite", b"TFL3", "Model", TABLES, {number: table for number, table, _ in OPTIONS.values()})
"""What `pack_tables` and `unpack_tables` take."""
