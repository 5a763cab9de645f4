"""Refuse at `prepare` what the target cannot hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from ana_fx.errors import PrecisionError, listing
from ana_fx.graph import layer_map_calls, location
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.quantization.quantized_graph import QUANTIZED
from ana_fx.target import Target

__all__ = ["CheckTarget"]


@dataclass(frozen=True)
class CheckTarget(Pass):
    """Raise PrecisionError with every layer map that the target cannot hold. Changes nothing.

    Requires quantizers.

    Args:
        target: Where the model will run.
    """

    name: ClassVar[str] = "check-target"
    requires: ClassVar[Dialect] = QUANTIZED
    ensures: ClassVar[Dialect] = QUANTIZED
    target: Target

    def run(self, gm: GraphModule) -> bool:
        refused = [
            f"{location(node)}: {reason}"
            for node, layer_map in layer_map_calls(gm)
            for reason in self.target.refusals(layer_map.needs())
        ]
        if refused:
            way_out = "change precision, the network or the target; ana_fx.targets() says what each accepts"
            raise PrecisionError(listing(f"target {self.target.name!r} cannot hold the model:", refused, way_out))
        return False
