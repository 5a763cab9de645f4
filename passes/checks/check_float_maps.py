"""Refuse float layer maps whose outputs no QuantizeLinear gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from ana_fx.errors import PrecisionError, listing
from ana_fx.graph import calls_of, location
from ana_fx.layers.float_map import FloatMap
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.quantization.quantized_graph import QUANTIZED
from ana_fx.precision.rounding import Rounding

__all__ = ["CheckFloatMaps"]


@dataclass(frozen=True)
class CheckFloatMaps(Pass):
    """Raise PrecisionError with every float map whose levels are not the nearest of a range. Changes nothing.

    A codebook's thresholds, and those that a static mean of the noise moves, are no QuantizeLinear's.
    """

    name: ClassVar[str] = "check-float-maps"
    requires: ClassVar[Dialect] = QUANTIZED
    ensures: ClassVar[Dialect] = QUANTIZED

    def run(self, gm: GraphModule) -> bool:
        refused = []
        for node, layer_map in calls_of(gm, FloatMap):
            quantizer = layer_map.output_quantizer
            if quantizer is None:
                continue
            if quantizer.integer_type.levels:
                refused.append(
                    f"{location(node)}: its output is {quantizer.integer_type}, needed all levels of a range"
                )
            if quantizer.offset != Rounding.NEAREST.offset:
                refused.append(f"{location(node)}: its thresholds are moved by the schedule or rounding='floor'")
        if refused:
            raise PrecisionError(
                listing(
                    f"{len(refused)} float layer map(s) give levels that are not the nearest ones:",
                    refused,
                    "say overrides={pattern: Precision(activation='uint8', stays_float=True)}, and a schedule whose "
                    "mean vanishes",
                )
            )
        return False
