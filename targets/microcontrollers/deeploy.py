"""The Deeploy dialect: integer layers in float tensors, each followed by a RequantShift."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from torch.fx import GraphModule, Node

from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.sum import Sum
from ana_fx.program.integer_modules import IntegerHead, IntegerMap, IntegerMaxPool
from ana_fx.program.tensor_spec import sample_shape_of
from ana_fx.targets.microcontrollers.common_shift import CommonShift, common_shift
from ana_fx.targets.microcontrollers.float_typed import FloatTypedEmitter, exact_floats
from ana_fx.targets.microcontrollers.golden import golden
from ana_fx.targets.microcontrollers.plain_convolution import PlainConvolution, plain_convolution
from ana_fx.targets.microcontrollers.requant_shift import RequantShift, requant_steps
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.emitter import Carrier, NodeReport

__all__ = ["DeeployEmitter"]

_DOMAIN = "PACTOps"
_BYTE = 256
_INT32 = 2**31 - 1


@dataclass(frozen=True)
class DeeployEmitter(FloatTypedEmitter):
    """Conv, Gemm, Add and MaxPool as Deeploy's generic platform has them.

    Its kernels pad by themselves where both ends of an axis have the same pad; elsewhere a Pad stands before.
    """

    def requantizer_reasons(self, node: Node, module: IntegerMap, line: CommonShift) -> list[str]:
        """A range of levels without a clip, or numbers beyond 32 bits."""
        steps = requant_steps(line, module.lo, module.hi)
        if steps is None:
            return [f"its levels go from {module.lo} to {module.hi}, needed a range that even clips make"]
        reasons = [step.line.misfit(rounding=step.half) for step in steps]
        largest = module.bound + _hidden_offset(module, sample_shape_of(node.all_input_nodes[0]))
        if largest > _INT32:
            reasons.append(f"its accumulator can reach {largest} with Deeploy's offset, needed at most {_INT32}")
        return [reason for reason in reasons if reason]

    def integer_map(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        shape: tuple[int, ...],
    ) -> tuple[Carrier, NodeReport]:
        """The layer, then one or two RequantShifts."""
        line = common_shift(module)
        assert line is not None
        steps = requant_steps(line, module.lo, module.hi)
        assert steps is not None
        value, operator, sizes = self._layer(builder, path, module, inputs, shape)
        for step in steps:
            value = self._requantize(builder, path, step, value, sizes)
        value = builder.reshape(value, shape, path=path)
        reason = f"shift {line.shift}" if len(steps) == 1 else f"shift {line.shift}, clipped in two steps"
        report = NodeReport(path, f"{operator}, RequantShift", "int32", reason=reason)
        return Carrier(value, 0, shape, module.hi), report

    def _layer(
        self, builder: Builder, path: str, module: IntegerMap, inputs: Sequence[Carrier], shape: tuple[int, ...]
    ) -> tuple[ir.Value, str, tuple[int, ...]]:
        """The accumulators, the operator that computes them and their sample shape."""
        x = inputs[0]
        if isinstance(module.operator, Identity):
            return x.value, "Identity", x.shape
        if isinstance(module.operator, Sum):
            return self.op(builder, "Add", [each.value for each in inputs], path, shape), "Add", shape
        if isinstance(module.operator, Linear):
            assert module.weight is not None
            bias = module.weight.new_zeros(len(module.weight))
            return self.linear(builder, path, module.weight, bias, x, shape), "Gemm", shape
        conv = plain_convolution(module.operator, module.weight, x.shape)
        assert conv is not None
        padded, conv, sizes = self._pad(builder, path, conv, x)
        value = self.convolve(builder, path, conv, padded, sizes)
        assert value.shape is not None
        return value, "Conv", tuple(int(size) for size in value.shape.dims[1:])  # type: ignore[arg-type]  # static

    def head(
        self, builder: Builder, path: str, module: IntegerHead, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """A Gemm whose output is int32."""
        assert module.weight is not None
        weight = module.weight.to(module.bias.dtype) * module.factor
        value = self.linear(builder, path, weight, module.bias.expand(len(weight)), x, shape)
        return Carrier(value, 0, shape), NodeReport(path, "Gemm", "int32")

    def max_pool(
        self, builder: Builder, path: str, module: IntegerMaxPool, x: Carrier, shape: tuple[int, ...]
    ) -> Carrier:
        """MaxPool without pads; those stand before it, of level 0, the lowest.

        Over one axis as over an image of one row, since Deeploy's own pool over one axis takes no bytes.
        """
        value, (channels, *sizes) = _write_pads(self, builder, path, x.value, x.shape, module.padding)
        rows = [1] * (2 - len(sizes))
        value = builder.reshape(value, (channels, *rows, *sizes), path=path)
        attributes = {
            "ceil_mode": 0,
            "kernel_shape": [*rows, *module.kernel],
            "pads": [0] * 4,
            "strides": [*rows, *module.stride],
        }
        value = self.op(builder, "MaxPool", [value], path, (channels, *rows, *shape[1:]), attributes)
        return Carrier(builder.reshape(value, shape, path=path), 0, shape, x.largest)

    def companions(self, program: GraphModule, model: onnx.ModelProto, name: str) -> dict[str, bytes]:
        """inputs.npz, outputs.npz and activations.npz, int64, under the names of the file's values."""
        sample = golden(program)
        inputs = dict(zip((value.name for value in model.graph.input), sample.inputs, strict=True))
        outputs = dict(zip((value.name for value in model.graph.output), sample.outputs, strict=True))
        arrays = {"inputs": inputs, "outputs": outputs, "activations": sample.activations}
        return {f"{key}.npz": _archive(content) for key, content in arrays.items()}

    def _pad(
        self, builder: Builder, path: str, conv: PlainConvolution, x: Carrier
    ) -> tuple[ir.Value, PlainConvolution, tuple[int, ...]]:
        """The input with uneven pads written out, and the convolution of it."""
        if all(before == after for before, after in conv.padding):
            return x.value, conv, x.shape
        value, sizes = _write_pads(self, builder, path, x.value, x.shape, conv.padding)
        bare = PlainConvolution(conv.weight, conv.stride, ((0, 0),) * len(conv.stride), conv.is_depthwise)
        return value, bare, sizes

    def _requantize(
        self, builder: Builder, path: str, step: RequantShift, x: ir.Value, shape: tuple[int, ...]
    ) -> ir.Value:
        channels = (shape[0], *[1] * (len(shape) - 1))
        line = step.line
        multiplier = np.broadcast_to(line.multiplier.astype(np.int64), shape[:1])
        addend = np.broadcast_to((line.offset - step.half).astype(np.int64), shape[:1])
        inputs = [
            x,
            builder.constant(exact_floats(multiplier.reshape(channels)), f"{path}.mul"),
            builder.constant(exact_floats(addend.reshape(channels)), f"{path}.add"),
        ]
        settings = {"div": 2**line.shift, "n_levels_out": step.num_levels, "signed": int(step.signed)}
        attributes = {name: ir.tensor(np.array([number], np.float32)) for name, number in settings.items()}
        return self.op(builder, "RequantShift", inputs, path, shape, attributes, domain=_DOMAIN)


def _write_pads(
    emitter: DeeployEmitter,
    builder: Builder,
    path: str,
    x: ir.Value,
    shape: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
) -> tuple[ir.Value, tuple[int, ...]]:
    """Zeros around each image, row by row: Deeploy's Pad wants as many rows above as below.

    So whole rows are added at both ends of an image that is written as one row.
    """
    channels, *sizes = shape
    if len(sizes) == 2 and any(padding[0]):
        above, below = (rows * sizes[1] for rows in padding[0])
        length = sizes[0] * sizes[1]
        x = builder.reshape(x, (1, channels, length), path=path)
        x = _pad_rows(emitter, builder, path, x, (1, channels, above + length + below), (above, below))
        sizes[0] += sum(padding[0])
        x = builder.reshape(x, (channels, *sizes), path=path)
    if any(padding[-1]):
        sizes[-1] += sum(padding[-1])
        x = _pad_rows(emitter, builder, path, x, (channels, *sizes), padding[-1])
    return x, (channels, *sizes)


def _pad_rows(
    emitter: DeeployEmitter, builder: Builder, path: str, x: ir.Value, shape: tuple[int, ...], ends: tuple[int, int]
) -> ir.Value:
    zeros = [0] * len(shape)
    attributes = {"mode": "constant", "pads": [*zeros, ends[0], *zeros, ends[1]], "value": 0.0}
    return emitter.op(builder, "Pad", [x], path, shape, attributes)


def _hidden_offset(module: IntegerMap, shape: tuple[int, ...]) -> int:
    """Half the number of values that Deeploy gives an unsigned convolution's output, which it adds and takes away."""
    if len(shape) < 2 or isinstance(module.operator, (Linear, Sum)):
        return 0
    conv = plain_convolution(module.operator, module.weight, shape)
    assert conv is not None
    spread = int(conv.weight.max()) - int(conv.weight.min())
    return conv.weight[0].numel() * spread * _BYTE // 2


def _archive(arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]) -> bytes:
    """As np.savez, but without the time of day."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return file.getvalue()
