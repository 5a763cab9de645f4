"""The attributes of Conv and its relatives."""

from __future__ import annotations

from typing import Any

from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution

__all__ = ["convolution_attributes", "window_attributes"]


def convolution_attributes(operator: Convolution) -> dict[str, Any]:
    """Return the attributes of a convolution."""
    befores, afters = zip(*operator.padding, strict=True)
    return {
        "strides": list(operator.stride),
        "pads": [*befores, *afters],
        "dilations": list(operator.dilation),
        "group": operator.groups,
    }


def window_attributes(operator: Average, num_channels: int) -> dict[str, Any]:
    """Return those of the depthwise convolution that sums what an average with windows of one size averages."""
    return {
        "strides": list(operator.stride),
        "pads": [*operator.padding, *operator.padding],
        "group": num_channels,
    }
