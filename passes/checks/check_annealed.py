"""Refuse at `convert` a model that trains another function than eval mode computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from ana_fx.annealing.annealer import annealing_ranges
from ana_fx.errors import NotAnnealedError, listing
from ana_fx.graph import quantizers
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.quantization.quantized_graph import QUANTIZED

__all__ = ["CheckAnnealed"]


@dataclass(frozen=True)
class CheckAnnealed(Pass):
    """Raise NotAnnealedError with every quantizer whose noise changes what it computes. Changes nothing.

    Without such noise the training forward pass, batch statistics aside, is the function of eval mode.
    """

    name: ClassVar[str] = "check-annealed"
    requires: ClassVar[Dialect] = QUANTIZED
    ensures: ClassVar[Dialect] = QUANTIZED

    def run(self, gm: GraphModule) -> bool:
        noisy = [
            f"{name}: {q.strategy.value} with noise of mean {float(q.mean):.3g} and std {float(q.std):.3g} steps"
            for name, q in quantizers(gm)
            if float(q.mean) != 0.0 or (not q.strategy.gives_levels and float(q.std) != 0.0)
        ]
        if noisy:
            end = max(each.end for each in annealing_ranges(gm).values())
            raise NotAnnealedError(
                listing(
                    f"{len(noisy)} quantizer(s) still compute with noise, needed none:",
                    noisy,
                    f"train on until annealer.progress is {end:g}, or use strategy='mode' with a "
                    f"static mean, which can be converted at any time",
                )
            )
        return False
