"""What the DORY dialect cannot hold although the description of its target can."""

from __future__ import annotations

from torch.fx import Node

from ana_fx.program.data_movement import Reshape
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.program.program_borders import Quantize, QuantizeImage
from ana_fx.program.tensor_spec import sample_shape_of
from ana_fx.targets.microcontrollers.common_shift import CommonShift
from ana_fx.targets.microcontrollers.dory_layout import flatten_reasons, packing_reasons, stride_reasons
from ana_fx.targets.microcontrollers.float_typed_limits import LIMITS, limited_by, map_limit
from ana_fx.targets.microcontrollers.plain_convolution import plain_convolution

__all__ = ["dory_misfits"]


def _reshape_limit(node: Node, module: Reshape) -> list[str]:
    return LIMITS[Reshape](node, module) or flatten_reasons(node)


def _input_limit(node: Node, module: Quantize) -> list[str]:
    reasons = LIMITS[type(module)](node, module) or packing_reasons(node, module.integer_type)
    if len(node.users) > 1:
        reasons = [*reasons, f"{len(node.users)} layers read the input, needed one"]
    return reasons


def _pool_limit(node: Node, module: IntegerMaxPool) -> list[str]:
    return [*LIMITS[IntegerMaxPool](node, module), *stride_reasons(module.stride)]


def _map_limit(node: Node, module: IntegerMap) -> list[str]:
    return map_limit(_requantizer_limit)(node, module) or packing_reasons(node, module.integer_type)


def _requantizer_limit(node: Node, module: IntegerMap, line: CommonShift) -> list[str]:
    """Refuse numbers beyond 32 bits, a clip that the kernels do not have, and strides that they do not take."""
    reasons = [reason for reason in (line.misfit(),) if reason]
    kind = module.integer_type
    if line.clipped(kind.qmin, kind.qmax) != line.clipped(module.lo, module.hi):
        reasons.append(
            f"its levels go from {module.lo} to {module.hi}, needed {kind.qmin} to {kind.qmax} ({kind}), to which "
            f"kernels clip"
        )
    if module.operator.num_inputs > 1 and not line.is_uniform:
        reasons.append("its channels have slopes of their own, needed one for a sum: leave out the batch norm")
    conv = plain_convolution(module.operator, module.weight, sample_shape_of(node.all_input_nodes[0]))
    return reasons if conv is None else [*reasons, *stride_reasons(conv.stride)]


dory_misfits = limited_by(
    {
        **LIMITS,
        Reshape: _reshape_limit,
        Quantize: _input_limit,
        QuantizeImage: _input_limit,
        IntegerMap: _map_limit,
        IntegerMaxPool: _pool_limit,
    }
)
"""Lists what of a program the dialect cannot hold, a line for each reason."""
