"""Refuses weights that are computed from other parameters: by norms of weights, pruning, parametrizations."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ana_fx.errors import UnsupportedError, listing

__all__ = ["check_weights"]


def check_weights(model: nn.Module) -> None:
    """Refuse a model with weights that are no parameters but computed from some, naming each.

    A copy would hold the number that such a weight has now, and train without what it is computed from.

    Raises:
        UnsupportedError: There are such weights.
    """
    found = [(path, *each) for path, module in model.named_modules() for each in _computed(module)]
    if not found:
        return
    lines = [
        f"{f'module {path!r}' if path else type(model).__name__}: {name!r} is computed by {what}"
        for path, name, what, _ in found
    ]
    ways_out = dict.fromkeys(way_out for *_, way_out in found)
    raise UnsupportedError(
        listing(f"{len(found)} weight(s) are computed from other parameters:", lines, "; ".join(ways_out))
    )


def _computed(module: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each weight of a module that is computed, what computes it, and the way out."""
    if is_parametrized(module):
        parametrizations = module.parametrizations
        assert isinstance(parametrizations, nn.ModuleDict)
        for name, kinds in parametrizations.items():
            what = ", ".join(type(kind).__name__ for kind in kinds)  # type: ignore[attr-defined]  # a list of modules
            yield name, what, "torch.nn.utils.parametrize.remove_parametrizations(module, name) makes it a parameter"
        return
    hooked = set()
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            hooked.add(hook._tensor_name)
            yield hook._tensor_name, "pruning", "torch.nn.utils.prune.remove(module, name) makes pruning permanent"
        elif isinstance(hook, WeightNorm):
            hooked.add(hook.name)
            yield hook.name, "weight_norm", "torch.nn.utils.remove_weight_norm(module) makes it a parameter"
        elif isinstance(hook, SpectralNorm):
            hooked.add(hook.name)
            yield hook.name, "spectral_norm", "torch.nn.utils.remove_spectral_norm(module) makes it a parameter"
    for name, value in vars(module).items():
        if isinstance(value, Tensor) and value.grad_fn is not None and name not in hooked:
            yield name, f"{value.grad_fn.name()} outside forward", "compute it in forward, or make it an nn.Parameter"
