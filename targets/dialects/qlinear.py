"""The fast target on x86 and Arm: QLinear operators, whose formula the staircases already are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.fx import GraphModule

from ana_fx.graph import calls_to
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.average import Average
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.product import Product
from ana_fx.operators.sum import Sum
from ana_fx.program.integer_modules import IntegerMap
from ana_fx.requantizers.staircase import QLinearStaircase
from ana_fx.targets.dialects.integer import IntegerEmitter
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.convolution_attributes import pooling_attributes
from ana_fx.targets.onnx.emitter import Carrier, NodeReport, numpy
from ana_fx.targets.onnx.weight_bytes import WeightBytes, store_weight

__all__ = ["OnnxRuntimeEmitter", "add_scales", "clip_levels", "product_report", "qlinear_staircase", "stored_weight"]

_UINT8 = ir.DataType.UINT8
_BYTE = 255
_SIGNED_ZERO = 128
_FLOAT32_HALF_ULP = 2.0**-24
_QLINEAR = (Convolution, Linear, Average, Identity, Sum, Product)


@dataclass(frozen=True)
class OnnxRuntimeEmitter(IntegerEmitter):
    """QLinearConv and QGemm for everything that multiplies weights, QLinearAdd where it is proven.

    QLinear kernels take and give one type, so all levels are stored as uint8, signed ones with zero
    point 128. Heads are MatMulInteger or ConvInteger. A sum whose QLinearAdd is not proven is
    written in integer arithmetic.
    """

    pads_max_pools: ClassVar[bool] = True

    def container(self, integer_type: IntegerType) -> tuple[ir.DataType, int]:
        """uint8, with zero point 128 for signed types that have no other."""
        if integer_type.zero_point is not None:
            return ir.DataType.UINT8, integer_type.zero_point
        return ir.DataType.UINT8, _SIGNED_ZERO if integer_type.signed else 0

    def misfits(self, program: GraphModule) -> list[str]:
        """Layer maps whose staircase no QLinear operator computes."""
        paths = [str(node.target) for node in calls_to(program, IntegerMap)]
        return [
            f"layer map {path!r} has a staircase of integer shifts, which no QLinear operator computes"
            for path in paths
            if not isinstance(program.get_submodule(path).staircase, QLinearStaircase)
            and isinstance(program.get_submodule(path).operator, _QLINEAR)
        ]

    def finish(self, model: ir.Model) -> ir.Model:
        """Clip behind max pools rather than before: numbers are the same, and fewer."""
        for pool in [node for node in model.graph if node.op_type == "MaxPool"]:
            _pool_before_clip(model.graph, pool)
        return model

    def integer_map(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        shape: tuple[int, ...],
    ) -> tuple[Carrier, NodeReport]:
        """The QLinear operator of the layer map, and a Clip where its levels are fewer than a byte's."""
        operator, x = module.operator, inputs[0]
        if isinstance(operator, Linear):
            return self._gemm(builder, path, module, x, shape)
        if _is_convolution(operator, x.shape):
            if not x.shape:  # a number for each sample: an image of one channel
                x = replace(x, value=builder.reshape(x.value, (1,), path=path), shape=(1,))
            return self._convolve(builder, path, module, x, shape)
        reason = "no QLinear operator computes it"
        if isinstance(operator, MatMul):
            reason = _unproven_product(module)
            if not reason:
                return self._multiply(builder, path, module, inputs, shape, "QLinearMatMul")
        elif isinstance(operator, Product):
            reason = _unproven_product(module) or _unproven_mul(module, self.container(module.integer_type)[1])
            if not reason:
                return self._multiply(builder, path, module, inputs, shape, "QLinearMul")
        elif isinstance(operator, Sum):
            reason = _unproven_add(module, inputs)
            if not reason:
                return self._add(builder, path, module, inputs, shape)
        carrier, report = super().integer_map(builder, path, module, inputs, shape)
        return carrier, replace(report, reason=reason)

    def _multiply(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        shape: tuple[int, ...],
        operator: str,
    ) -> tuple[Carrier, NodeReport]:
        """QLinearMatMul or QLinearMul of two tensors of levels."""
        dtype, zero_point = self.container(module.integer_type)
        staircase = qlinear_staircase(module)
        scales = (staircase.x_scale, staircase.weight_scale.reshape(()), staircase.y_scale)
        points = (*(x.zero_point for x in inputs), zero_point)
        settings = [
            [builder.constant(numpy(scale), f"{path}.scale"), builder.constant(np.uint8(point), f"{path}.zero_point")]
            for scale, point in zip(scales, points, strict=True)
        ]
        operands = [
            *(part for x, pair in zip(inputs, settings, strict=False) for part in (x.value, *pair)),
            *settings[2],
        ]
        domain = "com.microsoft" if operator == "QLinearMul" else ""
        value = builder.op(operator, operands, path=path, dtype=dtype, shape=shape, domain=domain)
        value = clip_levels(builder, path, value, module, zero_point, shape)
        return Carrier(value, zero_point, shape, module.hi + zero_point), NodeReport(path, operator, "float32")

    def _gemm(
        self, builder: Builder, path: str, module: IntegerMap, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """QGemm over the rows."""
        weight = stored_weight(module, x.shape)
        stored = store_weight(weight, x, self.target)
        value = builder.reshape(x.value, tuple(weight.shape[1:]), path=path)
        factors, result, bias = self._factors(builder, path, module, x, stored, transposes=True)
        inputs, row = [value, *factors, bias, *result], (len(weight),)
        value = builder.op("QGemm", inputs, path=path, dtype=_UINT8, shape=row, domain="com.microsoft")
        return self._leave(builder, path, value, module, row, shape), product_report(path, "QGemm", stored)

    def _convolve(
        self, builder: Builder, path: str, module: IntegerMap, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """QLinearConv; averages and rescales are depthwise ones."""
        stored = self._convolution_bytes(module, x)
        image_in, image_out = x.shape, shape
        attributes = pooling_attributes(module.operator, x.shape[0])
        if isinstance(module.operator, Identity):
            image_in = image_out = (x.shape[0], int(np.prod(x.shape[1:])), 1)
            attributes = {"group": x.shape[0]}
        value = builder.reshape(x.value, image_in, path=path)
        factors, result, bias = self._factors(builder, path, module, x, stored)
        inputs = [value, *factors, *result, bias]
        value = builder.op("QLinearConv", inputs, path=path, dtype=_UINT8, shape=image_out, attributes=attributes)
        return self._leave(builder, path, value, module, image_out, shape), product_report(path, "QLinearConv", stored)

    def _convolution_bytes(self, module: IntegerMap, x: Carrier) -> WeightBytes:
        """The stored weight; the kernels of depthwise convolutions, averages and rescales add no pairs."""
        is_dense = module.weight is not None and not module.operator.is_depthwise(module.weight)
        return store_weight(stored_weight(module, x.shape), x, self.target, adds_pairs=is_dense)

    def _factors(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        x: Carrier,
        weight: WeightBytes,
        *,
        transposes: bool = False,
    ) -> tuple[list[ir.Value], list[ir.Value], ir.Value]:
        """What follows the input of a QLinear operator: of x and the weight, of the result; and the bias."""
        staircase, zero_point = qlinear_staircase(module), self.container(module.integer_type)[1]
        num_channels, dtype = len(weight.array), weight.array.dtype

        def constant(array: np.ndarray[Any, Any] | np.generic, name: str) -> ir.Value:
            return builder.constant(array, f"{path}.{name}")

        factors = [
            constant(numpy(staircase.x_scale), "x_scale"),
            constant(np.uint8(x.zero_point), "x_zero_point"),
            constant(weight.array.T.copy() if transposes else weight.array, "weight"),
            constant(numpy(staircase.weight_scale.expand(num_channels)), "weight_scale"),
            constant(np.full(num_channels, weight.zero_point, dtype), "weight_zero_point"),
        ]
        result = [
            constant(numpy(staircase.y_scale), "y_scale"),
            constant(np.uint8(zero_point), "y_zero_point"),
        ]
        return factors, result, constant(numpy(staircase.bias.to(torch.int32).expand(num_channels)), "bias")

    def _leave(
        self,
        builder: Builder,
        path: str,
        value: ir.Value,
        module: IntegerMap,
        computed: tuple[int, ...],
        shape: tuple[int, ...],
    ) -> Carrier:
        """What an operator computed in one shape, clipped to the levels and in another."""
        zero_point = self.container(module.integer_type)[1]
        value = clip_levels(builder, path, value, module, zero_point, computed)
        return Carrier(builder.reshape(value, shape, path=path), zero_point, shape, module.hi + zero_point)

    def _add(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        shape: tuple[int, ...],
    ) -> tuple[Carrier, NodeReport]:
        """QLinearAdd with scales in the ratio of the integer coefficients."""
        dtype, zero_point = self.container(module.integer_type)
        y_scale = qlinear_staircase(module).y_scale
        operands = []
        for x, scale, letter in zip(inputs, add_scales(module), "ab", strict=True):
            operands += [
                x.value,
                builder.constant(np.float32(scale), f"{path}.{letter}_scale"),
                builder.constant(np.uint8(x.zero_point), f"{path}.{letter}_zero_point"),
            ]
        operands += [
            builder.constant(numpy(y_scale), f"{path}.y_scale"),
            builder.constant(np.uint8(zero_point), f"{path}.y_zero_point"),
        ]
        value = builder.op("QLinearAdd", operands, path=path, dtype=dtype, shape=shape, domain="com.microsoft")
        value = clip_levels(builder, path, value, module, zero_point, shape)
        carrier = Carrier(value, zero_point, shape, module.hi + zero_point)
        return carrier, NodeReport(path, "QLinearAdd", "float32")


def _pool_before_clip(graph: ir.Graph, pool: ir.Node) -> None:
    """Exchange a Clip that only a max pool reads with that pool: both are monotone.

    before   x -> Clip -> MaxPool
    after    x -> MaxPool -> Clip
    """
    clipped, (pooled,) = pool.inputs[0], pool.outputs
    assert clipped is not None
    clip = clipped.producer()
    if clip is None or clip.op_type != "Clip" or len(clipped.uses()) > 1 or clipped.is_graph_output():
        return
    first = ir.node("MaxPool", [clip.inputs[0]], pool.attributes, name=pool.name)
    second = ir.node("Clip", [first.outputs[0], *clip.inputs[1:]], name=clip.name)
    first.outputs[0].name = f"{pooled.name}.unclipped"
    second.outputs[0].name = pooled.name
    for value in (first.outputs[0], second.outputs[0]):
        value.type, value.shape = pooled.type, pooled.shape
    ir.convenience.replace_nodes_and_values(graph, pool, [pool, clip], [first, second], [pooled], [second.outputs[0]])


def _is_convolution(operator: Operator, shape: tuple[int, ...]) -> bool:
    """Whether a map is the convolution of an image with integer weights."""
    if isinstance(operator, Average):
        return operator.window((1, *shape)) is not None
    return isinstance(operator, (Convolution, Identity))


def product_report(path: str, operator: str, weight: WeightBytes) -> NodeReport:
    """How a layer map stands in the file whose operator multiplies these bytes in float32 arithmetic."""
    return NodeReport(path, operator, "float32", weight.needs_vnni, weight.reason, weight.pair_sum)


def qlinear_staircase(module: IntegerMap) -> QLinearStaircase:
    assert isinstance(module.staircase, QLinearStaircase)
    return module.staircase


def stored_weight(module: IntegerMap, x_shape: tuple[int, ...]) -> Tensor:
    """The weight as it is multiplied: head-room and signs included, [out, in / group, …]."""
    factor = qlinear_staircase(module).factor
    if isinstance(module.operator, (Convolution, Linear)):
        assert module.weight is not None
        return module.weight.to(torch.int32) * factor
    kernel = module.operator.kernel if isinstance(module.operator, Average) else (1, 1)
    sign = module.sign.to(torch.int32).expand(x_shape[0])
    return (sign * factor).reshape(-1, 1, *[1] * len(kernel)).expand(-1, 1, *kernel).contiguous()


def clip_levels(
    builder: Builder, path: str, value: ir.Value, module: IntegerMap, zero_point: int, shape: tuple[int, ...]
) -> ir.Value:
    """Clip to the levels, unless the byte does it."""
    low, high = module.lo + zero_point, module.hi + zero_point
    if (low, high) == (0, _BYTE):
        return value
    bounds = [builder.constant(np.uint8(bound), f"{path}.{name}") for name, bound in (("min", low), ("max", high))]
    return builder.op("Clip", [value, *bounds], path=path, dtype=ir.DataType.UINT8, shape=shape)


def add_scales(module: IntegerMap) -> list[float]:
    """Input scales of a QLinearAdd whose ratios to the output's are the integer coefficients' slopes."""
    assert module.weight is not None
    staircase = qlinear_staircase(module)
    unit = float(staircase.slope) * float(staircase.y_scale)
    return [coefficient * unit for coefficient in module.weight.tolist()]


def _unproven_add(module: IntegerMap, inputs: Sequence[Carrier]) -> str:
    """Why QLinearAdd is not proven equal to a sum's staircase; empty if it is.

    The kernel computes a·(sa/sc) + b·(sb/sc) + zero points in float32, fused or not, in an order that
    depends on the processor. Whatever the order, at most ten roundings of half an ulp each act on the
    magnitudes that are summed. If no reachable sum is that near a tie, all orders give one result.
    """
    staircase = qlinear_staircase(module)
    assert module.weight is not None
    if int(module.weight.min()) < 0:
        return "QLinearAdd does not subtract"
    if staircase.bias.numel() > 1 or module.sign.numel() > 1 or int(module.sign[0]) != 1:
        return "QLinearAdd has no scale for each channel"
    if int(staircase.bias) != 0:
        return "QLinearAdd has no bias"
    ratios = [scale / float(staircase.y_scale) for scale in add_scales(module)]
    magnitude = sum((_BYTE + x.zero_point) * ratio for x, ratio in zip(inputs, ratios, strict=True)) + 2 * _BYTE
    error = 10 * _FLOAT32_HALF_ULP * magnitude
    accumulators = torch.arange(int(module.lowest), int(module.highest) + 1).double()
    exact = accumulators * float(staircase.slope)
    is_inside = (exact > module.lo - 1) & (exact < module.hi + 1)
    distance = (exact - torch.floor(exact) - 0.5).abs()
    nearest = float(torch.where(is_inside, distance, torch.ones_like(distance)).min())
    if nearest <= error:
        return f"QLinearAdd can round a sum {nearest:.2g} levels from a tie otherwise (error up to {error:.2g})"
    return ""


def _unproven_product(module: IntegerMap) -> str:
    """Why the formula of QLinearMatMul is not a product's staircase; empty if it is."""
    if not isinstance(module.staircase, QLinearStaircase):
        return "its staircase is one of integer shifts"
    if module.staircase.bias.numel() > 1 or int(module.staircase.bias) != 0 or int(module.sign[0]) != 1:
        return "a QLinear product has no bias and no sign"
    return ""


def _unproven_mul(module: IntegerMap, zero_point: int) -> str:
    """Why QLinearMul does not give a product's staircase; empty if it does.

    The kernel adds the zero point before it rounds, fused with the multiplication or not: both are
    computed for every accumulator.
    """
    staircase = qlinear_staircase(module)
    accumulators = torch.arange(int(module.lowest), int(module.highest) + 1)
    wanted = staircase.level(accumulators, 0)
    slope = staircase.stored_slope.reshape(())
    unfused = accumulators.float() * slope + zero_point
    fused = (accumulators.double() * slope.double() + zero_point).float()
    for stored in (unfused, fused):
        found = (torch.round(stored).clamp(0, _BYTE) - zero_point).clamp(module.lo, module.hi)
        if not torch.equal(found, wanted):
            return f"QLinearMul rounds {int((found != wanted).sum())} of {len(wanted)} products otherwise"
    return ""
