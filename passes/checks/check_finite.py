"""Refuse a model that holds NaN or infinite numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule

from ana_fx.errors import UnsupportedError, listing
from ana_fx.graph import layer_map_of, location, module_of
from ana_fx.passes.base_dialect import ANY_GRAPH, Dialect
from ana_fx.passes.base_pass import Pass

__all__ = ["CheckFinite"]


@dataclass(frozen=True)
class CheckFinite(Pass):
    """Refuse a model with NaN or infinite weights, statistics or scales, naming each; the graph is left as it is."""

    name: ClassVar[str] = "check-finite"
    requires: ClassVar[Dialect] = ANY_GRAPH
    ensures: ClassVar[Dialect] = ANY_GRAPH

    def run(self, gm: GraphModule) -> bool:
        problems = []
        for node in gm.graph.nodes:
            module = layer_map_of(node) or module_of(node)
            if module is None:
                continue
            for name, tensor in module.state_dict().items():
                if not _is_finite(tensor):
                    num_bad = int((~torch.isfinite(tensor)).sum())
                    problems.append(
                        f"{location(node)}: {name} holds {num_bad} NaN or infinite of {tensor.numel()} numbers"
                    )
        if problems:
            raise UnsupportedError(
                listing(
                    f"{len(problems)} tensor(s) are not finite:",
                    problems,
                    "load a checkpoint from before the training diverged, or lower the learning rate",
                )
            )
        return False


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all numbers are finite: their least and their largest are, which are NaN if any number is."""
    return not tensor.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())
