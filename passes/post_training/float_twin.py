"""The float network inside a prepared model: the same graph and parameters without any quantizer."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.fx import GraphModule

from ana_fx.graph import calls_of, delete_unused_modules, layer_map_calls
from ana_fx.layers.input_quantizers import ImageQuantizer, InputQuantizer

__all__ = ["float_twin"]


def float_twin(qat: GraphModule) -> GraphModule:
    """A copy in eval mode whose layer maps compute on reals.

    before   x -> input quantizer -> layer map(·, scale)
    after    x -> identity -> layer map(·)

    Its nodes have the names of those they were copied from; those that fetch scales are gone. What the model's
    parameters are decides whether it is the user's float network: it is right after `prepare`.
    """
    twin = copy.deepcopy(qat).eval()
    for node, layer_map in layer_map_calls(twin):
        node.args = node.args[: layer_map.num_inputs]
        layer_map.weight_quantizer = layer_map.output_quantizer = None
        layer_map.input_types = ()
    for node, quantizer in calls_of(twin, InputQuantizer):
        unrounded = _Pixels(quantizer) if isinstance(quantizer, ImageQuantizer) else nn.Identity()
        twin.set_submodule(str(node.target), unrounded)
    for node in twin.graph.find_nodes(op="get_attr"):
        if not node.users:
            twin.graph.erase_node(node)
    delete_unused_modules(twin)
    twin.recompile()
    return twin


class _Pixels(nn.Module):
    """Gives the reals that an image quantizer rounds; the user's normalisation is in the first layer already."""

    def __init__(self, quantizer: ImageQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        """The pixel, less the zero point, times the scale."""
        quantizer = self.quantizer
        pixels: Tensor = x.float() * quantizer.gain + quantizer.shift
        return (pixels - quantizer.zero_point) * quantizer.scale.detach()
