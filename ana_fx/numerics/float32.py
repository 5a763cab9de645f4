"""Prepared models and programs compute in float32: what else torch may be set to is put aside, or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ana_fx.errors import UnsupportedError

__all__ = ["Float32Module", "in_float32", "usual_torch"]


class Float32Module(nn.Module):
    """A module whose numbers stay float32: its integers would be others in half or double precision."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What `.half()`, `.double()` and `.to(…)` call; refuses another floating type before anything changes."""
        made = fn(torch.zeros(0, dtype=torch.float32, device="cpu"))
        if made.is_floating_point() and made.dtype is not torch.float32:
            raise TypeError(
                f"a model from ana_fx computes in float32, in {_name(made.dtype)} it would be another network; for "
                f"mixed precision train it under torch.autocast"
            )
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def in_float32(model: nn.Module, notes: list[str]) -> nn.Module:
    """The model, or a copy of it in float32 if it has another floating type; `notes` tells.

    Raises:
        UnsupportedError: Its tensors are on the meta device, so they hold no numbers.
    """
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise UnsupportedError(
            f"the weights of {type(model).__name__} are on the meta device and hold no numbers; load them first, with "
            f"model.to_empty(device='cpu') and model.load_state_dict(state)"
        )
    others = {tensor.dtype for tensor in tensors if tensor.is_floating_point()} - {torch.float32}
    if not others:
        return model
    notes.append(f"Weights of {', '.join(sorted(map(_name, others)))} were taken as float32")
    return copy.deepcopy(model).float()


@contextmanager
def usual_torch() -> Iterator[None]:
    """Make tensors as torch does by default: float32, on the CPU, and such as autograd knows.

    Raises:
        ValueError: The default device of torch is "meta".
    """
    if torch.get_default_device().type == "meta":
        raise ValueError(
            "torch's default device is 'meta', where tensors hold no numbers; set another before this call"
        )
    dtype = torch.get_default_dtype()
    if dtype is torch.float32 and not torch.is_inference_mode_enabled():
        yield  # as nearly always: nothing global is touched
        return
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False):
            yield
    finally:
        torch.set_default_dtype(dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
