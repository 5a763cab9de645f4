"""`compare_layers`: which layer hurts, and what is wrong with it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ana_fx.analysis.layer_errors import LayerError, LayerErrors
from ana_fx.graph import layer_map_of, module_of
from ana_fx.layers.input_quantizers import InputQuantizer
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.quantizers import Quantizer
from ana_fx.numerics.scale_search import positive
from ana_fx.passes.post_training.float_twin import float_twin
from ana_fx.passes.post_training.side_by_side import SideBySide, batches_for
from ana_fx.passes.prepare import prepare
from ana_fx.prepared.recognize import prepared
from ana_fx.prepared.settings import settings_of

__all__ = ["compare_layers"]

_ANY_RANK = 4  # the channels of an operator are on axis 1 or on the last one, whatever the rank
_SATURATED = 0.05  # of the outputs, from which on it is a fault
_LARGE_GAIN = 10.0  # times the median of the layers with a weight
_LARGE_PEAK = 50.0  # times the root mean square: a normal number is that far out once in 10^500


def compare_layers(qat: nn.Module, model: nn.Module | None, batches: Iterable[Any]) -> LayerErrors:
    """Compare each layer of a prepared model in eval mode with the float network on some batches.

    A layer's signal-to-noise ratio counts the errors of all layers before it too; its own is that of the layer with its
    quantised weight and output on what the float network's layer reads. Faults are named: outputs that saturate,
    channels that are constant, weights that are out of proportion, rare outliers.

    Args:
        qat: What `prepare` returned, trained or not.
        model: The float network; None for the one that the parameters of `qat` are, as it is right after `prepare`.
        batches: Tensors, or tuples that begin with the model's inputs. All are in memory at once.

    Returns:
        A row for each input and layer map, in graph order.

    Raises:
        TypeError: `qat` or `model` is no module, or `batches` does not hold batches.
        ValueError: `qat` was not prepared, or `model` is another network.
        CalibrationError: There is no batch, one is unfit, or a scale is not known.

    Examples:
        >>> import ana_fx
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> x = torch.rand(32, 4)
        >>> qat = ana_fx.prepare(model, x, precision="int4", calibration=[x])
        >>> [row.name for row in compare_layers(qat, model, [x]).rows]
        ['input_1_quantizer', '0', '2']
    """
    gm = prepared(qat, "compare_layers()")
    found = batches_for(gm, batches)
    was_training = gm.training
    gm.eval()
    rows: list[LayerError] = []
    try:
        runs = SideBySide(gm, float_twin(gm) if model is None else _twin_of(model, gm, found[0]), found)
        console = Console(stderr=True)
        hidden = not console.is_terminal
        with _without_noise(gm):
            for node in track(runs.nodes, "comparing", console=console, transient=True, disable=hidden):
                row = _row(node, runs)
                if row is None:
                    runs.run(node)
                else:
                    rows.append(row)
    finally:
        gm.train(was_training)
    return LayerErrors(tuple(_with_large_gains(rows)))


def _twin_of(model: nn.Module, qat: GraphModule, batch: tuple[Any, ...]) -> GraphModule:
    """Prepare the float network as `qat` was, and return it without quantizers: their nodes have the same names."""
    settings = settings_of(qat.state_dict())
    assert settings is not None
    example = qat.meta["example_inputs"] or batch
    again = prepare(model, example, precision=settings.precision, schedule=qat.meta["schedule"], target=settings.target)
    ours, theirs = _shapes(qat), _shapes(again)
    if ours != theirs:
        different = sorted(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
        raise ValueError(
            f"model is not the network that qat was prepared from: they differ at {', '.join(different[:5])}; give the "
            f"float model that prepare() was given, or None for the parameters of qat"
        )
    return float_twin(again)


def _shapes(gm: GraphModule) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The shapes of the parameters of each layer map, by the name of its node."""
    found = {}
    for node in gm.graph.nodes:
        layer_map = layer_map_of(node)
        if layer_map is not None:
            found[node.name] = tuple(tuple(each.shape) for each in layer_map.parameters())
    return found


@contextmanager
def _without_noise(gm: GraphModule) -> Iterator[None]:
    """Take the noise from all quantizers, so that they compute what eval mode does, and give it back at the end."""
    noise = [(each, each.clone()) for q in gm.modules() if isinstance(q, Quantizer) for each in (q.mean, q.std)]
    try:
        for each, _ in noise:
            each.zero_()
        yield
    finally:
        for each, old in noise:
            each.copy_(old)


@dataclass
class _Sums:
    """What is added up for one layer over all batches."""

    signal: float = 0.0
    error: float = 0.0
    own_error: float = 0.0
    read: float = 0.0
    num_read: int = 0
    num_outputs: int = 0
    num_saturated: int = 0
    largest: float = 0.0

    def add(self, outputs: tuple[Tensor, Tensor], own: Tensor, read: tuple[Tensor, ...]) -> None:
        ours, floats = (each.double() for each in outputs)
        self.signal += float(floats.square().sum())
        self.error += float((ours - floats).square().sum())
        self.own_error += float((own.double() - floats).square().sum())
        self.read += sum(float(each.double().square().sum()) for each in read)
        self.num_read += sum(each.numel() for each in read)
        self.num_outputs += floats.numel()
        self.largest = max(self.largest, float(floats.abs().max()))


@torch.no_grad()
def _row(node: Node, runs: SideBySide) -> LayerError | None:
    """Run a node on all batches and return its row; None, without running it, if it quantises no output or input."""
    module, layer_map = module_of(node), layer_map_of(node)
    if layer_map is None and not isinstance(module, InputQuantizer):
        return None
    quantizer = layer_map.output_quantizer if layer_map is not None else module
    read = runs.read_by(node, 1 if layer_map is None else layer_map.num_inputs)
    sums, seen = _Sums(), _Channels(-1 if layer_map is None else _channel_axis(layer_map))
    for (_, floats), (ours, wanted) in zip(read, runs.run(node), strict=True):
        own = ours if layer_map is None else layer_map.real(floats)
        sums.add((ours, wanted), own, floats)
        sums.num_saturated += 0 if quantizer is None else _num_saturated(quantizer, wanted)  # type: ignore[arg-type]
        seen.add(ours, wanted)
    dead, lost = seen.counts() if layer_map is not None else (0, 0)
    mean_square = sums.signal / sums.num_outputs
    row = LayerError(
        name=str(node.target),
        operation="input" if layer_map is None else layer_map.operation,
        snr=_decibels(sums.signal, sums.error),
        own_snr=_decibels(sums.signal, sums.own_error),
        saturated=sums.num_saturated / sums.num_outputs,
        dead=dead,
        lost=lost,
        gain=math.sqrt(mean_square / (sums.read / sums.num_read)) if sums.read else 0.0,
        peak=sums.largest / math.sqrt(mean_square) if mean_square else 0.0,
    )
    return replace(row, faults=tuple(_faults(row)))


def _channel_axis(layer_map: LayerMap) -> int:
    axis = layer_map.channel_axis(_ANY_RANK)
    return 1 if axis is None else axis


def _num_saturated(quantizer: Quantizer, x: Tensor) -> int:
    """How many reals lie more than the distance of two levels outside of all."""
    scale, integer_type = float(positive(quantizer.scale.detach())), quantizer.integer_type
    above = x > (integer_type.qmax + 1) * scale
    below = x < (integer_type.qmin - 1) * scale if integer_type.qmin else torch.zeros_like(above)
    return int((above | below).sum())


class _Channels:
    """The smallest and the largest number of each channel, for every batch, quantised and float."""

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.ends: list[list[tuple[Tensor, Tensor]]] = [[], []]

    def add(self, *outputs: Tensor) -> None:
        for ends, x in zip(self.ends, outputs, strict=True):
            axis = self.axis if self.axis < x.ndim else x.ndim - 1
            channels = x.movedim(axis, 0).flatten(1)
            ends.append((channels.amin(1), channels.amax(1)))

    def counts(self) -> tuple[int, int]:
        """How many channels are constant in floats, and how many others in the quantised network."""
        ours, floats = (self._is_constant(ends) for ends in self.ends)
        return int(floats.sum()), int((ours & ~floats).sum())

    @staticmethod
    def _is_constant(ends: list[tuple[Tensor, Tensor]]) -> Tensor:
        lowest, highest = (torch.stack(each) for each in zip(*ends, strict=True))
        return lowest.amin(0) == highest.amax(0)


def _faults(row: LayerError) -> Iterator[str]:
    if row.saturated > _SATURATED:
        yield f"{row.saturated:.1%} of its outputs saturate: its step is too small"
    if row.dead:
        yield f"{row.dead} channel(s) are dead: constant for all samples"
    if row.lost:
        yield f"{row.lost} channel(s) become constant when quantised: its step is too large for them"
    if row.peak > _LARGE_PEAK:
        yield f"rare outliers: the largest output is {row.peak:.0f} times the root mean square"


def _with_large_gains(rows: list[LayerError]) -> Iterator[LayerError]:
    """Add a fault to the rows of layers that make numbers much larger than other layers do."""
    gains = [row.gain for row in rows if row.operation.startswith(("convolution", "linear", "transposed"))]
    usual = statistics.median(gains) if len(gains) > 2 else math.inf
    for row in rows:
        if row.gain > _LARGE_GAIN * usual:
            said = f"its weights are out of proportion: outputs {row.gain:.3g} times what it reads, usual {usual:.3g}"
            row = replace(row, faults=(*row.faults, said))
        yield row


def _decibels(signal: float, error: float) -> float:
    if error == 0.0:
        return math.inf
    return 10 * math.log10(signal / error) if signal else -math.inf
