"""A file against what somebody else computes: `ana-fx verify FILE --against PROGRAM`."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ana_fx.errors import VerifyError
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.passes.lowering.probes import probes
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.file_family import ExportedFile, family_at, is_exported
from ana_fx.targets.files.arrays import Array, read_archive, read_array
from ana_fx.targets.files.border import Border
from ana_fx.targets.files.program_file import load
from ana_fx.targets.files.regular_file import reason_of
from ana_fx.targets.float_tolerance import are_apart
from ana_fx.targets.program_outputs import given_or_probes
from ana_fx.targets.runtimes.base_runtime import Runtime
from ana_fx.targets.runtimes.kernel_families import this_family
from ana_fx.targets.verify import VerifyReport, verify_file
from ana_fx.text.plain_text import plain

__all__ = ["check_archive", "load_program", "verify_against", "verify_files"]

_NUM_SAMPLES = 16
_TORCH = (".pt", ".pt2", ".pth")


def verify_files(
    path: Path,
    against: Path,
    inputs: Sequence[Path] = (),
    *,
    runtimes: Sequence[str] = (),
    trusts_code: bool = False,
) -> VerifyReport:
    """Run a file in runtimes and compare its outputs, bit for bit, with another file's.

    Outputs of a float layer, which `output="float"` leaves, are compared to what rounding explains.

    Args:
        path: A file that `export` wrote.
        against: What `ana_fx.save` wrote; or another file of `export`; or a .npz with the wanted outputs under the
            names of the file's, and inputs, if they are not given.
        inputs: A .npy for each input of the file, or one .npz with all under their names: floats as the model takes
            them, or the integers that the file takes. By default those of `against`, else random levels.
        runtimes: What runs it; by default all runtimes of its target that are installed.
        trusts_code: Whether `against` may be a program that torch saved (.pt2, .pt), whose code then runs.

    Raises:
        VerifyError: A file cannot be loaded or run, or an output differs.
        ValueError: A runtime is unknown.
    """
    if against.suffix.lower() in _TORCH and not trusts_code:
        raise VerifyError(
            f"{against} is not loaded: programs that torch saved hold code, which loading them can run; "
            f"needed a file of ana_fx.save, a .npz or a .onnx; add --trust-code if the file is your own"
        )
    file = _Compared.read(path, runtimes)
    given = file.arrays(inputs) if inputs else None
    otherwise = _with_file if is_exported(against) else _with_program
    compare = _COMPARISONS.get(against.suffix.lower(), otherwise)
    return replace(compare(file, against, given), not_run=file.not_run)


def verify_against(
    path: Path, program: nn.Module, inputs: Sequence[Array], *, runtimes: Sequence[str] = ()
) -> VerifyReport:
    """Run a file in runtimes and compare its outputs with a program's, bit for bit.

    Args:
        path: A file that `export` wrote.
        program: Floats in, floats out, as the converted program.
        inputs: An array for each input of the file: floats as the program takes them, or the
            integers that the file takes.
        runtimes: What runs it; by default all runtimes of its target that are installed.

    Raises:
        ValueError: A runtime is unknown.
        VerifyError: The file or the program cannot be run, or an output differs.
    """
    file = _Compared.read(path, runtimes)
    return replace(_with_module(file, program, inputs), not_run=file.not_run)


def load_program(path: Path) -> nn.Module:
    """Load what `torch.export.save` wrote (.pt2), or `torch.jit.save` (.pt). Its code runs: load your own only.

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


@dataclass(frozen=True)
class _Compared:
    """The file whose outputs are compared, what runs it, and what would if it were installed."""

    file: ExportedFile
    runtimes: tuple[Runtime, ...]
    not_run: tuple[str, ...] = ()

    @staticmethod
    def read(path: Path, names: Sequence[str] = ()) -> _Compared:
        """Read a file, for runtimes of these names or all of its target that are installed."""
        family = family_at(path)
        chosen = tuple(map(family.runtime, names))
        file = family.read(path)
        if chosen:
            return _Compared(file, chosen)
        found = family.installed(file.target.runtimes)
        ran = {each.name for each in found}
        return _Compared(file, found, tuple(name for name in file.target.runtimes if name not in ran))

    @property
    def path(self) -> Path:
        """Where the file was read."""
        return self.file.path

    def arrays(self, inputs: Sequence[Path]) -> list[Array]:
        """Read the arrays of files, one for each input."""
        if len(inputs) == 1 and inputs[0].suffix.lower() == ".npz":
            return self.named(self.file.inputs, read_archive(inputs[0]), str(inputs[0]))
        return [read_array(each) for each in inputs]

    def named(self, ends: Sequence[Border], arrays: Mapping[str, Array], source: str = "the arrays") -> list[Array]:
        """Pick the arrays that have the names of these borders."""
        missing = [end.name for end in ends if end.name not in arrays]
        if missing:
            names = ", ".join(map(plain, missing))
            found = ", ".join(map(plain, list(arrays)[:10]))
            raise VerifyError(f"{source}: found {found or 'nothing'}, needed {names} of {self.path}")
        return [arrays[end.name] for end in ends]

    def checked(self, inputs: Sequence[Array]) -> tuple[Border, ...]:
        """Return the borders of the file once it is sure that they take these inputs."""
        ends = self.file.inputs
        if len(inputs) != len(ends):
            raise VerifyError(f"{self.path} has {len(ends)} inputs, found {len(inputs)} arrays")
        for border, array in zip(ends, inputs, strict=True):
            is_known = array.dtype in (border.dtype, np.float32, np.float64) or array.dtype.kind in "iu"
            if not is_known or array.ndim == 0 or array.shape[1:] != border.shape:
                raise VerifyError(
                    f"{self.path}: input {plain(border.name)!r} was given {array.dtype} {array.shape}, needed float32 "
                    f"or {border.dtype} (N, {', '.join(map(str, border.shape))})"
                )
            if len(array) != len(inputs[0]) or len(array) == 0:
                sizes = [len(each) for each in inputs]
                raise VerifyError(f"{self.path}: found {sizes} samples, needed one number above 0")
        return ends

    def reals(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the reals that these inputs stand for."""
        return [_real(end, x) for end, x in zip(self.checked(inputs), inputs, strict=True)]

    def run(self, runtime: Runtime, inputs: Sequence[Array]) -> tuple[list[Array], float]:
        """Return the outputs in a runtime, and how far two evaluations of the file's float layer can be apart."""
        ends = self.checked(inputs)
        stored = [
            x.astype(end.dtype) if x.dtype.kind in "iu" else end.store(x) for end, x in zip(ends, inputs, strict=True)
        ]
        found = self.file.run(runtime, {end.name: x for end, x in zip(ends, stored, strict=True)})
        return found.outputs, self.file.float_tolerance(found)

    def compare(self, inputs: Sequence[Array], expected: Sequence[Array]) -> VerifyReport:
        """Compare its outputs for these inputs with others, of a program or of another file."""
        if self.file.has_islands:
            raise VerifyError(
                f"{self.path} holds float layers between its integers, whose last bits decide what stands behind them; "
                f"needed a program to compare with, layer by layer, as ana_fx.save writes it"
            )
        self.checked(inputs)
        num_outputs = sum(self._compare_in(runtime, inputs, expected) for runtime in self.runtimes)
        titles = tuple(runtime.title for runtime in self.runtimes)
        return VerifyReport(self.path, titles, num_outputs, (0,) * len(titles), this_family())

    def _compare_in(self, runtime: Runtime, inputs: Sequence[Array], expected: Sequence[Array]) -> int:
        """Compare what a runtime makes of as many samples as it gets; return how many numbers that were."""
        outputs, few = self.file.outputs, [x[: runtime.samples] for x in inputs]
        found, tolerance = self.run(runtime, few)
        if len(expected) != len(outputs) or len(found) != len(outputs):
            raise VerifyError(f"{self.path} has {len(outputs)} outputs, the program gives {len(expected)}")
        share = len(few[0]) / len(inputs[0])
        wanted = [each if share == 1 else each[: round(len(each) * share)] for each in map(np.asarray, expected)]
        if not sum(each.size for each in wanted):
            raise VerifyError(f"{self.path}: there is no output number to compare, needed at least one")
        for output, have, want in zip(outputs, found, wanted, strict=True):
            allowed = tolerance if self.file.is_float_layer(output) else 0.0
            reason = _difference(output, np.asarray(have), want, allowed)
            if reason:
                raise VerifyError(f"{self.path}: output {plain(output.name)!r} in {runtime.name} {reason}")
        return sum(each.size for each in wanted)


def _difference(output: Border, have: Array, want: Array, tolerance: float) -> str:
    """Compare reals with reals, and stored integers with those that a file gives; say where they differ, if they do."""
    real = have if want.dtype.kind in "iu" else output.real(have)
    if real.shape != want.shape:
        return f"is {real.shape}, the program gives {want.shape}"
    different = are_apart(real, want, tolerance)
    if not different.any():
        return ""
    where = tuple(int(i) for i in np.argwhere(different)[0])
    return (
        f"differs from the program at {int(different.sum())} of {different.size} numbers, first at {where}: "
        f"found {real[where]}, needed {want[where]}"
    )


def _with_program(file: _Compared, against: Path, inputs: Sequence[Array] | None) -> VerifyReport:
    """Compare with what `ana_fx.save` wrote."""
    program = load(against)
    reals = None if inputs is None else tuple(torch.from_numpy(x) for x in file.reals(inputs))
    return verify_file(program, file.file, given_or_probes(program, reals), file.runtimes)


def _with_code(file: _Compared, against: Path, inputs: Sequence[Array] | None) -> VerifyReport:
    """Compare with a program that torch saved."""
    return _with_module(file, load_program(against), inputs or [])


def _with_module(file: _Compared, program: nn.Module, inputs: Sequence[Array]) -> VerifyReport:
    """Compare with what a module gives."""
    reals = [torch.from_numpy(x) for x in file.reals(inputs)]
    try:
        with torch.no_grad():
            wanted = pytree.tree_leaves(program(*reals))
    except Exception as error:  # whatever a program raises
        reason = f"{type(error).__name__}: {plain(reason_of(error), 200)}"
        raise VerifyError(f"the program does not run on inputs of {file.path}: {reason}") from error
    return file.compare(inputs, [leaf.numpy() for leaf in wanted if isinstance(leaf, Tensor)])


def _with_arrays(file: _Compared, against: Path, inputs: Sequence[Array] | None) -> VerifyReport:
    """Compare with outputs that a .npz holds."""
    stored = read_archive(against)
    given = file.named(file.file.inputs, stored) if inputs is None else inputs
    return file.compare(given, file.named(file.file.outputs, stored))


def _with_file(file: _Compared, against: Path, inputs: Sequence[Array] | None) -> VerifyReport:
    """Compare with another file, which runs in its own runtime."""
    reference = _Compared.read(against)
    ends = file.file.inputs
    given = [_probes(end) for end in ends] if inputs is None else inputs
    reals = file.reals(given)
    if [end.shape for end in reference.file.inputs] != [end.shape for end in ends]:
        raise VerifyError(f"{against} takes other inputs than {file.path}")
    wanted, _ = reference.run(reference.runtimes[0], reals)
    outputs = file.file.outputs
    if len(wanted) != len(outputs):
        raise VerifyError(f"{file.path} has {len(outputs)} outputs, {against} has {len(wanted)}")
    expected = [end.real(np.asarray(x)) for end, x in zip(reference.file.outputs, wanted, strict=True)]
    return file.compare(given, expected)


_COMPARISONS: Mapping[str, Callable[[_Compared, Path, Sequence[Array] | None], VerifyReport]] = {
    ".npz": _with_arrays,
    **dict.fromkeys(_TORCH, _with_code),
}  # by the suffix of what a file is compared with, if it is none that `export` writes


def _real(border: Border, x: Array) -> Array:
    return np.asarray(border.real(x) if x.dtype.kind in "iu" else x, np.float32)


def _probes(border: Border) -> Array:
    """Make extreme and random levels over the whole range, as the file takes them."""
    stored = numpy(probes(IntegerType.parse(border.levels), border.shape, _NUM_SAMPLES))
    if border.is_float:
        return replace(border, is_float=False).real(stored)
    return stored.astype(border.dtype)
