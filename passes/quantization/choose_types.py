"""How each tensor of a graph is quantised: which type it has, and how it leaves the model if it does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch.fx import GraphModule, Node

from ana_fx.errors import PrecisionError
from ana_fx.graph import layer_map_calls, layer_map_of, location
from ana_fx.layers.layer_map import LayerMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.passes.canonical.canonical_dialect import is_movement, is_shape, passes_levels
from ana_fx.passes.quantization.keep_float import handing_on_reals
from ana_fx.passes.quantization.scale_groups import is_read_by_table, scale_groups
from ana_fx.precision.precision import Precision

__all__ = ["Leaving", "TensorPlan", "choose_types"]


class Leaving(Enum):
    """How the output of a layer map leaves the model."""

    LOGITS = "int32"  # its accumulators
    LEVELS = "int8"
    FLOATS = "float"  # the layer is not quantised


@dataclass(frozen=True)
class TensorPlan:
    """What becomes of the output of a layer map.

    Args:
        integer_type: The type of its levels; None where no quantizer follows.
        leaving: How it leaves the model; None if it does not.
    """

    integer_type: IntegerType | None
    leaving: Leaving | None


def choose_types(
    gm: GraphModule, precision: Precision, inputs: dict[Node, IntegerType], *, holds_logits: bool = True
) -> dict[Node, TensorPlan]:
    """The plan of each layer map's output, in graph order. What is joined has one type.

    Args:
        gm: A graph of layer maps on reals.
        precision: The widths that are wanted.
        inputs: For each node that quantises an input, the type of its levels.
        holds_logits: Whether accumulators leave the model where nobody says what its output is.

    Raises:
        PrecisionError: An output cannot leave the model as the precision says.
    """
    leaving = {
        node: _leaving(node, each, precision.of(str(node.target)), holds_logits=holds_logits)
        for node, each in layer_map_calls(gm)
    }
    signs = _signs(gm, precision, leaving, inputs)
    types: dict[Node, IntegerType] = {}
    without_quantizer = handing_on_reals(gm)
    for group in scale_groups(gm):
        kinds = {
            node: _output_type(node, precision, leaving[node], signs)
            for node in group
            if leaving[node] in (None, Leaving.LEVELS) and node not in without_quantizer
        }
        types |= _joined(kinds)
    return {node: TensorPlan(types.get(node), leaving[node]) for node in leaving}


def _joined(kinds: dict[Node, IntegerType]) -> dict[Node, IntegerType]:
    """One type for all tensors that are joined: their own if it is one, else a range that holds all."""
    if len(set(kinds.values())) <= 1:
        return kinds
    bits = max(max(2, kind.bits) for kind in kinds.values())
    signed = any(kind.signed for kind in kinds.values())
    return {node: IntegerType(bits, signed, narrow=kind.narrow and signed) for node, kind in kinds.items()}


def _output_type(node: Node, precision: Precision, leaving: Leaving | None, signs: _Signs) -> IntegerType:
    """The type of a layer map's output, if it shares its scale with no other."""
    layer_map, is_nonnegative = layer_map_of(node), node in signs.nonnegative
    assert layer_map is not None
    wanted = precision.of(str(node.target)).activation_type(is_nonnegative)
    found = layer_map.output_type(wanted, is_nonnegative=is_nonnegative, has_bytes=_has_bytes(node, leaving))
    is_shared = bool(found.levels) and found.num_channels is None
    if is_shared and found.qmin >= 0 and found.rows[0][0] <= 0 and node in signs.nonnegative_inside:
        return IntegerType.of_levels(found.levels)  # a number that is never negative is never below a threshold of 0
    return found


def _has_bytes(node: Node, leaving: Leaving | None) -> bool:
    """Whether the readers of a layer map, or the model's, read eight bits."""
    return leaving is Leaving.LEVELS or is_read_by_table(node)


@dataclass(frozen=True)
class _Signs:
    """The nodes whose numbers are never negative, whatever the inputs, and those so before activations."""

    nonnegative: set[Node]
    nonnegative_inside: set[Node]


def _signs(
    gm: GraphModule, precision: Precision, leaving: dict[Node, Leaving | None], inputs: dict[Node, IntegerType]
) -> _Signs:
    nonnegative = {node for node, integer_type in inputs.items() if not integer_type.signed}
    inside: set[Node] = set()
    for node in gm.graph.nodes:
        layer_map = layer_map_of(node)
        operands = [each for each in node.all_input_nodes if not is_shape(each) and each.op != "get_attr"]
        inputs_are = nonnegative.issuperset(operands)
        if layer_map is None:
            holds = passes_levels(node) and inputs_are
        else:
            holds = layer_map.is_nonnegative(inputs_are=inputs_are)
            codebook = precision.of(str(node.target)).activation
            if codebook.levels and layer_map.takes_scales and not _has_bytes(node, leaving[node]):
                holds = codebook.qmin >= 0 or layer_map.has_own_scale  # its quantizer takes the place of its activation
            if layer_map.is_nonnegative_inside(inputs_are=inputs_are):
                inside.add(node)
        if holds:
            nonnegative.add(node)
    return _Signs(nonnegative, inside)


def _leaving(node: Node, layer_map: LayerMap, precision: Precision, *, holds_logits: bool) -> Leaving | None:
    """How the output of a layer map leaves the model."""
    if not _leaves_model(node):
        return None
    if layer_map.stays_float and precision.output in ("auto", "float"):
        return Leaving.LEVELS if _is_joined(node) else Leaving.FLOATS
    is_bare = layer_map.is_bare and not layer_map.stays_float and not _is_joined(node)
    if precision.output == "auto":
        return Leaving.LOGITS if holds_logits and is_bare and layer_map.are_logits else Leaving.LEVELS
    if precision.output in ("int32", "float") and not is_bare:
        raise PrecisionError(
            f"{location(node)}: output={precision.output!r} needs a bare linear or convolutional last layer; "
            f"found batch norm, an activation, a join or no weight in it; use output='int8'"
        )
    return Leaving(precision.output)


def _leaves_model(node: Node) -> bool:
    """Whether every reader is the output, possibly through data movement."""
    readers = [user for user in node.users if not is_shape(user)]
    return bool(readers) and all(user.op == "output" or (is_movement(user) and _leaves_model(user)) for user in readers)


def _is_joined(node: Node) -> bool:
    """Whether a movement between a layer map and the output has other inputs too."""
    return any(
        is_movement(user) and (sum(not is_shape(each) for each in user.all_input_nodes) > 1 or _is_joined(user))
        for user in node.users
    )
