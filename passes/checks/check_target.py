"""Refuse at `prepare` what the target cannot hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from ana_fx.errors import PrecisionError, listing
from ana_fx.graph import calls_to, location, module_of
from ana_fx.layers.constant_map import ConstantMap
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.softmax_map import SoftmaxMap
from ana_fx.passes.base_pass import Pass
from ana_fx.target import LayerNeeds, Target

__all__ = ["CheckTarget"]


@dataclass(frozen=True)
class CheckTarget(Pass):
    """Raise PrecisionError with every layer map that the target cannot hold. Changes nothing.

    Requires quantizers.

    Args:
        target: Where the model will run.
    """

    name: ClassVar[str] = "check-target"
    target: Target

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        refused = [
            f"{location(node)}: {reason}"
            for node in calls_to(gm, LayerMap)
            for reason in self.target.refusals(_needs(module_of(node)))
        ]
        if refused:
            way_out = "change precision, the network or the target; ana_fx.targets() says what each accepts"
            raise PrecisionError(listing(f"target {self.target.name!r} cannot hold the model:", refused, way_out))
        return False


def _needs(layer_map: object) -> LayerNeeds:
    assert isinstance(layer_map, LayerMap)
    output = None if layer_map.output_quantizer is None else layer_map.output_quantizer.integer_type
    inputs = tuple(layer_map.input_types)
    if isinstance(layer_map, OperatorMap):
        quantizer = layer_map.weight_quantizer
        return LayerNeeds(
            layer_map.operator.kind,
            weight=None if quantizer is None else quantizer.integer_type,
            inputs=inputs,
            output=output,
            num_gains=_num_gains(layer_map),
            num_axes=getattr(layer_map.operator, "rank", 0),
            leaves_float=not inputs,
            clips_negative=-math.inf < layer_map.clip_range.minimum < 0,
        )
    kind = "constant" if isinstance(layer_map, ConstantMap) else "table"
    return LayerNeeds("softmax" if isinstance(layer_map, SoftmaxMap) else kind, inputs=inputs, output=output)


def _num_gains(layer_map: OperatorMap) -> int:
    """The slopes of its requantizer."""
    if layer_map.output_quantizer is None:
        return 1
    if layer_map.norm is not None and layer_map.norm.weight is not None:
        return layer_map.norm.weight.numel()
    return 1 if layer_map.weight_quantizer is None else layer_map.weight_quantizer.scale.numel()
