"""For each formula whose slope follows from scales how a staircase is fitted to a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from ana_fx.requantizers.agreed_staircase import fit_agreed
from ana_fx.requantizers.fixed_point_staircase import STEEPEST, fit_fixed_point
from ana_fx.requantizers.line_fit import LineFit, fit_qlinear
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.requantizers.staircase import Staircase

__all__ = ["KERNEL_FITS"]

KERNEL_FITS: Mapping[Requantizer, Callable[[LineFit, int], tuple[Staircase, Tensor]]] = {
    Requantizer.QLINEAR: fit_qlinear,
    Requantizer.XNNPACK: partial(fit_qlinear, steepest=STEEPEST),
    Requantizer.EVERY_TFLITE: fit_agreed,
    **{
        rounding: partial(fit_fixed_point, rounding=rounding)
        for rounding in (Requantizer.Q31, Requantizer.Q31_HALF_UP, Requantizer.SINGLE_ROUNDING)
    },
}
"""From a line and the head-room of the weights to the staircase nearest to it, and the sign of each channel."""
