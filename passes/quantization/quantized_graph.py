"""The dialect of layer maps with quantizers: what is trained."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule, Node

from ana_fx.graph import constant_nodes, layer_map_of, module_of
from ana_fx.layers.input_quantizers import InputQuantizer
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.canonical.canonical_dialect import is_shape, passes_levels
from ana_fx.prepared.graph_form import GraphForm

__all__ = ["QUANTIZED", "Quantized"]

_UNQUANTIZED = "it reads an input of the model that was not quantised"


class Quantized(Dialect):
    """Input quantizers, layer maps that take the scale of each input, what hands on levels, sizes, and constants.

    A layer map without any quantizer is the float layer that the model ends with.
    """

    form = GraphForm.QUANTIZED

    def strangers(self, gm: GraphModule) -> Iterator[tuple[Node, str]]:
        """Every other node, with the reason."""
        constants = constant_nodes(gm)
        for node in gm.graph.nodes:
            module, layer_map = module_of(node), layer_map_of(node)
            if layer_map is not None:
                needed = layer_map.num_inputs + len(layer_map.input_types)  # tensors, and the scale of each
                if len(node.args) != needed:
                    yield node, f"it reads {len(node.args)} tensors, needed {needed}"
            elif node.op == "placeholder":
                readers = [user for user in node.users if not is_shape(user)]
                yield from ((each, _UNQUANTIZED) for each in readers if not isinstance(module_of(each), InputQuantizer))
            elif isinstance(module, InputQuantizer) or node.op == "output" or node in constants:
                continue
            elif not (is_shape(node) or passes_levels(node)):
                yield node, f"{type(module).__name__ if module else node.target} is no layer map"


QUANTIZED = Quantized()
