"""How far the noisy network is from the quantised one, layer map by layer map, while its noise vanishes.

Of Theorem 2 (Spallanzani et al. 2022, section 2.3) these are x_ℓ and x_{λ,ℓ}, its (9) and (10), measured on a batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ana_fx.annealing.annealer import noise_at, quantizer_ranges, set_noise
from ana_fx.annealing.ordering import annealing_order, layer_map_graph
from ana_fx.graph import layer_maps
from ana_fx.layers.layer_map import LayerMap, Phase
from ana_fx.prepared.recognize import prepared
from ana_fx.schedule.degrees import Strategy
from ana_fx.schedule.schedule import AnnealingRange, Schedule
from ana_fx.study.rates import convergence_powers, rates_of
from ana_fx.text.json_text import JsonReport
from ana_fx.training.batches import tensors_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Convergence", "LayerConvergence", "compositional_convergence"]

_NUM_MOMENTS = 101


@dataclass(frozen=True)
class LayerConvergence:
    """How far one layer map's output is from the noiseless one at each moment.

    Args:
        path: Module path.
        annealing_range: When its noise decays.
        mean_errors: |x_λ − x|, the mean over the batch and the units, in the units of the output.
        max_errors: The maxima, likewise.
        norms: ‖x_λ − x‖, the Euclidean norm over the units, the largest of the batch.
        power: The p of its convergence rate r = λ^p (see `ana_fx.study.rates`); None where none exists.
        ratios: ‖x_λ − x‖ / r(λ), which tends to 0 if Theorem 2 holds: its (19). 0 where both are 0. None without r.
    """

    path: str
    annealing_range: AnnealingRange
    mean_errors: tuple[float, ...]
    max_errors: tuple[float, ...]
    norms: tuple[float, ...] = ()
    power: float | None = None
    ratios: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Convergence(JsonReport):
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
    """Measure how the output of each layer map approaches that of the network without noise, and (19) of Theorem 2.

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

    Examples:
        >>> import ana_fx
        >>> from torch import nn
        >>> schedule = ana_fx.Schedule("normal", mean="dynamic", interval="overlapped", stop=1.0)
        >>> x = torch.rand(16, 4)
        >>> qat = ana_fx.prepare(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), x, schedule=schedule)
        >>> _ = qat(x)  # the first batch tells the scales
        >>> layer = compositional_convergence(qat, x, progress=[0.0, 0.9, 1.0]).layers[0]
        >>> layer.norms[0] > layer.norms[1], layer.norms[2], layer.ratios[2]
        (True, 0.0, 0.0)
    """
    qat = prepared(qat, "compositional_convergence()")
    schedule = schedule or qat.meta["schedule"]
    inputs = tensors_of(batch, "batch")
    graph = layer_map_graph(qat)
    of_nodes = annealing_order(graph, schedule)
    powers = _powers(graph, of_nodes, schedule)
    ranges = {str(node.target): each for node, each in of_nodes.items()}
    moments = _moments(progress, ranges.values())
    model = _noiseless(qat, schedule, ranges)
    exact = _outputs(model, inputs)
    errors: dict[str, list[tuple[float, float, float]]] = {path: [] for path in ranges}
    for moment in moments:
        _set_noise(model, schedule, moment)
        for path, output in _outputs(model, inputs).items():
            errors[path].append(_distances(output - exact[path]))
    layers = tuple(
        _layer(str(node.target), ranges[str(node.target)], errors[str(node.target)], moments, power)
        for node, power in powers.items()
    )
    return Convergence(moments, layers)


def _powers(
    graph: nx.DiGraph[Node], ranges: dict[Node, AnnealingRange], schedule: Schedule
) -> dict[Node, float | None]:
    """The powers of the convergence rates; noise that a function gives need not be a power of λ."""
    if schedule.function is not None:
        return dict.fromkeys(graph)
    return convergence_powers(graph, ranges, rates_of(ranges, schedule))


def _moments(progress: Iterable[float] | None, ranges: Iterable[AnnealingRange]) -> tuple[float, ...]:
    if progress is None:
        last = max((each.end for each in ranges), default=0.0)
        progress = [last * step / (_NUM_MOMENTS - 1) for step in range(_NUM_MOMENTS)]
    moments = tuple(progress)
    if not moments:
        raise ValueError("progress holds no fraction of training, needed at least one")
    return moments


def _distances(difference: Tensor) -> tuple[float, float, float]:
    """The mean and the largest absolute entry, and the largest norm of a sample."""
    norms = torch.linalg.vector_norm(difference.reshape(len(difference), -1), dim=1)
    return float(difference.abs().mean()), float(difference.abs().max()), float(norms.max())


def _layer(
    path: str,
    annealing_range: AnnealingRange,
    errors: list[tuple[float, float, float]],
    moments: tuple[float, ...],
    power: float | None,
) -> LayerConvergence:
    means, maxima, norms = zip(*errors, strict=True)
    ratios = None
    if power is not None:
        rates = [annealing_range.remaining(moment) ** power for moment in moments]
        ratios = tuple(_ratio(norm, rate) for norm, rate in zip(norms, rates, strict=True))
    return LayerConvergence(path, annealing_range, means, maxima, norms, power, ratios)


def _ratio(norm: float, rate: float) -> float:
    if norm == 0.0:
        return 0.0
    return norm / rate if rate else math.inf


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
