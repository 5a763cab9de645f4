"""What a canonical float graph may hold."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Node

from ana_fx.graph import module_of
from ana_fx.layers.table_map import Elementwise
from ana_fx.operators.normalization import UnitNorm

__all__ = [
    "ACTIVATIONS",
    "ADAPTIVE_MAX_POOLS",
    "ADAPTIVE_POOLS",
    "AVERAGE_POOLS",
    "BATCH_NORMS",
    "CONVOLUTIONS",
    "FUNCTIONS",
    "INSTANCE_NORMS",
    "LINEAR_UPSAMPLING",
    "LINES",
    "MAX_POOLS",
    "MOVEMENTS",
    "PADS",
    "REDUCTIONS",
    "SUPPORTED_MODULES",
    "TRANSPOSED_CONVOLUTIONS",
    "is_dropout",
    "is_movement",
    "is_shape",
    "line_of",
    "passes_levels",
    "unsupported_reason",
]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh)  # clips: part of a layer map's quantizer
FUNCTIONS: tuple[type[nn.Module], ...] = (  # of each number: tables between two quantizers
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
    Elementwise,
)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
ADAPTIVE_MAX_POOLS = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
ADAPTIVE_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
PADS = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)  # the zero pads are subclasses
LINEAR_UPSAMPLING = ("linear", "bilinear")
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_DROPPING_NAMES = ("StochasticDepth", "DropPath", "DropBlock2d", "DropBlock3d")  # of torchvision and timm
_MOVEMENT_MODULES = (
    *PADS,
    nn.Flatten,
    nn.Unflatten,
    nn.Unfold,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
    nn.ReflectionPad1d,
    nn.ReflectionPad2d,
    nn.ReflectionPad3d,
    nn.ReplicationPad1d,
    nn.ReplicationPad2d,
    nn.ReplicationPad3d,
    nn.CircularPad1d,
    nn.CircularPad2d,
    nn.CircularPad3d,
)
SUPPORTED_MODULES: tuple[type[nn.Module], ...] = (
    *CONVOLUTIONS,
    *TRANSPOSED_CONVOLUTIONS,
    nn.Linear,
    *BATCH_NORMS,
    *INSTANCE_NORMS,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    UnitNorm,
    *ACTIVATIONS,
    *FUNCTIONS,
    nn.Softmax,
    *MAX_POOLS,
    *ADAPTIVE_MAX_POOLS,
    *AVERAGE_POOLS,
    *ADAPTIVE_POOLS,
    nn.Upsample,
    *_DROPOUTS,
    *_MOVEMENT_MODULES,
    nn.Identity,
)
REDUCTIONS = (torch.mean, torch.sum)
JOINS = (torch.cat, torch.concat, torch.concatenate, torch.stack, torch.hstack, torch.vstack, torch.dstack)
_RESHAPES = (torch.flatten, torch.reshape, "flatten", "view", "reshape")
MOVEMENTS: frozenset[Any] = frozenset(
    (
        *JOINS,
        *_RESHAPES,
        operator.getitem,
        torch.unflatten,
        torch.squeeze,
        torch.unsqueeze,
        torch.permute,
        torch.transpose,
        torch.swapaxes,
        torch.swapdims,
        torch.movedim,
        torch.moveaxis,
        torch.t,
        torch.chunk,
        torch.split,
        torch.unbind,
        torch.tensor_split,
        torch.narrow,
        torch.select,
        torch.index_select,
        torch.roll,
        torch.flip,
        torch.tile,
        torch.broadcast_to,
        torch.repeat_interleave,
        torch.pixel_shuffle,
        torch.pixel_unshuffle,
        torch.channel_shuffle,
        F.pixel_shuffle,
        F.pixel_unshuffle,
        F.pad,
        F.interpolate,
        F.unfold,
        *[
            "unflatten",
            "squeeze",
            "unsqueeze",
            "permute",
            "transpose",
            "swapaxes",
            "swapdims",
            "movedim",
            "moveaxis",
            "t",
            "chunk",
            "split",
        ],
        *[
            "unbind",
            "tensor_split",
            "narrow",
            "select",
            "index_select",
            "roll",
            "flip",
            "tile",
            "repeat",
            "repeat_interleave",
            "expand",
        ],
        *["expand_as", "view_as", "reshape_as", "broadcast_to", "unfold", "detach"],
    )
)
_TRANSPOSES = ("T", "mT")
LINES = (operator.add, operator.sub, operator.mul, operator.truediv)


def unsupported_reason(module: nn.Module | None) -> str | None:
    """Why a module cannot be part of a canonical graph, or None if it can."""
    kind = type(module).__name__
    if is_dropout(module):
        return None
    if not isinstance(module, SUPPORTED_MODULES):
        return f"{kind} has no integer form here (ana_fx.supported_operators() lists what has)"
    for kinds, reason in _REASONS:
        if isinstance(module, kinds) and (found := reason(module)):
            return f"{kind} {found}"
    return None


def _padding_mode(module: Any) -> str | None:
    return None if module.padding_mode == "zeros" else f"has padding_mode={module.padding_mode!r}, needed 'zeros'"


def _statistics(module: Any) -> str | None:
    return "has no running statistics, needed track_running_stats=True" if module.running_var is None else None


def _instance_statistics(module: Any) -> str | None:
    if module.running_var is not None:
        return "normalises by the batch in training and by running statistics in eval mode; use a BatchNorm"
    return None


def _row_parameters(module: Any) -> str | None:
    if len(module.normalized_shape) > 1 and module.weight is not None:
        return f"has a weight for each of {tuple(module.normalized_shape)} numbers, needed one normalised axis"
    return None


def _indices(module: Any) -> str | None:
    return "returns indices, needed return_indices=False" if module.return_indices else None


def _padded_value(module: Any) -> str | None:
    return None if module.value == 0 else f"pads with {module.value}, needed zeros"


def _softmax_axis(module: Any) -> str | None:
    return f"has dim={module.dim}, needed an axis other than the batch axis 0" if module.dim in (None, 0) else None


def _upsampling_mode(module: Any) -> str | None:
    modes = ("nearest", "nearest-exact", *LINEAR_UPSAMPLING)
    return None if module.mode in modes else f"has mode {module.mode!r}, needed one of {', '.join(map(repr, modes))}"


_REASONS: tuple[tuple[Any, Callable[[Any], str | None]], ...] = (
    (CONVOLUTIONS, _padding_mode),
    (BATCH_NORMS, _statistics),
    (INSTANCE_NORMS, _instance_statistics),
    ((nn.LayerNorm, nn.RMSNorm), _row_parameters),
    ((*MAX_POOLS, *ADAPTIVE_MAX_POOLS), _indices),
    (PADS, _padded_value),
    (nn.Softmax, _softmax_axis),
    (nn.Upsample, _upsampling_mode),
)


def is_dropout(module: nn.Module | None) -> bool:
    """Whether a module drops numbers at random in training and does nothing in eval mode."""
    return isinstance(module, _DROPOUTS) or type(module).__name__ in _DROPPING_NAMES


def is_shape(node: Node) -> bool:
    """Whether a node computes sizes rather than a tensor."""
    todo = [node]
    for each in todo:  # level by level: where arithmetic is on tensors, one of them is mostly near
        if _gives_sizes(each):
            continue
        operands = each.all_input_nodes
        is_arithmetic = getattr(each.target, "__module__", None) in (operator.add.__module__, "math", "builtins")
        if each.op != "call_function" or not is_arithmetic or not operands:
            return False
        todo += [operand for operand in operands if operand not in todo]
    return True


def _gives_sizes(node: Node) -> bool:
    if node.op == "call_method":
        return node.target in ("size", "dim", "numel", "stride")
    return node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device")


def is_movement(node: Node) -> bool:
    """Whether a node only moves, repeats or drops numbers of its inputs, or puts zeros between them."""
    if is_shape(node):
        return False
    if node.op == "call_module":
        module = module_of(node)
        is_nearest = isinstance(module, nn.Upsample) and module.mode not in LINEAR_UPSAMPLING
        return is_nearest or isinstance(module, _MOVEMENT_MODULES)
    if node.target is getattr:
        return node.args[1] in _TRANSPOSES
    return node.op in ("call_function", "call_method") and node.target in MOVEMENTS


def passes_levels(node: Node) -> bool:
    """Whether a node hands on levels of its inputs as they are: quantised in, quantised out."""
    module = module_of(node)
    return is_movement(node) or isinstance(module, (*MAX_POOLS, *ADAPTIVE_MAX_POOLS)) or is_dropout(module)


def line_of(node: Node) -> tuple[float, float] | None:
    """Factor and offset if a node is a line x ↦ factor · x + offset of one tensor, else None."""
    if node.op != "call_function" or node.target not in LINES or len(node.args) != 2 or is_shape(node):
        return None
    first, second = node.args
    if isinstance(first, Node) and isinstance(second, (int, float)):
        number = float(second)
        if node.target is operator.truediv:
            return (1.0 / number, 0.0) if number else None
        return {operator.add: (1.0, number), operator.sub: (1.0, -number), operator.mul: (number, 0.0)}[node.target]
    if isinstance(second, Node) and isinstance(first, (int, float)) and node.target is not operator.truediv:
        number = float(first)
        return {operator.add: (1.0, number), operator.sub: (-1.0, number), operator.mul: (number, 0.0)}[node.target]
    return None
