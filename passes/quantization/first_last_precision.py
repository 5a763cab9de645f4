"""Which layers stand at the ends of a network, and the precision that these have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch.fx import GraphModule, Node

from ana_fx.graph import layer_map_of
from ana_fx.layers.image_normalization import ImageNormalization
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import is_movement, is_shape, passes_levels
from ana_fx.passes.fusion.fused_graph import FUSED
from ana_fx.precision.precision import Precision

__all__ = ["FirstLastPrecision", "precision_of"]

_KEY = "precision"  # of `GraphModule.meta`


def precision_of(gm: GraphModule) -> Precision:
    """The precision of a graph's layer maps, which `FirstLastPrecision` noted."""
    precision: Precision = gm.meta[_KEY]
    return precision


@dataclass(frozen=True)
class FirstLastPrecision(Pass):
    """Note the precision with `first` and `last` turned into overrides of the layers they mean; own overrides win.

    before   Precision("int4", "uint4", last="int8")
    after    Precision("int4", "uint4", overrides={"head": Precision("int8", "uint4")})

    A first layer has a weight and reads a model input, a last one has a weight and its output leaves the model; what
    only moves numbers may lie between, and behind an input the normalisation of an image. A layer that is both is a
    last one. The graph is left as it is; passes behind this one ask `precision_of` it.

    Args:
        precision: As the user gave it.
    """

    name: ClassVar[str] = "first-last-precision"
    requires: ClassVar[Dialect] = FUSED
    ensures: ClassVar[Dialect] = FUSED
    precision: Precision

    def run(self, gm: GraphModule) -> bool:
        before, gm.meta[_KEY] = gm.meta.get(_KEY), _with_overrides(self.precision, gm)
        return bool(precision_of(gm) != before)


def _with_overrides(precision: Precision, gm: GraphModule) -> Precision:
    weights: dict[str, IntegerType] = {}
    if precision.first is not None:
        weights |= dict.fromkeys(_first_layers(gm), precision.first)
    if precision.last is not None:
        weights |= dict.fromkeys(_last_layers(gm), precision.last)
    plain = replace(precision, first=None, last=None, overrides={})
    ends = {path: replace(plain, weight=weight) for path, weight in weights.items()}
    return replace(plain, overrides={**ends, **precision.overrides})


def _first_layers(gm: GraphModule) -> list[str]:
    inputs: set[Node] = set()
    first = []
    for node in gm.graph.nodes:
        operands = [each for each in node.all_input_nodes if not is_shape(each)]
        reads_input = any(each in inputs for each in operands)
        hands_on = passes_levels(node) or isinstance(layer_map_of(node), ImageNormalization)
        if node.op == "placeholder" or (hands_on and reads_input):
            inputs.add(node)
        elif reads_input and _has_weight(node):
            first.append(str(node.target))
    return first


def _last_layers(gm: GraphModule) -> list[str]:
    leaving: set[Node] = set()
    last = []
    for node in reversed(gm.graph.nodes):
        if node.op == "output" or (is_movement(node) and node in leaving):
            leaving.update(node.all_input_nodes)
        elif node in leaving and _has_weight(node):
            last.append(str(node.target))
    return last


def _has_weight(node: Node) -> bool:
    layer_map = layer_map_of(node)
    return layer_map is not None and getattr(layer_map, "weight", None) is not None
