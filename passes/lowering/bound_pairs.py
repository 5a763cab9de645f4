"""No two neighbouring products of a program leave 16 bits, where kernels of its target add them there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.errors import ProofError, listing
from ana_fx.graph import location, module_of
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.pair_sums import PAIR_LIMIT, largest_pair_sum
from ana_fx.passes.base_pass import Pass
from ana_fx.program.data_movement import Movement
from ana_fx.program.integer_modules import IntegerHead, IntegerMap, IntegerMaxPool, Repeat
from ana_fx.requantizers.staircase import QLinearStaircase
from ana_fx.target import Target, stored_magnitude

__all__ = ["BoundPairs", "level_types"]


@dataclass(frozen=True)
class BoundPairs(Pass):
    """Bound the sums of neighbouring products (see `ana_fx.numerics.pair_sums`) and note them; the graph is left as it
    is.

    Requires a lowered program.

    Args:
        target: What the model was prepared for. Nothing is bounded where none of its kernels adds pairs in 16 bits.
    """

    name: ClassVar[str] = "bound-pairs"
    target: Target

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        problems = []
        types = level_types(gm)
        for node in gm.graph.nodes:
            module = module_of(node)
            if not isinstance(module, (IntegerHead, IntegerMap)) or not self._adds_pairs(module):
                continue
            module.pair_sum = largest_pair_sum(_stored(module), stored_magnitude(types[node.all_input_nodes[0]]))
            if module.pair_sum > PAIR_LIMIT:
                problems.append(f"{location(node)}: two products can add up to {module.pair_sum:,}")
        if problems:
            way_out = "this is a bug of ana_fx, please report it"
            raise ProofError(listing(f"pairs of products leave 16 bits ({PAIR_LIMIT:,}):", problems, way_out))
        return False

    def _adds_pairs(self, module: IntegerHead | IntegerMap) -> bool:
        operator, weight = module.operator, module.weight
        if not operator.has_weight or weight is None or operator.kind not in self.target.sums_pairs_in_16_bits:
            return False
        return not operator.is_depthwise(weight)


def level_types(program: GraphModule) -> dict[Node, IntegerType]:
    """For each node that carries levels, their type."""
    types: dict[Node, IntegerType] = {}
    for node in program.graph.nodes:
        module = module_of(node)
        inputs = [types[source] for source in node.all_input_nodes if source in types]
        integer_type = getattr(module, "integer_type", None)
        if isinstance(integer_type, IntegerType):
            types[node] = integer_type
        elif inputs and isinstance(module, (IntegerMaxPool, Movement, Repeat)):
            types[node] = inputs[0]
    return types


def _stored(module: IntegerHead | IntegerMap) -> Tensor:
    """The weight with its head-room."""
    assert module.weight is not None
    if isinstance(module, IntegerHead):
        return module.weight.int() * module.factor
    factor = module.staircase.factor if isinstance(module.staircase, QLinearStaircase) else 1
    return module.weight.int() * factor
