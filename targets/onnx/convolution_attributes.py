"""The attributes of Conv and its relatives."""

from __future__ import annotations

from typing import Any

from ana_fx.operators.average import Average
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution

__all__ = ["has_one_window", "pooling_attributes"]


def has_one_window(operator: Operator, shape: tuple[int, ...]) -> bool:
    """Whether an average's windows are of one size."""
    return isinstance(operator, Average) and operator.window((1, *shape)) is not None


def pooling_attributes(operator: Any, num_channels: int) -> dict[str, Any]:
    """The attributes of a convolution, or of the depthwise one that sums what an average averages."""
    if isinstance(operator, Convolution):
        befores, afters = zip(*operator.padding, strict=True)
        return {
            "strides": list(operator.stride),
            "pads": [*befores, *afters],
            "dilations": list(operator.dilation),
            "group": operator.groups,
        }
    if isinstance(operator, Average):
        return {
            "strides": list(operator.stride),
            "pads": [*operator.padding, *operator.padding],
            "group": num_channels,
        }
    return {}
