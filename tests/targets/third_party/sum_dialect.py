"""What a package of another author holds that writes sums by ONNX's Sum: one writer, one target, one entry point."""

from __future__ import annotations

import onnx_ir as ir

from ana_fx import Target
from ana_fx.operators.sum import Sum
from ana_fx.targets.dialects.integer import INTEGER
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.writers.write_requantizer import requantized

__all__ = ["DIALECT", "TARGET"]


def write_sum(w: NodeWriter, op: Sum) -> ir.Value:
    """Sum of the products with the coefficients, in float32, which the Sum of onnxruntime takes and which is exact."""
    assert w.weight is not None
    floats = w.typed(ir.DataType.FLOAT)
    terms = [
        floats.op("Mul", floats.levels(x), floats.number(coefficient, "coefficient"), shape=x.shape)
        for x, coefficient in zip(w.inputs, w.weight.tolist(), strict=True)
    ]
    total = floats.op("Sum", *terms)
    w.note(operator="Sum")
    return w.cast(total, ir.DataType.INT32)


DIALECT = INTEGER.extended({Sum: requantized(write_sum)}, more_operators=frozenset({("", "Sum")}))

TARGET = Target("sum", "the integer dialect with sums by Sum", emitter=f"{__name__}:DIALECT")
