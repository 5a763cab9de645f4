"""What the command line is given: models by the name of a function, states and arrays in files."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ana_fx.errors import SettingsError
from ana_fx.prepared.settings import settings_of
from ana_fx.targets.compare import check_archive
from ana_fx.targets.files.arrays import read_array
from ana_fx.targets.files.regular_file import reason_of
from ana_fx.text.wording import brief

__all__ = ["LARGEST_TEXT", "batches_in", "make_model", "read_float_model", "read_state", "unloadable"]

LARGEST_TEXT = 2**24  # bytes
_BATCH_SIZE = 64  # of calibration


def batches_in(path: Path) -> list[torch.Tensor]:
    """Read the inputs in a file, in batches."""
    return list(torch.from_numpy(read_array(path)).split(_BATCH_SIZE))


def read_float_model(reference: str, state: Path | None) -> nn.Module:
    """Make a float model, load the state in a file if there is one, and return the model in eval mode.

    Raises:
        ValueError: The function makes no model, or the state is that of another.
    """
    made = make_model(reference)
    if state is not None:
        found = read_state(state)
        try:
            made.load_state_dict(found)
        except Exception as error:  # torch's are RuntimeErrors and others
            raise unloadable(state, error, "the float model") from error
    return made.eval()


def make_model(reference: str) -> nn.Module:
    """Call the function that is written 'package.module:function', which makes a model.

    Raises:
        ValueError: It cannot be imported or called, or makes no module.
    """
    module, _, name = reference.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does it
    try:
        make = getattr(import_module(module), name)
    except Exception as error:  # of the user's own module
        raise ValueError(f"cannot import {reference!r}: {error}; needed 'package.module:function'") from error
    made = _call(make, reference)
    if not isinstance(made, nn.Module):
        raise ValueError(f"{reference!r} made {type(made).__name__}, needed a torch.nn.Module")
    return made


def _call(make: Any, reference: str) -> Any:
    if not callable(make):
        raise ValueError(f"{reference!r} is {brief(make)}, needed a function that makes the model")
    try:
        return make()
    except Exception as error:  # of the user's own code
        raise ValueError(f"{reference!r} raised {type(error).__name__}: {error}") from error


def read_state(path: Path) -> dict[str, Any]:
    """Read the state_dict in a file, alone or under "model"; no code in it is run.

    Raises:
        SettingsError: It is a state of another version.
        ValueError: It is none.
    """
    try:
        check_archive(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        found: dict[str, Any] = state.get("model", state)
        settings_of(found)  # looks at every name
    except SettingsError:
        raise
    except Exception as error:  # pickle's, zip's and torch's errors share no base
        raise unloadable(path, error) from error
    return found


def unloadable(path: Path, error: Exception, whose: str = "the prepared model") -> ValueError:
    """The error that says why a file is no state of a model."""
    return ValueError(f"cannot load {path}: {reason_of(error)}; needed the state_dict of {whose}")
