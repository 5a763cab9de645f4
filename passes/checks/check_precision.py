"""Refuse a precision with patterns that match no layer map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from ana_fx.errors import PrecisionError, listing
from ana_fx.graph import calls_to
from ana_fx.layers.layer_map import LayerMap
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.fusion.fused_graph import FUSED
from ana_fx.passes.quantization.first_last_precision import precision_of
from ana_fx.text.patterns import listed, unmatched

__all__ = ["CheckPrecision"]


@dataclass(frozen=True)
class CheckPrecision(Pass):
    """Refuse overrides that match no layer map: what was meant would silently get another width.

    before   layer maps, requantizers included
    after    the same
    """

    name: ClassVar[str] = "check-precision"
    requires: ClassVar[Dialect] = FUSED
    ensures: ClassVar[Dialect] = FUSED

    def run(self, gm: GraphModule) -> bool:
        paths = [str(node.target) for node in calls_to(gm, LayerMap)]
        problems = unmatched(precision_of(gm).overrides, paths, "layer map")
        if problems:
            raise PrecisionError(
                listing(
                    f"{len(problems)} override(s) do not fit the model:",
                    problems,
                    f"its layer maps are {listed(paths)}",
                )
            )
        return False
