"""The operators that files of ours have; no other is run."""

from __future__ import annotations

from pathlib import Path

import onnx

from ana_fx.errors import VerifyError
from ana_fx.target import Target
from ana_fx.targets.onnx.dialect import dialect_of
from ana_fx.text.plain_text import plain

__all__ = ["OPERATORS", "check_operators"]

_STANDARD = """
    Add Cast Clip Concat Conv ConvInteger DequantizeLinear Div Expand Floor Gather Gemm GreaterOrEqual Identity Less
    MatMul MatMulInteger Max MaxPool Min Mul Pad QLinearConv QLinearMatMul QuantizeLinear ReduceMax ReduceSum Reshape
    Shape Slice Sub Transpose
"""
_OTHERS = {
    "com.microsoft": "QGemm QLinearAdd QLinearMul",
    "PACTOps": "RequantShift",
    "qonnx.custom_op.general": "BipolarQuant MultiThreshold Quant",
}
OPERATORS = frozenset(
    {
        *(("", name) for name in _STANDARD.split()),
        *((domain, name) for domain, names in _OTHERS.items() for name in names.split()),
    }
)
"""Domain and name of each operator that a dialect of ours writes."""


def check_operators(path: Path, model: onnx.ModelProto, target: Target | None) -> None:
    """Refuse a file with an operator that neither our dialects write nor that of its target.

    So nothing is run that loops, branches, reads files or imports code: runtimes import what a domain names.

    Args:
        path: The file.
        model: What stands in it.
        target: What it says it is for, if that is known.

    Raises:
        VerifyError: It has such operators.
    """
    used = {("" if node.domain == "ai.onnx" else node.domain, node.op_type) for node in model.graph.node}
    allowed = OPERATORS if target is None else OPERATORS | dialect_of(target).more_operators
    others = sorted(used - allowed)
    if others:
        names = ", ".join(plain(f"{domain}::{name}" if domain else name, 60) for domain, name in others[:5])
        raise VerifyError(
            f"{path} is not run: {len(others)} kind(s) of its operators are none that export() writes: {names}"
        )
