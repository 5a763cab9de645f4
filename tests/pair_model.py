"""A model of x86 kernels that add two products in 16 bits, in NumPy: what a file's products reach on given inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

Array = np.ndarray[Any, Any]

_OPERANDS = {"QLinearConv": (0, 3), "QGemm": (0, 3), "QLinearMatMul": (0, 3), "MatMulInteger": (0, 1)}
_FUSED = ("Conv", "Gemm", "MatMul")  # between DequantizeLinear nodes, which onnxruntime fuses to the operators above


def largest_pair_sums(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, int]:
    """For each product of unsigned by signed bytes the largest absolute sum of two neighbouring products.

    ConvInteger is left out: its kernel multiplies signed weights from the left, which adds no pairs.
    """
    products = list(_products(model))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    wanted = {name for _, *operands in products for name in operands if name not in constants and name not in feeds}
    values = constants | feeds | _values(model, feeds, sorted(wanted))
    sums = {}
    for node, left, right in products:
        x, weight = values[left], values[right]
        if x.dtype == np.uint8 and weight.dtype == np.int8:
            rows = _rows(model, node, x, weight, values)
            sums[node.name] = max((_largest(*each) for each in rows), default=0)
    return sums


def extreme_inputs(model: onnx.ModelProto) -> dict[str, Array]:
    """Samples of a file's only input: all largest, all smallest, and two that are random."""
    (value,) = model.graph.input
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    random = np.random.default_rng(0).integers(low, high, (2, *shape), dtype, endpoint=True)
    return {value.name: np.concatenate([np.full((1, *shape), high, dtype), np.full((1, *shape), low, dtype), random])}


def _products(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str, str]]:
    """Each node that multiplies bytes, and the names of both."""
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in _OPERANDS:
            left, right = _OPERANDS[node.op_type]
            yield node, node.input[left], node.input[right]
        elif node.op_type in _FUSED:
            sources = [producers.get(name) for name in node.input[:2]]
            if all(source is not None and source.op_type == "DequantizeLinear" for source in sources):
                left, right = (source.input[0] for source in sources)
                if node.op_type == "Gemm":
                    left = _before_reshape(producers, left)
                yield node, left, right


def _before_reshape(producers: dict[str, onnx.NodeProto], name: str) -> str:
    return name if name not in producers or producers[name].op_type != "Reshape" else producers[name].input[0]


def _values(model: onnx.ModelProto, feeds: dict[str, Array], names: list[str]) -> dict[str, Array]:
    """What the file computes inside."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, feeds), strict=True)) if names else {}


def _rows(
    model: onnx.ModelProto, node: onnx.NodeProto, x: Array, weight: Array, values: dict[str, Array]
) -> Iterator[tuple[Array, Array]]:
    """For each group the inputs [positions, terms] and the weights [outputs, terms], in the order of the kernel."""
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type in ("QLinearConv", "Conv"):
        group = attributes.get("group", 1)
        if group == x.shape[1] == len(weight):  # the kernel of depthwise convolutions adds no pairs
            return
        zero = int(values[node.input[2]].item()) if node.op_type == "QLinearConv" else 0
        images, kernels = np.split(x, group, 1), np.split(weight, group, 0)
        for image, kernel in zip(images, kernels, strict=True):
            yield _columns(image, kernel.shape[2:], attributes, zero), _last(kernel).reshape(len(kernel), -1)
        return
    transposed = weight if attributes.get("transB") else np.swapaxes(weight, -1, -2)
    yield x.reshape(-1, transposed.shape[-1]), transposed.reshape(-1, transposed.shape[-1])


def _columns(image: Array, kernel: tuple[int, ...], attributes: dict[str, Any], zero: int) -> Array:
    """Each window of an image [N, C, *size] as a row, position after position, its channels innermost."""
    rank = len(kernel)
    pads, strides = attributes.get("pads", [0] * 2 * rank), attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    widths = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    padded = np.pad(image, widths, constant_values=zero)
    reach = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(2, 2 + rank)))
    places = tuple(slice(None, None, stride) for stride in strides)
    taps = tuple(slice(None, None, step) for step in dilations)
    windows = windows[(slice(None), slice(None), *places, *taps)]
    return np.moveaxis(windows, 1, -1).reshape(-1, int(np.prod(kernel)) * image.shape[1])


def _last(kernel: Array) -> Array:
    return np.moveaxis(kernel, 1, -1)


def _largest(x: Array, weight: Array) -> int:
    """The largest absolute sum of the products of terms 0 and 1, 2 and 3, and so on."""
    odd = x.shape[1] % 2
    left = np.pad(x.astype(np.int64), [(0, 0), (0, odd)])
    right = np.pad(weight.astype(np.int64), [(0, 0), (0, odd)])
    return max(int(np.abs(left[:, ::2] * row[::2] + left[:, 1::2] * row[1::2]).max()) for row in right)
