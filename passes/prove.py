"""Every requantizer is proven equal to the trained staircase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule

from ana_fx.errors import ProofError
from ana_fx.graph import calls_to, location, module_of
from ana_fx.integer import IntegerMap, Proof
from ana_fx.passes.pass_ import Pass

__all__ = ["Prove"]


@dataclass(frozen=True)
class Prove(Pass):
    """Compare both encodings of each integer map where they can differ; the graph is left as it is.

    Both are non-decreasing in the accumulator. Two such functions are equal on an interval if they
    are equal at its ends and, for each step of one, right before it and at it.

    The steps are taken from `node.meta["thresholds"]`, where lowering leaves them, and else found again. They are
    not trusted: the trained staircase must reach each level there and not right before.
    """

    name: ClassVar[str] = "prove"

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        for node in calls_to(gm, IntegerMap):
            integer_map = module_of(node)
            assert isinstance(integer_map, IntegerMap)
            wrong = _prove(integer_map, node.meta.pop("thresholds", None))
            if wrong is not None:
                raise ProofError(f"{location(node)}: {wrong}; this is a bug of ana_fx, please report it")
        return False


def _prove(integer_map: IntegerMap, thresholds: Tensor | None) -> str | None:
    """Compare the encodings of one map and note the proof; the first difference if there is one."""
    low, high = (end[:, None] for end in integer_map.signed_range())
    if thresholds is None:
        thresholds = integer_map.staircase.thresholds(low[:, 0], high[:, 0])
    points = torch.cat([thresholds - 1, thresholds, low, high], 1)
    points = torch.minimum(torch.maximum(points, low), high)
    trained = integer_map.staircase.level(points, 0)
    wanted = torch.arange(integer_map.lo + 1, integer_map.hi + 1, dtype=torch.float32)
    before, reached, _ = trained.split([len(wanted), len(wanted), 2], 1)
    is_step = ((before < wanted) | (thresholds <= low)) & ((reached >= wanted) | (thresholds > high))
    if not bool(is_step.all()):
        channel, index = (~is_step).nonzero()[0].tolist()
        return (
            f"the trained staircase of channel {channel} does not reach level {integer_map.lo + 1 + index} first at "
            f"accumulator {int(thresholds[channel, index])}"
        )
    encoded = integer_map.multiply_shift.level(points, 0)
    if torch.equal(trained, encoded):
        is_reachable = (thresholds > low) & (thresholds <= high)
        integer_map.proof = Proof(num_channels=len(low), num_thresholds=int(is_reachable.sum()))
        return None
    channel, index = (trained != encoded).nonzero()[0].tolist()
    return (
        f"at accumulator {int(points[channel, index])} of channel {channel} the trained staircase gives level "
        f"{int(trained[channel, index])}, the multiplier and shift give {int(encoded[channel, index])}"
    )
