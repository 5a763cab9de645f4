"""Constant maps where the model's own tensors meet its activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ana_fx.errors import UnsupportedError, listing
from ana_fx.graph import constant_nodes, layer_map_of, location, parameters_of, unique_path
from ana_fx.layers.constant_map import ConstantMap
from ana_fx.operators.operator_list import function_spellings
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import is_movement
from ana_fx.passes.canonical.canonical_graph import CANONICAL
from ana_fx.passes.fusion.observation import note_samples
from ana_fx.passes.node_by_node import Evaluator

__all__ = ["InsertConstants"]


@dataclass(frozen=True)
class InsertConstants(Pass):
    """Put a constant map behind each tensor of the model that an operation on activations reads.

    before   x -> add(x, positions)
    after    positions -> constant map; x -> add(x, constant map)

    Whatever computes such a tensor from parameters and buffers stays as it is, in floats, and is
    evaluated when the model is converted. Integers and masks count as floats where they meet these; those that a
    movement reads otherwise are indices, and left alone.
    """

    name: ClassVar[str] = "insert-constants"
    requires: ClassVar[Dialect] = CANONICAL
    ensures: ClassVar[Dialect] = CANONICAL

    def run(self, gm: GraphModule) -> bool:
        constants = constant_nodes(gm)
        values = Evaluator(gm)
        readers: dict[Node, list[Node]] = {}
        for node in gm.graph.nodes:
            if node in constants or not (_joins_tensors(node) or is_movement(node)):
                continue
            for source in node.all_input_nodes:
                if (
                    source in constants
                    and layer_map_of(source) is None
                    and _is_operand(source, values.of(source), node)
                ):
                    readers.setdefault(source, []).append(node)
        problems = [f"{location(users[0])}: {source.name} has {reason}" for source, users in readers.items()
                    if (reason := _reason(values.of(source)))]  # fmt: skip
        if problems:
            raise UnsupportedError(
                listing(f"{len(problems)} constant(s) cannot be quantised:", problems, "use a finite number")
            )
        for source, users in readers.items():
            path = unique_path(gm, f"{source.target}_map" if source.op == "get_attr" else f"{source.name}_map")
            samples = values.of(source).detach().flatten().float().cpu()
            learns = bool(parameters_of(source))
            never_negative = bool((samples >= 0).all()) and not learns
            gm.add_submodule(path, ConstantMap(never_negative=never_negative).train(gm.training))
            with gm.graph.inserting_before(min(users)):
                call = gm.graph.call_module(path, (source,))
            call.meta = dict(source.meta)
            note_samples(call, samples)
            call.stack_trace = users[0].stack_trace
            for user in users:
                user.replace_input_with(source, call)
        return bool(readers)


def _joins_tensors(node: Node) -> bool:
    """Whether a node computes an operator of several tensors."""
    spelling = function_spellings().get(node.target) if node.op == "call_function" else None
    return spelling is not None and spelling.num_tensors > 1


def _is_operand(source: Node, value: Any, reader: Node) -> bool:
    """Whether a constant is what its reader computes with, or moves, rather than where to."""
    if not isinstance(value, Tensor):
        return False
    return value.is_floating_point() or _joins_tensors(reader) or source in pytree.tree_leaves(reader.args[:1])


def _reason(value: Tensor) -> str | None:
    if value.is_complex():
        return "complex numbers"
    return None if bool(torch.isfinite(value).all()) else "numbers that are not finite"
