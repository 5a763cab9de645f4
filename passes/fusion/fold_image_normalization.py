"""Per-channel normalisation of images, inside the first convolutions or before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ana_fx.errors import UnsupportedError, listing
from ana_fx.graph import calls_of, location, unique_path
from ana_fx.layers.image_normalization import ImageNormalization
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import is_shape
from ana_fx.passes.fusion.fused_graph import FUSED
from ana_fx.passes.fusion.observation import observation_of
from ana_fx.precision.image_input import ImageInput

__all__ = ["FoldImageNormalization"]

_KEY = "folded_normalization"  # of `GraphModule.meta`: what was folded, so that a second run folds nothing


@dataclass(frozen=True)
class FoldImageNormalization(Pass):
    """Let the model read pixel / 255 where it read (pixel / 255 − mean) / std.

    before   x -> convolution(weight, bias)
    after    x -> convolution(weight / std, bias − Σ weight · mean / std)

    Where a reader of the image is no convolution, or pads with zeros, which are no pixel, or shares its weight:

    before   x -> convolution(weight, bias, padding)
    after    x -> image normalization -> convolution(weight, bias, padding)

    The input quantizer, which comes next, gives out pixel / 255. Leaves alone what is normalised
    alike in all channels. Requires layer maps without quantizers.

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
        readers = {node: _readers(node) for node in gm.graph.find_nodes(op="placeholder")}
        maps = dict(calls_of(gm, OperatorMap))
        _refuse_other_channels(readers, maps, self.image)
        for image, nodes in readers.items():
            if all(_folds(node, maps) for node in nodes):
                for node in nodes:
                    _fold(maps[node], self.image)
            else:
                _insert(gm, image, nodes, self.image)
        gm.meta[_KEY] = self.image
        return any(readers.values())


def _readers(image: Node) -> list[Node]:
    return [reader for reader in image.users if not is_shape(reader)]


def _refuse_other_channels(readers: dict[Node, list[Node]], maps: dict[Node, OperatorMap], image: ImageInput) -> None:
    refused = [
        f"{location(nodes[0])}: it reads {found} channels, the normalisation has {image.num_channels}"
        for node, nodes in readers.items()
        if nodes and (found := _num_channels(node, nodes, maps)) not in (None, image.num_channels)
    ]
    if refused:
        way_out = "give a mean and a std for each channel of the images, or one for all"
        raise UnsupportedError(listing("the normalisation does not fit the images:", refused, way_out))


def _num_channels(image: Node, readers: list[Node], maps: dict[Node, OperatorMap]) -> int | None:
    """The channels of the images, as far as that is known."""
    shape = observation_of(image).sample_shape
    if shape:
        return shape[0]
    weighted = [(maps[node].operator, maps[node].weight) for node in readers if node in maps]
    known = (operator.num_input_channels(weight) for operator, weight in weighted if weight is not None)
    return next((each for each in known if each is not None), None)


def _folds(node: Node, maps: dict[Node, OperatorMap]) -> bool:
    """Whether the normalisation can go into the weights of what reads the image."""
    layer_map = maps.get(node)
    if layer_map is None or not layer_map.operator.takes_input_affine:
        return False
    return len({each for each in maps.values() if each.weight is layer_map.weight}) == 1


def _insert(gm: GraphModule, image: Node, readers: list[Node], normalization: ImageInput) -> None:
    """Put the normalisation between an image and what reads it."""
    path = unique_path(gm, f"{image.name}_normalization")
    like = next(iter(gm.parameters()), None)
    gm.add_submodule(path, ImageNormalization(normalization).to(like.device if like is not None else "cpu"))
    with gm.graph.inserting_after(image):
        call = gm.graph.call_module(path, (image,))
    call.meta, call.stack_trace = dict(image.meta), image.stack_trace
    gm.get_submodule(path).train(gm.training)
    for node in readers:
        node.replace_input_with(image, call)


@torch.no_grad()
def _fold(layer_map: OperatorMap, image: ImageInput) -> None:
    weight = layer_map.weight
    assert weight is not None
    groups = layer_map.operator.num_groups
    std, mean = (_of_weight(numbers, weight, groups) for numbers in (image.std, image.mean))  # as float64
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
