"""What a program takes and gives, in the types of its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.graph import calls_to, module_of, outputs
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.passes.lowering.probes import probes
from ana_fx.passes.lowering.recording import run
from ana_fx.program.data_movement import Movement
from ana_fx.program.program_borders import Quantize
from ana_fx.program.tensor_spec import integer_type_of, sample_shape_of
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.float_tolerance import float_tolerance
from ana_fx.training.batches import tensors_of

__all__ = ["Expected", "expected", "feeds", "given_or_probes"]

_BATCH = 16


@dataclass(frozen=True)
class Expected:
    """What an output of the file must be: equal, or within a tolerance where a float layer gives it."""

    array: np.ndarray[Any, Any]
    tolerance: np.ndarray[Any, Any] | None = None


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


def expected(integer: GraphModule, inputs: tuple[Tensor, ...], is_float: bool) -> list[Expected]:
    """Compute the outputs: floats, or the integers before each dequantize; then what each float layer reads."""
    device = next(iter(integer.buffers())).device
    seen = run(integer, tuple(x.to(device) for x in inputs))
    tolerances = _tolerances(integer, seen)
    found = []
    for _, node in outputs(integer):
        tolerance = tolerances.get(node)
        is_real = is_float or tolerance is not None
        array = numpy(seen[node] if is_real else _stored_output(seen, node))
        found.append(Expected(array, None if tolerance is None else numpy(tolerance)))
    borders = [node.all_input_nodes[0] for node in calls_to(integer, OperatorMap)]
    return found + [Expected(numpy(seen[border])) for border in borders]


def _readers(integer: GraphModule) -> dict[Node, Node | None]:
    """For each input of the program the border that reads it, or None; a file lists those that are read."""
    readers: dict[Node, Node | None] = dict.fromkeys(integer.graph.find_nodes(op="placeholder"))
    readers.update((node.all_input_nodes[0], node) for node in calls_to(integer, Quantize))
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
        if type(module) is OperatorMap:
            found = float_tolerance(module, [seen[node.all_input_nodes[0]]])
            tolerances[node] = found.reshape(seen[node].shape)
            continue
        sources = [each for each in node.args if isinstance(each, Node)]
        if tolerances.keys() & set(sources):
            exact = (torch.zeros_like(seen[each], dtype=torch.float64) for each in sources)
            moved = [tolerances.get(each, zero) for each, zero in zip(sources, exact, strict=True)]
            tolerances[node] = module(*moved)
    return tolerances
