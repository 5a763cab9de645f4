"""Layer maps that stay in floats where the precision says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from ana_fx.errors import PrecisionError, listing
from ana_fx.graph import calls_of, layer_map_calls, location, module_of
from ana_fx.layers.float_map import FloatMap
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.operators.operator_list import operators
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import is_dropout, is_movement, is_shape
from ana_fx.passes.fusion.fused_graph import FUSED
from ana_fx.passes.quantization.first_last_precision import precision_of

__all__ = ["KeepFloat", "handing_on_reals"]


@dataclass(frozen=True)
class KeepFloat(Pass):
    """Make the layer maps that stay in floats float maps, and note which ones.

    before   a -> layer map -> layer map -> b, with overrides={"a": "float"}
    after    a -> float map -> layer map -> b

    A sum, an average or a table that reads integers alone stays in integers, which lose nothing there. Layer maps that
    have no float form in files are refused.
    """

    name: ClassVar[str] = "keep-float"
    requires: ClassVar[Dialect] = FUSED
    ensures: ClassVar[Dialect] = FUSED

    def run(self, gm: GraphModule) -> bool:
        precision = precision_of(gm)
        wanted = {
            node: each
            for node, each in layer_map_calls(gm)
            if precision.of(str(node.target)).stays_float and not each.stays_float
        }
        kept = _reached_by_reals(gm, wanted)
        _refuse([node for node in wanted if node in kept or wanted[node].kind not in _LOSSLESS], wanted)
        if not kept:
            return False
        found = {str(node.target): layer_map for node, layer_map in calls_of(gm, OperatorMap) if node in kept}
        for path, layer_map in found.items():  # once, however often it is called
            _put(gm, path, FloatMap.of(layer_map))
        others = [node for node in wanted if node not in kept]
        gm.meta.setdefault("notes", []).extend(_notes([node for node in wanted if node in kept], others))
        return True


def handing_on_reals(gm: GraphModule) -> set[Node]:
    """The float maps that hand their reals on as they are, since float maps alone read them."""
    float_maps = {node for node, layer_map in layer_map_calls(gm) if layer_map.stays_float}
    return float_maps & _read_by(gm, float_maps)


def _read_by(gm: GraphModule, float_maps: set[Node]) -> set[Node]:
    """The nodes whose tensors float maps alone read, at once or through what moves or drops numbers of one tensor."""
    found: set[Node] = set()
    for node in reversed(gm.graph.nodes):  # readers come first
        readers = [user for user in node.users if not is_shape(user)]
        if readers and all(user in float_maps or (user in found and _moves_one(user)) for user in readers):
            found.add(node)
    return found


def _moves_one(node: Node) -> bool:
    return _num_tensors(node) == 1 and (is_movement(node) or is_dropout(module_of(node)))


def _num_tensors(node: Node) -> int:
    return sum(not is_shape(each) for each in node.all_input_nodes)


def _reached_by_reals(gm: GraphModule, wanted: dict[Node, LayerMap]) -> set[Node]:
    """Those that have a weight, and those without one that read the reals of another."""
    kept = set(wanted)
    without_weight = [node for node, each in wanted.items() if getattr(each, "weight", None) is None]
    while True:
        before, givers = len(kept), kept & _read_by(gm, kept)
        for node in without_weight:  # in graph order, so that a chain is lost in one walk
            if givers.isdisjoint(_moved_from(source, kept) for source in node.all_input_nodes):
                kept.discard(node)
                givers.discard(node)
        if len(kept) == before:
            return kept


def _moved_from(source: Node, kept: set[Node]) -> Node:
    """What gave the numbers of a tensor that were only moved or dropped since."""
    while source not in kept and _moves_one(source):
        source = next(each for each in source.all_input_nodes if not is_shape(each))
    return source


def _refuse(meant: list[Node], wanted: dict[Node, LayerMap]) -> None:
    refused = [
        f"{location(node)}: it is a layer map of kind {wanted[node].kind}, needed one of {_float_kinds()}"
        for node in meant
        if not wanted[node].has_float_form
    ]
    if refused:
        raise PrecisionError(
            listing(
                f"{len(refused)} layer map(s) cannot stay in floats, as files have no float form of them:",
                refused,
                "give them a width by an override behind the one that says 'float'; the last match counts",
            )
        )


def _notes(kept: list[Node], others: list[Node]) -> list[str]:
    notes = [
        f"Not proven: float. {_names(kept)}: kept in float32 as overrides say; runtimes may differ there in the last "
        f"bits, and by one level behind."
    ]
    if others:
        notes.append(f"{_names(others)}: kept in integers, where reading integers without a weight loses nothing.")
    return notes


def _names(nodes: list[Node]) -> str:
    return ", ".join(dict.fromkeys(str(node.target) for node in nodes))


_LOSSLESS = ("average", "constant", "identity", "maximum", "minimum", "sum", "table")


def _float_kinds() -> str:
    return ", ".join(sorted({operator.kind for operator in operators() if operator.has_float_form}))


def _put(gm: GraphModule, path: str, layer_map: LayerMap) -> None:
    parent, _, name = path.rpartition(".")
    setattr(gm.get_submodule(parent), name, layer_map)
