"""Quantize and dequantize: the borders of a program."""

from __future__ import annotations

from torch.fx import Node

from ana_fx.errors import ConvertError
from ana_fx.graph import location
from ana_fx.layers.input_quantizers import ImageQuantizer, InputQuantizer
from ana_fx.numerics.scale_search import positive
from ana_fx.passes.lowering.lowering_context import LoweringContext
from ana_fx.program.layout import BATCH
from ana_fx.program.program_borders import Dequantize, Quantize, QuantizeImage
from ana_fx.program.tensor_spec import has_spec, spec_of

__all__ = ["dequantize_inputs", "lower_image_quantizer", "lower_input_quantizer"]


def lower_input_quantizer(context: LoweringContext, node: Node, quantizer: InputQuantizer) -> None:
    """Put a quantize in the place of an input quantizer."""
    scale = positive(quantizer.scale.detach())
    context.replace(node, Quantize(scale, quantizer.integer_type, quantizer.shape), node.all_input_nodes)


def lower_image_quantizer(context: LoweringContext, node: Node, quantizer: ImageQuantizer) -> None:
    """Put a quantize of normalised images in the place of an image quantizer."""
    scale = positive(quantizer.scale.detach())
    quantize = QuantizeImage(scale, quantizer.integer_type, quantizer.gain, quantizer.shift, quantizer.shape)
    context.replace(node, quantize, node.all_input_nodes)


def dequantize_inputs(context: LoweringContext, node: Node, _: object) -> None:
    """Insert a dequantize before what takes reals: the output, or a float layer.

    Raises:
        ConvertError: The batch is not in front.
    """
    for source in node.all_input_nodes:
        if not has_spec(source) or spec_of(source).levels is None:
            continue
        layout = spec_of(source).layout
        if layout.batch_axis != 0:
            raise ConvertError(
                f"{location(source)}: the output {layout.shape} for {BATCH} samples has its batch on axis "
                f"{layout.batch_axis}, needed a leading batch axis of any size; write x.flatten(1) or "
                f"x.view(x.size(0), -1)"
            )
        dequantize = Dequantize(context.levels(source).scale)
        call = context.insert_before(node, f"{source.name}_dequantize", dequantize, [source], layout)
        node.replace_input_with(source, call)
