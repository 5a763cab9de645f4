"""Reading an ONNX file that nobody vouches for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from ana_fx.errors import VerifyError
from ana_fx.target_registry import find_target
from ana_fx.targets.files.metadata import TARGET
from ana_fx.targets.files.regular_file import read_regular_file, reason_of
from ana_fx.targets.onnx.dialect import dialect_of
from ana_fx.targets.onnx.foreign_attributes import without_attributes
from ana_fx.targets.onnx.onnx_parts import check_parts

__all__ = ["read_model"]

_LARGEST = 2**31 - 1  # what protobuf can hold
_MOST_PARTS = 2_000_000
_LARGEST_SAMPLE = 2**28
_WIDTHS = {
    2: ("INT2", "UINT2"),
    4: ("INT4", "UINT4"),
    8: ("INT8", "UINT8", "BOOL"),
    16: ("INT16", "UINT16", "FLOAT16", "BFLOAT16"),
    32: ("INT32", "UINT32", "FLOAT"),
    64: ("INT64", "UINT64", "DOUBLE"),
}
_NUMBERS = dict(TensorProto.DataType.items())  # older versions of onnx know fewer types
_BITS = {_NUMBERS[name]: bits for bits, names in _WIDTHS.items() for name in names if name in _NUMBERS}
_DATA = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def read_model(path: Path, *, largest: int = _LARGEST, most_parts: int = _MOST_PARTS) -> onnx.ModelProto:
    """The model of a file, checked; nothing outside the file is read, nothing is built that it does not hold.

    Args:
        path: The file.
        largest: The most bytes that it may have.
        most_parts: The most fields of nodes, tensors and so on.

    Raises:
        VerifyError: It cannot be read, is no ONNX, is too large, is damaged, keeps tensors in other files, or has parts
            that `export` does not write.
    """
    try:
        data = read_regular_file(path, largest)
        check_parts(data, most_parts)
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
        del data
        if not model.graph.node or not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
            raise ValueError("it holds no graph")
        for tensor in _tensors(model.graph):
            _check_tensor(tensor)
        for value in (*model.graph.input, *model.graph.output):
            _check_sample(value)
        onnx.checker.check_model(_without_data(model))
    except MemoryError:  # says nothing of the file
        raise
    except Exception as error:  # those of the system, of protobuf and of the checker share no base
        raise VerifyError(f"cannot load {path}: {reason_of(error)}; needed a file that export() wrote") from error
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _check_tensor(tensor: TensorProto) -> None:
    """Refuse a tensor whose numbers stand elsewhere, or are more or fewer than its sizes say."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ValueError("it keeps tensors in other files, needed all in one")
    if tensor.data_type not in _BITS:
        raise ValueError(f"tensor {tensor.name!r} has type {tensor.data_type}, needed numbers")
    numbers = math.prod(tensor.dims)
    stored = len(tensor.raw_data) * 8 // _BITS[tensor.data_type]
    if not tensor.HasField("raw_data"):
        stored = sum(len(getattr(tensor, name)) for name in _DATA)
    spare = 8 // _BITS[tensor.data_type] if _BITS[tensor.data_type] < 8 else 1
    if any(size < 0 for size in tensor.dims) or not numbers <= stored < numbers + spare:
        raise ValueError(f"tensor {tensor.name!r} of {list(tensor.dims)} holds {stored} numbers")


def _check_sample(value: onnx.ValueInfoProto) -> None:
    sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
    if any(size < 0 for size in sizes) or math.prod(max(size, 1) for size in sizes) > _LARGEST_SAMPLE:
        raise ValueError(f"{value.name!r} has samples of {sizes[1:]}, needed at most {_LARGEST_SAMPLE:,} numbers")


def _without_data(model: onnx.ModelProto) -> onnx.ModelProto:
    """What ONNX's checker looks at: constants stand as inputs, since their numbers would be copied twice."""
    graph = onnx.GraphProto(name=model.graph.name)
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    names = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in names:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    bare = onnx.ModelProto(ir_version=model.ir_version, graph=graph)
    bare.opset_import.extend(model.opset_import)
    name = next((entry.value for entry in model.metadata_props if entry.key == TARGET), "")
    target = find_target(name)
    return bare if target is None else without_attributes(bare, dialect_of(target).foreign_attributes)
