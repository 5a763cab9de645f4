"""A target in a package of its own: the integer dialect for readers whose Cast knows no 8-bit types.

onnx2c, which turns ONNX into C, is such a reader. Install this folder with pip, and
`ana_fx.prepare(model, target="onnx2c")` and `ana_fx.export(program, path, target="onnx2c")` work:
the entry point in pyproject.toml names TARGET, TARGET names the emitter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ana_fx import Target
from ana_fx.targets.dialects.integer import IntegerEmitter

__all__ = ["TARGET", "Onnx2cEmitter"]

_BYTES = (ir.DataType.INT8, ir.DataType.UINT8)


@dataclass(frozen=True)
class Onnx2cEmitter(IntegerEmitter):
    """The operators of the integer target; levels become bytes by QuantizeLinear with scale 1.

    They pass through float32 on the way, which holds them exactly.
    """

    opset: ClassVar[int] = 13
    ir_version: ClassVar[int] = 8

    def finish(self, model: ir.Model) -> ir.Model:
        """Replace what narrows."""
        casts = [node for node in model.graph if node.op_type == "Cast" and node.outputs[0].dtype in _BYTES]
        for cast in casts:
            _quantize_instead(model.graph, cast)
        return model


def _quantize_instead(graph: ir.Graph, cast: ir.Node) -> None:
    """QuantizeLinear with scale 1 and zero point 0 in the place of a cast."""
    (old,) = cast.outputs
    assert old.dtype is not None
    settings = []
    for suffix, array in (("one", np.float32(1.0)), ("zero", old.dtype.numpy().type(0))):
        constant = ir.Value(name=f"{old.name}.{suffix}", const_value=ir.tensor(np.asarray(array)))
        graph.register_initializer(constant)
        settings.append(constant)
    as_float = ir.node("Cast", [cast.inputs[0]], {"to": ir.DataType.FLOAT}, name=f"{cast.name}.float")
    quantize = ir.node("QuantizeLinear", [as_float.outputs[0], *settings], name=cast.name)
    (new,) = quantize.outputs
    new.name, new.type, new.shape = old.name, old.type, old.shape
    ir.convenience.replace_nodes_and_values(graph, cast, [cast], [as_float, quantize], [old], [new])


TARGET = Target(
    "onnx2c",
    "the integer dialect without casts to bytes, for onnx2c: C for microcontrollers",
    emitter="onnx2c_target:Onnx2cEmitter",
    operators=frozenset({"average", "convolution", "identity", "linear", "max_pool", "movement", "sum"}),
    holds_floats=False,
    borders=("integer",),
)
