"""What is known of each tensor of a loaded program, computed again from its modules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Interpreter, Node

from ana_fx.graph import calls_to, module_of
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.program.data_movement import Movement
from ana_fx.program.integer_layers import IntegerHead, IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool, IntegerSoftmax, IntegerTable
from ana_fx.program.layout import BATCH, Layout
from ana_fx.program.level_flow import levels_given
from ana_fx.program.program_borders import Dequantize, Quantize, QuantizeFloat
from ana_fx.program.tensor_spec import LevelRange, TensorSpec, set_spec, spec_of

__all__ = ["specify"]

_LARGEST_TENSOR = 2**28  # numbers, of one sample
_READERS = (IntegerHead, IntegerMap, IntegerMaxPool, IntegerSoftmax, IntegerTable)


def specify(program: GraphModule, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compute what is known of every tensor, without any number, and compare its shape with what the file says."""
    inputs = []
    for node in program.graph.find_nodes(op="placeholder"):
        if node.users and node.name not in shapes:
            raise ValueError(f"found input {node.name!r} without a shape")
        inputs.append(_sample(shapes.get(node.name, ())))
    if not calls_to(program, Quantize):
        raise ValueError("found no input that is quantised")
    layouts = _Layouts(program, shapes)
    with FakeTensorMode(allow_non_fake_inputs=True):
        layouts.run(*(torch.empty(BATCH, *shape) for shape in inputs))
    for node, layout in layouts.found.items():
        set_spec(node, TensorSpec(layout, _levels(node)))


def _sample(shape: tuple[int, ...]) -> tuple[int, ...]:
    size = math.prod(shape)
    if size > _LARGEST_TENSOR:
        raise ValueError(f"found samples of {size:,} numbers, needed at most {_LARGEST_TENSOR:,}")
    return shape


class _Layouts(Interpreter):
    def __init__(self, program: GraphModule, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(program)
        self.found: dict[Node, Layout] = {}
        self._shapes = shapes

    def run_node(self, n: Node) -> Any:
        """The tensor, which has the shape that the file says."""
        stated = self._shapes.get(n.name)
        if stated is None and n.op == "call_module":
            raise ValueError(f"found node {n.name!r} without a shape")
        if stated is not None:
            _sample(stated)
        try:
            result = super().run_node(n)
        except Exception as error:  # torch's errors share no base
            kind = type(module_of(n)).__name__
            raise ValueError(f"node {n.name!r} ({kind}) cannot compute: {str(error).splitlines()[0][:200]}") from error
        if not isinstance(result, Tensor) or n.op == "output":
            return result
        found = tuple(result.shape)
        row = found[1:] if n.all_input_nodes or n.op == "placeholder" else found  # a constant has no batch
        if n.op == "call_module" and stated != row:
            raise ValueError(f"node {n.name!r} gives samples of {row}, the file says {stated}")
        self.found[n] = Layout(found, None if row == found else 0)
        return result


def _levels(node: Node) -> LevelRange | None:
    """The levels that a node gives.

    Raises:
        ValueError: Something computes with logits or reals.
    """
    module, inputs = module_of(node), [spec_of(each) for each in node.all_input_nodes]
    if module is None:
        return None
    if type(module) in _READERS and any(each.levels is None or each.levels.integer_type is None for each in inputs):
        raise ValueError(f"node {node.name!r} ({type(module).__name__}) reads what are no levels")
    if type(module) is QuantizeFloat and not _reads_float_layer(node):
        raise ValueError(f"node {node.name!r} (QuantizeFloat) reads what no float layer gives")
    return LevelRange.of_logits(_scale_of(node)) if type(module) is IntegerHead else levels_given(module, inputs)


def _reads_float_layer(node: Node) -> bool:
    """Whether a float layer gives what a node reads, moved or not."""
    sources = node.all_input_nodes
    while len(sources) == 1 and isinstance(module_of(sources[0]), Movement):
        sources = sources[0].all_input_nodes
    return len(sources) == 1 and isinstance(module_of(sources[0]), OperatorMap)


def _scale_of(head: Node) -> Tensor:
    """The scale of logits: that of the dequantize behind them."""
    seen = [head]
    for node in seen:
        module = module_of(node)
        if isinstance(module, Dequantize):
            return module.scale
        seen += [user for user in node.users if user not in seen]
    raise ValueError(f"found logits at node {head.name!r} that nothing dequantises")
