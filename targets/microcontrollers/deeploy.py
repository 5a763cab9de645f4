"""The Deeploy dialect: integer layers in float tensors, each followed by a RequantShift."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from torch.fx import GraphModule, Node

from ana_fx.operators.average import Average
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.program.data_movement import Reshape
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.program.tensor_spec import sample_shape_of
from ana_fx.targets.microcontrollers.common_shift import CommonShift
from ana_fx.targets.microcontrollers.float_typed import (
    FLOAT_TYPED,
    exact_floats,
    head_writer,
    line_of,
    plain_of,
    with_batch_of_one,
    write_conv,
    write_gemm,
)
from ana_fx.targets.microcontrollers.float_typed_limits import LIMITS, limited_by, map_limit
from ana_fx.targets.microcontrollers.golden import golden
from ana_fx.targets.microcontrollers.plain_convolution import plain_convolution
from ana_fx.targets.microcontrollers.requant_shift import RequantShift, requant_steps
from ana_fx.targets.onnx.builder import sample_shape
from ana_fx.targets.onnx.dialect import Dialect, Writer
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.onnx.writer_table import WriterTable
from ana_fx.targets.writers.write_movement import movements

__all__ = ["DEEPLOY"]

_DOMAIN = "PACTOps"
_BYTE = 256
_FLOAT = ir.DataType.FLOAT
_INT32 = 2**31 - 1

accumulators: WriterTable[ir.Value] = WriterTable(__name__)
"""Writers of accumulators, in a shape that may differ from the layer's."""


@accumulators.writes(Identity)
def write_identity(w: NodeWriter, op: Identity) -> ir.Value:
    """Write nothing: the levels are the accumulators."""
    w.note(operator="Identity")
    return w.x.value


@accumulators.writes(Sum)
def write_sum(w: NodeWriter, op: Sum) -> ir.Value:
    """Write Add."""
    return w.op("Add", *(x.value for x in w.inputs), dtype=_FLOAT)


@accumulators.writes(Linear)
def write_linear(w: NodeWriter, op: Linear) -> ir.Value:
    """Write Gemm without a bias."""
    weight = w.module.weight
    return write_gemm(w, weight, weight.new_zeros(len(weight)))


@accumulators.writes(Average, Convolution, Reduce)
def write_convolution(w: NodeWriter, op: Operator) -> ir.Value:
    """Write Conv. Kernels pad by themselves where both ends of an axis have the same pad; else a Pad stands before."""
    conv, x = plain_of(w), w.x
    if any(before != after for before, after in conv.padding):
        x = _padded(w, conv.padding)
        conv = replace(conv, padding=((0, 0),) * len(conv.stride))
    return write_conv(w, conv, x)


def requantized(write_accumulators: Callable[[NodeWriter, Operator], ir.Value]) -> Writer:
    """Make the writer of a layer map: its accumulators, then one or two RequantShifts."""

    def write(w: NodeWriter, op: Operator) -> StoredTensor:
        line = line_of(w)
        steps = requant_steps(line, w.module.lo, w.module.hi)
        assert steps is not None
        value = write_accumulators(w, op)
        producer = value.producer()
        operator = w.notes.get("operator") or (producer.op_type if producer else "")
        for step in steps:
            value = _requantize(w, step, value)
        reason = f"shift {line.shift}" if len(steps) == 1 else f"shift {line.shift}, clipped in two steps"
        w.note(operator=f"{operator}, RequantShift", arithmetic="int32", reason=reason)
        return w.stored(w.reshape(value, w.shape))

    return write


def _requantize(w: NodeWriter, step: RequantShift, x: ir.Value) -> ir.Value:
    shape, line = sample_shape(x), step.line
    channels = (shape[0], *[1] * (len(shape) - 1))
    multiplier = np.broadcast_to(line.multiplier.astype(np.int64), shape[:1])
    addend = np.broadcast_to((line.offset - step.half).astype(np.int64), shape[:1])
    inputs = [
        x,
        w.constant(exact_floats(multiplier.reshape(channels)), "mul"),
        w.constant(exact_floats(addend.reshape(channels)), "add"),
    ]
    settings = {"div": 2**line.shift, "n_levels_out": step.num_levels, "signed": int(step.signed)}
    attributes = {name: ir.tensor(np.array([number], np.float32)) for name, number in settings.items()}
    return w.op("RequantShift", *inputs, shape=shape, dtype=_FLOAT, domain=_DOMAIN, **attributes)


def write_max_pool(w: NodeWriter, module: IntegerMaxPool) -> StoredTensor:
    """Write MaxPool without pads; those stand before it, of level 0, the lowest.

    Over one axis as over an image of one row, since Deeploy's own pool over one axis takes no bytes.
    """
    x = _padded(w, module.padding)
    channels, *sizes = x.shape
    rows = [1] * (2 - len(sizes))
    value = w.reshape(x.value, (channels, *rows, *sizes))
    attributes: dict[str, Any] = {
        "ceil_mode": 0,
        "kernel_shape": [*rows, *module.kernel],
        "pads": [0] * 4,
        "strides": [*rows, *module.stride],
    }
    value = w.op("MaxPool", value, shape=(channels, *rows, *w.shape[1:]), dtype=_FLOAT, **attributes)
    return replace(w.x, value=w.reshape(value, w.shape), shape=w.shape)


def _padded(w: NodeWriter, padding: tuple[tuple[int, int], ...]) -> StoredTensor:
    """Write the first input with zeros around each image, row by row: Deeploy's Pad wants as many above as below.

    So whole rows are added at both ends of an image that is written as one row.
    """
    x, (channels, *sizes) = w.x.value, w.x.shape
    if len(sizes) == 2 and any(padding[0]):
        above, below = (rows * sizes[1] for rows in padding[0])
        length = sizes[0] * sizes[1]
        x = w.reshape(x, (1, channels, length))
        x = _pad_rows(w, x, (1, channels, above + length + below), (above, below))
        sizes[0] += sum(padding[0])
        x = w.reshape(x, (channels, *sizes))
    if any(padding[-1]):
        sizes[-1] += sum(padding[-1])
        x = _pad_rows(w, x, (channels, *sizes), padding[-1])
    return replace(w.x, value=x, shape=(channels, *sizes))


def _pad_rows(w: NodeWriter, x: ir.Value, shape: tuple[int, ...], ends: tuple[int, int]) -> ir.Value:
    zeros = [0] * len(shape)
    attributes: dict[str, Any] = {"mode": "constant", "pads": [*zeros, ends[0], *zeros, ends[1]], "value": 0.0}
    return w.op("Pad", x, shape=shape, dtype=_FLOAT, **attributes)


def _requantizer_limit(node: Node, module: IntegerMap, line: CommonShift) -> list[str]:
    """Refuse a range of levels that no clips make, and numbers beyond 32 bits."""
    steps = requant_steps(line, module.lo, module.hi)
    if steps is None:
        return [f"its levels go from {module.lo} to {module.hi}, needed a range that even clips make"]
    reasons = [step.line.misfit(rounding=step.half) for step in steps]
    largest = module.bound + _hidden_offset(module, sample_shape_of(node.all_input_nodes[0]))
    if largest > _INT32:
        reasons.append(f"its accumulator can reach {largest} with Deeploy's offset, needed at most {_INT32}")
    return [reason for reason in reasons if reason]


def _hidden_offset(module: IntegerMap, shape: tuple[int, ...]) -> int:
    """Half the number of values that Deeploy gives an unsigned convolution's output, which it adds and takes away."""
    conv = plain_convolution(module.operator, module.weight, shape)
    if len(shape) < 2 or conv is None:
        return 0
    spread = int(conv.weight.max()) - int(conv.weight.min())
    return conv.weight[0].numel() * spread * _BYTE // 2


def _companions(program: GraphModule, model: onnx.ModelProto, name: str) -> dict[str, bytes]:
    """Make inputs.npz, outputs.npz and activations.npz, int64, under the names of the file's values."""
    sample = golden(program)
    inputs = dict(zip((value.name for value in model.graph.input), sample.inputs, strict=True))
    outputs = dict(zip((value.name for value in model.graph.output), sample.outputs, strict=True))
    arrays = {"inputs": inputs, "outputs": outputs, "activations": sample.activations}
    return {f"{key}.npz": _archive(content) for key, content in arrays.items()}


def _archive(arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]) -> bytes:
    """Pack arrays as np.savez does, but without the time of day."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return file.getvalue()


DEEPLOY = Dialect(
    operators={kind: requantized(write) for kind, write in accumulators.items()},
    heads={Linear: head_writer(lambda weight: {})},
    modules={Reshape: movements[Reshape], IntegerMaxPool: write_max_pool},
    misfits=limited_by({**LIMITS, IntegerMap: map_limit(_requantizer_limit)}),
    finish=with_batch_of_one,
    companions=_companions,
    **FLOAT_TYPED,
)
"""Conv, Gemm, Add and MaxPool as Deeploy's generic platform has them."""
