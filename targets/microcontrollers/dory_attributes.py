"""Attributes of the DORY dialect that ONNX's operators do not have."""

from __future__ import annotations

import onnx

__all__ = ["ADD_ATTRIBUTES", "WIDTH_ATTRIBUTES", "without_dory_attributes"]

WIDTH_ATTRIBUTES = frozenset({"weight_bits", "out_bits"})
ADD_ATTRIBUTES = frozenset(
    {
        *(f"{place}_{name}" for place in ("in1", "in2", "out") for name in ("mul", "add", "shift", "n_levels", "rq")),
        "out_signed",
        "add_bits",
    }
)


def _is_foreign(name: str) -> bool:
    """Whether only the DORY dialect knows that attribute."""
    return name in WIDTH_ATTRIBUTES or name in ADD_ATTRIBUTES


def without_dory_attributes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as ONNX's checker knows it; the same one if it has none of these attributes."""
    if not any(_is_foreign(attribute.name) for node in model.graph.node for attribute in node.attribute):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        for attribute in [each for each in node.attribute if _is_foreign(each.name)]:
            node.attribute.remove(attribute)
    return copy
