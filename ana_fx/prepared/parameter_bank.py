"""The quantised weights of all layers, computed before they run.

A layer's weight takes some microseconds and what calls for that ten times as long; a network has a hundred of them. So
a hook of the model quantises them together, for training in one process: several processes exchange the gradients of
the last layers while those of the first are still computed, and these would come all at once. Where the hook does not
run, in copies of the model, each layer quantises its own weight, with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.fx import GraphModule

from ana_fx.graph import calls_of, layer_map_calls, layer_map_of
from ana_fx.kernels.bins import Bins, bins_of
from ana_fx.kernels.blocked_weights import quantize_on_cpu
from ana_fx.kernels.fused_weights import Layout, quantize_together
from ana_fx.layers.fake_quantize import is_computed_again
from ana_fx.layers.hooks import is_hooked
from ana_fx.layers.layer_map import Phase
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import Quantizer

__all__ = ["ParameterBank"]

_TOGETHER = 2**18  # numbers that are quantised at once on a CPU: as many as its caches hold


class ParameterBank:
    """A hook before the forward pass of a prepared model."""

    def __init__(self) -> None:
        self._layer_maps: list[OperatorMap] | None = None
        self._layout: Layout | None = None

    def __call__(self, gm: GraphModule, _inputs: Any) -> None:
        """Hand each layer map that learns what it needs, if the model trains on one device."""
        if torch.compiler.is_compiling() or not gm.training or not torch.is_grad_enabled():
            return
        if self._layer_maps is None:
            self._layer_maps = list(dict.fromkeys(layer_map for _, layer_map in calls_of(gm, OperatorMap)))
            _note_what_is_kept(gm)
        if torch._C._are_functorch_transforms_active() or (dist.is_available() and dist.is_initialized()):
            return
        learning = [each for each in self._layer_maps if each.training and each.phase is Phase.LEARNING]
        self._hand_weights([each for each in learning if _has_plain_weight(each)])

    def _hand_weights(self, layer_maps: Sequence[OperatorMap]) -> None:
        """Hand weights that are quantised in one kernel, or some of them at a time on a CPU."""
        if not layer_maps:
            return
        if _weight_of(layer_maps[0]).is_cuda:
            chosen = [each for each in layer_maps if _quantizer_of(each).is_fused(_weight_of(each))]
            if len(chosen) > 1:
                self._hand_on_gpu(chosen)
            return
        small = [_SmallWeight.of(each) for each in layer_maps if _is_small(each)]
        for together in _chunks([each for each in small if each.bins.is_whole]):
            weights, scales, bins, factors = zip(*(each[1:] for each in together), strict=True)
            _hand([each.layer_map for each in together], weights, quantize_on_cpu(weights, scales, bins, factors))

    def _hand_on_gpu(self, chosen: Sequence[OperatorMap]) -> None:
        is_cast = torch.is_autocast_enabled("cuda")
        dtype = torch.get_autocast_dtype("cuda") if is_cast else torch.float32
        sources = [(_weight_of(each), *_quantizer_of(each).numbers()) for each in chosen]
        addresses = [tensor.data_ptr() for tensors in sources for tensor in tensors]
        weights, scales, *_ = zip(*sources, strict=True)
        layout = self._layout
        if layout is None or layout.addresses != addresses:
            quantizers = [_quantizer_of(layer_map) for layer_map in chosen]
            grids = [quantizer.grid() for quantizer in quantizers]
            factors = [quantizer.scale_gradient(weight) for quantizer, weight in zip(quantizers, weights, strict=True)]
            layout = self._layout = Layout.of(grids, factors, sources, addresses)
        _hand(chosen, weights, quantize_together(weights, scales, layout, dtype))


class _SmallWeight(NamedTuple):
    """A weight, and how it is quantised."""

    layer_map: OperatorMap
    weight: Tensor
    scale: Tensor
    bins: Bins
    scale_gradient: float

    @classmethod
    def of(cls, layer_map: OperatorMap) -> _SmallWeight:
        """That of a layer map."""
        weight, quantizer = _weight_of(layer_map), _quantizer_of(layer_map)
        scale, mean, std = quantizer.numbers()
        bins = bins_of(quantizer.grid(), 1.0, *quantizer.noise_reader.read(mean, std))
        return cls(layer_map, weight, scale, bins, quantizer.scale_gradient(weight))


def _hand(layer_maps: Sequence[OperatorMap], weights: Sequence[Tensor], quantized: Sequence[Tensor]) -> None:
    for layer_map, weight, each in zip(layer_maps, weights, quantized, strict=True):
        layer_map.handed.hand_weight(each, weight)


def _quantizer_of(layer_map: OperatorMap) -> Quantizer:
    """Its weight's quantizer; looked up where modules keep it, which is faster."""
    return layer_map._modules["weight_quantizer"]  # type: ignore[return-value]  # the layer maps were chosen for it


def _weight_of(layer_map: OperatorMap) -> Tensor:
    """Its weight, looked up likewise."""
    return layer_map._parameters["weight"]  # type: ignore[return-value]  # likewise


def _has_plain_weight(layer_map: OperatorMap) -> bool:
    """Whether it learns a weight that can be quantised with others."""
    weight, quantizer = layer_map._parameters.get("weight"), layer_map._modules.get("weight_quantizer")
    return (
        weight is not None
        and isinstance(quantizer, Quantizer)
        and weight.requires_grad
        and weight.is_contiguous()
        and weight.dtype == torch.float32
        and not quantizer.integer_type.levels  # a codebook's levels are compared one by one
        and quantizer.is_calibrated
        and not is_hooked(quantizer)
    )


def _is_small(layer_map: OperatorMap) -> bool:
    """Whether a step keeps its quantised weight, because calls cost more than its numbers."""
    weight, quantizer = _weight_of(layer_map), _quantizer_of(layer_map)
    return quantizer.is_blocked(weight) and not is_computed_again(weight, quantizer.strategy)


def _chunks(weights: Sequence[_SmallWeight]) -> Iterator[Sequence[_SmallWeight]]:
    """In order, as many at a time as caches hold."""
    starts = accumulate((each.weight.numel() for each in weights), initial=0)
    numbered = zip(starts, weights, strict=False)
    for _, chunk in groupby(numbered, lambda each: each[0] // _TOGETHER):
        yield [weight for _, weight in chunk]


def _note_what_is_kept(gm: GraphModule) -> None:
    """Tell quantizers whether what reads them keeps it for backward."""
    for node, layer_map in layer_map_calls(gm):
        quantizer = layer_map.output_quantizer
        if quantizer is not None:
            readers = [layer_map_of(user) for user in node.users]
            quantizer.output_is_kept = any(reader is None or reader.keeps_inputs for reader in readers)
