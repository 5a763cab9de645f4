"""A file against what somebody else computes: `ana-fx verify FILE --against PROGRAM`."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ana_fx.errors import VerifyError
from ana_fx.targets.files.arrays import Array, read_archive, read_array
from ana_fx.targets.files.metadata import Border, borders, input_borders
from ana_fx.targets.files.model_file import read_model
from ana_fx.targets.files.program_file import load
from ana_fx.targets.files.regular_file import reason_of
from ana_fx.targets.onnx.float_layer import are_apart
from ana_fx.targets.onnx.float_output import float_layer_tolerance, show_float_inputs
from ana_fx.targets.onnx.writer import FLOAT_TYPE
from ana_fx.targets.runtimes.kernel_families import this_family
from ana_fx.targets.runtimes.runtimes import runtime_called
from ana_fx.targets.verify import VerifyReport, file_target, run_file, verify
from ana_fx.text.plain_text import plain

__all__ = ["check_archive", "load_program", "verify_against", "verify_files"]

_NUM_SAMPLES = 16
_TORCH = (".pt", ".pt2", ".pth")


def verify_files(
    path: Path,
    against: Path,
    inputs: Sequence[Path] = (),
    *,
    runtime: str | None = None,
    trusts_code: bool = False,
) -> VerifyReport:
    """Run a file in a runtime and compare its outputs, bit for bit, with another file's.

    Outputs of a float layer, which `output="float"` leaves, are compared to what rounding explains.

    Args:
        path: A file that `export` wrote.
        against: What `ana_fx.save` wrote; or another file of `export`; or a .npz with the wanted outputs under the
            names of the file's, and inputs, if they are not given.
        inputs: A .npy for each input of the file, or one .npz with all under their names: floats as the model takes
            them, or the integers that the file takes. By default those of `against`, else random levels.
        runtime: What runs it; None is the first of its target.
        trusts_code: Whether `against` may be a program that torch saved (.pt2, .pt), whose code then runs.

    Raises:
        VerifyError: A file cannot be loaded or run, or an output differs.
        ValueError: The runtime is unknown.
    """
    kind = against.suffix.lower()
    if kind in _TORCH:
        if not trusts_code:
            raise VerifyError(
                f"{against} is not loaded: programs that torch saved hold code, which loading them can run; "
                f"needed a file of ana_fx.save, a .npz or a .onnx; add --trust-code if the file is your own"
            )
        return verify_against(path, load_program(against), _given(path, inputs), runtime=runtime)
    if kind == ".npz":
        stored = read_archive(against)
        return _with_arrays(path, stored, _given(path, inputs) if inputs else None, runtime)
    if kind == ".onnx":
        return _with_file(path, against, _given(path, inputs) if inputs else None, runtime)
    program, runtimes = load(against), None if runtime is None else [runtime]
    if not inputs:
        return verify(program, path, runtimes=runtimes)
    given = _given(path, inputs)
    ends = _checked(path, read_model(path), given)
    reals = tuple(torch.from_numpy(_real(end, x)) for end, x in zip(ends, given, strict=True))
    return verify(program, path, reals, runtimes=runtimes)


def verify_against(
    path: Path, program: nn.Module, inputs: Sequence[Array], *, runtime: str | None = None
) -> VerifyReport:
    """Run a file in a runtime and compare its outputs with a program's, bit for bit.

    Args:
        path: A file that `export` wrote.
        program: Floats in, floats out, as the converted program.
        inputs: An array for each input of the file: floats as the program takes them, or the
            integers that the file takes.
        runtime: What runs it; None is the first of its target.

    Raises:
        ValueError: The runtime is unknown.
        VerifyError: The file or the program cannot be run, or an output differs.
    """
    model = read_model(path)
    _, outputs = borders(model)
    ends = _checked(path, model, inputs)
    reals = [torch.from_numpy(_real(end, x)) for end, x in zip(ends, inputs, strict=True)]
    try:
        with torch.no_grad():
            wanted = pytree.tree_leaves(program(*reals))
    except Exception as error:  # whatever a program raises
        reason = plain(reason_of(error), 200)
        raise VerifyError(f"the program does not run on inputs of {path}: {type(error).__name__}: {reason}") from error
    expected = [leaf.numpy() for leaf in wanted if isinstance(leaf, Tensor)]
    return _compare_all(path, outputs, _run(path, model, ends, inputs, runtime), expected)


def load_program(path: Path) -> nn.Module:
    """What `torch.export.save` wrote (.pt2), or `torch.jit.save` (.pt). Its code runs: load your own only.

    Raises:
        VerifyError: It is neither.
    """
    try:
        check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of buffers of its own making, and of its own age
            if path.suffix != ".pt2":
                return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-any-return]  # untyped
            return torch.export.load(path).module()
    except Exception as error:  # whatever torch raises about a file
        raise VerifyError(
            f"cannot load {path}: {plain(reason_of(error))}; needed a .pt2 of torch.export.save or a .pt of "
            f"torch.jit.save"
        ) from error


def check_archive(path: Path) -> None:
    """Refuse a file of torch that unpacks to much more than it is; torch packs nothing.

    Raises:
        ValueError: It does.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):
        return  # torch says what it is
    with zipfile.ZipFile(path) as archive:
        unpacked, packed = sum(member.file_size for member in archive.infolist()), path.stat().st_size
    if unpacked > 2 * packed + 2**20:
        raise ValueError(
            f"it unpacks to {unpacked:,} bytes from {packed:,}, needed what torch saves, which is not packed"
        )


def _given(path: Path, inputs: Sequence[Path]) -> list[Array]:
    """The arrays of files, one for each input."""
    if len(inputs) == 1 and inputs[0].suffix.lower() == ".npz":
        return _named(path, inputs[0], read_archive(inputs[0]), input_borders(read_model(path)))
    return [read_array(each) for each in inputs]


def _named(path: Path, source: Path | None, arrays: Mapping[str, Array], ends: Sequence[Border]) -> list[Array]:
    missing = [end.name for end in ends if end.name not in arrays]
    if missing:
        names = ", ".join(map(plain, missing))
        found = ", ".join(map(plain, list(arrays)[:10]))
        raise VerifyError(f"{source or 'the arrays'}: found {found or 'nothing'}, needed {names} of {path}")
    return [arrays[end.name] for end in ends]


def _with_arrays(
    path: Path, stored: Mapping[str, Array], inputs: Sequence[Array] | None, runtime: str | None
) -> VerifyReport:
    """Compare with outputs of before."""
    model = read_model(path)
    ends, outputs = borders(model)
    given = _named(path, None, stored, ends) if inputs is None else inputs
    ends = _checked(path, model, given)
    return _compare_all(path, outputs, _run(path, model, ends, given, runtime), _named(path, None, stored, outputs))


def _with_file(path: Path, other: Path, inputs: Sequence[Array] | None, runtime: str | None) -> VerifyReport:
    """Compare with another file, which runs in its own runtime."""
    model, reference = read_model(path), read_model(other)
    ends, outputs = borders(model)
    given = [_random(end) for end in ends] if inputs is None else inputs
    ends = _checked(path, model, given)
    others, other_outputs = borders(reference)
    if [end.shape for end in others] != [end.shape for end in ends]:
        raise VerifyError(f"{other} takes other inputs than {path}")
    reals = [_real(end, x) for end, x in zip(ends, given, strict=True)]
    wanted = _run(other, reference, others, reals).outputs
    if len(wanted) != len(outputs):
        raise VerifyError(f"{path} has {len(outputs)} outputs, {other} has {len(wanted)}")
    expected = [end.real(np.asarray(x)) for end, x in zip(other_outputs, wanted, strict=True)]
    return _compare_all(path, outputs, _run(path, model, ends, given, runtime), expected)


def _checked(path: Path, model: onnx.ModelProto, inputs: Sequence[Array]) -> tuple[Border, ...]:
    """The borders that take these inputs."""
    ends = input_borders(model)
    if len(inputs) != len(ends):
        raise VerifyError(f"{path} has {len(ends)} inputs, found {len(inputs)} arrays")
    for border, array in zip(ends, inputs, strict=True):
        is_known = array.dtype in (border.dtype, np.float32, np.float64) or array.dtype.kind in "iu"
        if not is_known or array.ndim == 0 or array.shape[1:] != border.shape:
            raise VerifyError(
                f"{path}: input {plain(border.name)!r} was given {array.dtype} {array.shape}, needed float32 or "
                f"{border.dtype} (N, {', '.join(map(str, border.shape))})"
            )
        if len(array) != len(inputs[0]) or len(array) == 0:
            raise VerifyError(f"{path}: found {[len(each) for each in inputs]} samples, needed one number above 0")
    return ends


@dataclass(frozen=True)
class _Found:
    """What a file gave, in which runtime, and how far two evaluations of its float layer can be apart."""

    outputs: list[Array]
    title: str
    tolerance: float


def _run(
    path: Path, model: onnx.ModelProto, ends: Sequence[Border], inputs: Sequence[Array], runtime: str | None = None
) -> _Found:
    stored = [
        x.astype(end.dtype) if x.dtype.kind in "iu" else end.store(x) for end, x in zip(ends, inputs, strict=True)
    ]
    chosen = runtime_called(runtime or file_target(model).runtimes[0])
    names = show_float_inputs(model)
    outputs = run_file(path, chosen, model, {end.name: x for end, x in zip(ends, stored, strict=True)})
    num_outputs = len(outputs) - len(names)
    read = zip(names, outputs[num_outputs:], strict=True)
    tolerance = max((float_layer_tolerance(model, name, x) for name, x in read), default=0.0)
    return _Found(outputs[:num_outputs], chosen.title, tolerance)


def _real(border: Border, x: Array) -> Array:
    return np.asarray(border.real(x) if x.dtype.kind in "iu" else x, np.float32)


def _random(border: Border) -> Array:
    """Random levels over the whole range, as the file takes them."""
    generator = np.random.default_rng(0)
    shape = (_NUM_SAMPLES, *border.shape)
    if border.is_float:
        reals: Array = generator.standard_normal(shape, np.float32) * np.float32(border.scale * 64)
        return reals
    low, high = border.limits
    levels: Array = generator.integers(low, high, shape, endpoint=True).astype(border.dtype)
    return levels


def _compare_all(path: Path, outputs: Sequence[Border], found: _Found, expected: Sequence[Array]) -> VerifyReport:
    if len(expected) != len(outputs) or len(found.outputs) != len(outputs):
        raise VerifyError(f"{path} has {len(outputs)} outputs, the program gives {len(expected)}")
    for output, have, want in zip(outputs, found.outputs, expected, strict=True):
        _compare(path, output, np.asarray(have), want, found.tolerance if output.levels == FLOAT_TYPE else 0.0)
    if not sum(each.size for each in expected):
        raise VerifyError(f"{path}: there is no output number to compare, needed at least one")
    return VerifyReport(path, (found.title,), sum(each.size for each in expected), (0,), this_family())


def _compare(path: Path, output: Border, have: Array, want: Array, tolerance: float) -> None:
    """Reals with reals, stored integers with the file's."""
    real = have if want.dtype.kind in "iu" else output.real(have)
    name = plain(output.name)
    if real.shape != want.shape:
        raise VerifyError(f"{path}: output {name!r} is {real.shape}, the program gives {want.shape}")
    different = are_apart(real, want, tolerance)
    if different.any():
        where = tuple(int(i) for i in np.argwhere(different)[0])
        raise VerifyError(
            f"{path}: output {name!r} differs from the program at {int(different.sum())} of {different.size} "
            f"numbers, first at {where}: found {real[where]}, needed {want[where]}"
        )
