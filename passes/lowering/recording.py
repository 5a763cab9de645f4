"""What a graph computes on two small batches: the shape of every tensor, and the value of everything else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from ana_fx.errors import ConvertError
from ana_fx.graph import constant_nodes, location
from ana_fx.passes.lowering.probes import probing_batches
from ana_fx.program.layout import BATCH, Layout

__all__ = ["Recording", "Run", "record", "run"]


@dataclass(frozen=True)
class Run:
    """What a graph gave for some inputs.

    Args:
        inputs: These.
        tensors: For each node that gives a tensor, by its name, that.
        outputs: What the graph returned.
    """

    inputs: tuple[Tensor, ...]
    tensors: dict[str, Tensor]
    outputs: Any


@dataclass(frozen=True)
class Recording:
    """What a graph computes for BATCH samples, and for another number of them.

    Args:
        layouts: For each node that gives a tensor, where its batch lies.
        values: For every other node, and those of constants, what it gives for BATCH samples.
        runs: All tensors, for both.
    """

    layouts: dict[Node, Layout] = field(default_factory=dict)
    values: dict[Node, Any] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()


@torch.no_grad()
def record(qat: GraphModule) -> Recording:
    """Run a graph on two batches of extremes and examples, and see where the batch lies in every tensor.

    Raises:
        ConvertError: The model needs a batch of one size, or a tensor has no batch axis or several.
    """
    batches = probing_batches(qat)
    first, second = _Recorder(qat), _Recorder(qat)
    try:
        outputs = first.run(*batches[0]), second.run(*batches[1])
    except RuntimeError as error:
        raise ConvertError(
            f"the model cannot run on {BATCH} and on {len(batches[1][0])} samples: {str(error).splitlines()[0]}; "
            f"needed a leading batch axis of any size; write x.flatten(1) or x.view(x.size(0), -1)"
        ) from error
    constants = constant_nodes(qat)
    layouts = {
        node: Layout(shape, None if node in constants else _batch_axis(node, shape, second.shapes[node], batches))
        for node, shape in first.shapes.items()
    }
    names = [{node.name: x for node, x in recorder.tensors.items()} for recorder in (first, second)]
    return Recording(layouts, first.values, tuple(map(Run, batches, names, outputs)))


def _batch_axis(
    node: Node, shape: tuple[int, ...], other: tuple[int, ...], batches: tuple[tuple[Tensor, ...], ...]
) -> int | None:
    """The axis whose size grows with the batch; None if there is none."""
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
    """The tensor at every node for these inputs."""
    recorder = _Keeper(gm)
    recorder.run(*inputs)
    return recorder.seen


class _Keeper(Interpreter):
    def __init__(self, gm: GraphModule) -> None:
        super().__init__(gm)
        self.seen: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.seen[n] = result
        return result


class _Recorder(Interpreter):
    """Keeps tensors, their shapes and the values of everything else; tuples of tensors are not kept."""

    def __init__(self, gm: GraphModule) -> None:
        super().__init__(gm)
        self.shapes: dict[Node, tuple[int, ...]] = {}
        self.tensors: dict[Node, Tensor] = {}
        self.values: dict[Node, Any] = {}
        self._constants = constant_nodes(gm)

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n], self.tensors[n] = tuple(result.shape), result
        if n in self._constants or not _holds_tensors(result):
            self.values[n] = result
        return result


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in torch.utils._pytree.tree_leaves(value))
