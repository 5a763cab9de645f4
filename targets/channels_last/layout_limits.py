"""What no file can hold whose images lie with their channels last."""

from __future__ import annotations

from torch.fx import Node

from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.reduce import Reduce
from ana_fx.program.integer_layers import Accumulating, IntegerMap
from ana_fx.program.tensor_spec import has_spec, sample_shape_of, spec_of

__all__ = ["average_reasons", "convolution_reasons", "layout_reasons", "mean_reasons"]

_LARGEST_RANK = 4  # of samples: five axes with the batch


def layout_reasons(node: Node) -> list[str]:
    """Why the samples that a node gives cannot be held."""
    if not has_spec(node):
        return []
    layout, reasons = spec_of(node).layout, []
    if layout.rows != 1:
        reasons.append(f"it gives {layout.rows} rows for each sample, needed one: windows and heads stay in the sample")
    if len(layout.row) > _LARGEST_RANK:
        reasons.append(f"its samples have {len(layout.row)} axes, needed at most {_LARGEST_RANK}")
    return reasons


def convolution_reasons(node: Node, module: Accumulating) -> list[str]:
    """Why a convolution cannot."""
    assert isinstance(module.operator, Convolution)
    is_cropped = any(pad < 0 for pads in module.operator.padding for pad in pads)
    return ["it crops its input, needed padding of 0 or more"] if is_cropped else []


def average_reasons(node: Node, module: IntegerMap) -> list[str]:
    """Why an average cannot."""
    assert isinstance(module.operator, Average)
    window = module.operator.window((1, *sample_shape_of(node.all_input_nodes[0])))
    return [] if window else ["its windows have several sizes, needed one"]


def mean_reasons(node: Node, module: IntegerMap) -> list[str]:
    """Why a mean cannot."""
    assert isinstance(module.operator, Reduce)
    shape = sample_shape_of(node.all_input_nodes[0])
    is_spatial = 2 <= len(shape) <= 3 and set(module.operator.axes) <= set(range(2, 1 + len(shape)))
    return [] if is_spatial else [f"it is a mean over axes {module.operator.axes}, needed axes behind the channels"]
