"""Data movement, as the modules that do the same on tensors with the batch in front."""

from __future__ import annotations

import torch
from torch.fx import Node

from ana_fx.errors import ConvertError
from ana_fx.graph import location, module_of
from ana_fx.passes.lowering.lowering_context import LoweringContext
from ana_fx.passes.lowering.trace_movement import derive
from ana_fx.program.integer_modules import Repeat
from ana_fx.program.layout import BATCH, Layout
from ana_fx.program.program_borders import Quantize
from ana_fx.program.tensor_spec import TensorSpec, has_spec, set_spec, spec_of

__all__ = ["lower_movement"]


def lower_movement(context: LoweringContext, node: Node, _: object) -> None:
    """Replace a movement by the modules that do the same on tensors with the batch in front.

    What gives several tensors, as a split does, is left alone: each part is lowered where it is taken.

    Raises:
        ConvertError: It moves numbers between samples.
    """
    sources = _moved(context, node) if has_spec(node) else []
    if not sources:
        return
    layout = spec_of(node).layout
    try:
        modules = derive(
            lambda *tensors: context.evaluator.of_inputs(node, dict(zip(sources, tensors, strict=True))),
            [spec_of(each).layout for each in sources],
            layout,
        )
    except ValueError as reason:
        raise ConvertError(
            f"{location(node)}: {reason}; needed a leading batch axis of any size; write x.flatten(1) or "
            f"x.view(x.size(0), -1)"
        ) from reason
    current = [_with_batch(context, node, source) for source in sources]
    layouts = [spec_of(each).layout for each in current]
    tensors = [torch.zeros(BATCH * each.rows, *each.row, dtype=torch.uint8) for each in layouts]
    for module in modules:
        tensors = [module(*tensors)]
        path = f"{node.name}_{type(module).__name__.lower()}"
        current = [context.insert_before(node, path, module, current, Layout(tuple(tensors[0].shape), 0))]
    (result,) = current
    if result not in sources:  # a constant that was repeated is another node even where nothing moved
        set_spec(result, TensorSpec(layout, spec_of(result).levels))
    context.drop(node, result)


def _moved(context: LoweringContext, node: Node) -> list[Node]:
    """Return the nodes whose tensors a movement moves, seen through nodes that give several tensors."""
    found: list[Node] = []
    for source in node.all_input_nodes:
        if has_spec(source) and (spec_of(source).levels is not None or source not in context.values):
            found.append(source)
        elif source not in context.values:
            found += _moved(context, source)
    return list(dict.fromkeys(found))


def _with_batch(context: LoweringContext, node: Node, source: Node) -> Node:
    """Return a node whose tensor `node` moves; a constant is repeated for each sample first."""
    layout = spec_of(source).layout
    if layout.batch_axis is not None:
        return source
    quantize = next(each for each in context.gm.graph.nodes if isinstance(module_of(each), Quantize))
    return context.insert_before(node, f"{source.name}_repeat", Repeat(), [source, quantize], layout)
