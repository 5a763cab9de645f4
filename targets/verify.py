"""`verify`: run a file in its runtime and compare every output bit with the program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ana_fx.errors import VerifyError
from ana_fx.graph import calls_to, module_of, outputs
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.numerics.float32 import usual_torch
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.passes.lowering.probes import probes
from ana_fx.passes.lowering.recording import run
from ana_fx.prepared.recognize import program
from ana_fx.program.data_movement import Movement
from ana_fx.program.program_borders import Quantize
from ana_fx.program.tensor_spec import integer_type_of, sample_shape_of
from ana_fx.target import Target
from ana_fx.target_registry import find_target, target_called
from ana_fx.targets.files.file_operators import check_operators
from ana_fx.targets.files.metadata import metadata_of, texts
from ana_fx.targets.files.model_file import read_model
from ana_fx.targets.files.regular_file import reason_of
from ana_fx.targets.onnx.emitter import numpy
from ana_fx.targets.onnx.float_layer import are_apart, float_tolerance
from ana_fx.targets.onnx.float_output import show_float_inputs
from ana_fx.targets.onnx.writer import IO, NEEDS_VNNI, TARGET
from ana_fx.targets.runtimes.kernel_families import KernelFamily, proven_families, this_family
from ana_fx.targets.runtimes.runtimes import Runtime, runtime_called
from ana_fx.text.plain_text import plain
from ana_fx.training.batches import tensors_of

__all__ = ["VerifyReport", "file_target", "run_file", "verify"]

_BATCH = 16
_LONGEST_REASON = 500


@dataclass(frozen=True)
class VerifyReport:
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
    """

    path: Path
    runtimes: tuple[str, ...]
    num_outputs: int
    different: tuple[int, ...] = ()
    processor: KernelFamily | None = None
    proven_for: tuple[KernelFamily, ...] = ()

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
        runtimes: What runs it: "onnxruntime", "onnx.reference", "tract", "openvino", "qonnx", "reference-kernels";
            by default what the target's description names. Slow ones get the first samples only.

    Raises:
        TypeError: `integer` is no module, or `inputs` hold no tensors.
        ValueError: `integer` is not a converted program, there are more or fewer inputs than it has, or a runtime is
            unknown.
        VerifyError: The file cannot be run, or an output differs where the target promises that none does, or a
            runtime's package is not installed.
    """
    integer = program(integer, "verify()")
    chosen = None if runtimes is None else [runtime_called(name) for name in _names(runtimes)]
    given = _inputs(integer, inputs)
    path = Path(path)
    model = read_model(path)
    metadata = metadata_of(model)
    show_float_inputs(model)  # the last integers too, as the floats that they stand for
    target = file_target(model)
    is_float = metadata.get(IO) == "float"
    needs_vnni = texts(metadata, NEEDS_VNNI)
    titles, compared, different = [], 0, []
    for runtime in chosen or [runtime_called(name) for name in target.runtimes]:
        few = tuple(x[: runtime.samples] for x in given)
        found = run_file(path, runtime, model, _feeds(integer, few, is_float))
        is_exact = target.exact_runtimes is None or runtime.name in target.exact_runtimes
        doubt = _doubt(runtime.name, needs_vnni)
        counts = _compare(path, runtime.name, found, _expected(integer, few, is_float), is_exact, doubt)
        titles.append(runtime.title)
        compared += counts[0]
        different.append(counts[1])
    return VerifyReport(
        path, tuple(titles), compared, tuple(different), this_family(), proven_families(target, needs_vnni)
    )


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


def file_target(model: onnx.ModelProto) -> Target:
    """The target that the file says it is for; a strict one if it names none that is known."""
    return find_target(metadata_of(model).get(TARGET, "")) or target_called("onnxruntime")


def run_file(path: Path, runtime: Runtime, model: onnx.ModelProto, feeds: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    """The outputs; integers that the file holds in floats are fed as such."""
    shapes = [tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]) for value in model.graph.input]
    given = [array.shape[1:] for array in feeds.values()]
    if shapes != given:
        raise VerifyError(
            f"{path} does not take this program's inputs: samples of {given}, needed {shapes}; "
            f"needed a file that export() wrote from this program"
        )
    floats = {value.name for value in model.graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    fed = {name: array.astype(np.float32) if name in floats else array for name, array in feeds.items()}
    check_operators(path, model)
    try:
        return runtime.run(model, fed)
    except Exception as error:  # the runtimes' errors share no base
        reason = plain(reason_of(error), _LONGEST_REASON)
        raise VerifyError(
            f"{path} does not run in {runtime.title} on this program's inputs: {reason}; "
            f"needed a file that export() wrote from this program, and a runtime that reads its target"
        ) from error


def _readers(integer: GraphModule) -> dict[Node, tuple[Node, Quantize] | None]:
    """For each input of the program the border that reads it, or None; a file lists those that are read."""
    readers: dict[Node, tuple[Node, Quantize] | None] = dict.fromkeys(integer.graph.find_nodes(op="placeholder"))
    for node in calls_to(integer, Quantize):
        module = module_of(node)
        assert isinstance(module, Quantize)
        readers[node.all_input_nodes[0]] = (node, module)
    return readers


def _inputs(integer: GraphModule, inputs: Any) -> tuple[Tensor, ...]:
    """The inputs given, or levels made up; zeros for an input that nothing reads."""
    readers = _readers(integer)
    given = () if inputs is None else _given_inputs(inputs, len(readers))
    made = []
    for index, reader in enumerate(readers.values()):
        if reader is None:
            made.append(torch.zeros(_BATCH))
        elif inputs is not None:
            made.append(given[index])
        else:
            node, quantize = reader
            levels = probes(quantize.integer_type, sample_shape_of(node), _BATCH)
            made.append(quantize.real(levels.to(quantize.scale.device)).cpu())
    return tuple(made)


def _given_inputs(inputs: Any, num_inputs: int) -> tuple[Tensor, ...]:
    entries = tensors_of(inputs, "the input of verify()")
    if len(entries) != num_inputs:
        raise ValueError(f"the program has {num_inputs} input(s), verify() was given {len(entries)} tensor(s)")
    return entries


def _names(runtimes: Sequence[str]) -> Sequence[str]:
    return [runtimes] if isinstance(runtimes, str) else runtimes


def _feeds(integer: GraphModule, inputs: tuple[Tensor, ...], is_float: bool) -> dict[str, np.ndarray[Any, Any]]:
    """What the file is given: the floats, or the levels that the program's own border makes of them."""
    feeds = {}
    for (placeholder, reader), x in zip(_readers(integer).items(), inputs, strict=True):
        if reader is None:
            continue
        _, quantize = reader
        fed = x.float() if is_float else _stored(quantize(x.to(quantize.scale.device)), quantize.integer_type)
        feeds[str(placeholder.target)] = numpy(fed)
    return feeds


def _stored(levels: Tensor, integer_type: IntegerType) -> Tensor:
    """Levels as they stand at the integer borders of a file."""
    zero_point = integer_type.zero_point
    return (levels + zero_point).to(torch.uint8) if zero_point else levels


def _stored_output(seen: dict[Node, Tensor], dequantize: Node) -> Tensor:
    """The integers that a dequantize reads, as they stand in the file."""
    (source,) = dequantize.all_input_nodes
    integer_type = integer_type_of(source)
    return seen[source] if integer_type is None else _stored(seen[source], integer_type)


@dataclass(frozen=True)
class _Expected:
    """What an output of the file must be: equal, or within a tolerance where a float layer gives it."""

    array: np.ndarray[Any, Any]
    tolerance: np.ndarray[Any, Any] | None = None


def _expected(integer: GraphModule, inputs: tuple[Tensor, ...], is_float: bool) -> list[_Expected]:
    """The program's outputs: floats, or the integers before each dequantize; then what a float layer reads."""
    device = next(iter(integer.buffers())).device
    seen = run(integer, tuple(x.to(device) for x in inputs))
    expected = []
    for _, node in outputs(integer):
        tolerance = _tolerance(node, seen)
        is_real = is_float or tolerance is not None
        array = numpy(seen[node] if is_real else _stored_output(seen, node))
        expected.append(_Expected(array, None if tolerance is None else numpy(tolerance)))
    borders = [node.all_input_nodes[0] for node in calls_to(integer, OperatorMap)]
    return expected + [_Expected(numpy(seen[border])) for border in borders]


def _tolerance(node: Node, seen: dict[Node, Tensor]) -> Tensor | None:
    """How far off each number of a float layer may be, moved as the numbers are; None where there is none behind."""
    module = module_of(node)
    if isinstance(module, OperatorMap):
        (border,) = node.all_input_nodes
        tolerance = torch.from_numpy(float_tolerance(module, [seen[border]]))
        return tolerance.reshape(seen[node].shape).to(seen[node].device)
    if not isinstance(module, Movement):
        return None
    sources = [each for each in node.args if isinstance(each, Node)]
    found = [_tolerance(each, seen) for each in sources]
    if all(each is None for each in found):
        return None
    exact = (torch.zeros_like(seen[each], dtype=torch.float64) for each in sources)
    moved: Tensor = module(*(zero if each is None else each for each, zero in zip(found, exact, strict=True)))
    return moved


def _compare(
    path: Path, runtime: str, found: list[Any], expected: list[_Expected], must_equal: bool, doubt: str
) -> tuple[int, int]:
    """How many numbers were compared, and how many differ; raises at the first if they must be equal."""
    if len(found) != len(expected):
        raise VerifyError(f"{path}: found {len(found)} outputs in {runtime}, needed {len(expected)}")
    compared = num_different = 0
    for index, (have, wanted) in enumerate(zip(found, expected, strict=True)):
        want = wanted.array
        if have.dtype in (np.float32, np.int64):  # which some targets hold integers in
            want = want.astype(have.dtype)
        if have.shape != want.shape or have.dtype != want.dtype:
            raise VerifyError(
                f"{path}: output {index} in {runtime} is {have.dtype} {have.shape}, needed {want.dtype} {want.shape}"
            )
        different = have != want
        if wanted.tolerance is not None:
            different = are_apart(have, want, wanted.tolerance)
        if must_equal and different.any():
            where = tuple(int(i) for i in np.argwhere(different)[0])
            raise VerifyError(
                f"{path}: output {index} in {runtime} differs from the program at {int(different.sum())} of "
                f"{different.size} numbers, first at {where}: found {have[where]}, needed {want[where]}; {doubt}"
            )
        compared += want.size
        num_different += int(different.sum())
    return compared, num_different
