"""How far the noisy network is from the quantised one, layer map by layer map, while its noise vanishes."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ana_fx.annealing.annealer import noise_at, quantizer_ranges, set_noise
from ana_fx.annealing.ordering import annealing_order, layer_map_graph
from ana_fx.graph import layer_maps
from ana_fx.layers.layer_map import LayerMap, Phase
from ana_fx.prepared.recognize import prepared
from ana_fx.schedule.degrees import Strategy
from ana_fx.schedule.schedule import AnnealingRange, Schedule
from ana_fx.training.batches import tensors_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Convergence", "LayerConvergence", "compositional_convergence"]

_NUM_MOMENTS = 101


@dataclass(frozen=True)
class LayerConvergence:
    """‖x_λ − x‖ of one layer map's output at each moment: the mean and the largest absolute difference.

    Args:
        path: Module path.
        annealing_range: When its noise decays.
        mean_errors: Means over the batch and the units, in the units of the output.
        max_errors: Maxima, likewise.
    """

    path: str
    annealing_range: AnnealingRange
    mean_errors: tuple[float, ...]
    max_errors: tuple[float, ...]


@dataclass(frozen=True)
class Convergence:
    """The errors of all layer maps, in graph order, at each fraction of training in `progress`."""

    progress: tuple[float, ...]
    layers: tuple[LayerConvergence, ...]

    def plot(self) -> Figure:
        """The picture of it; needs the extra `plot`."""
        from ana_fx.study.plots import plot_convergence

        return plot_convergence(self)


@torch.no_grad()
def compositional_convergence(
    qat: nn.Module, batch: Any, schedule: Schedule | None = None, *, progress: Iterable[float] | None = None
) -> Convergence:
    """Measure how the output of each layer map approaches that of the network without noise.

    Both networks compute on reals, with the statistics of the batch norms and without dropout; the
    noisy one takes expectations. The model is not touched.

    Args:
        qat: What `prepare` returned.
        batch: A tensor, or a tuple of tensors, with which to call it.
        schedule: Another schedule than the model's own; None is its own.
        progress: Fractions of training, increasing; None is 101 of them from 0 to the end of annealing.

    Raises:
        CalibrationError: The scale of the input is not known yet.
        TypeError: `qat` is no module, or `batch` holds no tensors.
        ValueError: It was not prepared, or `progress` is empty.
    """
    qat = prepared(qat, "compositional_convergence()")
    schedule = schedule or qat.meta["schedule"]
    inputs = tensors_of(batch, "batch")
    ranges = {str(node.target): each for node, each in annealing_order(layer_map_graph(qat), schedule).items()}
    if progress is None:
        last = max((each.end for each in ranges.values()), default=0.0)
        progress = [last * step / (_NUM_MOMENTS - 1) for step in range(_NUM_MOMENTS)]
    moments = tuple(progress)
    if not moments:
        raise ValueError("progress holds no fraction of training, needed at least one")
    model = _noiseless(qat, schedule, ranges)
    exact = _outputs(model, inputs)
    errors: dict[str, list[tuple[float, float]]] = {path: [] for path in ranges}
    for moment in moments:
        _set_noise(model, schedule, moment)
        for path, output in _outputs(model, inputs).items():
            error = (output - exact[path]).abs()
            errors[path].append((float(error.mean()), float(error.max())))
    layers = tuple(LayerConvergence(path, ranges[path], *zip(*pairs, strict=True)) for path, pairs in errors.items())
    return Convergence(moments, layers)


def _noiseless(qat: GraphModule, schedule: Schedule, ranges: dict[str, AnnealingRange]) -> GraphModule:
    """A copy that computes on reals and in expectation, with the schedule's noise still to be set."""
    model = copy.deepcopy(qat).eval()
    for path, layer_map in layer_maps(model).items():
        layer_map.set_phase(Phase.LEARNING)
        layer_map.training = True  # alone, without its batch norm
        layer_map.annealing_range = ranges[path]
    for quantizer, own in quantizer_ranges(list(layer_maps(model).values())).items():
        quantizer.shape_noise(schedule.constants(own)._replace(strategy=Strategy.EXPECTATION))
        quantizer.mean.zero_()
        quantizer.std.zero_()
    return model


def _set_noise(model: GraphModule, schedule: Schedule, moment: float) -> None:
    ranges = quantizer_ranges(list(layer_maps(model).values()))
    set_noise(ranges, noise_at(moment, schedule, ranges.values()))


def _outputs(model: GraphModule, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """What each layer map gives out, by module path."""
    outputs: dict[str, Tensor] = {}

    def record(path: str) -> Any:
        def hook(module: LayerMap, args: Any, output: Tensor) -> None:
            outputs[path] = output.double()

        return hook

    handles = [layer_map.register_forward_hook(record(path)) for path, layer_map in layer_maps(model).items()]
    try:
        model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs
