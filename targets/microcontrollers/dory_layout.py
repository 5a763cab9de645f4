"""What DORY's parser skips and what its kernels pack: layouts that they take."""

from __future__ import annotations

from torch import Tensor
from torch.fx import Node

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.tensor_spec import sample_shape_of

__all__ = ["flatten_reasons", "packing_reasons", "stride_reasons", "weight_bits"]

_WIDTHS = (2, 4, 8)
_BYTE = 8


def weight_bits(weight: Tensor) -> int:
    """The narrowest width that holds the weights, if rows of it fill whole bytes."""
    lowest, highest, length = int(weight.min()), int(weight.max()), weight[0].numel()
    return next(
        bits
        for bits in _WIDTHS
        if bits == _BYTE or (-(2 ** (bits - 1)) <= lowest and highest < 2 ** (bits - 1) and length * bits % _BYTE == 0)
    )


def flatten_reasons(node: Node) -> list[str]:
    """Say why a reshape cannot be skipped, as the parser does: it must flatten what was computed last."""
    (source,) = node.all_input_nodes
    reasons = []
    if len(sample_shape_of(node)) > 1:
        reasons.append(f"it reshapes to {sample_shape_of(node)}, needed one axis: DORY flattens only")
    if source is not node.prev:
        reasons.append("something stands between it and what it reshapes, needed nothing: move it up")
    return reasons


def packing_reasons(node: Node, integer_type: IntegerType) -> list[str]:
    """Say why levels do not fill whole bytes: they lie side by side, channel after channel."""
    channels = sample_shape_of(node)[0]
    if channels * integer_type.bits % _BYTE == 0:
        return []
    return [f"its {channels} channels of {integer_type.bits} bits do not fill bytes, needed whole bytes or 8 bits"]


def stride_reasons(stride: tuple[int, ...]) -> list[str]:
    """Say why strides are refused: kernels step equally along both axes."""
    return [] if len(set(stride)) == 1 else [f"its strides are {stride}, needed one for both axes"]
