"""Which operations are known to give one tensor, before any of them is evaluated."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ana_fx.passes.canonical.canonical_dialect import SUPPORTED_MODULES

__all__ = ["is_in_place", "is_tensor_function", "is_tensor_module"]

_TENSOR_MODULES = frozenset(SUPPORTED_MODULES)
_IN_PLACE = frozenset((operator.iadd, operator.isub, operator.imul, operator.itruediv))
_OPERATORS = frozenset((operator.truediv, *_IN_PLACE))  # torch has them under other names


def is_in_place(kind: str, target: Any) -> bool:
    """Whether an operation writes to its first argument."""
    if kind == "call_method":
        return bool(target.endswith("_") and not target.endswith("__"))
    return kind == "call_function" and target in _IN_PLACE


def is_tensor_module(module: nn.Module) -> bool:
    """Whether a module of torch gives one tensor."""
    return type(module) in _TENSOR_MODULES and not getattr(module, "return_indices", False)


def is_tensor_function(target: Any) -> bool:
    """Whether a function or method of torch gives one tensor wherever a tensor is among its arguments."""
    if target is operator.getitem or target in _OPERATORS:
        return True
    if isinstance(target, str):
        return _returns_tensor(target)
    name = getattr(target, "__name__", "")
    is_torchs = any(getattr(home, name, None) is target for home in (torch, F, operator))
    return is_torchs and _returns_tensor(name)


@functools.cache
def _returns_tensor(name: str) -> bool:
    """Whether torch declares that all operations of this name which take a tensor return one and nothing else."""
    packet = getattr(torch.ops.aten, name, None)
    if packet is None or name.startswith("new_") or name.endswith("_like"):  # these may become constants
        return False
    schemas = [getattr(packet, overload)._schema for overload in packet.overloads()]
    of_tensors = [each for each in schemas if each.arguments and "Tensor" in str(each.arguments[0].type)]
    return bool(of_tensors) and all([str(each.type) for each in own.returns] == ["Tensor"] for own in of_tensors)
