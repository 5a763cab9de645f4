"""`verify`: run a file in its runtime and compare every output bit with the program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ana_fx.errors import VerifyError
from ana_fx.numerics.float32 import usual_torch
from ana_fx.prepared.recognize import program
from ana_fx.targets.file_family import ExportedFile, FileRun, family_at
from ana_fx.targets.float_tolerance import are_apart
from ana_fx.targets.program_outputs import Expected, expected, feeds, given_or_probes
from ana_fx.targets.runtimes.base_runtime import Runtime
from ana_fx.targets.runtimes.kernel_families import KernelFamily, proven_families, this_family
from ana_fx.text.json_text import JsonReport

__all__ = ["VerifyReport", "verify", "verify_file"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class VerifyReport(JsonReport):
    """What was compared.

    Args:
        path: The file.
        runtimes: What ran it, with versions.
        num_outputs: Output numbers that were compared, in all runtimes together.
        different: For each runtime how many of them differed. It is 0 wherever the target promises equal numbers,
            since there a difference raises.
        processor: The kernels that ran it, or None where that cannot be told.
        proven_for: The kernels of onnxruntime that are proven to compute the program's integers; none for files
            that are for other tools.
        has_floats: Whether the file has float layers: their outputs are compared to within rounding, all else bit for
            bit, going on from the levels that the file itself made of these outputs.
        not_run: The runtimes of its target that did not run it, because they are not installed.
    """

    path: Path
    runtimes: tuple[str, ...]
    num_outputs: int
    different: tuple[int, ...] = ()
    processor: KernelFamily | None = None
    proven_for: tuple[KernelFamily, ...] = ()
    has_floats: bool = False
    not_run: tuple[str, ...] = ()

    @property
    def num_different(self) -> int:
        """How many numbers differed, in all runtimes together."""
        return sum(self.different)

    def __str__(self) -> str:
        runtimes = list(self.runtimes)
        if self.num_different:
            runtimes = [f"{title}: {count}" for title, count in zip(self.runtimes, self.different, strict=True)]
        where = f" on {self.processor.value}" if self.processor else ""
        is_for_all = set(self.proven_for) == set(KernelFamily)
        families = "every processor" if is_for_all else ", ".join(each.value for each in self.proven_for)
        proof = f"; proven for {families}" if self.proven_for else ""
        if proof and self.num_different:
            proof += " in onnxruntime"
        if self.has_floats:
            proof += "; its float layers are compared to within rounding, not proven"
        if self.not_run:
            proof += f"; not run in {', '.join(self.not_run)}, for lack of a package"
        counts = f"{self.num_different} of {self.num_outputs:,} outputs differ"
        return f"{self.path}: {counts} ({', '.join(runtimes)}{where}{proof})"


@usual_torch()
@torch.no_grad()
def verify(
    integer: nn.Module,
    path: str | os.PathLike[str],
    inputs: Any = None,
    *,
    runtimes: Sequence[str] | None = None,
) -> VerifyReport:
    """Run a file and compare its outputs with the program's, bit for bit.

    Args:
        integer: The program that the file was written from.
        path: The file.
        inputs: Float inputs as the model takes them, a tensor or a tuple of tensors; by default
            random levels over the whole input range.
        runtimes: What runs it: "onnxruntime", "onnx.reference", "tract", "openvino", "qonnx", "reference-kernels", or
            for .tflite files "litert", "litert-builtin", "litert-reference", "tflite-micro", for .tosa files
            "tosa-reference-model"; by default what the target's description names. Slow ones get the first samples
            only.

    Raises:
        TypeError: `integer` is no module, or `inputs` hold no tensors.
        ValueError: `integer` is not a converted program, there are more or fewer inputs than it has, or a runtime is
            unknown.
        VerifyError: The file cannot be run, or an output differs where the target promises that none does, or a
            runtime's package is not installed.
    """
    integer = program(integer, "verify()")
    path = Path(path)
    family = family_at(path)
    names = [runtimes] if isinstance(runtimes, str) else runtimes
    chosen = None if names is None else [family.runtime(name) for name in names]
    given = given_or_probes(integer, inputs)
    file = family.read(path)
    return verify_file(integer, file, given, chosen or [family.runtime(name) for name in file.target.runtimes])


@usual_torch()
@torch.no_grad()
def verify_file(
    integer: GraphModule, file: ExportedFile, inputs: tuple[Tensor, ...], runtimes: Sequence[Runtime]
) -> VerifyReport:
    """Compare a file that was read, as `verify` does."""
    target, is_float = file.target, file.io == "float"
    different, compared = [], 0
    wanted: dict[int | None, list[Expected]] = {}  # by the number of samples
    for runtime in runtimes:
        few = tuple(x[: runtime.samples] for x in inputs)
        found = file.run(runtime, feeds(integer, few, is_float))
        if runtime.samples not in wanted or found.islands:
            wanted[runtime.samples] = expected(integer, few, is_float, found.islands)
        differences = _differences(file.path, runtime.name, found, wanted[runtime.samples])
        if target.exact_runtimes is None or runtime.name in target.exact_runtimes:
            _refuse_difference(differences, _doubt(runtime.name, file.needs_vnni))
        different.append(sum(int(each.where.sum()) for each in differences))
        compared += sum(each.where.size for each in differences)
    titles = tuple(runtime.title for runtime in runtimes)
    proven = proven_families(target, file.needs_vnni)
    return VerifyReport(file.path, titles, compared, tuple(different), this_family(), proven, file.has_floats)


def _doubt(runtime: str, needs_vnni: tuple[str, ...]) -> str:
    """What to think of first where a file differs: kernels that its layers are not proven for, or another file."""
    family = this_family()
    if runtime != "onnxruntime" or not needs_vnni or family not in (KernelFamily.PAIRS, None):
        return "was the file written from this program, and is it unchanged?"
    processor = family.value if family else "of an unknown kind"
    return (
        f"this processor ({processor}) adds two products in 16 bits, which the layers {', '.join(needs_vnni)} can "
        f"leave; run the file on Arm or on x86 with VNNI, or export the program for a target without saturation, "
        f"such as 'onnxruntime'"
    )


@dataclass(frozen=True)
class _Difference:
    """An output of a file beside the program's.

    Args:
        output: How messages call it.
        have: The file's.
        want: The program's.
        where: Where they differ.
    """

    output: str
    have: Array
    want: Array
    where: np.ndarray[Any, np.dtype[np.bool_]]


def _differences(path: Path, runtime: str, found: FileRun, wanted: Sequence[Expected]) -> list[_Difference]:
    """Set each output beside what it must be, and refuse another type or shape."""
    arrays = [*found.outputs, *found.float_inputs, *found.islands]
    if len(arrays) != len(wanted):
        raise VerifyError(f"{path}: found {len(arrays)} outputs in {runtime}, needed {len(wanted)}")
    differences = []
    for index, (have, each) in enumerate(zip(arrays, wanted, strict=True)):
        output, want = f"{path}: output {index} in {runtime}", each.array
        if have.dtype in (np.float32, np.int64):  # which some targets hold integers in
            want = want.astype(have.dtype)
        if have.shape != want.shape or have.dtype != want.dtype:
            raise VerifyError(f"{output} is {have.dtype} {have.shape}, needed {want.dtype} {want.shape}")
        where = have != want if each.tolerance is None else are_apart(have, want, each.tolerance)
        if each.ends is not None:
            low, high = each.ends
            where = (have < low.astype(have.dtype)) | (have > high.astype(have.dtype))
        differences.append(_Difference(output, have, want, where))
    return differences


def _refuse_difference(differences: Sequence[_Difference], doubt: str) -> None:
    for each in differences:
        if each.where.any():
            first = tuple(int(i) for i in np.argwhere(each.where)[0])
            raise VerifyError(
                f"{each.output} differs from the program at {int(each.where.sum())} of {each.where.size} numbers, "
                f"first at {first}: found {each.have[first]}, needed {each.want[first]}; {doubt}"
            )
