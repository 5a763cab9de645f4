"""Attributes that a dialect's readers expect and ONNX does not have."""

from __future__ import annotations

from collections.abc import Set

import onnx

__all__ = ["without_attributes"]


def without_attributes(model: onnx.ModelProto, names: Set[str]) -> onnx.ModelProto:
    """The model without attributes of these names, as ONNX's checker knows it; the same one if it has none."""
    if not any(attribute.name in names for node in model.graph.node for attribute in node.attribute):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        for attribute in [each for each in node.attribute if each.name in names]:
            node.attribute.remove(attribute)
    return copy
