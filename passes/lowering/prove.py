"""Proves that every requantizer is equal to the trained staircase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.errors import ProofError
from ana_fx.graph import calls_of, location
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.lowering.lowered_graph import PROGRAM
from ana_fx.program.integer_layers import IntegerMap, IntegerThresholds, Proof

__all__ = ["Prove", "claim_thresholds"]

_KEY = "thresholds"  # of `Node.meta`; no other file knows it


def claim_thresholds(node: Node, thresholds: Tensor | None) -> None:
    """Claim where the integer map of a node reaches each level first, int64, [channels, levels - 1]; None for nowhere.

    The claim saves `Prove` a search, and is forgotten with the proof.
    """
    node.meta.pop(_KEY, None)
    if thresholds is not None:
        node.meta[_KEY] = thresholds


@dataclass(frozen=True)
class Prove(Pass):
    """Compare both encodings of each integer map where they can differ, and note the proof on it.

    Both are non-decreasing in the accumulator and give the same levels at most. Two such functions are equal on an
    interval if they reach each level at the same accumulator.

    Lowering claims where that is; where it does not, the thresholds are found again. A claim is not trusted: each
    encoding must reach the level there and not right before.
    """

    name: ClassVar[str] = "prove"
    requires: ClassVar[Dialect] = PROGRAM
    ensures: ClassVar[Dialect] = PROGRAM

    def run(self, gm: GraphModule) -> bool:
        is_new = False
        for node, integer_map in calls_of(gm, IntegerMap):
            before = integer_map.proof
            wrong = _prove(integer_map, node.meta.pop(_KEY, None))
            if wrong is not None:
                raise ProofError(f"{location(node)}: {wrong}; this is a bug of ana_fx, please report it")
            is_new |= integer_map.proof != before
        for node, module in calls_of(gm, IntegerThresholds):
            if bool((module.thresholds[:, 1:] < module.thresholds[:, :-1]).any()):
                reason = "its thresholds do not rise; this is a bug of ana_fx, please report it"
                raise ProofError(f"{location(node)}: {reason}")
        return is_new


def _prove(integer_map: IntegerMap, thresholds: Tensor | None) -> str | None:
    """Compare the encodings of one map and note the proof; return the first difference if there is one."""
    low, high = integer_map.signed_range()
    if thresholds is None:
        thresholds = integer_map.staircase.thresholds(low, high)
    encodings = {"trained staircase": integer_map.staircase, "multiplier and shift": integer_map.multiply_shift}
    for name, staircase in encodings.items():
        is_proven = staircase.is_threshold(thresholds, low, high)
        if not bool(is_proven.all()):
            channel, index = (~is_proven).nonzero()[0].tolist()
            threshold = thresholds[:, index : index + 1]
            before, there = (int(staircase.level(point, 0)[channel]) for point in (threshold - 1, threshold))
            return (
                f"the {name} of channel {channel} does not reach level {integer_map.lo + 1 + index} first at "
                f"accumulator {int(threshold[channel])}: it gives level {before} before and {there} there"
            )
    is_reachable = (thresholds > low[:, None]).logical_and_(thresholds <= high[:, None])
    integer_map.proof = Proof(num_channels=len(low), num_thresholds=int(is_reachable.sum()))
    return None
