"""Quantised weights that a training step does not keep for backward, on CPUs.

A layer's backward needs the quantised weight for the gradient of its input, and torch keeps it: a second copy of all
parameters, for the whole step. It follows from the weight, which is there anyway, so backward quantises that again,
with the same numbers. Small weights are kept, which are quantised together (see `ana_fx.prepared.parameter_bank`), and
so are all on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ana_fx.layers.fake_quantize import is_computed_again
from ana_fx.layers.hooks import is_hooked
from ana_fx.layers.quantizers import Quantizer

__all__ = ["is_recomputed", "without_keeping"]


def is_recomputed(weight: Tensor, quantizer: Quantizer) -> bool:
    """Whether a step that learns this weight does without its quantised numbers, which follow from it."""
    return (
        is_computed_again(weight, quantizer.strategy)
        and weight.requires_grad
        and torch.is_grad_enabled()
        and not torch._C._are_functorch_transforms_active()
        and not is_hooked(quantizer)  # hooks may give other numbers
    )


def without_keeping(quantized: Tensor, weight: Tensor, quantizer: Quantizer) -> AbstractContextManager[None]:
    """A context in which autograd keeps nothing of the quantised weight: backward computes it from the weight.

    Everything else is kept as outside of the context, by the user's hooks for saved tensors if there are any, such as
    those of activation checkpointing.

    Args:
        quantized: What the quantizer made of the weight.
        weight: The weight. As in torch, backward raises a RuntimeError if it was written since.
        quantizer: Its quantizer.
    """
    hooks = _Hooks(quantized, weight, quantizer)
    return torch.autograd.graph.saved_tensors_hooks(hooks.pack, hooks.unpack)


class _Place(NamedTuple):
    """Where the numbers of a saved tensor lie in the quantised weight."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Saved(NamedTuple):
    """A saved tensor, or what the user's hook made of it."""

    packed: Any
    version: int


_Others = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]


class _Hooks:
    def __init__(self, quantized: Tensor, weight: Tensor, quantizer: Quantizer) -> None:
        self._storage = quantized.untyped_storage().data_ptr()
        self._weight, self._version = weight, weight._version
        self._quantize = quantizer.as_it_is()
        # While these hooks stand, those of the user are not called; torch's types know no None here.
        found: Any = torch._C._autograd._top_saved_tensors_default_hooks(True)
        self._others: _Others | None = found

    def pack(self, tensor: Tensor) -> _Place | _Saved:
        if tensor.untyped_storage().data_ptr() == self._storage:
            return _Place(tensor.size(), tensor.stride(), int(tensor.storage_offset()))
        return _Saved(tensor if self._others is None else self._others[0](tensor), tensor._version)

    def unpack(self, saved: _Place | _Saved) -> Tensor:
        if isinstance(saved, _Place):
            _check_version(self._weight, self._version)
            with torch.no_grad():
                return self._quantize(self._weight).as_strided(*saved)
        if self._others is not None:
            return self._others[1](saved.packed)
        _check_version(saved.packed, saved.version)
        return saved.packed  # type: ignore[no-any-return]  # without hooks it is the tensor


def _check_version(tensor: Tensor, version: int) -> None:
    """What torch checks of a tensor that it keeps itself."""
    if tensor._version != version:
        raise RuntimeError(
            f"a tensor of shape {list(tensor.shape)}, needed for gradients, was written between forward and backward: "
            f"found version {tensor._version}, needed {version}; write weights and inputs after the last backward()"
        )
