"""MUL in the kernels of TFLite, and whether it gives a product's trained levels.

XNNPACK     rint(float32(p) · ((xa · xb) / y)), p = (a − za) · (b − zb)
the others  p times a multiplier of 31 bits that comes near to (xa · xb) / y, halved and rounded as in a convolution

These are the formulas of convolutions, with the second tensor's scale for the weight's.
"""

from __future__ import annotations

import numpy as np
import torch

from ana_fx.program.integer_layers import IntegerMap
from ana_fx.requantizers.fixed_point_staircase import in_fixed_point
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.requantizers.staircase import QLinearStaircase, ScaledStaircase, Staircase

__all__ = ["mul_scale"]

_FIXED_POINT = (Requantizer.Q31, Requantizer.Q31_HALF_UP, Requantizer.SINGLE_ROUNDING)


def mul_scale(module: IntegerMap, scales: tuple[np.float32, np.float32], requantizer: Requantizer) -> np.float32 | None:
    """Find the scale of the second tensor with which MUL gives the level of every product, in all kernels.

    Args:
        module: The product.
        scales: The scales of its two tensors, float32.
        requantizer: The formula that says which kernels the target names.

    Returns:
        The second tensor's own scale or the trained one, which may differ in a digit; None if there is neither.
    """
    trained = module.staircase
    if not isinstance(trained, ScaledStaircase) or max(trained.bias.numel(), trained.weight_scale.numel()) > 1:
        return None
    if int(trained.bias) != 0 or module.sign.tolist() != [1] or trained.factor != 1:
        return None
    products = torch.arange(int(module.lowest.min()), int(module.highest.max()) + 1)[None]
    wanted = module.multiply_shift.level(products, 0)
    for scale in (scales[1], np.float32(float(trained.weight_scale))):
        first, second = (torch.tensor([float(each)], dtype=torch.float32) for each in (scales[0], scale))
        own = QLinearStaircase(trained.lo, trained.hi, 1, trained.bias, first[0], second, trained.y_scale)
        if all(torch.equal(kernel.level(products, 0), wanted) for kernel in _kernels(own, requantizer)):
            return scale
    return None


def _kernels(staircase: QLinearStaircase, requantizer: Requantizer) -> list[Staircase]:
    """The staircases that the kernels named by a target compute."""
    if requantizer is Requantizer.XNNPACK:
        return [staircase]
    if requantizer is Requantizer.Q31:
        return [in_fixed_point(staircase, requantizer)]
    return [staircase, *(in_fixed_point(staircase, rounding) for rounding in _FIXED_POINT)]
