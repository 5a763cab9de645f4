"""The DORY dialect: integer layers in float tensors, with attributes that say how wide integers are."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from torch.fx import GraphModule

from ana_fx.graph import calls_to, module_of
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.average import Average
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.program.data_movement import Reshape
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.program.program_borders import Quantize
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.microcontrollers.common_shift import CommonShift
from ana_fx.targets.microcontrollers.dory_layout import weight_bits
from ana_fx.targets.microcontrollers.dory_limits import dory_misfits
from ana_fx.targets.microcontrollers.float_typed import (
    FLOAT_TYPED,
    exact_floats,
    head_writer,
    line_of,
    plain_of,
    with_batch_of_one,
    write_conv,
)
from ana_fx.targets.microcontrollers.golden import golden
from ana_fx.targets.onnx.builder import sample_shape
from ana_fx.targets.onnx.dialect import Dialect
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.onnx.writer_table import WriterTable
from ana_fx.targets.runtimes.emulation import ADD_ATTRIBUTES, WIDTH_ATTRIBUTES
from ana_fx.targets.writers.write_movement import movements

__all__ = ["DORY"]

_BYTE = 8
_EXACT = 2**24  # no integer up to here is rounded by float32
_CODE_SPACE = 152000  # bytes that DORY leaves for code in its own examples
_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE

operators: WriterTable[StoredTensor] = WriterTable(__name__)


@operators.writes(Sum)
def write_sum(w: NodeWriter, op: Sum) -> StoredTensor:
    """Write an Add that requantises by itself."""
    line = line_of(w)
    attributes = _add_attributes(line, w.module.integer_type)
    _note(w, "Add", line)
    return w.stored(w.op("Add", *(x.value for x in w.inputs), dtype=_FLOAT, **attributes))


@operators.writes(Linear)
def write_linear(w: NodeWriter, op: Linear) -> StoredTensor:
    """Write MatMul and the chain of the requantizer."""
    weight = w.module.weight
    constant = w.constant(exact_floats(numpy(weight.T)), "weight")
    value = w.op("MatMul", w.x.value, constant, dtype=_FLOAT, weight_bits=weight_bits(weight))
    return _requantized(w, "MatMul", value)


@operators.writes(Average, Convolution, Identity, Reduce)
def write_convolution(w: NodeWriter, op: Operator) -> StoredTensor:
    """Write Conv and the chain of the requantizer; depthwise kernels have bytes."""
    conv = plain_of(w)
    bits = _BYTE if conv.is_depthwise else weight_bits(conv.weight)
    return _requantized(w, "Conv", write_conv(w, conv, w.x, weight_bits=bits))


def write_max_pool(w: NodeWriter, module: IntegerMaxPool) -> StoredTensor:
    """Write MaxPool with its pads."""
    befores, afters = zip(*module.padding, strict=True)
    attributes: dict[str, Any] = {
        "kernel_shape": list(module.kernel),
        "pads": [*befores, *afters],
        "strides": list(module.stride),
    }
    return replace(w.x, value=w.op("MaxPool", w.x.value, dtype=_FLOAT, **attributes), shape=w.shape)


@dataclass
class _Chain:
    """Operators one behind the other, each with at most one constant."""

    w: NodeWriter
    value: ir.Value

    def op(self, op_type: str, constant: np.ndarray[Any, Any] | None = None, **attributes: Any) -> None:
        """Write the next one."""
        inputs = [self.value]
        if constant is not None:
            inputs.append(self.w.number(constant, op_type.lower()))
        self.value = self.w.op(op_type, *inputs, shape=sample_shape(self.value), **attributes)


def _requantized(w: NodeWriter, operator: str, accumulator: ir.Value) -> StoredTensor:
    """Write the chain Mul, Add, Div, Floor, Clip, in float64 where float32 would round; the parser skips casts."""
    line, integer_type, shape = line_of(w), w.module.integer_type, sample_shape(accumulator)
    w = w.typed(_FLOAT if line.largest() < _EXACT else _DOUBLE)
    channels = (shape[0], *[1] * (len(shape) - 1))
    chain = _Chain(w, w.cast(accumulator, w.dtype, shape))
    chain.op("Mul", np.broadcast_to(line.multiplier, shape[:1]).reshape(channels))
    chain.op("Add", np.broadcast_to(line.offset, shape[:1]).reshape(channels))
    chain.op("Div", np.array(2**line.shift))
    chain.op("Floor")
    chain.op("Clip", min=float(integer_type.qmin), max=float(integer_type.qmax), out_bits=integer_type.bits)
    _note(w, operator, line)
    return w.stored(w.reshape(w.cast(chain.value, _FLOAT, shape), w.shape))


def _add_attributes(line: CommonShift, integer_type: IntegerType) -> dict[str, Any]:
    """Say that the inputs are left as they are, and the sum is requantised."""
    inputs = {
        f"{place}_{name}": number
        for place in ("in1", "in2")
        for name, number in (("mul", 1), ("add", 0), ("shift", 0), ("n_levels", 256), ("rq", 0))
    }
    return inputs | {
        "out_mul": int(line.multiplier[0]),
        "out_add": int(line.offset[0]),
        "out_shift": line.shift,
        "out_n_levels": 2**integer_type.bits,
        "out_rq": 1,
        "out_signed": int(integer_type.signed),
        "add_bits": 32,
    }


def _note(w: NodeWriter, operator: str, line: CommonShift) -> None:
    reason = f"shift {line.shift}"
    if w.module.bound >= _EXACT:
        reason += "; accumulators beyond 2^24 are exact in DORY, not in float32"
    w.note(operator=operator, arithmetic="int32", reason=reason)


def _finish(model: ir.Model) -> ir.Model:
    """Fix the batch at one, and name values by numbers in the order of the nodes: the parser compares these."""
    model = with_batch_of_one(model)
    for number, initializer in enumerate(list(model.graph.initializers.values())):
        assert initializer.name is not None
        initializer.name = f"{initializer.name.rpartition('.')[2]}_{number}"
    borders = {*model.graph.inputs, *model.graph.outputs}
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    for number, value in enumerate(values):
        if value in borders:
            _rename_border(model, value, str(number))
        value.name = str(number)
    return model


def _rename_border(model: ir.Model, value: ir.Value, name: str) -> None:
    """Let the metadata follow a border to its new name, and tell its old one."""
    old = f"{value.name}."
    for key in [key for key in model.metadata_props if key.startswith(old)]:
        model.metadata_props[f"{name}.{key.removeprefix(old)}"] = model.metadata_props.pop(key)
    model.metadata_props[f"{name}.name"] = str(value.name)


def _companions(program: GraphModule, model: onnx.ModelProto, name: str) -> dict[str, bytes]:
    """Make config.json, input.txt and out_layer{i}.txt, the numbers in the order of memory: channels last."""
    sample = golden(program)
    (quantize,) = (module_of(node) for node in calls_to(program, Quantize))
    assert isinstance(quantize, Quantize)
    config = {
        "BNRelu_bits": 32,
        "onnx_file": name,
        "code reserved space": _CODE_SPACE,
        "n_inputs": 1,
        "input_bits": quantize.integer_type.bits,
        "input_signed": quantize.integer_type.signed,
    }
    files = {"config.json": json.dumps(config, indent=2).encode() + b"\n"}
    files["input.txt"] = _text(sample.inputs[0] % 256)  # the parser reads bytes without a sign
    layers = {f"out_layer{index}.txt": _text(each) for index, each in enumerate(sample.activations.values())}
    return files | layers


def _text(integers: np.ndarray[Any, np.dtype[np.int64]]) -> bytes:
    """Write a number a line, under a comment that tells the shape."""
    (sample,) = integers
    last = np.moveaxis(sample, 0, -1)
    return "\n".join([f"# shape {list(last.shape)}", *(f"{number}," for number in last.flatten())]).encode() + b"\n"


DORY = Dialect(
    operators=operators,
    heads={Linear: head_writer(lambda weight: {"weight_bits": weight_bits(weight)})},
    modules={Reshape: movements[Reshape], IntegerMaxPool: write_max_pool},
    misfits=dory_misfits,
    finish=_finish,
    companions=_companions,
    foreign_attributes=WIDTH_ATTRIBUTES | ADD_ATTRIBUTES,
    **FLOAT_TYPED,
)
"""Conv, MatMul, Gemm and MaxPool, then Mul, Add, Div, Floor, Clip; a sum is one Add with its requantizer."""
