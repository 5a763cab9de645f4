"""A float layer between integers: a dequantize before it, and a quantize behind it."""

from __future__ import annotations

from torch.fx import Node

from ana_fx.graph import module_of, unique_path
from ana_fx.layers.float_map import FloatMap
from ana_fx.numerics.scale_search import positive
from ana_fx.passes.lowering.lower_borders import dequantize_inputs
from ana_fx.passes.lowering.lowering_context import LoweringContext
from ana_fx.program.program_borders import QuantizeFloat
from ana_fx.program.tensor_spec import TensorSpec, set_spec, spec_of

__all__ = ["lower_float_map"]


def lower_float_map(context: LoweringContext, node: Node, layer_map: FloatMap) -> None:
    """Put the float form of a layer map in its place, between a dequantize of each level that it reads and a quantize.

    The quantize keeps the node, whose levels it gives; it is left out where reals go on.
    """
    dequantize_inputs(context, node, layer_map)
    gm, quantizer, layout = context.gm, layer_map.output_quantizer, spec_of(node).layout
    path = str(node.target)
    if module_of(node) is not layer_map:  # a node before called the same module
        path = unique_path(gm, path)
    gm.add_submodule(path, layer_map.layer())
    if quantizer is None:
        node.target = path
        set_spec(node, TensorSpec(layout))
        return
    with gm.graph.inserting_before(node):
        reals = gm.graph.call_module(path, node.args)
    reals.meta, reals.stack_trace = dict(node.meta), node.stack_trace
    set_spec(reals, TensorSpec(layout))
    node.target = unique_path(gm, f"{path}_quantizer")
    border = QuantizeFloat(positive(quantizer.scale.detach()), quantizer.integer_type)
    gm.add_submodule(str(node.target), border.eval())
    node.args = (reals,)
    set_spec(node, TensorSpec(layout, border.level_range))
