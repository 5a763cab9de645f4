"""What a canonical float graph may hold."""

from __future__ import annotations

import operator

import torch
from torch import nn
from torch.fx import Node

from ana_fx.graph import module_of

__all__ = [
    "ACTIVATIONS",
    "ADAPTIVE_POOLS",
    "AVERAGE_POOLS",
    "BATCH_NORMS",
    "CONVOLUTIONS",
    "DROPOUTS",
    "MAX_POOLS",
    "PADS",
    "SUPPORTED_MODULES",
    "is_reshape",
    "is_shape",
    "passes_levels",
    "unsupported_reason",
]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
ADAPTIVE_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
PADS = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)  # the zero pads are subclasses
SUPPORTED_MODULES: tuple[type[nn.Module], ...] = (
    *CONVOLUTIONS,
    nn.Linear,
    *BATCH_NORMS,
    *ACTIVATIONS,
    *MAX_POOLS,
    *AVERAGE_POOLS,
    *ADAPTIVE_POOLS,
    *DROPOUTS,
    *PADS,
    nn.Flatten,
    nn.Identity,
)
_RESHAPES = (torch.flatten, torch.reshape, "flatten", "view", "reshape")


def unsupported_reason(module: nn.Module | None) -> str | None:
    """Why a module cannot be part of a canonical graph, or None if it can."""
    kind = type(module).__name__
    if not isinstance(module, SUPPORTED_MODULES):
        return f"{kind} is not supported; modules are: {', '.join(k.__name__ for k in SUPPORTED_MODULES)}"
    if isinstance(module, CONVOLUTIONS) and module.padding_mode != "zeros":
        return f"{kind} has padding_mode={module.padding_mode!r}, needed 'zeros'"
    if isinstance(module, BATCH_NORMS) and module.running_var is None:
        return f"{kind} has no running statistics, needed track_running_stats=True"
    if isinstance(module, nn.Hardtanh) and not module.min_val <= 0.0 <= module.max_val:
        return f"{kind} clips to [{module.min_val}, {module.max_val}], needed a range that holds zero"
    if isinstance(module, MAX_POOLS) and module.return_indices:
        return f"{kind} returns indices, needed return_indices=False"
    if isinstance(module, PADS) and (module.value != 0 or min(module.padding) < 0):
        return f"{kind} pads with {module.value} by {tuple(module.padding)}, needed zeros and no cropping"
    if isinstance(module, AVERAGE_POOLS):
        return _average_reason(module)
    return None


def _average_reason(module: nn.Module) -> str | None:
    kind = type(module).__name__
    if module.ceil_mode:
        return f"{kind} has ceil_mode=True, whose last windows are smaller; needed windows of one size"
    if getattr(module, "divisor_override", None) is not None:
        return f"{kind} has a divisor_override, needed the size of the window"
    padding = module.padding if isinstance(module.padding, tuple) else (module.padding,)
    if any(padding) and not module.count_include_pad:
        return f"{kind} leaves its padding out of the average, needed count_include_pad=True"
    return None


def is_shape(node: Node) -> bool:
    """Whether a node computes sizes rather than a tensor."""
    if node.op == "call_method":
        return node.target in ("size", "dim", "numel")
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    inputs = node.all_input_nodes
    return (
        getattr(node.target, "__module__", None) == operator.add.__module__
        and bool(inputs)
        and all(map(is_shape, inputs))
    )


def is_reshape(node: Node) -> bool:
    """Whether a node gives its input another shape and nothing else."""
    return isinstance(module_of(node), nn.Flatten) or node.target in _RESHAPES


def passes_levels(node: Node) -> bool:
    """Whether a node hands on levels of its first input as they are: quantised in, quantised out."""
    return is_reshape(node) or isinstance(module_of(node), (*MAX_POOLS, *DROPOUTS))
