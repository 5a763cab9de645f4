"""A file against a program that somebody else runs: `ana-fx verify FILE --against program.pt2`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ana_fx.errors import VerifyError
from ana_fx.targets.float_output import float_layer_tolerance, show_float_input
from ana_fx.targets.metadata import Array, Border, borders
from ana_fx.targets.model_file import read_model
from ana_fx.targets.runtimes import runtime_called
from ana_fx.targets.verify import VerifyReport, file_target, run_file
from ana_fx.targets.writer import FLOAT_TYPE

__all__ = ["load_program", "read_arrays", "verify_against"]

_FORCE_SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.export.load would unpickle anything


def load_program(path: Path) -> nn.Module:
    """What `torch.export.save` wrote (.pt2), or `torch.jit.save` (.pt); no pickled code is run.

    Raises:
        VerifyError: It is neither.
    """
    if path.suffix not in (".pt2", ".pt"):
        raise VerifyError(f"cannot load {path}: needed a .pt2 of torch.export.save or a .pt of torch.jit.save")
    try:
        if path.suffix == ".pt":
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-any-return]  # untyped
        with _weights_only(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns of buffers of its own making
            return torch.export.load(path).module()
    except Exception as error:  # whatever torch raises about a file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if _is_state(path):
            reason = "it holds a state_dict, which is no program"
        raise VerifyError(f"cannot load {path}: {reason}; needed a program that torch saved, without code") from error


def _is_state(path: Path) -> bool:
    """Whether `torch.save` wrote tensors there; no pickled code is run."""
    try:
        return isinstance(torch.load(path, map_location="meta", weights_only=True), Mapping)
    except Exception:  # it is something else then
        return False


def verify_against(
    path: Path, program: nn.Module, inputs: Sequence[Array], *, runtime: str | None = None
) -> VerifyReport:
    """Run a file in a runtime and compare its outputs with a program's, bit for bit.

    An output of a float layer, which `output="float"` leaves, is compared to what rounding explains.

    Args:
        path: A file that `export` wrote.
        program: Floats in, floats out, as the converted program.
        inputs: An array for each input of the file: floats as the program takes them, or the
            integers that the file takes.
        runtime: What runs it; None is the first of its target.

    Raises:
        VerifyError: The file cannot be run, or an output differs.
        ValueError: The runtime is unknown.
    """
    model = read_model(path)
    ends, outputs = borders(model)
    if len(inputs) != len(ends):
        raise VerifyError(f"{path} has {len(ends)} inputs, found {len(inputs)} arrays")
    for border, array in zip(ends, inputs, strict=True):
        _check_input(path, border, array)
    stored = [x if x.dtype.kind in "iu" else end.store(x) for end, x in zip(ends, inputs, strict=True)]
    reals = [end.real(x) if x.dtype.kind in "iu" else x for end, x in zip(ends, inputs, strict=True)]
    chosen = runtime_called(runtime or file_target(model).runtimes[0])
    has_float_layer = show_float_input(model)
    found = run_file(path, chosen, model, {end.name: x for end, x in zip(ends, stored, strict=True)})
    tolerance = float_layer_tolerance(model, found.pop()) if has_float_layer else 0.0
    with torch.no_grad():
        wanted = pytree.tree_leaves(program(*(torch.from_numpy(x.astype(np.float32)) for x in reals)))
    expected = [leaf.numpy() for leaf in wanted if isinstance(leaf, Tensor)]
    if len(expected) != len(outputs):
        raise VerifyError(f"{path} has {len(outputs)} outputs, the program gives {len(expected)}")
    for output, have, want in zip(outputs, found, expected, strict=True):
        _compare(path, output, np.asarray(have), want, tolerance if output.levels == FLOAT_TYPE else 0.0)
    return VerifyReport(path, (chosen.title,), sum(each.size for each in expected), (0,))


def _check_input(path: Path, border: Border, array: Array) -> None:
    is_known = array.dtype in (border.dtype, np.float32, np.float64)
    if not is_known or array.shape[1:] != border.shape:
        raise VerifyError(
            f"{path}: input {border.name!r} was given {array.dtype} {array.shape}, needed float32 or {border.dtype} "
            f"(N, {', '.join(map(str, border.shape))})"
        )


def _compare(path: Path, output: Border, have: Array, want: Array, tolerance: float) -> None:
    real = output.real(have)
    if real.shape != want.shape:
        raise VerifyError(f"{path}: output {output.name!r} is {real.shape}, the program gives {want.shape}")
    different = ~(np.abs(real.astype(np.float64) - want) <= tolerance)  # NaN differs too
    if different.any():
        where = tuple(int(i) for i in np.argwhere(different)[0])
        raise VerifyError(
            f"{path}: output {output.name!r} differs from the program at {int(different.sum())} of {different.size} "
            f"numbers, first at {where}: found {real[where]}, needed {want[where]}"
        )


@contextmanager
def _weights_only() -> Iterator[None]:
    before = os.environ.get(_FORCE_SAFE)
    os.environ[_FORCE_SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE_SAFE]
        else:
            os.environ[_FORCE_SAFE] = before


def read_arrays(paths: Sequence[Path]) -> list[Any]:
    """The arrays of .npy files; VerifyError if one is none."""
    arrays = []
    for path in paths:
        try:
            arrays.append(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise VerifyError(f"cannot load {path}: {error}; needed an array that numpy.save wrote") from error
    return arrays
