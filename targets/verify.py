"""`verify`: run a file in its runtime and compare every output bit with the program."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_max_pool
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.affine_map import AffineMap
from ana_fx.errors import VerifyError
from ana_fx.graph import calls_to, module_of, outputs
from ana_fx.integer import Quantize
from ana_fx.movement import Movement
from ana_fx.numbers import IntegerType
from ana_fx.passes.shapes import run
from ana_fx.targets.emitter import numpy
from ana_fx.targets.float_layer import float_tolerance
from ana_fx.targets.model_file import read_model
from ana_fx.targets.writer import FLOAT_INPUT, IO, TARGET, producer_type

__all__ = ["VerifyReport", "verify"]

_BATCH = 16
_REFERENCE_BATCH = 2  # the reference evaluator is slow


@dataclass(frozen=True)
class VerifyReport:
    """What was compared; every number was equal.

    Args:
        path: The file.
        runtimes: What ran it, with versions.
        num_outputs: Output numbers that were compared.
        num_different: How many differed: 0, since a difference raises.
    """

    path: Path
    runtimes: tuple[str, ...]
    num_outputs: int
    num_different: int = 0

    def __str__(self) -> str:
        return f"{self.path}: {self.num_different} of {self.num_outputs:,} outputs differ ({', '.join(self.runtimes)})"


@torch.no_grad()
def verify(integer: GraphModule, path: str | os.PathLike[str], inputs: Any = None) -> VerifyReport:
    """Run a file and compare its outputs with the program's, bit for bit.

    Files of the `integer` target also run in the reference evaluator of `onnx`, on the first samples.

    Args:
        integer: The program that the file was written from.
        path: The file.
        inputs: Float inputs as the model takes them, a tensor or a tuple of tensors; by default
            random levels over the whole input range.

    Raises:
        VerifyError: The file cannot be run, or an output differs.
    """
    path = Path(path)
    try:
        model = read_model(path)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        if FLOAT_INPUT in metadata:  # show the last integers too, as the floats that they stand for
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(metadata[FLOAT_INPUT]))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except VerifyError:
        raise
    except Exception as error:  # onnxruntime's errors share no base
        raise VerifyError(
            f"cannot load {path}: {str(error).splitlines()[0]}; needed a file that export() wrote"
        ) from error
    is_float = metadata.get(IO) == "float"
    given = _inputs(integer, inputs)
    try:
        found = list(session.run(None, _feeds(integer, given, is_float)))
    except Exception as error:
        raise VerifyError(
            f"{path} does not take this program's inputs: {str(error).splitlines()[0]}; "
            f"needed a file that export() wrote from this program"
        ) from error
    compared = _compare(path, "onnxruntime", found, _expected(integer, given, is_float))
    runtimes = [f"onnxruntime {onnxruntime.__version__}"]
    if metadata.get(TARGET) == "integer":
        few = tuple(x[:_REFERENCE_BATCH] for x in given)
        found = list(ReferenceEvaluator(model, new_ops=[MaxPool]).run(None, _feeds(integer, few, is_float)))
        compared += _compare(path, "onnx.reference", found, _expected(integer, few, is_float))
        runtimes.append(f"onnx.reference {onnx.__version__}")
    return VerifyReport(path, tuple(runtimes), compared)


class MaxPool(op_max_pool.MaxPool):
    """The reference evaluator's max pool; on integers, which it pads with NaN, in floats that hold them exactly."""

    def _run(self, x: Any, *args: Any, **attributes: Any) -> Any:  # type: ignore[override]  # as loose as onnx calls it
        pooled, *_ = super()._run(x.astype(np.float32), *args, **attributes)  # type: ignore[no-untyped-call]  # as above
        return (pooled.astype(x.dtype),)


def _quantizers(integer: GraphModule) -> list[tuple[Node, Quantize]]:
    pairs = []
    for node in calls_to(integer, Quantize):
        module = module_of(node)
        assert isinstance(module, Quantize)
        pairs.append((node, module))
    return pairs


def _inputs(integer: GraphModule, inputs: Any) -> tuple[Tensor, ...]:
    if inputs is not None:
        return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    generator = torch.Generator().manual_seed(0)
    made = []
    for node, quantize in _quantizers(integer):
        kind = quantize.integer_type
        shape = (_BATCH, *node.meta["sample_shape"])
        levels = torch.randint(kind.qmin, kind.qmax + 1, shape, generator=generator)
        made.append(quantize.real(levels.to(quantize.scale.device)).cpu())
    return tuple(made)


def _feeds(integer: GraphModule, inputs: tuple[Tensor, ...], is_float: bool) -> dict[str, np.ndarray[Any, Any]]:
    """What the file is given: the floats, or the levels that the program's own border makes of them."""
    feeds = {}
    for (node, quantize), x in zip(_quantizers(integer), inputs, strict=True):
        fed = x.float() if is_float else _stored(quantize(x.to(quantize.scale.device)), quantize.integer_type)
        feeds[str(node.all_input_nodes[0].target)] = numpy(fed)
    return feeds


def _stored(levels: Tensor, integer_type: IntegerType) -> Tensor:
    """Levels as they stand at the integer borders of a file."""
    zero_point = integer_type.zero_point
    return (levels + zero_point).to(torch.uint8) if zero_point else levels


def _stored_output(seen: dict[Node, Tensor], dequantize: Node) -> Tensor:
    """The integers that a dequantize reads, as they stand in the file."""
    (source,) = dequantize.all_input_nodes
    integer_type = producer_type(source)
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
    expected, borders = [], []
    for _, node in outputs(integer):
        tail = _float_layer(node)
        if tail is not None:
            (border,) = tail.all_input_nodes
            layer_map = module_of(tail)
            assert isinstance(layer_map, AffineMap)
            tolerance = float_tolerance(layer_map, [seen[border]]).reshape(seen[node].shape)
            expected.append(_Expected(numpy(seen[node]), tolerance))
            borders.append(_Expected(numpy(seen[border])))
        else:
            expected.append(_Expected(numpy(seen[node] if is_float else _stored_output(seen, node))))
    return expected + borders


def _float_layer(node: Node) -> Node | None:
    """The float layer that gives an output, through reshapes, or None."""
    while isinstance(module_of(node), Movement):
        (node,) = node.all_input_nodes
    return node if isinstance(module_of(node), AffineMap) else None


def _compare(path: Path, runtime: str, found: list[Any], expected: list[_Expected]) -> int:
    """How many numbers were compared; raises at the first that differs."""
    if len(found) != len(expected):
        raise VerifyError(f"{path}: found {len(found)} outputs in {runtime}, needed {len(expected)}")
    count = 0
    for index, (have, wanted) in enumerate(zip(found, expected, strict=True)):
        want = wanted.array
        if have.shape != want.shape or have.dtype != want.dtype:
            raise VerifyError(
                f"{path}: output {index} in {runtime} is {have.dtype} {have.shape}, needed {want.dtype} {want.shape}"
            )
        different = have != want
        if wanted.tolerance is not None:
            different = np.abs(have.astype(np.float64) - want) > wanted.tolerance
        if different.any():
            where = tuple(int(i) for i in np.argwhere(different)[0])
            raise VerifyError(
                f"{path}: output {index} in {runtime} differs from the program at {int(different.sum())} of "
                f"{different.size} numbers, first at {where}: found {have[where]}, needed {want[where]}; "
                f"was the file written from this program, and is it unchanged?"
            )
        count += want.size
    return count
