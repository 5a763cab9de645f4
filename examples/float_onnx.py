"""The float network as an ONNX file, the baseline that integer files are compared with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["export_float"]


def export_float(net: nn.Sequential, sample_shape: Sequence[int], path: Path) -> None:
    """Write a chain of layers, batch norms folded into the convolutions as any deployment would do.

    Args:
        net: The trained network: Conv2d, BatchNorm2d, ReLU, MaxPool2d, Flatten, Linear; it is not touched.
        sample_shape: Shape of one input, without the batch.
        path: The file to write.

    Raises:
        TypeError: There is another layer in `net`.
    """
    tape = ir.tape.Tape()
    image = ir.Value(name="input", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", *sample_shape]))
    value = image
    for name, layer in _folded(net):
        operator, attributes = _operator(layer)
        tensors = [
            tape.initializer(ir.tensor(parameter.detach().numpy()), f"{name}.{kind}")
            for kind, parameter in layer.named_parameters()
        ]
        value = tape.op(operator, [value, *tensors], attributes, name=name)
    value.name, value.type = "output", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [image],
        [value],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": 17},
        name="float",
    )
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(ir.Model(graph, ir_version=8)))
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def _folded(net: nn.Sequential) -> list[tuple[str, nn.Module]]:
    layers: list[tuple[str, nn.Module]] = []
    for name, layer in copy.deepcopy(net).cpu().eval().named_children():
        if isinstance(layer, nn.BatchNorm2d) and layers and isinstance(layers[-1][1], nn.Conv2d):
            layers[-1] = (layers[-1][0], fuse_conv_bn_eval(layers[-1][1], layer))
        else:
            layers.append((name, layer))
    return layers


def _operator(layer: nn.Module) -> tuple[str, dict[str, list[int] | int]]:
    """The ONNX operator for a layer, and its attributes."""
    if isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str):
        pads = [*layer.padding, *layer.padding]
        return "Conv", {"pads": pads, "strides": list(layer.stride), "group": layer.groups}
    if isinstance(layer, nn.MaxPool2d):
        kernel, stride = np.broadcast_to(layer.kernel_size, 2), np.broadcast_to(layer.stride, 2)
        return "MaxPool", {"kernel_shape": kernel.tolist(), "strides": stride.tolist()}
    if isinstance(layer, nn.Linear):
        return "Gemm", {"transB": 1}
    if isinstance(layer, (nn.ReLU, nn.Flatten)):
        return {nn.ReLU: "Relu", nn.Flatten: "Flatten"}[type(layer)], {}
    raise TypeError(f"no float ONNX for {layer}; needed Conv2d, BatchNorm2d, ReLU, MaxPool2d, Flatten or Linear")
