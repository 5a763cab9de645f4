"""The integer module of each layer map."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.errors import ConvertError, ProofError, UnsupportedError
from ana_fx.graph import location, unique_path
from ana_fx.kernels.integer_form import IntegerForm
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.softmax_map import MAX_TERMS, SoftmaxMap
from ana_fx.layers.table_map import TableMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.transposed_convolution import TransposedConvolution
from ana_fx.program.data_movement import Movement, Pad, Reshape, Slice
from ana_fx.program.integer_modules import IntegerHead, IntegerMap, IntegerSoftmax, IntegerTable
from ana_fx.program.layout import BATCH, Layout
from ana_fx.program.tensor_spec import LevelRange
from ana_fx.requantizers.multiply_shift import encode
from ana_fx.requantizers.staircase import QLinearStaircase

__all__ = ["lower_layer_map"]

_INT32_MAX = 2**31 - 1


def lower_layer_map(
    gm: GraphModule, node: Node, layer_map: LayerMap, levels: dict[Node, LevelRange], layouts: dict[Node, Layout]
) -> list[str]:
    """Put the integer module of a layer map in its place; what does not fit, a line for each.

    Raises:
        ConvertError: An input does not have its batch in front.
        ProofError: A staircase cannot be encoded.
        UnsupportedError: A function has no value somewhere.
    """
    sources = [source for source in node.args[: layer_map.num_inputs] if isinstance(source, Node)]
    inputs = [levels[source] for source in sources]
    for source in sources:
        if layouts[source].batch_axis not in (0, None):
            raise ConvertError(
                f"{location(node)}: its input {layouts[source].shape} has the batch on axis "
                f"{layouts[source].batch_axis}, needed axis 0; move it to the front before"
            )
    if isinstance(layer_map, OperatorMap):
        return _lower_operator_map(gm, node, layer_map, sources, inputs, levels, layouts)
    assert layer_map.output_quantizer is not None
    node.args = tuple(sources)
    scales, shape = tuple(each.scale for each in inputs), layouts[sources[0]].shape
    integer_type = layer_map.output_quantizer.integer_type
    if isinstance(layer_map, SoftmaxMap):
        if layer_map.axis % len(shape) == 0:
            raise ConvertError(
                f"{location(node)}: softmax over axis {layer_map.axis} of {len(shape)}, which is the batch; "
                f"needed another axis"
            )
        form = layer_map.current_form(scales, shape)
        gm.add_submodule(str(node.target), IntegerSoftmax(layer_map.axis, form, integer_type).eval())
        levels[node] = LevelRange(integer_type, 0, integer_type.qmax, form.output_scale)
        if shape[layer_map.axis] > MAX_TERMS:
            return [f"{location(node)}: softmax over {shape[layer_map.axis]} numbers, needed at most {MAX_TERMS}"]
        return []
    assert isinstance(layer_map, TableMap)
    table = layer_map.current_form(scales, shape)
    if not bool(torch.isfinite(table.table).all()):
        index = int((~torch.isfinite(table.table[0])).nonzero()[0]) + table.lowest
        raise UnsupportedError(
            f"{location(node)}: {layer_map.operation} has no value at {index * float(scales[0]):g}, which its input "
            f"can be; needed a function of every number; clamp its input"
        )
    module = IntegerTable(table.table, table.lowest, integer_type, table.output_scale)
    gm.add_submodule(str(node.target), module.eval())
    levels[node] = LevelRange(integer_type, module.lo, module.hi, table.output_scale)
    return []


def _lower_operator_map(
    gm: GraphModule,
    node: Node,
    layer_map: OperatorMap,
    sources: list[Node],
    inputs: list[LevelRange],
    levels: dict[Node, LevelRange],
    layouts: dict[Node, Layout],
) -> list[str]:
    shape = layouts[sources[0]].shape
    operator = layer_map.operator.fixed(shape)
    form = _reduce(layer_map.current_form(tuple(each.scale for each in inputs), shape))
    weight, ends = form.coefficients.stored(), [(each.lo, each.hi) for each in inputs]
    lowest, highest = operator.accumulator_range(weight, ends, shape)
    problems = [reason for reason in (_overflow(form, lowest, highest), operator.misfit(ends, shape)) if reason]
    if isinstance(operator, TransposedConvolution):
        sources = [_spread(gm, node, operator, sources[0], levels, layouts)]
        padding = tuple((max(before, 0), max(after, 0)) for before, after in operator.convolution.padding)
        operator = replace(operator.convolution, padding=padding)
    lowered: IntegerHead | IntegerMap
    if form.staircase is None:
        assert form.bias is not None
        lowered = IntegerHead(operator, weight, lowest, highest, factor=form.factor, bias=form.bias)
        levels[node] = LevelRange(None, -_INT32_MAX, _INT32_MAX, form.output_scale)
    else:
        assert layer_map.output_quantizer is not None
        lowered = _integer_map(node, operator, form, lowest, highest, layer_map.output_quantizer.integer_type)
        levels[node] = LevelRange(lowered.integer_type, lowered.lo, lowered.hi, form.output_scale)
    gm.add_submodule(str(node.target), lowered.eval())
    node.args = tuple(sources)
    return [f"{location(node)}: {reason}" for reason in problems]


def _spread(
    gm: GraphModule,
    node: Node,
    operator: TransposedConvolution,
    source: Node,
    levels: dict[Node, LevelRange],
    layouts: dict[Node, Layout],
) -> Node:
    """The input of a transposed convolution with zeros between its numbers, cropped where the padding is negative."""
    channels, *sizes = layouts[source].row
    apart = tuple(each for size in sizes for each in (size, 1))
    pads = tuple(pair for stride in operator.stride for pair in ((0, 0), (0, stride - 1)))
    spread = tuple(size * stride for size, stride in zip(sizes, operator.stride, strict=True))
    crops = [(max(-before, 0), max(-after, 0)) for before, after in operator.convolution.padding]
    slices = tuple((before, size - after, 1) for (before, after), size in zip(crops, spread, strict=True))
    modules: list[Movement] = []
    if spread != tuple(sizes):
        modules += [Reshape((channels, *apart)), Pad(((0, 0), *pads)), Reshape((channels, *spread))]
    if any(map(any, crops)):
        modules.append(Slice(((0, channels, 1), *slices)))
    rows = (channels, *sizes)
    for module in modules:
        path = unique_path(gm, f"{node.name}_{type(module).__name__.lower()}")
        gm.add_submodule(path, module.eval())
        with gm.graph.inserting_before(node):
            call = gm.graph.call_module(path, (source,))
        rows = tuple(module(torch.zeros(1, *rows)).shape[1:])
        call.meta, call.stack_trace = {}, node.stack_trace
        layouts[call], levels[call] = Layout((BATCH, *rows), 0), levels[source]
        source = call
    return source


def _reduce(form: IntegerForm) -> IntegerForm:
    """The form without a common divisor of its coefficients, where the staircase can have it."""
    if not isinstance(form.staircase, QLinearStaircase):
        return form
    coefficients, divisor = form.coefficients.divided()
    return replace(
        form, coefficients=coefficients, staircase=replace(form.staircase, factor=form.staircase.factor * divisor)
    )


def _overflow(form: IntegerForm, lowest: Tensor, highest: Tensor) -> str | None:
    """How the stored accumulator, bias included, leaves 32 bits; None if it does not."""
    factor, bias = form.factor, form.bias
    if isinstance(form.staircase, QLinearStaircase):
        factor, bias = form.staircase.factor, form.staircase.bias
    size = torch.maximum(lowest.abs(), highest.abs()) * factor + (0 if bias is None else bias.long().abs())
    worst = int(size.argmax())
    if int(size[worst]) <= _INT32_MAX:
        return None
    return f"the accumulator of channel {worst} can reach {int(size[worst])}, needed at most {_INT32_MAX} (32 bits)"


def _integer_map(
    node: Node, operator: Operator, form: IntegerForm, lowest: Tensor, highest: Tensor, integer_type: IntegerType
) -> IntegerMap:
    """The requantizer in both encodings, for accumulators that are signed as the channel's gain is.

    The thresholds go to `node.meta["thresholds"]`, for the proof.
    """
    assert form.staircase is not None
    staircase = replace(form.staircase, lo=int(form.staircase.lo), hi=int(form.staircase.hi))
    sign = (torch.ones(1) if form.sign is None else form.sign).to(torch.int64)
    ends = torch.stack(torch.broadcast_tensors(lowest * sign, highest * sign, staircase.slope)[:2])
    low, high = ends.amin(0), ends.amax(0)  # accumulators with the sign of their channel's gain
    slope = staircase.slope.expand(len(low))
    thresholds = node.meta["thresholds"] = staircase.thresholds(low, high)
    encoding = encode(thresholds, slope, low, high, int(staircase.lo), int(staircase.hi))
    if encoding is None:
        raise ProofError(
            f"{location(node)}: no multiplier and shift equal the trained staircase, even with a correction; "
            f"found slopes from {float(slope.min()):.3g} to {float(slope.max()):.3g}, needed a multiplier below 2**31; "
            f"give the layer's output fewer bits or a larger scale"
        )
    return IntegerMap(
        operator,
        form.coefficients.stored(),
        lowest,
        highest,
        sign=sign,
        staircase=staircase,
        multiply_shift=encoding,
        integer_type=integer_type,
        output_scale=form.output_scale,
    )
