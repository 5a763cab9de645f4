"""The outputs of a float layer in a file: no integers, so two evaluations may differ in the last bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ana_fx.targets.files.metadata import FLOAT_INPUT
from ana_fx.targets.float_tolerance import rounding_of_two

__all__ = ["float_inputs", "float_layer_tolerance"]


def float_inputs(model: onnx.ModelProto) -> list[str]:
    """The names of what the float layers read, none if there are none."""
    listed = {entry.key: entry.value for entry in model.metadata_props}.get(FLOAT_INPUT, "")
    return listed.split("\n") if listed else []


def float_layer_tolerance(model: onnx.ModelProto, name: str, x: np.ndarray[Any, Any]) -> float:
    """How far two float32 evaluations of the float layer that reads a value can be apart, given what it read.

    It is the sum of the magnitudes, at most max|x| · max Σ|weight| + max|bias|, times `rounding_of_two`.
    """
    layer = next(node for node in model.graph.node if name in node.input)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    weight = np.abs(numpy_helper.to_array(constants[layer.input[1]])).astype(np.float64)
    rows = weight.T if layer.op_type == "MatMul" else weight.reshape(len(weight), -1)
    after = [node for node in model.graph.node if layer.output[0] in node.input and node.op_type == "Add"]
    biases = [constants[each] for node in (layer, *after) for each in node.input[-1:] if each != layer.input[1]]
    bias = max((float(np.abs(numpy_helper.to_array(each)).max()) for each in biases), default=0.0)
    largest = float(np.abs(x).max()) * float(rows.sum(1).max()) + bias
    return largest * rounding_of_two(rows.shape[1] + 1)
