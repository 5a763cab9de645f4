"""Scales that are not known are refused when a model is converted."""

from __future__ import annotations

import pytest

import ana_fx
from tests.models import Residual, example


def test_unknown_scales_are_all_listed():
    qat = ana_fx.prepare(Residual(), example(Residual))
    with pytest.raises(ana_fx.CalibrationError) as caught:
        ana_fx.convert(qat)
    for key in (
        "4 scale(s) are not known yet",
        "x_quantizer",
        "blocks.0.add.output_quantizer",
        "mean.output_quantizer",
    ):
        assert key in str(caught.value)
