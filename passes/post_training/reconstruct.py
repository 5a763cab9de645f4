"""`reconstruct`: few bits without training, from a few batches without labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.fx import GraphModule

from ana_fx.analysis.least_squares_rounding import LeastSquares, RoundedRows, round_rows
from ana_fx.annealing.annealing_notes import start_record
from ana_fx.graph import calls_of
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import Quantizer
from ana_fx.numerics.scale_search import positive
from ana_fx.numerics.spread_samples import tail_samples
from ana_fx.passes.post_training.float_twin import float_twin
from ana_fx.passes.post_training.patches import has_patches, patches, rows_of
from ana_fx.passes.post_training.side_by_side import SideBySide, batches_for
from ana_fx.prepared.recognize import prepared

__all__ = ["reconstruct", "rounded_weight"]

_NUM_ROWS = 2**15  # of the least squares problem of a layer
_NUM_SAMPLES = 2**15  # from which the scale of an output is taken


def reconstruct(qat: nn.Module, batches: Iterable[Any]) -> GraphModule:
    """Have each layer of a prepared model give what the float layer gave, as well as its bits allow; no labels.

    Layer by layer, in graph order, on what the quantised layers before make of the batches:

    - weights become those with which the layer's outputs have the least squared distance to the float network's, and
      are rounded so that this distance stays small (see `ana_fx.analysis.least_squares_rounding`);
    - the mean error that is left goes into the bias, or the mean of the batch norm;
    - the scale of the output is taken anew, from the outputs that there are now.

    What it finds are the float parameters and scales of the prepared model, so that eval mode is what `convert` and
    `export` ship. It can be trained on from there. A weight that several layers share, and one with levels of a
    codebook, keep their numbers; so do scales that joined tensors share.

    Args:
        qat: What `prepare` returned, not trained yet: its own parameters are the float network. It is changed in place.
        batches: Tensors, or tuples that begin with the model's inputs, as for calibration; some hundred samples. All
            are in memory at once, with the activations that are alive at a layer, in floats, twice.

    Returns:
        `qat`, without wrappers, in the mode (train or eval) that it was in.

    Raises:
        TypeError: `qat` is no module, or `batches` does not hold batches.
        ValueError: It was not prepared.
        CalibrationError: There is no batch, one is unfit, or a scale is not known.

    Examples:
        >>> import ana_fx
        >>> batches = [torch.rand(32, 4), torch.rand(32, 4)]
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> qat = ana_fx.prepare(model, batches[0], precision="int4", calibration=batches)
        >>> integer = ana_fx.convert(reconstruct(qat, batches))
    """
    gm = prepared(qat, "reconstruct()")
    found = batches_for(gm, batches)
    was_training = gm.training
    gm.eval()
    try:
        runs = SideBySide(gm, float_twin(gm), found)
        maps = dict(calls_of(gm, OperatorMap))
        own = _own_weights(maps.values())
        console = Console(stderr=True)
        hidden = not console.is_terminal
        for node in track(runs.nodes, "reconstructing", console=console, transient=True, disable=hidden):
            layer_map = maps.get(node)
            if layer_map is not None and layer_map.is_quantized:
                _rebuild(layer_map, runs.read_by(node, layer_map.num_inputs), own)
            runs.run(node)
        start_record(gm)  # its weights are new, but it was not trained
    finally:
        gm.train(was_training)
    return gm


_Read = list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]


def _own_weights(maps: Iterable[OperatorMap]) -> set[int]:
    """The weights that one call of one layer map reads alone."""
    users = Counter(id(layer_map.weight) for layer_map in maps if layer_map.weight is not None)
    return {weight for weight, count in users.items() if count == 1}


@torch.no_grad()
def _rebuild(layer_map: OperatorMap, read: _Read, own: set[int]) -> None:
    """Give a layer map a new weight, offset and output scale, for what it reads now."""
    if id(layer_map.weight) in own and layer_map.weight_quantizer is not None:
        wanted = [layer_map.operator.real(floats, layer_map.weight, layer_map.bias) for _, floats in read]
        if has_patches(layer_map) and not layer_map.weight_quantizer.integer_type.levels:
            _round_weight(layer_map, [ours[0] for ours, _ in read], wanted)
        _shift(layer_map, [ours for ours, _ in read], wanted)
    output = layer_map.output_quantizer
    if output is not None and not output.shares_scale:
        each_gives = -(-_NUM_SAMPLES // len(read))
        samples = [tail_samples(_before_quantizer(layer_map, ours), each_gives) for ours, _ in read]
        reals, weights = (torch.cat(each) for each in zip(*samples, strict=True))
        output.calibrate(reals, weights)


def _round_weight(layer_map: OperatorMap, inputs: list[Tensor], wanted: list[Tensor]) -> None:
    weight, quantizer = layer_map.weight, layer_map.weight_quantizer
    assert weight is not None
    assert quantizer is not None
    rounded = rounded_weight(layer_map, quantizer, inputs, wanted)
    quantizer.set_scale(rounded.scales.float())
    middle = 0.5 - quantizer.offset  # of the numbers that have a level, so that rounding errors change none
    weight.copy_(((rounded.levels + middle) * rounded.scales).reshape(weight.shape))


def rounded_weight(
    layer_map: OperatorMap, quantizer: Quantizer, inputs: list[Tensor], wanted: list[Tensor]
) -> RoundedRows:
    """Round the weight of a convolution or linear layer to levels and scales, for what the layer should give.

    Args:
        layer_map: The layer.
        quantizer: The quantizer that tells the levels and the first scales.
        inputs: What the layer reads, batch by batch.
        wanted: What its operator should give.
    """
    weight = layer_map.weight
    assert weight is not None
    num_rows = -(-_NUM_ROWS // len(inputs))
    x = torch.cat([patches(layer_map, each, num_rows) for each in inputs], dim=1)
    y = torch.cat([rows_of(layer_map, each, num_rows) for each in wanted])
    groups = len(x)
    rows = weight.detach().reshape(groups, len(weight) // groups, -1)
    problem = LeastSquares.of(x, y.reshape(len(y), groups, -1).movedim(1, 0), rows)
    scale = positive(quantizer.scale.detach())
    scales = scale.reshape(1, 1, 1) if scale.numel() == 1 else scale.reshape(groups, -1, 1)
    levels = quantizer.levels()
    return round_rows(problem, scales, int(levels.lo), int(levels.hi))


def _shift(layer_map: OperatorMap, inputs: list[tuple[Tensor, ...]], wanted: list[Tensor]) -> None:
    """Move the outputs of each channel so that their mean is the float network's."""
    weight = _quantized(layer_map.weight_quantizer, layer_map.weight)
    errors = [
        aim - layer_map.operator.real(ours, weight, layer_map.bias) for ours, aim in zip(inputs, wanted, strict=True)
    ]
    axis = layer_map.operator.channel_axis(errors[0].ndim)
    mean = torch.cat([each.movedim(axis, -1).flatten(0, -2) for each in errors]).mean(0)
    norm = layer_map.norm
    if layer_map.bias is not None:
        layer_map.bias.add_(mean)
    elif isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
        norm.running_mean.sub_(mean)


def _before_quantizer(layer_map: OperatorMap, inputs: tuple[Tensor, ...]) -> Tensor:
    """Compute what reaches the output quantizer, on reals."""
    y = layer_map.operator.real(inputs, _quantized(layer_map.weight_quantizer, layer_map.weight), layer_map.bias)
    y = y if layer_map.norm is None else layer_map.norm(y)
    return y * layer_map.line[0] + layer_map.line[1]


def _quantized(quantizer: Quantizer | None, weight: Tensor | None) -> Tensor | None:
    """Compute a weight's levels times its scale; a weight without a quantizer stays as it is."""
    if quantizer is None or weight is None:
        return weight
    return quantizer.quantize(weight) * positive(quantizer.scale.detach())
