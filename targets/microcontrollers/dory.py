"""The DORY dialect: integer layers in float tensors, with attributes that say how wide integers are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.graph import calls_to, module_of
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.linear import Linear
from ana_fx.operators.sum import Sum
from ana_fx.program.data_movement import Movement
from ana_fx.program.integer_modules import IntegerHead, IntegerMap, IntegerMaxPool
from ana_fx.program.program_borders import Quantize
from ana_fx.program.tensor_spec import sample_shape_of
from ana_fx.targets.microcontrollers.common_shift import CommonShift, common_shift
from ana_fx.targets.microcontrollers.dory_layout import flatten_reasons, packing_reasons, stride_reasons, weight_bits
from ana_fx.targets.microcontrollers.float_typed import FloatTypedEmitter, exact_floats
from ana_fx.targets.microcontrollers.golden import golden
from ana_fx.targets.microcontrollers.plain_convolution import PlainConvolution, plain_convolution
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.emitter import Carrier, NodeReport

__all__ = ["DoryEmitter"]

_BYTE = 8
_EXACT = 2**24  # no integer up to here is rounded by float32
_CODE_SPACE = 152000  # bytes that DORY leaves for code in its own examples


@dataclass(frozen=True)
class DoryEmitter(FloatTypedEmitter):
    """Conv, MatMul, Gemm and MaxPool, then Mul, Add, Div, Floor, Clip; a sum is one Add with its requantizer.

    Values are named by numbers in the order of the nodes, since the parser compares names as numbers.
    """

    def _reasons(self, node: Node) -> list[str]:
        reasons = super()._reasons(node)
        module = module_of(node)
        if isinstance(module, Movement) and not reasons:
            reasons = flatten_reasons(node)
        if isinstance(module, (IntegerMap, Quantize)) and not reasons:
            reasons = packing_reasons(node, module.integer_type)
        if isinstance(module, Quantize) and len(node.users) > 1:
            reasons.append(f"{len(node.users)} layers read the input, needed one")
        return reasons

    def requantizer_reasons(self, node: Node, module: IntegerMap, line: CommonShift) -> list[str]:
        """Numbers beyond 32 bits, a clip that the kernels do not have, or strides that they do not take."""
        reasons = [reason for reason in (line.misfit(),) if reason]
        kind = module.integer_type
        if line.clipped(kind.qmin, kind.qmax) != line.clipped(module.lo, module.hi):
            reasons.append(
                f"its levels go from {module.lo} to {module.hi}, needed {kind.qmin} to {kind.qmax} ({kind}), to which "
                f"kernels clip"
            )
        if isinstance(module.operator, Sum) and not line.is_uniform:
            reasons.append("its channels have slopes of their own, needed one for a sum: leave out the batch norm")
        shape = sample_shape_of(node.all_input_nodes[0])
        if len(shape) > 1 and not isinstance(module.operator, (Linear, Sum)):
            conv = plain_convolution(module.operator, module.weight, shape)
            assert conv is not None
            reasons += stride_reasons(conv.stride)
        return reasons

    def pool_reasons(self, module: IntegerMaxPool) -> list[str]:
        """Strides that differ."""
        return stride_reasons(module.stride)

    def integer_map(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        shape: tuple[int, ...],
    ) -> tuple[Carrier, NodeReport]:
        """The layer and its chain, or an Add that requantises by itself."""
        line, x = common_shift(module), inputs[0]
        assert line is not None
        if isinstance(module.operator, Sum):
            values = [each.value for each in inputs]
            value = self.op(builder, "Add", values, path, shape, _add_attributes(line, module.integer_type))
            return Carrier(value, 0, shape, module.hi), NodeReport(path, "Add", "int32", reason=_note(module, line))
        if isinstance(module.operator, Linear):
            assert module.weight is not None
            weight = builder.constant(exact_floats(module.weight.T.cpu().numpy()), f"{path}.weight")
            attributes = {"weight_bits": weight_bits(module.weight)}
            value, operator = self.op(builder, "MatMul", [x.value, weight], path, shape, attributes), "MatMul"
        else:
            conv = plain_convolution(module.operator, module.weight, x.shape)
            assert conv is not None
            value, operator = self.convolve(builder, path, conv, x.value, x.shape), "Conv"
        value = self._requantize(builder, path, line, module.integer_type, value)
        value = builder.reshape(value, shape, path=path)
        return Carrier(value, 0, shape, module.hi), NodeReport(path, operator, "int32", reason=_note(module, line))

    def head(
        self, builder: Builder, path: str, module: IntegerHead, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """A Gemm with 32-bit outputs."""
        assert module.weight is not None
        weight = module.weight.to(module.bias.dtype) * module.factor
        value = self.linear(builder, path, weight, module.bias.expand(len(weight)), x, shape)
        return Carrier(value, 0, shape), NodeReport(path, "Gemm", "int32")

    def max_pool(
        self, builder: Builder, path: str, module: IntegerMaxPool, x: Carrier, shape: tuple[int, ...]
    ) -> Carrier:
        """MaxPool with its pads."""
        befores, afters = zip(*module.padding, strict=True)
        attributes = {
            "kernel_shape": list(module.kernel),
            "pads": [*befores, *afters],
            "strides": list(module.stride),
        }
        return Carrier(self.op(builder, "MaxPool", [x.value], path, shape, attributes), 0, shape, x.largest)

    def gemm_attributes(self, weight: Tensor) -> dict[str, Any]:
        """With the width of the weights."""
        return {**super().gemm_attributes(weight), "weight_bits": weight_bits(weight)}

    def conv_attributes(self, conv: PlainConvolution) -> dict[str, Any]:
        """With the width of the weights; depthwise kernels have bytes."""
        bits = _BYTE if conv.is_depthwise else weight_bits(conv.weight)
        return {**super().conv_attributes(conv), "weight_bits": bits}

    def finish(self, model: ir.Model) -> ir.Model:
        """A batch of one, and names as the parser reads them."""
        model = super().finish(model)
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

    def companions(self, program: GraphModule, model: onnx.ModelProto, name: str) -> dict[str, bytes]:
        """config.json, input.txt and out_layer{i}.txt, the numbers in the order of memory: channels last."""
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

    def _requantize(
        self, builder: Builder, path: str, line: CommonShift, integer_type: IntegerType, x: ir.Value
    ) -> ir.Value:
        """The chain, in float64 where float32 would round; the parser skips casts."""
        assert x.shape is not None
        shape = tuple(int(size) for size in x.shape.dims[1:])  # type: ignore[arg-type]  # only the batch is symbolic
        narrow = ir.DataType.FLOAT
        dtype = narrow if line.largest() < _EXACT else ir.DataType.DOUBLE
        channels = (shape[0], *[1] * (len(shape) - 1))

        def op(op_type: str, constant: np.ndarray[Any, Any] | None = None, **attributes: object) -> None:
            nonlocal x
            inputs = [x]
            if constant is not None:
                inputs.append(builder.constant(constant.astype(dtype.numpy()), f"{path}.{op_type.lower()}"))
            x = self.op(builder, op_type, inputs, path, shape, attributes, dtype=dtype)

        if dtype is not narrow:
            x = self.op(builder, "Cast", [x], path, shape, {"to": dtype}, dtype=dtype)
        op("Mul", np.broadcast_to(line.multiplier, shape[:1]).reshape(channels))
        op("Add", np.broadcast_to(line.offset, shape[:1]).reshape(channels))
        op("Div", np.array(2**line.shift))
        op("Floor")
        op("Clip", min=float(integer_type.qmin), max=float(integer_type.qmax), out_bits=integer_type.bits)
        if dtype is not narrow:
            x = self.op(builder, "Cast", [x], path, shape, {"to": narrow})
        return x


def _add_attributes(line: CommonShift, integer_type: IntegerType) -> dict[str, int]:
    """No change of the inputs, then the requantizer of the sum."""
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


def _note(module: IntegerMap, line: CommonShift) -> str:
    note = f"shift {line.shift}"
    return note if module.bound < _EXACT else f"{note}; accumulators beyond 2^24 are exact in DORY, not in float32"


def _rename_border(model: ir.Model, value: ir.Value, name: str) -> None:
    """Let the metadata follow a border to its new name, and tell its old one."""
    old = f"{value.name}."
    for key in [key for key in model.metadata_props if key.startswith(old)]:
        model.metadata_props[f"{name}.{key.removeprefix(old)}"] = model.metadata_props.pop(key)
    model.metadata_props[f"{name}.name"] = str(value.name)


def _text(integers: np.ndarray[Any, np.dtype[np.int64]]) -> bytes:
    """A number a line, under a comment that tells the shape."""
    (sample,) = integers
    last = np.moveaxis(sample, 0, -1)
    return "\n".join([f"# shape {list(last.shape)}", *(f"{number}," for number in last.flatten())]).encode() + b"\n"
