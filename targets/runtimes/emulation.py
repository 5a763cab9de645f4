"""Running files of the Deeploy and DORY dialects in the arithmetic of their kernels, without these tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

__all__ = ["ADD_ATTRIBUTES", "WIDTH_ATTRIBUTES", "emulate"]

WIDTH_ATTRIBUTES = frozenset({"weight_bits", "out_bits"})
"""What DORY's operators say of widths, which no number depends on."""
ADD_ATTRIBUTES = frozenset(
    {
        *(f"{place}_{name}" for place in ("in1", "in2", "out") for name in ("mul", "add", "shift", "n_levels", "rq")),
        "out_signed",
        "add_bits",
    }
)
"""What DORY's sum says of its requantizers."""

_Array = np.ndarray[Any, Any]


class RequantShift(OpRun):
    """Deeploy's: a multiplication, an addition and a shift that rounds to the nearest, then a clip."""

    op_domain = "PACTOps"

    def _run(
        self, x: _Array, multiplier: _Array, addend: _Array, div: _Array, n_levels_out: _Array, signed: _Array
    ) -> tuple[_Array]:
        divisor, num_levels = int(div.item()), int(n_levels_out.item())
        lowest = -(num_levels // 2) if signed.item() else 0
        total = _integers(x) * _integers(multiplier) + _integers(addend) + divisor // 2
        return (np.clip(total // divisor, lowest, lowest + num_levels - 1).astype(np.float64),)


class Add(OpRun):
    """DORY's sum of two tensors, which requantises; every other Add as ONNX has it."""

    op_domain = ""

    def _run(self, x: _Array, y: _Array, **attributes: Any) -> tuple[_Array]:
        if not attributes:
            return (x + y,)
        first, second = (
            (_integers(each) * attributes[f"{place}_mul"] + attributes[f"{place}_add"]) >> attributes[f"{place}_shift"]
            for place, each in (("in1", x), ("in2", y))
        )
        levels = ((first + second) * attributes["out_mul"] + attributes["out_add"]) >> attributes["out_shift"]
        lowest = -(attributes["out_n_levels"] // 2) if attributes["out_signed"] else 0
        return (np.clip(levels, lowest, lowest + attributes["out_n_levels"] - 1).astype(np.float64),)


def emulate(model: onnx.ModelProto, inputs: Mapping[str, _Array]) -> list[_Array]:
    """The integers that a file computes, sample after sample.

    Floats are float64 here, so that sums of products are exact as they are in the kernels' 32-bit integers.

    Args:
        model: A file with a batch of one.
        inputs: Integers for each input of the file, in its order, with a batch axis of any length.

    Raises:
        ValueError: They have other shapes than the file's inputs.
    """
    for value, array in zip(model.graph.input, inputs.values(), strict=True):
        shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])
        if array.shape[1:] != shape:
            raise ValueError(f"samples of input {value.name!r} are {array.shape[1:]}, needed {shape}")
    evaluator = ReferenceEvaluator(_in_float64(model), new_ops=[RequantShift, Add])
    names = [value.name for value in model.graph.input]
    samples = [
        evaluator.run(None, {name: each[None].astype(np.float64) for name, each in zip(names, sample, strict=True)})
        for sample in zip(*inputs.values(), strict=True)
    ]
    return [_integers(np.concatenate(outputs)) for outputs in zip(*samples, strict=True)]


def _in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in copy.graph.node:
        for attribute in list(node.attribute):
            if node.op_type == "Cast":
                attribute.i = TensorProto.DOUBLE
            if attribute.name in WIDTH_ATTRIBUTES:
                node.attribute.remove(attribute)
    return copy


def _integers(x: _Array) -> _Array:
    """Floats that hold integers, as int64."""
    integers = x.astype(np.int64)
    assert bool((integers == x).all())
    return integers
