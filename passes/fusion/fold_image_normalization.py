"""Per-channel normalisation of images, inside the first convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ana_fx.errors import UnsupportedError, listing
from ana_fx.graph import calls_of, location
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.operators.convolution import Convolution
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import is_shape
from ana_fx.passes.fusion.fused_graph import FUSED
from ana_fx.precision.image_input import ImageInput

__all__ = ["FoldImageNormalization"]

_KEY = "folded_normalization"  # of `GraphModule.meta`: what was folded, so that a second run folds nothing


@dataclass(frozen=True)
class FoldImageNormalization(Pass):
    """Let the first convolutions read pixel / 255 where the model's read (pixel / 255 − mean) / std.

    before   x -> convolution(weight, bias)
    after    x -> convolution(weight / std, bias − Σ weight · mean / std)

    The input quantizer, which comes next, gives out pixel / 255. Leaves alone what is normalised
    alike in all channels. Requires layer maps without quantizers; refuses readers of the image that are
    no convolution, that pad, or that share their weight.

    Args:
        image: How the model's images are normalised, or None.
    """

    name: ClassVar[str] = "fold-image-normalization"
    requires: ClassVar[Dialect] = FUSED
    ensures: ClassVar[Dialect] = FUSED
    image: ImageInput | None

    def run(self, gm: GraphModule) -> bool:
        if self.image is None or self.image.is_homogeneous or gm.meta.get(_KEY) == self.image:
            return False
        readers = [
            reader
            for node in gm.graph.nodes
            if node.op == "placeholder"
            for reader in node.users
            if not is_shape(reader)
        ]
        reasons = [
            f"{location(node)}: {reason}" for node in readers for reason in [_obstacle(gm, node, self.image)] if reason
        ]
        if reasons:
            n = self.image.num_channels
            way_out = (
                f"use one mean and one std for all channels, or Precision(input='int8') with normalised inputs; or put "
                f"a 1x1 depthwise convolution that holds the normalisation in front of the model, nn.Conv2d({n}, {n}, "
                f"1, groups={n}) with weight 1 / std and bias -mean / std, and give ImageInput(0.0, 1.0)"
            )
            raise UnsupportedError(
                listing("a normalisation of each channel folds into unpadded convolutions only:", reasons, way_out)
            )
        found = dict(calls_of(gm, OperatorMap))
        for node in readers:
            _fold(found[node], self.image)
        gm.meta[_KEY] = self.image
        return bool(readers)


def _obstacle(gm: GraphModule, node: Node, image: ImageInput) -> str:
    """Why the normalisation cannot go into what reads the image; empty if it can."""
    maps = dict(calls_of(gm, OperatorMap))
    layer_map = maps.get(node)
    if layer_map is None or not isinstance(layer_map.operator, Convolution):
        return "it is no convolution"
    if any(any(pair) for pair in layer_map.operator.padding):
        return "it pads with zeros, which are no pixel, and another one in each channel"
    assert layer_map.weight is not None
    num_channels = layer_map.weight.shape[1] * layer_map.operator.groups
    if num_channels != image.num_channels:
        return f"it reads {num_channels} channels, the normalisation has {image.num_channels}"
    sharing = {other for other in maps.values() if other.weight is layer_map.weight}
    return "another layer shares its weight" if len(sharing) > 1 else ""


@torch.no_grad()
def _fold(layer_map: OperatorMap, image: ImageInput) -> None:
    weight = layer_map.weight
    assert weight is not None
    assert isinstance(layer_map.operator, Convolution)
    std, mean = (
        _of_weight(numbers, weight, layer_map.operator.groups) for numbers in (image.std, image.mean)
    )  # as float64
    folded = weight.double() / std
    shift = (folded * mean).flatten(1).sum(1)
    bias = -shift if layer_map.bias is None else layer_map.bias.double() - shift
    layer_map.weight = nn.Parameter(folded.to(weight.dtype), weight.requires_grad)
    layer_map.bias = nn.Parameter(bias.to(weight.dtype), weight.requires_grad)


def _of_weight(numbers: tuple[float, ...], weight: Tensor, groups: int) -> Tensor:
    """For each weight [out, in / group, …] the number of the channel that it reads, float64."""
    num_inputs = weight.shape[1] * groups
    of_channel = torch.tensor(numbers, dtype=torch.float64, device=weight.device).expand(num_inputs)
    of_group = of_channel.reshape(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1).flatten(0, 1)
    return of_group.reshape(*of_group.shape, *[1] * (weight.ndim - 2))
