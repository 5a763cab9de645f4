"""The attributes of Conv and its relatives."""

from __future__ import annotations

from typing import Any

from ana_fx.operators.affine import Affine, Convolution
from ana_fx.operators.resampling import Average

__all__ = ["has_one_window", "pooling_attributes"]


def has_one_window(affine: Affine, shape: tuple[int, ...]) -> bool:
    """Whether an average's windows are of one size."""
    return isinstance(affine, Average) and affine.window((1, *shape)) is not None


def pooling_attributes(affine: Any, num_channels: int) -> dict[str, Any]:
    """The attributes of a convolution, or of the depthwise one that sums what an average averages."""
    if isinstance(affine, Convolution):
        befores, afters = zip(*affine.padding, strict=True)
        return {
            "strides": list(affine.stride),
            "pads": [*befores, *afters],
            "dilations": list(affine.dilation),
            "group": affine.groups,
        }
    if isinstance(affine, Average):
        return {
            "strides": list(affine.stride),
            "pads": [*affine.padding, *affine.padding],
            "group": num_channels,
        }
    return {}
