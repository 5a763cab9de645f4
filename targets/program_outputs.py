"""What a program takes and gives, in the types of its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.graph import calls_of, calls_to, module_of, outputs
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.passes.lowering.probes import probes
from ana_fx.passes.node_by_node import NodeByNode
from ana_fx.program.data_movement import Movement
from ana_fx.program.program_borders import Dequantize, Quantize, QuantizeFloat
from ana_fx.program.tensor_spec import integer_type_of, sample_shape_of
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.float_tolerance import float_tolerance
from ana_fx.training.batches import tensors_of

__all__ = ["Expected", "expected", "feeds", "given_or_probes"]

_BATCH = 16


@dataclass(frozen=True)
class Expected:
    """What an output of the file must be: equal, or within a tolerance where a float layer gives it.

    Args:
        array: The program's.
        tolerance: How far a real may be off; None where nothing may.
        ends: The smallest and the largest level that rounding explains, where a float layer gave what became levels.
    """

    array: np.ndarray[Any, Any]
    tolerance: np.ndarray[Any, Any] | None = None
    ends: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None


def given_or_probes(integer: GraphModule, inputs: Any) -> tuple[Tensor, ...]:
    """Return the inputs given, or make up levels; an input that nothing reads gets zeros.

    Raises:
        TypeError: They hold no tensors.
        ValueError: They are more or fewer than the program has.
    """
    readers = _readers(integer)
    given = () if inputs is None else _given(inputs, len(readers))
    made = []
    for index, reader in enumerate(readers.values()):
        if reader is None:
            made.append(torch.zeros(_BATCH))
        elif inputs is not None:
            made.append(given[index])
        else:
            quantize = _quantize(reader)
            levels = probes(quantize.integer_type, sample_shape_of(reader), _BATCH)
            made.append(quantize.real(levels.to(quantize.scale.device)).cpu())
    return tuple(made)


def feeds(integer: GraphModule, inputs: tuple[Tensor, ...], is_float: bool) -> dict[str, np.ndarray[Any, Any]]:
    """Return what the file is given: the floats, or the levels that the program's own border makes of them."""
    fed = {}
    for (placeholder, reader), x in zip(_readers(integer).items(), inputs, strict=True):
        if reader is None:
            continue
        quantize = _quantize(reader)
        taken = x.float() if is_float else _stored(quantize(x.to(quantize.scale.device)), quantize.integer_type)
        fed[str(placeholder.target)] = numpy(taken)
    return fed


def expected(
    integer: GraphModule,
    inputs: tuple[Tensor, ...],
    is_float: bool,
    islands: Sequence[np.ndarray[Any, Any]] = (),
) -> list[Expected]:
    """Compute the outputs: floats, or the integers before each dequantize; what float layers read; what became of it.

    Args:
        integer: The program.
        inputs: Its inputs.
        is_float: Whether the file takes and gives floats.
        islands: The levels that the file made of what float layers gave. The program goes on from these, so that what
            stands behind a float layer is compared bit for bit too.
    """
    device = next(iter(integer.buffers())).device
    ends = [node for node, _ in calls_of(integer, QuantizeFloat)]
    given = {
        node: torch.from_numpy(each).to(device, _quantize(node).integer_type.dtype)
        for node, each in zip(ends, islands, strict=False)
    }
    seen = _run_from(integer, tuple(x.to(device) for x in inputs), given)
    tolerances = _tolerances(integer, seen)
    found = []
    for _, node in outputs(integer):
        tolerance = tolerances.get(node)
        is_real = is_float or tolerance is not None
        array = numpy(seen[node] if is_real else _stored_output(seen, node))
        found.append(Expected(array, None if tolerance is None else numpy(tolerance)))
    layers = calls_to(integer, OperatorMap)
    borders = [each for node in layers for each in node.all_input_nodes if isinstance(module_of(each), Dequantize)]
    found += [Expected(numpy(seen[border])) for border in borders]
    return found + [_expected_levels(node, seen, tolerances) for node in ends]


class _GoingOn(NodeByNode):
    """Runs a program in which some nodes give what they are told."""

    def __init__(self, gm: GraphModule, given: dict[Node, Tensor], seen: dict[Node, Tensor]) -> None:
        super().__init__(gm, lambda node, result: seen.__setitem__(node, result))
        self._given = given

    def run_node(self, n: Node) -> Any:
        """What it is told, or what it computes."""
        if n not in self._given:
            return super().run_node(n)
        self._see(n, self._given[n])
        return self._given[n]


def _run_from(integer: GraphModule, inputs: tuple[Tensor, ...], given: dict[Node, Tensor]) -> dict[Node, Tensor]:
    seen: dict[Node, Tensor] = {}
    _GoingOn(integer, given, seen).run(*inputs)
    return seen


def _expected_levels(node: Node, seen: dict[Node, Tensor], tolerances: dict[Node, Tensor]) -> Expected:
    """The levels that a file may make of what a float layer gives."""
    quantize, (source,) = _quantize(node), node.all_input_nodes
    real, tolerance = seen[source].double(), tolerances[source]
    low, high = (numpy(quantize((real + each).float())) for each in (-tolerance, tolerance))
    return Expected(numpy(quantize(seen[source])), ends=(low, high))


def _readers(integer: GraphModule) -> dict[Node, Node | None]:
    """For each input of the program the border that reads it, or None; a file lists those that are read."""
    readers: dict[Node, Node | None] = dict.fromkeys(integer.graph.find_nodes(op="placeholder"))
    borders = [node for node in calls_to(integer, Quantize) if node.all_input_nodes[0].op == "placeholder"]
    readers.update((node.all_input_nodes[0], node) for node in borders)
    return readers


def _quantize(reader: Node) -> Quantize:
    module = module_of(reader)
    assert isinstance(module, Quantize)
    return module


def _given(inputs: Any, num_inputs: int) -> tuple[Tensor, ...]:
    entries = tensors_of(inputs, "the input of verify()")
    if len(entries) != num_inputs:
        raise ValueError(f"the program has {num_inputs} input(s), verify() was given {len(entries)} tensor(s)")
    return entries


def _stored(levels: Tensor, integer_type: IntegerType) -> Tensor:
    """Levels as they stand at the integer borders of a file."""
    zero_point = integer_type.zero_point
    return (levels + zero_point).to(torch.uint8) if zero_point else levels


def _stored_output(seen: dict[Node, Tensor], dequantize: Node) -> Tensor:
    """The integers that a dequantize reads, as they stand in the file."""
    (source,) = dequantize.all_input_nodes
    integer_type = integer_type_of(source)
    return seen[source] if integer_type is None else _stored(seen[source], integer_type)


def _tolerances(integer: GraphModule, seen: dict[Node, Tensor]) -> dict[Node, Tensor]:
    """Bound how far off each number behind a float layer may be, moved as they are; exact nodes have no entry."""
    tolerances: dict[Node, Tensor] = {}
    for node in calls_to(integer, OperatorMap, Movement):
        module: Any = module_of(node)
        sources = [each for each in node.args if isinstance(each, Node)]
        if type(module) is OperatorMap:
            read, known = [seen[each] for each in sources], [tolerances.get(each) for each in sources]
            tolerances[node] = float_tolerance(module, read, known).reshape(seen[node].shape)
            continue
        if tolerances.keys() & set(sources):
            exact = (torch.zeros_like(seen[each], dtype=torch.float64) for each in sources)
            moved = [tolerances.get(each, zero) for each, zero in zip(sources, exact, strict=True)]
            tolerances[node] = module(*moved)
    return tolerances
