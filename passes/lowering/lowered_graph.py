"""The dialect of integers between quantize and dequantize: what is exported."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule, Node

from ana_fx.graph import layer_map_of, module_of
from ana_fx.passes.base_dialect import Dialect
from ana_fx.prepared.graph_form import GraphForm
from ana_fx.program.data_movement import Movement
from ana_fx.program.integer_layers import IntegerHead, IntegerMap, IntegerThresholds
from ana_fx.program.integer_modules import IntegerConstant, IntegerMaxPool, IntegerSoftmax, IntegerTable, Repeat
from ana_fx.program.program_borders import Dequantize, Quantize
from ana_fx.program.tensor_spec import has_spec

__all__ = ["PROGRAM", "Program"]

_MODULES = (
    Dequantize, IntegerConstant, IntegerHead, IntegerMap, IntegerMaxPool, IntegerSoftmax, IntegerTable,
    IntegerThresholds, Movement, Quantize, Repeat,
)  # fmt: skip


class Program(Dialect):
    """Calls of modules of `ana_fx.program`, and of the float layer that a model may end with; each has a TensorSpec."""

    form = GraphForm.PROGRAM

    def strangers(self, gm: GraphModule) -> Iterator[tuple[Node, str]]:
        """Every other node, with the reason."""
        for node in gm.graph.nodes:
            module, layer_map = module_of(node), layer_map_of(node)
            is_float_layer = layer_map is not None and not layer_map.is_quantized
            if node.op in ("placeholder", "output"):
                continue
            if not isinstance(module, _MODULES) and not is_float_layer:
                yield node, f"{type(module).__name__ if module else node.target} is no module of a program"
            elif not has_spec(node):
                yield node, "nothing is known of the tensor that it gives"


PROGRAM = Program()
