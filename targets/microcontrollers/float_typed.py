"""What the dialects of DORY and Deeploy share: floats that hold integers, a batch of one, few operators."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.graph import location, module_of
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.linear import Linear
from ana_fx.operators.sum import Sum
from ana_fx.program.data_movement import Movement, Reshape
from ana_fx.program.integer_modules import IntegerHead, IntegerMap, IntegerMaxPool, IntegerSoftmax, IntegerTable
from ana_fx.program.program_borders import Quantize
from ana_fx.program.tensor_spec import integer_type_of, sample_shape_of
from ana_fx.targets.microcontrollers.common_shift import CommonShift, common_shift
from ana_fx.targets.microcontrollers.plain_convolution import PlainConvolution, plain_convolution
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.emitter import Carrier, Emitter, NodeReport, numpy

__all__ = ["FloatTypedEmitter", "exact_floats"]


@dataclass(frozen=True)
class FloatTypedEmitter(Emitter):
    """Conv, Gemm, Add and MaxPool on floats that hold integers; a subclass writes the requantizers."""

    opset: ClassVar[int] = 10  # the last one with the attributes that the parsers read
    ir_version: ClassVar[int] = 5

    def misfits(self, program: GraphModule) -> list[str]:
        """What has no operator, or not the arithmetic, a line for each."""
        nodes = [node for node in program.graph.nodes if node.op == "call_module"]
        return [f"{location(node)}: {reason}" for node in nodes for reason in self._reasons(node)]

    def _reasons(self, node: Node) -> list[str]:
        module = module_of(node)
        if isinstance(module, Quantize) and module.integer_type.zero_point is not None:
            return [f"its levels are {module.integer_type}, needed a zero point of 0: normalise images with mean 0"]
        if isinstance(module, Movement):
            return _movement_reasons(node, module)
        if isinstance(module, IntegerMaxPool):
            return [*_pool_reasons(node, module), *self.pool_reasons(module)]
        if isinstance(module, (IntegerHead, IntegerMap)):
            reasons = _layer_reasons(node, module)
            return reasons or (self._map_reasons(node, module) if isinstance(module, IntegerMap) else [])
        return []

    def _map_reasons(self, node: Node, module: IntegerMap) -> list[str]:
        line = common_shift(module)
        if line is None:
            return ["its requantizer is corrected by a table of thresholds, needed a multiplication and a shift"]
        return self.requantizer_reasons(node, module, line)

    @abstractmethod
    def requantizer_reasons(self, node: Node, module: IntegerMap, line: CommonShift) -> list[str]:
        """Why the dialect cannot requantise so."""

    def pool_reasons(self, module: IntegerMaxPool) -> list[str]:
        """Why the dialect has no such pool."""
        return []

    def container(self, integer_type: IntegerType) -> tuple[ir.DataType, int]:
        """float32, which holds the level itself."""
        return ir.DataType.FLOAT, 0

    def border(self, natural: ir.DataType) -> ir.DataType:
        """float32 for all."""
        return ir.DataType.FLOAT

    def finish(self, model: ir.Model) -> ir.Model:
        """A batch of one."""
        graph = model.graph
        for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
            if value.shape is not None and not isinstance(value.shape[0], int):
                value.shape = ir.Shape([1, *value.shape.dims[1:]])
        return model

    def linear(
        self, builder: Builder, path: str, weight: Tensor, bias: Tensor, x: Carrier, shape: tuple[int, ...]
    ) -> ir.Value:
        """Gemm, whose weight is [in, out]."""
        inputs = [
            x.value,
            builder.constant(exact_floats(numpy(weight.T)), f"{path}.weight"),
            builder.constant(exact_floats(numpy(bias)), f"{path}.bias"),
        ]
        return self.op(builder, "Gemm", inputs, path, shape, self.gemm_attributes(weight))

    def gemm_attributes(self, weight: Tensor) -> dict[str, Any]:
        """Those of a Gemm with this weight."""
        return {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}

    def convolve(
        self, builder: Builder, path: str, conv: PlainConvolution, x: ir.Value, sizes: tuple[int, ...]
    ) -> ir.Value:
        """Conv of an input of that sample shape."""
        attributes = self.conv_attributes(conv)
        spatial = tuple(
            (size + sum(pads) - kernel) // stride + 1
            for size, pads, kernel, stride in zip(
                sizes[1:], conv.padding, conv.weight.shape[2:], conv.stride, strict=True
            )
        )
        weight = builder.constant(exact_floats(numpy(conv.weight)), f"{path}.weight")
        return self.op(builder, "Conv", [x, weight], path, (len(conv.weight), *spatial), attributes)

    def conv_attributes(self, conv: PlainConvolution) -> dict[str, Any]:
        """Those of this Conv."""
        return conv.attributes()

    def op(
        self,
        builder: Builder,
        op_type: str,
        inputs: list[ir.Value],
        path: str,
        shape: tuple[int, ...],
        attributes: dict[str, Any] | None = None,
        *,
        domain: str = "",
        dtype: ir.DataType = ir.DataType.FLOAT,
    ) -> ir.Value:
        """A node with a float output."""
        return builder.op(op_type, inputs, path=path, dtype=dtype, shape=shape, attributes=attributes, domain=domain)

    def table(
        self, builder: Builder, path: str, module: IntegerTable, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """Not in these dialects; the target's description refuses it."""
        raise AssertionError(path)

    def softmax(
        self, builder: Builder, path: str, module: IntegerSoftmax, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """Not in these dialects; the target's description refuses it."""
        raise AssertionError(path)


def exact_floats(integers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The numbers as float32 if it holds them, else as float64."""
    wide = integers.astype(np.float64)
    narrow = wide.astype(np.float32)
    return narrow if bool((narrow == wide).all()) else wide


def _movement_reasons(node: Node, module: Movement) -> list[str]:
    if not isinstance(module, Reshape):
        return [f"it is a {type(module).__name__.lower()}, needed a reshape, the only movement there is"]
    sizes = [int(np.prod(sample_shape_of(each))) for each in (node, node.all_input_nodes[0])]
    return [] if sizes[0] == sizes[1] else ["it moves numbers into the batch, needed one sample"]


def _pool_reasons(node: Node, module: IntegerMaxPool) -> list[str]:
    reasons = []
    if set(module.dilation) != {1}:
        reasons.append(f"its windows have gaps (dilation {module.dilation}), needed none")
    levels = integer_type_of(node)
    if any(map(any, module.padding)) and levels is not None and levels.signed:
        reasons.append("it pads negative levels, needed unsigned ones: put a ReLU before it")
    return reasons


def _layer_reasons(node: Node, module: IntegerHead | IntegerMap) -> list[str]:
    """Why a layer is no linear one, no plain convolution and no sum of two tensors."""
    operator, shape = module.operator, sample_shape_of(node.all_input_nodes[0])
    if isinstance(operator, Linear):
        return [] if len(shape) == 1 else [f"it is a linear layer over {shape}, needed one axis: flatten its input"]
    if isinstance(module, IntegerHead):
        return ["it is a convolution with int32 output, needed a linear last layer or output='int8'"]
    if isinstance(operator, Sum):
        return _sum_reasons(node, module)
    if plain_convolution(operator, module.weight, shape) is None:
        kind = type(operator).__name__.lower()
        return [f"it is this {kind} of {shape}, needed windows of one size over channels, or all of the image"]
    return []


def _sum_reasons(node: Node, module: IntegerMap) -> list[str]:
    assert module.weight is not None
    reasons = []
    coefficients = [int(each) for each in module.weight.tolist()]
    if len({sample_shape_of(source) for source in node.all_input_nodes}) > 1:
        reasons.append("its tensors have different shapes, needed one")
    if len(set(coefficients)) > 1:
        reasons.append(f"its tensors count {coefficients[0]} to {coefficients[1]}, needed one scale for both")
    return reasons
