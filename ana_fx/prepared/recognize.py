"""Which model a caller gave: one that `prepare` returned, one that `convert` returned, or another."""

from __future__ import annotations

from torch import nn
from torch.fx import GraphModule

from ana_fx.prepared.graph_form import is_prepared, is_program
from ana_fx.text.wording import brief

__all__ = ["float_model", "prepared", "prepared_or_program", "program", "unwrap"]

_WRAPPERS = ("DataParallel", "DistributedDataParallel", "AveragedModel", "OptimizedModule")
_PREPARED, _PROGRAM = "a model from ana_fx.prepare", "a program from ana_fx.convert"


def unwrap(model: nn.Module, notes: list[str] | None = None) -> nn.Module:
    """The module inside wrappers that train or compile it; `notes` tells which were taken off."""
    while type(model).__name__ in _WRAPPERS and type(model).__module__.startswith("torch."):
        if notes is not None:
            notes.append(f"{type(model).__name__} was taken off")
        inner = model._modules["_orig_mod" if "_orig_mod" in model._modules else "module"]
        assert inner is not None
        model = inner
    return model


def prepared(model: object, caller: str) -> GraphModule:
    """A model that `prepare` returned, without wrappers.

    Args:
        model: What the caller was given.
        caller: How it is called, for the message.

    Raises:
        TypeError: It is no module.
        ValueError: It is another model; the message says which, and what to call first.
    """
    found = _inside(model, caller, _PREPARED)
    if not is_prepared(found):
        raise ValueError(f"{caller} needs {_PREPARED}, got {_kind(found)}")
    assert isinstance(found, GraphModule)
    return found


def program(model: object, caller: str) -> GraphModule:
    """A program that `convert` returned, without wrappers; otherwise as `prepared`."""
    found = _inside(model, caller, _PROGRAM)
    if not is_program(found):
        hint = "; write integer = ana_fx.convert(qat)" if is_prepared(found) else ""
        raise ValueError(f"{caller} needs {_PROGRAM}, got {_kind(found)}{hint}")
    assert isinstance(found, GraphModule)
    return found


def prepared_or_program(model: object, caller: str) -> GraphModule:
    """What `prepare` or `convert` returned, without wrappers; otherwise as `prepared`."""
    found = _inside(model, caller, f"{_PREPARED} or {_PROGRAM}")
    if not _is_ours(found):
        raise ValueError(f"{caller} needs {_PREPARED} or {_PROGRAM}, got {_kind(found)}")
    assert isinstance(found, GraphModule)
    return found


def float_model(model: object) -> nn.Module:
    """A model that `prepare` can take: neither is it one that was prepared, nor does it hold one.

    Raises:
        TypeError: It is no module.
        ValueError: It was prepared or converted.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"prepare() needs a torch.nn.Module, got {brief(model)}")
    if _is_ours(unwrap(model)):
        raise ValueError(
            f"prepare() needs a float model, got {_kind(unwrap(model))}; give the model that it was made of"
        )
    inside = _path_inside(model)
    if inside is not None:
        raise ValueError(f"prepare() needs a float model, found one that was prepared already at {inside!r}")
    return model


def _is_ours(module: nn.Module) -> bool:
    """Whether `prepare` or `convert` returned it."""
    return is_prepared(module) or is_program(module)


def _inside(model: object, caller: str, needed: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{caller} needs {needed}, got {brief(model)}")
    return unwrap(model)


def _kind(module: nn.Module) -> str:
    """What a module is that is not what was needed."""
    name = type(module).__name__
    if is_prepared(module):
        return f"{name}, a prepared model"
    if is_program(module):
        return f"{name}, a program that was converted"
    inside = _path_inside(module)
    if inside is not None:
        return f"{name}, which holds one at {inside!r}; give that"
    return f"{name}, a model that was not prepared; write qat = ana_fx.prepare(model, example_inputs)"


def _path_inside(module: nn.Module) -> str | None:
    """Where inside a module one of ours stands, or None."""
    return next((path for path, each in module.named_modules() if _is_ours(each)), None)
