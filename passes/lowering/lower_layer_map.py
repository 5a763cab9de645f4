"""The integer module of each layer map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ana_fx.errors import ConvertError, ProofError, UnsupportedError
from ana_fx.graph import location, module_of
from ana_fx.kernels.integer_form import IntegerForm
from ana_fx.layers.constant_map import ConstantMap
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.softmax_map import MAX_TERMS, SoftmaxMap
from ana_fx.layers.table_map import TableMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.scale_search import positive
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.transposed_convolution import TransposedConvolution
from ana_fx.passes.lowering.lowering_context import LoweringContext
from ana_fx.passes.lowering.prove import claim_thresholds
from ana_fx.program.data_movement import Movement, Pad, Reshape, Slice
from ana_fx.program.integer_layers import IntegerHead, IntegerMap, IntegerThresholds
from ana_fx.program.integer_modules import IntegerConstant, IntegerSoftmax, IntegerTable
from ana_fx.program.layout import BATCH, Layout
from ana_fx.program.tensor_spec import LARGEST_LOGIT, LevelRange, spec_of
from ana_fx.requantizers.multiply_shift import encode
from ana_fx.requantizers.staircase import ScaledStaircase, Staircase
from ana_fx.requantizers.threshold_staircase import ThresholdStaircase

__all__ = ["lower_constant", "lower_operator_map", "lower_softmax", "lower_table"]


def lower_constant(context: LoweringContext, node: Node, constant: ConstantMap) -> None:
    """Put the levels of a constant in the place of its constant map, computed now."""
    quantizer = constant.output_quantizer
    assert quantizer is not None
    levels = quantizer.quantize(context.values[node.all_input_nodes[0]])
    context.replace(node, IntegerConstant(levels, quantizer.integer_type, positive(quantizer.scale.detach())), [])


def lower_softmax(context: LoweringContext, node: Node, layer_map: SoftmaxMap) -> None:
    """Put an integer softmax, with its table of exponentials, in the place of a softmax map.

    Raises:
        ConvertError: It is over the batch.
    """
    sources, shape = _sources(node, layer_map)
    if layer_map.axis % len(shape) == 0:
        raise ConvertError(
            f"{location(node)}: softmax over axis {layer_map.axis} of {len(shape)}, which is the batch; "
            f"needed another axis"
        )
    form = layer_map.current_form(_scales(context, node, sources), shape)
    context.replace(node, IntegerSoftmax(layer_map.axis, form, _output_type(layer_map)), sources)
    if shape[layer_map.axis] > MAX_TERMS:
        found = f"softmax over {shape[layer_map.axis]} numbers, needed at most {MAX_TERMS}"
        context.problems.append(f"{location(node)}: {found}")


def lower_table(context: LoweringContext, node: Node, layer_map: TableMap) -> None:
    """Put a table of a function's values in the place of a table map.

    Raises:
        UnsupportedError: The function has no value somewhere.
    """
    sources, shape = _sources(node, layer_map)
    scales = _scales(context, node, sources)
    table = layer_map.current_form(scales, shape)
    if not bool(torch.isfinite(table.table).all()):
        index = int((~torch.isfinite(table.table[0])).nonzero()[0]) + table.lowest
        found = index * float(scales[0].detach())
        raise UnsupportedError(
            f"{location(node)}: {layer_map.operation} has no value at {found:g}, which its input "
            f"can be; needed a function of every number; clamp its input"
        )
    module = IntegerTable(table.table, table.lowest, _output_type(layer_map), table.output_scale)
    context.replace(node, module, sources)


def lower_operator_map(context: LoweringContext, node: Node, layer_map: OperatorMap) -> None:
    """Put an integer map, or a head whose accumulators are the output, in the place of an operator map.

    Raises:
        ProofError: Its staircase cannot be encoded.
    """
    sources, shape = _sources(node, layer_map)
    inputs = [context.levels(source) for source in sources]
    operator = layer_map.operator.fixed(shape)
    form = _reduce(layer_map.current_form(_scales(context, node, sources), shape))
    weight, ends = form.coefficients.stored(), [(each.lo, each.hi) for each in inputs]
    lowest, highest = operator.accumulator_range(weight, ends, shape)
    problems = [reason for reason in (_overflow(form, lowest, highest), operator.misfit(ends, shape)) if reason]
    context.problems.extend(f"{location(node)}: {reason}" for reason in problems)
    decompose = _DECOMPOSED.get(type(operator))
    if decompose is not None:
        operator, source = decompose(context, node, operator, sources[0])
        sources = [source]
    if form.staircase is None:
        assert form.bias is not None
        head = IntegerHead(operator, weight, lowest, highest, factor=form.factor, bias=form.bias)
        context.replace(node, head, sources, LevelRange.of_logits(form.output_scale))
        return
    lowered: IntegerMap | IntegerThresholds
    if isinstance(form.staircase, ThresholdStaircase):
        lowered = _thresholds(operator, form, (lowest, highest), _output_type(layer_map))
    else:
        lowered = _integer_map(node, operator, form, lowest, highest, _output_type(layer_map))
    context.replace(node, lowered, sources)
    _fold_constant(context, node, lowered)


def _sources(node: Node, layer_map: LayerMap) -> tuple[list[Node], tuple[int, ...]]:
    """Return the nodes that a layer map reads, and the shape of the first.

    Raises:
        ConvertError: One does not have its batch in front.
    """
    sources = [source for source in node.args[: layer_map.num_inputs] if isinstance(source, Node)]
    layouts = [spec_of(source).layout for source in sources]
    for layout in layouts:
        if layout.batch_axis not in (0, None):
            raise ConvertError(
                f"{location(node)}: its input {layout.shape} has the batch on axis {layout.batch_axis}, needed axis "
                f"0; move it to the front before"
            )
    return sources, layouts[0].shape


def _scales(context: LoweringContext, node: Node, sources: list[Node]) -> tuple[Tensor, ...]:
    """Return the scale of each source; as the very tensors that the layer map ran with if these say the same, since for
    them it has kept its form.
    """
    scales = tuple(context.levels(source).scale for source in sources)
    operands = [context.values.get(each) for each in node.args[len(sources) :] if isinstance(each, Node)]
    given = tuple(each for each in operands if isinstance(each, Tensor))
    is_same = len(given) == len(scales) and all(map(torch.equal, map(positive, given), scales))
    return given if is_same else scales


def _output_type(layer_map: LayerMap) -> IntegerType:
    assert layer_map.output_quantizer is not None
    return layer_map.output_quantizer.integer_type


def _thresholds(
    operator: Operator, form: IntegerForm, ends: tuple[Tensor, Tensor], integer_type: IntegerType
) -> IntegerThresholds:
    """The comparisons of a codebook, for accumulators that are signed as the channel's gain is."""
    assert isinstance(form.staircase, ThresholdStaircase)
    return IntegerThresholds(
        operator,
        form.coefficients.stored(),
        *ends,
        sign=(torch.ones(1) if form.sign is None else form.sign).to(torch.int64),
        thresholds=form.staircase.thresholds,
        integer_type=integer_type,
        output_scale=form.output_scale,
    )


def _fold_constant(context: LoweringContext, node: Node, requantizer: IntegerMap | IntegerThresholds) -> None:
    """Compute what a requantizer makes of a constant now: files hold constants without a batch, layers with one."""
    sources = [module_of(source) for source in node.all_input_nodes]
    constants = [each.levels for each in sources if isinstance(each, IntegerConstant)]
    if len(constants) < len(sources):
        return
    folded = IntegerConstant(requantizer(*constants), requantizer.integer_type, requantizer.output_scale)
    context.renew(node, folded)
    claim_thresholds(node, None)


def _spread(
    context: LoweringContext, node: Node, operator: TransposedConvolution, source: Node
) -> tuple[Operator, Node]:
    """Insert what puts zeros between the numbers of a transposed convolution's input, and crops it where the padding is
    negative; return the convolution that follows, and the last new node.
    """
    channels, *sizes = spec_of(source).layout.row
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
        rows = tuple(module(torch.zeros(1, *rows)).shape[1:])
        path = f"{node.name}_{type(module).__name__.lower()}"
        source = context.insert_before(node, path, module, [source], Layout((BATCH, *rows), 0))
    padding = tuple((max(before, 0), max(after, 0)) for before, after in operator.convolution.padding)
    return replace(operator.convolution, padding=padding), source


_Decompose = Callable[[LoweringContext, Node, Any, Node], tuple[Operator, Node]]
_DECOMPOSED: Mapping[type[Operator], _Decompose] = {TransposedConvolution: _spread}
"""The operators that a program holds as another one behind movements; it holds all others as they are."""


def _reduce(form: IntegerForm) -> IntegerForm:
    """Return the form without a common divisor of its coefficients, where the staircase can hold the divisor."""
    if not isinstance(form.staircase, ScaledStaircase):
        return form
    coefficients, divisor = form.coefficients.divided()
    return replace(
        form, coefficients=coefficients, staircase=replace(form.staircase, factor=form.staircase.factor * divisor)
    )


def _overflow(form: IntegerForm, lowest: Tensor, highest: Tensor) -> str | None:
    """Say how the stored accumulator, bias included, leaves 32 bits; None if it does not."""
    factor, bias = form.factor, form.bias
    if isinstance(form.staircase, ScaledStaircase):
        factor, bias = form.staircase.factor, form.staircase.bias
    size = torch.maximum(lowest.abs(), highest.abs()) * factor + (0 if bias is None else bias.long().abs())
    worst = int(size.argmax())
    if int(size[worst]) <= LARGEST_LOGIT:
        return None
    return f"the accumulator of channel {worst} can reach {int(size[worst])}, needed at most {LARGEST_LOGIT} (32 bits)"


def _integer_map(
    node: Node, operator: Operator, form: IntegerForm, lowest: Tensor, highest: Tensor, integer_type: IntegerType
) -> IntegerMap:
    """Encode the requantizer in both ways, for accumulators that are signed as the channel's gain is.

    Its thresholds are claimed, for the proof.
    """
    assert isinstance(form.staircase, Staircase)
    staircase = replace(form.staircase, lo=int(form.staircase.lo), hi=int(form.staircase.hi))
    sign = (torch.ones(1) if form.sign is None else form.sign).to(torch.int64)
    ends = torch.stack(torch.broadcast_tensors(lowest * sign, highest * sign, staircase.slope)[:2])
    low, high = ends.amin(0), ends.amax(0)  # accumulators with the sign of their channel's gain
    slope = staircase.slope.expand(len(low))
    thresholds = staircase.thresholds(low, high)
    claim_thresholds(node, thresholds)
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
