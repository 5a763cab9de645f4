"""What a graph computes on two small batches: where the batch lies in every tensor, and the value of all else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ana_fx.errors import ConvertError
from ana_fx.graph import constant_nodes, location
from ana_fx.passes.lowering.probes import probing_batches
from ana_fx.passes.node_by_node import NodeByNode
from ana_fx.program.layout import BATCH, Layout

__all__ = ["Recording", "Run", "record", "run"]


@dataclass(frozen=True)
class Run:
    """One run of a graph.

    Args:
        inputs: What the graph was given.
        tensors: The tensor that each node gave, by the node's name, its batch axis in front.
        outputs: What the graph returned.
    """

    inputs: tuple[Tensor, ...]
    tensors: dict[str, Tensor]
    outputs: Any


@dataclass(frozen=True)
class Recording:
    """What a graph computes for BATCH samples, and for another number of them.

    Args:
        layouts: Where the batch lies in the tensor that a node gives.
        values: What every node gives that holds no tensor, and every node that depends on no input.
        runs: The run on BATCH samples, and the run on the other number.
    """

    layouts: dict[Node, Layout]
    values: dict[Node, Any]
    runs: tuple[Run, Run]


@torch.no_grad()
def record(qat: GraphModule) -> Recording:
    """Run a graph on two batches of extremes and examples, and see where the batch lies in every tensor.

    Raises:
        ConvertError: The model needs a batch of one size, or a tensor has no batch axis or several.
    """
    batches = probing_batches(qat)
    seen: tuple[dict[Node, Any], dict[Node, Any]] = {}, {}
    try:
        outputs = [_run(qat, inputs, results.__setitem__) for inputs, results in zip(batches, seen, strict=True)]
    except RuntimeError as error:
        raise ConvertError(
            f"the model cannot run on {BATCH} and on {len(batches[1][0])} samples: {str(error).splitlines()[0]}; "
            f"needed a leading batch axis of any size; write x.flatten(1) or x.view(x.size(0), -1)"
        ) from error
    constants = constant_nodes(qat)
    tensors = [{node: x for node, x in results.items() if isinstance(x, Tensor)} for results in seen]
    shapes = [{node: tuple(x.shape) for node, x in each.items()} for each in tensors]
    layouts = {
        node: Layout(shape, None if node in constants else _batch_axis(node, shape, shapes[1][node], batches))
        for node, shape in shapes[0].items()
    }
    values = {node: value for node, value in seen[0].items() if node in constants or not _holds_tensors(value)}
    first, second = (
        Run(inputs, {node.name: x.movedim(layouts[node].batch_axis or 0, 0) for node, x in each.items()}, out)
        for inputs, each, out in zip(batches, tensors, outputs, strict=True)
    )
    return Recording(layouts, values, (first, second))


def _batch_axis(
    node: Node, shape: tuple[int, ...], other: tuple[int, ...], batches: tuple[tuple[Tensor, ...], ...]
) -> int | None:
    """Return the axis whose size grows with the batch; None if there is none."""
    num_samples, num_others = (len(inputs[0]) for inputs in batches)
    axes = [axis for axis, sizes in enumerate(zip(shape, other, strict=True)) if sizes[0] != sizes[1]]
    if not axes:
        return None
    (axis, *others) = axes
    if others or shape[axis] * num_others != other[axis] * num_samples:
        raise ConvertError(
            f"{location(node)}: its output has shape {shape} for {num_samples} samples and {other} for {num_others}; "
            f"needed one batch axis and fixed other axes"
        )
    return axis


def run(gm: GraphModule, inputs: tuple[Tensor, ...]) -> dict[Node, Tensor]:
    """Run a graph and return the tensor that each node gave."""
    seen: dict[Node, Tensor] = {}

    def see(node: Node, result: Any) -> None:
        if isinstance(result, Tensor):
            seen[node] = result

    _run(gm, inputs, see)
    return seen


def _run(gm: GraphModule, inputs: tuple[Tensor, ...], see: Callable[[Node, Any], None]) -> Any:
    return NodeByNode(gm, see).run(*inputs)


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))
