"""From a trained graph to an integer program."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ana_fx.affine import Affine, Average
from ana_fx.errors import AccumulatorError, ProofError, listing
from ana_fx.graph import location, module_of, unique_path
from ana_fx.integer import Dequantize, IntegerHead, IntegerMap, IntegerMaxPool, Quantize, Reshape
from ana_fx.layer_map import IntegerForm, LayerMap
from ana_fx.multiply_shift import encode
from ana_fx.numbers import IntegerType
from ana_fx.passes.dialect import DROPOUTS, MAX_POOLS, is_reshape, is_shape
from ana_fx.passes.pass_ import Pass
from ana_fx.quantizers import InputQuantizer
from ana_fx.scale import positive
from ana_fx.staircase import QLinearStaircase

__all__ = ["Lower"]

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Lower(Pass):
    """Fold quantizers, batch norms, biases and activations into integer arithmetic.

    before   x -> input quantizer -> layer map(·, scale) -> dropout -> view -> layer map(·, scale)
    after    x -> quantize -> integer map -> reshape -> integer head -> dequantize

    Requires known scales and shapes (`record_shapes`). A layer map without quantizers stays float
    behind a dequantize.
    """

    name: ClassVar[str] = "lower"

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        carried: dict[Node, _Levels] = {}
        problems: list[str] = []
        for node in list(gm.graph.nodes):
            module = module_of(node)
            if isinstance(module, InputQuantizer):
                scale, integer_type = positive(module.scale.detach()), module.integer_type
                gm.add_submodule(str(node.target), Quantize(scale, integer_type).eval())
                carried[node] = _Levels(integer_type.qmin, integer_type.qmax, scale)
            elif isinstance(module, LayerMap) and module.is_quantized:
                _lower_layer_map(gm, node, module, carried, problems)
            elif isinstance(module, LayerMap) or node.op == "output":
                _dequantize_inputs(gm, node, carried)
            elif is_reshape(node) and not is_shape(node):
                _hand_on(gm, node, Reshape(node.meta["sample_shape"]), carried)
            elif isinstance(module, MAX_POOLS):
                _hand_on(gm, node, IntegerMaxPool(module), carried)
            elif isinstance(module, DROPOUTS):
                node.replace_all_uses_with(node.all_input_nodes[0])
                gm.graph.erase_node(node)
        if problems:
            raise AccumulatorError(
                listing(
                    f"{len(problems)} accumulator(s) do not fit:",
                    problems,
                    "give the weights or the input of these layers fewer bits, or split the layers",
                )
            )
        for node, levels in carried.items():
            node.meta["scale"] = levels.scale
        for node in reversed(gm.graph.nodes):  # scales and sizes have no readers any more
            if not node.users and node.op not in ("placeholder", "output"):
                gm.graph.erase_node(node)
        return True


@dataclass(frozen=True)
class _Levels:
    """What integers a node carries: their range, and the real value of one."""

    lo: int
    hi: int
    scale: Tensor


def _hand_on(gm: GraphModule, node: Node, module: nn.Module, carried: dict[Node, _Levels]) -> None:
    """Replace an operation that hands on its input's levels by a module that does so on integers."""
    source = node.all_input_nodes[0]
    path = str(node.target) if node.op == "call_module" else unique_path(gm, node.name)
    gm.add_submodule(path, module.eval())
    node.op, node.target, node.args, node.kwargs = "call_module", path, (source,), {}
    if source in carried:
        carried[node] = carried[source]


def _dequantize_inputs(gm: GraphModule, node: Node, carried: dict[Node, _Levels]) -> None:
    for source in node.all_input_nodes:
        if source not in carried:
            continue
        path = unique_path(gm, f"{source.name}_dequantize")
        gm.add_submodule(path, Dequantize(carried[source].scale))
        with gm.graph.inserting_before(node):
            call = gm.graph.call_module(path, (source,))
        call.meta = dict(source.meta)
        node.replace_input_with(source, call)


def _lower_layer_map(
    gm: GraphModule, node: Node, layer_map: LayerMap, carried: dict[Node, _Levels], problems: list[str]
) -> None:
    sources = [source for source in node.args[: layer_map.affine.num_inputs] if isinstance(source, Node)]
    inputs = [carried[source] for source in sources]
    shape = (1, *sources[0].meta["sample_shape"])
    affine = layer_map.affine
    if isinstance(affine, Average):
        affine = affine.fixed(shape)
    form = _reduce(layer_map.integer_form(tuple(levels.scale for levels in inputs), shape))
    lowest, highest = _accumulator_range(affine, form, inputs, shape)
    overflow = _overflow(form, lowest, highest)
    if overflow is not None:
        problems.append(f"{location(node)}: {overflow}")
    lowered: IntegerHead | IntegerMap
    if form.staircase is None:
        assert form.bias is not None
        lowered = IntegerHead(affine, form.weight, lowest, highest, factor=form.factor, bias=form.bias)
        carried[node] = _Levels(-_INT32_MAX, _INT32_MAX, form.output_scale)
    else:
        assert layer_map.output_quantizer is not None
        lowered = _integer_map(node, affine, form, lowest, highest, layer_map.output_quantizer.integer_type)
        carried[node] = _Levels(lowered.lo, lowered.hi, form.output_scale)
    gm.add_submodule(str(node.target), lowered.eval())
    node.args = tuple(sources)


def _reduce(form: IntegerForm) -> IntegerForm:
    """The form with its weight as int8 and, for a sum, as int32 without a common divisor."""
    if form.weight is None:
        return form
    if form.weight.ndim > 1:
        return replace(form, weight=form.weight.to(torch.int8))
    weight = form.weight.to(torch.int32)
    divisor = math.gcd(*weight.tolist())
    if not isinstance(form.staircase, QLinearStaircase):
        return replace(form, weight=weight)
    return replace(form, weight=weight // divisor, staircase=replace(form.staircase, factor=divisor))


def _accumulator_range(
    affine: Affine, form: IntegerForm, inputs: list[_Levels], shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The smallest and largest accumulator of each channel, int64, [channels] or [1].

    Every input can be level 0, so these bound the partial sums too.
    """
    lo, hi = inputs[0].lo, inputs[0].hi
    if form.weight is None:
        terms = affine.divisor(shape)
        return torch.tensor([terms * lo]), torch.tensor([terms * hi])
    if form.weight.ndim == 1:  # a sum: one coefficient for each input
        pairs = list(zip(form.weight.tolist(), inputs, strict=True))
        lowest, highest = sum(c * levels.lo for c, levels in pairs), sum(c * levels.hi for c, levels in pairs)
        return torch.tensor([lowest]), torch.tensor([highest])
    weight = form.weight.to(torch.int64).flatten(1)
    positive_sum, negative_sum = weight.clamp_min(0).sum(1), weight.clamp_max(0).sum(1)
    return positive_sum * lo + negative_sum * hi, positive_sum * hi + negative_sum * lo


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
    node: Node, affine: Affine, form: IntegerForm, lowest: Tensor, highest: Tensor, integer_type: IntegerType
) -> IntegerMap:
    """The requantizer in both encodings; accumulators are signed as the channel's gain is."""
    assert form.staircase is not None
    staircase = replace(form.staircase, lo=int(form.staircase.lo), hi=int(form.staircase.hi))
    sign = (torch.ones(1) if form.sign is None else form.sign).to(torch.int64)
    ends = torch.stack(torch.broadcast_tensors(lowest * sign, highest * sign, staircase.slope)[:2])
    low, high = ends.amin(0), ends.amax(0)  # accumulators with the sign of their channel's gain
    slope = staircase.slope.expand(len(low))
    encoding = encode(staircase.thresholds(low, high), slope, low, high, int(staircase.lo), int(staircase.hi))
    if encoding is None:
        raise ProofError(
            f"{location(node)}: no multiplier and shift equal the trained staircase, even with a correction; "
            f"found slopes from {float(slope.min()):.3g} to {float(slope.max()):.3g}, needed a multiplier below 2**31; "
            f"give the layer's output fewer bits or a larger scale"
        )
    return IntegerMap(
        affine,
        form.weight,
        lowest,
        highest,
        sign=sign,
        staircase=staircase,
        multiply_shift=encoding,
        integer_type=integer_type,
        output_scale=form.output_scale,
    )
