"""What no file can hold whose images lie with their channels last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Node

from ana_fx.graph import module_of
from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.reduce import Reduce
from ana_fx.program.data_movement import Concat
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.program.tensor_spec import has_spec, sample_shape_of, spec_of
from ana_fx.target import Target

__all__ = [
    "Limit",
    "average_reasons",
    "concat_reasons",
    "convolution_reasons",
    "layout_reasons",
    "map_of",
    "mean_reasons",
    "no_reasons",
    "pool_reasons",
]

Limit = Callable[[Node, Any, Target], list[str]]
"""From a node, its operator or module, and the target to why kernels cannot compute it, a sentence for each reason."""

_LARGEST_RANK = 4  # of samples: five axes with the batch


def layout_reasons(node: Node) -> list[str]:
    """Say why the kernels' images and rows cannot hold what a node gives, whatever computes it."""
    if not has_spec(node):
        return []
    layout, reasons = spec_of(node).layout, []
    if layout.rows != 1:
        reasons.append(f"it gives {layout.rows} rows for each sample, needed one: windows and heads stay in the sample")
    if len(layout.row) > _LARGEST_RANK:
        reasons.append(f"its samples have {len(layout.row)} axes, needed at most {_LARGEST_RANK}")
    return reasons


def no_reasons(node: Node, subject: object, target: Target) -> list[str]:
    """Say nothing against a node: kernels compute its kind whatever its numbers are."""
    return []


def convolution_reasons(node: Node, operator: Convolution, target: Target) -> list[str]:
    """Refuse negative padding."""
    is_cropped = any(pad < 0 for pads in operator.padding for pad in pads)
    return ["it crops its input, needed padding of 0 or more"] if is_cropped else []


def average_reasons(node: Node, operator: Average, target: Target) -> list[str]:
    """Refuse windows of several sizes."""
    window = operator.window((1, *sample_shape_of(node.all_input_nodes[0])))
    return [] if window else ["its windows have several sizes, needed one"]


def mean_reasons(node: Node, operator: Reduce, target: Target) -> list[str]:
    """Refuse means over other axes than those of an image or a row."""
    shape = sample_shape_of(node.all_input_nodes[0])
    if 2 <= len(shape) <= 3 and set(operator.axes) <= set(range(2, 1 + len(shape))):
        return []
    return [f"it is a mean over axes {operator.axes}, needed axes behind the channels"]


def pool_reasons(node: Node, module: IntegerMaxPool, target: Target) -> list[str]:
    """Refuse max pools with dilation."""
    return [] if set(module.dilation) == {1} else [f"its max pool has dilation {module.dilation}, needed 1"]


def concat_reasons(node: Node, module: Concat, target: Target) -> list[str]:
    """Refuse to join constants."""
    if len({spec_of(each).layout.batch_axis for each in node.all_input_nodes}) == 1:
        return []
    return ["it joins a constant, needed tensors that depend on the input"]


def map_of(node: Node) -> IntegerMap:
    """Return the layer map that a node calls."""
    module = module_of(node)
    assert isinstance(module, IntegerMap)
    return module
