"""Refuse at `convert` a model with scales that are not known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from ana_fx.errors import CalibrationError, listing
from ana_fx.graph import quantizers
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.quantization.quantized_graph import QUANTIZED

__all__ = ["CheckCalibrated"]


@dataclass(frozen=True)
class CheckCalibrated(Pass):
    """Raise CalibrationError with every quantizer whose scale is not known. Changes nothing."""

    name: ClassVar[str] = "check-calibrated"
    requires: ClassVar[Dialect] = QUANTIZED
    ensures: ClassVar[Dialect] = QUANTIZED

    def run(self, gm: GraphModule) -> bool:
        missing = [name for name, quantizer in quantizers(gm) if not quantizer.is_calibrated]
        if missing:
            raise CalibrationError(
                listing(
                    f"{len(missing)} scale(s) are not known yet:",
                    missing,
                    "run a training batch through the model in train(), or give prepare(..., calibration=batches); a "
                    "quantizer that saw nothing but zeros can be told one by set_scale()",
                )
            )
        return False
