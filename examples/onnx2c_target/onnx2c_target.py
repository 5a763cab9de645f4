"""A target in a package of its own: the integer dialect for readers whose Cast knows no 8-bit types.

onnx2c, which turns ONNX into C, is such a reader. Install this folder with pip, and
`ana_fx.prepare(model, target="onnx2c")` and `ana_fx.export(program, path, target="onnx2c")` work:
the entry point in pyproject.toml names TARGET, TARGET names DIALECT, which extends a dialect of ana_fx.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ana_fx import Target
from ana_fx.targets.dialects.integer import INTEGER

__all__ = ["DIALECT", "TARGET"]

_BYTES = (ir.DataType.INT8, ir.DataType.UINT8)


def narrow_by_quantizing(model: ir.Model) -> ir.Model:
    """Let levels become bytes by QuantizeLinear with scale 1 rather than by Cast.

    They pass through float32 on the way, which holds them exactly.
    """
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


DIALECT = INTEGER.extended(opset=13, ir_version=8, finish=narrow_by_quantizing)

TARGET = Target(
    "onnx2c",
    "the integer dialect without casts to bytes, for onnx2c: C for microcontrollers",
    emitter="onnx2c_target:DIALECT",
    operators=frozenset({"average", "convolution", "identity", "linear", "max_pool", "movement", "sum"}),
    holds_floats=False,
    borders=("integer",),
)
