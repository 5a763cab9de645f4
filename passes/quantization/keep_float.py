"""Layer maps that stay in floats where the precision says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from ana_fx.errors import PrecisionError, listing
from ana_fx.graph import layer_map_calls, layer_map_of, location, module_of
from ana_fx.layers.float_map import FLOAT_OPERATORS, FloatMap
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import is_dropout, is_movement, is_shape
from ana_fx.passes.fusion.fused_graph import FUSED
from ana_fx.passes.quantization.first_last_precision import precision_of

__all__ = ["KeepFloat", "hands_on_reals"]


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
        kept = _reached_by_reals(wanted)
        _refuse([node for node in wanted if node in kept or wanted[node].kind not in _LOSSLESS], wanted)
        if not kept:
            return False
        for node in kept:
            layer_map = layer_map_of(node)
            if isinstance(layer_map, OperatorMap) and not layer_map.stays_float:  # not seen by another call
                _put(gm, str(node.target), FloatMap.of(layer_map))
        gm.meta.setdefault("notes", []).extend(_notes(kept, [node for node in wanted if node not in kept]))
        return True


def hands_on_reals(node: Node) -> bool:
    """Whether a float map hands its reals on as they are, since float maps alone read them."""
    layer_map = layer_map_of(node)
    return layer_map is not None and layer_map.stays_float and _is_read_by(node, _float_maps(node))


def _float_maps(node: Node) -> set[Node]:
    return {each for each in node.graph.nodes if (found := layer_map_of(each)) is not None and found.stays_float}


def _is_read_by(node: Node, float_maps: set[Node]) -> bool:
    """Whether float maps alone read a tensor, through what moves or drops numbers of it alone."""
    readers = [user for user in node.users if not is_shape(user)]
    return bool(readers) and all(
        user in float_maps or (_moves_one(user) and _is_read_by(user, float_maps)) for user in readers
    )


def _moves_one(node: Node) -> bool:
    return _num_tensors(node) == 1 and (is_movement(node) or is_dropout(module_of(node)))


def _num_tensors(node: Node) -> int:
    return sum(not is_shape(each) for each in node.all_input_nodes)


def _reached_by_reals(wanted: dict[Node, LayerMap]) -> list[Node]:
    """Those that have a weight, and those without one that read the reals of another."""
    kept = set(wanted)
    while True:
        lost = {
            node
            for node in kept
            if getattr(wanted[node], "weight", None) is None
            and not any(_gives_reals(source, kept) for source in node.all_input_nodes)
        }
        if not lost:
            return [node for node in wanted if node in kept]
        kept -= lost


def _gives_reals(source: Node, kept: set[Node]) -> bool:
    while source not in kept and _moves_one(source):
        source = next(each for each in source.all_input_nodes if not is_shape(each))
    return source in kept and _is_read_by(source, kept)


def _refuse(meant: list[Node], wanted: dict[Node, LayerMap]) -> None:
    refused = [
        f"{location(node)}: it is a layer map of kind {wanted[node].kind}, needed one of {_KINDS}"
        for node in meant
        if not _has_form(wanted[node])
    ]
    if refused:
        raise PrecisionError(
            listing(
                f"{len(refused)} layer map(s) cannot stay in floats, as files have no float form of them:",
                refused,
                "give them a width by an override behind the one that says 'float'; the last match counts",
            )
        )


def _has_form(layer_map: LayerMap) -> bool:
    return isinstance(layer_map, OperatorMap) and isinstance(layer_map.operator, FLOAT_OPERATORS)


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
_KINDS = ", ".join(sorted(operator.kind for operator in FLOAT_OPERATORS))


def _put(gm: GraphModule, path: str, layer_map: LayerMap) -> None:
    parent, _, name = path.rpartition(".")
    setattr(gm.get_submodule(parent), name, layer_map)
