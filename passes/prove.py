"""Every requantizer is proven equal to the trained staircase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
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
    """

    name: ClassVar[str] = "prove"

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        for node in calls_to(gm, IntegerMap):
            integer_map = module_of(node)
            assert isinstance(integer_map, IntegerMap)
            wrong = _prove(integer_map)
            if wrong is not None:
                raise ProofError(f"{location(node)}: {wrong}; this is a bug of ana_fx, please report it")
        return False


def _prove(integer_map: IntegerMap) -> str | None:
    """Compare the encodings of one map and note the proof; the first difference if there is one."""
    low, high = integer_map.signed_range()
    thresholds = integer_map.staircase.thresholds(low, high)
    points = torch.cat([thresholds, thresholds - 1, low[:, None], high[:, None]], 1)
    points = torch.minimum(torch.maximum(points, low[:, None]), high[:, None])
    trained = integer_map.staircase.level(points, 0).to(torch.int64)
    encoded = integer_map.multiply_shift.level(points, 0).to(torch.int64)
    if torch.equal(trained, encoded):
        is_reachable = (thresholds > low[:, None]) & (thresholds <= high[:, None])
        integer_map.proof = Proof(num_channels=len(low), num_thresholds=int(is_reachable.sum()))
        return None
    channel, index = (trained != encoded).nonzero()[0].tolist()
    return (
        f"at accumulator {int(points[channel, index])} of channel {channel} the trained staircase gives level "
        f"{int(trained[channel, index])}, the multiplier and shift give {int(encoded[channel, index])}"
    )
