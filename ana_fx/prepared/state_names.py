"""The state of a float model is told from that of a prepared one before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from ana_fx.prepared.graph_form import is_program

__all__ = ["names_of", "refuse_float_state", "remember_names"]

_OURS = "annealing_step"  # what no float model has
_WRAPPERS = ("module.", "_orig_mod.")
_MOST = 3  # renamed keys that a message shows


def remember_names(gm: GraphModule, before: Mapping[Tensor, str]) -> None:
    """Keep what the float model calls the parameters of the prepared one, in `gm.meta["float_names"]`.

    Args:
        gm: The prepared model.
        before: The names of the parameters and buffers of the float model.
    """
    gm.meta["float_names"] = {name: before[tensor] for name, tensor in _tensors(gm) if tensor in before}


def names_of(module: nn.Module) -> dict[Tensor, str]:
    """The name of each parameter and buffer."""
    return {tensor: name for name, tensor in _tensors(module)}


def refuse_float_state(
    gm: Any,  # torch types the hooks of a module so
    state: Mapping[str, Any],
    prefix: str,
    local_metadata: Any,
    strict: bool,
    *reports: list[str],
) -> None:
    """Raise if a state is that of the float model; torch would list each key, or with strict=False skip its norms.

    A part of it is left to torch.

    Raises:
        ValueError: The state holds all of the float model and no annealing step, or its keys are those of a wrapper.
    """
    if f"{prefix}{_OURS}" in state or is_program(gm):
        return  # a program is made of a copy
    wrapper = next((each for each in _WRAPPERS if f"{prefix}{each}{_OURS}" in state), None)
    if wrapper is not None:
        raise ValueError(
            f"the keys of the state begin with {wrapper!r}, as those of a wrapped model do; save "
            f"wrapper.{wrapper.rstrip('.')}.state_dict(), or load the state into the same wrapper"
        )
    names: dict[str, str] = gm.meta["float_names"]
    if not names or any(f"{prefix}{old}" not in state for old in names.values()):
        return
    renamed = {old: new for new, old in names.items() if old != new}
    examples = ", ".join(f"{old!r} is {new!r} here" for old, new in list(renamed.items())[:_MOST])
    raise ValueError(
        f"the state is not that of a prepared model: it has no {_OURS!r} and no scales"
        + (f", and {len(renamed)} of its keys have other names ({examples})" if renamed else "")
        + "; load it into the float model and prepare that"
    )


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
