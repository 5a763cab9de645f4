"""Rewrites of one node to its canonical form, by the arguments that it was given."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.graph import module_path, unique_path
from ana_fx.layers.table_map import Elementwise
from ana_fx.operators.normalization import UnitNorm
from ana_fx.passes.canonical.canonical_dialect import (
    LINEAR_UPSAMPLING,
    is_movement,
    is_shape,
    line_of,
    unsupported_reason,
)

__all__ = [
    "OVERWRITES",
    "Build",
    "Spelling",
    "UnfitError",
    "activation",
    "average",
    "bound_arguments",
    "cast",
    "clamp",
    "drop",
    "dropout",
    "elementwise",
    "hardtanh",
    "interpolate",
    "is_overwritten_early",
    "keep",
    "max_pool",
    "module",
    "pad",
    "pair",
    "reduction",
    "replace_by",
    "softmax",
    "spelled",
    "unit_norm",
    "view",
]

Build = Callable[..., nn.Module]
Spelling = Callable[[GraphModule, Node], "str | None"]
OVERWRITES = "works in place on a tensor that is used again later; needed a tensor of its own; drop inplace"


class UnfitError(Exception):
    """Why a spelling cannot be rewritten."""


def is_overwritten_early(node: Node) -> bool:
    """Whether the input of an operation in place has a reader after it."""
    return any(user > node for user in node.all_input_nodes[0].users if user is not node)


def spelled(node: Node) -> str:
    """The name that the user wrote."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def module(names: str, build: Build) -> Spelling:
    """Make a rewrite to the module that `build` returns for the arguments behind the input, called `names`."""

    def rewrite(gm: GraphModule, node: Node) -> None:
        arguments = bound_arguments(node, names.split())
        if any(isinstance(value, Node) for value in torch.utils._pytree.tree_leaves(arguments)):
            raise UnfitError(
                "found an argument computed by the graph, needed a constant; give prepare() example_inputs, "
                "then sizes are constants"
            )
        if arguments.get("inplace") and is_overwritten_early(node):
            raise UnfitError(OVERWRITES)
        replace_by(gm, node, build(**arguments))

    return rewrite


def bound_arguments(node: Node, names: list[str]) -> dict[str, Any]:
    """Return the arguments behind the first by name, whether they were given by position or by name."""
    positional = dict(zip(names, node.args[1:], strict=False))
    keywords = {key: value for key, value in node.kwargs.items() if key != "input"}
    return positional | keywords


def _input(node: Node) -> Node:
    source = node.args[0] if node.args else node.kwargs["input"]
    if not isinstance(source, Node):
        raise UnfitError(f"found {source!r} where a tensor of the graph was needed")
    return source


def replace_by(gm: GraphModule, node: Node, module: nn.Module, *, then: nn.Module | None = None) -> None:
    """Replace a node by a call to a new module (and another after it), installed beside the caller."""
    reason = unsupported_reason(module)
    if reason is not None:
        raise UnfitError(reason)
    source = _input(node)
    for each in (module, then):
        if each is None:
            continue
        prefix = module_path(node)
        name = spelled(node).strip("_")  # not node.name: that counts through the whole model
        path = unique_path(gm, f"{prefix}.{name}" if prefix else name)
        gm.add_submodule(path, each.train(gm.training))
        with gm.graph.inserting_before(node):
            source = gm.graph.call_module(path, (source,))
        source.meta, source.stack_trace = dict(node.meta), node.stack_trace
    node.replace_all_uses_with(source)
    gm.graph.erase_node(node)


def pair(function: Callable[..., Any], *, takes_numbers: bool = True) -> Spelling:
    """Make a rewrite to a function of two tensors, or of a tensor and a number."""

    def rewrite(gm: GraphModule, node: Node) -> None:
        arguments = bound_arguments(node, ["other"])
        first = node.args[0] if node.args else node.kwargs["input"]
        second = arguments.pop("other", arguments.pop("mat2", None))
        alpha = arguments.pop("alpha", 1)
        if arguments:
            raise UnfitError(f"found {', '.join(arguments)}, needed two operands and nothing else")
        if alpha != 1:
            gm.meta["is_written_out"] = True  # torch.add rounds once, a product and a sum round twice
            if isinstance(second, Node):
                with gm.graph.inserting_before(node):
                    second = gm.graph.call_function(operator.mul, (second, alpha))
            else:
                second = second * alpha
        if any(isinstance(each, Node) and is_shape(each) for each in (first, second)):
            raise UnfitError(
                "found an operand computed from sizes, needed a number; give prepare() example_inputs, then all sizes "
                "but the batch's are numbers"
            )
        made = function
        if function is operator.truediv and isinstance(second, Node) and _is_constant(second):
            gm.meta["is_written_out"] = True  # a quotient rounds once, a reciprocal and a product round twice
            made = operator.mul
            with gm.graph.inserting_before(node):
                second = gm.graph.call_function(torch.reciprocal, (second,))
        node.op, node.target, node.args, node.kwargs = "call_function", made, (first, second), {}
        is_pair = isinstance(first, Node) and isinstance(second, Node) and made is not operator.truediv
        if not is_pair and (not takes_numbers or line_of(node) is None):
            raise UnfitError(f"found operands {first!r} and {second!r}, needed tensors{_OR_A_NUMBER * takes_numbers}")

    return rewrite


def _is_constant(node: Node) -> bool:
    """Whether a node computes from the model's parameters and buffers alone."""
    todo, seen = [node], {node}
    for each in todo:
        if each.op == "placeholder":
            return False
        todo += [source for source in each.all_input_nodes if source not in seen]
        seen.update(each.all_input_nodes)
    return True


_SMALL_EPSILON = 1e-6  # of a norm; below any step of a quantizer
_OR_A_NUMBER = ", or a tensor and a finite number (or, to divide by, a parameter or buffer) after it"
_IMAGE_AXES = {(2, 3): nn.AdaptiveAvgPool2d, (-2, -1): nn.AdaptiveAvgPool2d, (2, 3, 4): nn.AdaptiveAvgPool3d}


def reduction(function: Callable[..., Any]) -> Spelling:
    def rewrite(gm: GraphModule, node: Node) -> None:
        arguments = bound_arguments(node, ["dim", "keepdim"])
        axes, keepdim = arguments.pop("dim", None), bool(arguments.pop("keepdim", False))
        axes = tuple(sorted(axes)) if isinstance(axes, (tuple, list)) else (axes,)
        if not all(isinstance(axis, int) and axis != 0 for axis in axes) or arguments.get("dtype"):
            raise UnfitError(
                f"found {spelled(node)} over axes {axes}, needed constant axes other than the batch axis 0"
            )
        if function is torch.mean and axes in _IMAGE_AXES:
            return replace_by(gm, node, _IMAGE_AXES[axes](1), then=None if keepdim else nn.Flatten())
        node.op, node.target, node.args, node.kwargs = "call_function", function, (_input(node), axes, keepdim), {}
        return None

    return rewrite


def clamp(minimum: float | None = None, maximum: float | None = None) -> nn.Module:
    low = -torch.inf if minimum is None else float(minimum)
    high = torch.inf if maximum is None else float(maximum)
    if not low <= 0.0 <= high:
        return Elementwise(torch.clamp, min=low, max=high)
    return nn.ReLU() if (low, high) == (0.0, torch.inf) else nn.Hardtanh(low, high)


def hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> nn.Module:
    return clamp(min_val, max_val)


def softmax(dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> nn.Module:
    if dim is None or dtype not in (None, torch.float32):
        raise UnfitError(f"found dim={dim} and dtype={dtype}, needed an axis and float32")
    return nn.Softmax(dim)


def interpolate(gm: GraphModule, node: Node) -> None:
    names = "size scale_factor mode align_corners recompute_scale_factor antialias"
    arguments = bound_arguments(node, names.split())
    if arguments.get("antialias"):
        raise UnfitError("found antialias=True, needed False")
    if arguments.get("mode", "nearest") in LINEAR_UPSAMPLING:
        build = module(names, lambda antialias=False, **settings: nn.Upsample(**settings))
        build(gm, node)
    elif arguments.get("mode", "nearest") not in ("nearest", "nearest-exact"):
        raise UnfitError(f"found mode {arguments['mode']!r}, needed 'nearest', 'nearest-exact', 'linear' or 'bilinear'")


def view(gm: GraphModule, node: Node) -> None:
    """Rewrite a view to a reshape: strides do not matter in a graph whose copies are dropped."""
    if any(isinstance(argument, torch.dtype) for argument in node.args):
        raise UnfitError("found a view as another type, needed a shape")
    node.target = "reshape" if node.target == "view" else "reshape_as"


def unit_norm(p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> nn.Module:
    if p != 2 or dim != -1 or eps > _SMALL_EPSILON:
        raise UnfitError(
            f"found p={p}, dim={dim} and eps={eps:g}, needed p=2, dim=-1 and an eps up to {_SMALL_EPSILON:g}"
        )
    return UnitNorm(eps)


def drop(gm: GraphModule, node: Node) -> None:
    node.replace_all_uses_with(_input(node))
    gm.graph.erase_node(node)


def cast(gm: GraphModule, node: Node) -> None:
    kinds = [value for value in (*node.args[1:], *node.kwargs.values()) if isinstance(value, torch.dtype)]
    if any(not kind.is_floating_point for kind in kinds):
        raise UnfitError(f"found a cast to {kinds[0]}, needed floats")
    drop(gm, node)


def keep(gm: GraphModule, node: Node) -> None:
    """Leave data movement as it is."""
    if not is_movement(node):
        raise UnfitError(f"found {node.args[1:]}, needed data movement")


def pad(gm: GraphModule, node: Node) -> None:
    arguments = bound_arguments(node, ["pad", "mode", "value"])
    pad, mode, value = arguments["pad"], arguments.get("mode", "constant"), arguments.get("value")
    if mode == "constant" and value not in (None, 0, 0.0):
        raise UnfitError(f"found padding with {value}, needed zeros")
    kinds: tuple[Build, ...] = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
    if mode == "constant" and 1 <= len(pad) // 2 <= 3 and not any(isinstance(each, Node) for each in pad):
        replace_by(gm, node, kinds[(len(pad) + 1) // 2 - 1](tuple(pad), 0.0))


def dropout(kind: type[nn.modules.dropout._DropoutNd]) -> Spelling:
    return module("p train inplace", lambda p=0.5, train=True, training=True, inplace=False: kind(p))


def average(kind: Build) -> Spelling:
    return module("kernel_size stride padding ceil_mode count_include_pad divisor_override", kind)


def max_pool(kind: Build) -> Spelling:
    return module("kernel_size stride padding dilation ceil_mode return_indices", kind)


def activation(names: str, kind: Build) -> Spelling:
    """Make a rewrite to a module whose arguments have the function's names; `inplace` is dropped."""
    return module(f"{names} inplace", lambda inplace=False, **settings: kind(**settings))


def elementwise(function: Callable[..., torch.Tensor], names: str = "") -> Spelling:
    return module(names, lambda **settings: Elementwise(function, **settings))
