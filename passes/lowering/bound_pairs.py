"""Proves that no two neighbouring products leave 16 bits, where kernels of the target add these in 16 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from ana_fx.errors import ProofError, listing
from ana_fx.graph import location, module_of
from ana_fx.numerics.pair_sums import PAIR_LIMIT, largest_pair_sum
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.lowering.lowered_graph import PROGRAM
from ana_fx.program.integer_layers import Accumulating
from ana_fx.program.tensor_spec import integer_type_of
from ana_fx.target import Target, stored_magnitude

__all__ = ["BoundPairs"]


@dataclass(frozen=True)
class BoundPairs(Pass):
    """Bound the sums of neighbouring products (see `ana_fx.numerics.pair_sums`), and note the bound on each layer.

    Args:
        target: What the model was prepared for. Nothing is bounded where none of its kernels adds pairs in 16 bits.
    """

    name: ClassVar[str] = "bound-pairs"
    requires: ClassVar[Dialect] = PROGRAM
    ensures: ClassVar[Dialect] = PROGRAM
    target: Target

    def run(self, gm: GraphModule) -> bool:
        problems, is_new = [], False
        for node in gm.graph.nodes:
            module = module_of(node)
            if not isinstance(module, Accumulating) or not self._adds_pairs(module):
                continue
            input_type = integer_type_of(node.all_input_nodes[0])
            assert input_type is not None  # logits have no reader that multiplies
            before, module.pair_sum = (
                module.pair_sum,
                largest_pair_sum(module.stored_weight(), stored_magnitude(input_type)),
            )
            is_new |= module.pair_sum != before
            if module.pair_sum > PAIR_LIMIT:
                problems.append(f"{location(node)}: two products can add up to {module.pair_sum:,}")
        if problems:
            way_out = "this is a bug of ana_fx, please report it"
            raise ProofError(listing(f"pairs of products leave 16 bits ({PAIR_LIMIT:,}):", problems, way_out))
        return is_new

    def _adds_pairs(self, module: Accumulating) -> bool:
        operator = module.operator
        return operator.kind in self.target.sums_pairs_in_16_bits and operator.adds_pairs(module.weight)
