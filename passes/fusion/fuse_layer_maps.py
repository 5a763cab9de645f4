"""Layer maps: each operation with the batch norm, the line, the activation and the padding around it."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.errors import UnsupportedError
from ana_fx.graph import constant_nodes, location, module_of, module_path, unique_path
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.operator_map import ChannelAffine, Norm, OperatorMap
from ana_fx.layers.quantizers import ClipRange
from ana_fx.layers.softmax_map import SoftmaxMap
from ana_fx.layers.table_map import TableMap
from ana_fx.operators.average import Average
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.interpolation import Interpolation
from ana_fx.operators.linear import Linear
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.normalization import Normalization, UnitNorm
from ana_fx.operators.product import Product
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.operators.transposed_convolution import TransposedConvolution
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import (
    ACTIVATIONS,
    ADAPTIVE_POOLS,
    AVERAGE_POOLS,
    BATCH_NORMS,
    CONVOLUTIONS,
    FUNCTIONS,
    INSTANCE_NORMS,
    LINEAR_UPSAMPLING,
    PADS,
    REDUCTIONS,
    TRANSPOSED_CONVOLUTIONS,
    is_shape,
    line_of,
)

__all__ = ["FuseLayerMaps"]

_PAIRS = {operator.add: Sum(), operator.sub: Sum((1.0, -1.0)), operator.mul: Product(), torch.matmul: MatMul()}
_ROW_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, *INSTANCE_NORMS)


@dataclass(frozen=True)
class FuseLayerMaps(Pass):
    """Replace every chain S [-> batch norm] [-> line] [-> activation] by one layer map.

    before   x -> pad -> conv -> batch norm -> relu -> max pool -> gelu
    after    x -> layer map -> max pool -> table map

    A tensor with a second reader ends the chain. Batch norms, lines (x * 2 + 1) and activations that
    stand alone become layer maps over the identity; functions of each number and softmax are layer
    maps by themselves. Requires the canonical dialect; leaves what depends on constants alone.
    """

    name: ClassVar[str] = "fuse-layer-maps"

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        modules = {node: module_of(node) for node in gm.graph.nodes}
        taken = constant_nodes(gm)
        num_constants = len(taken)
        used_paths: set[str] = set()
        for node in list(gm.graph.nodes):
            if node in taken or is_shape(node):
                continue
            chain = _chain(node, modules)
            if chain is None:
                continue
            taken.update(chain.nodes)
            path = _path(gm, node, used_paths)
            used_paths.add(path)
            _replace(gm, chain, path)
        return len(taken) > num_constants


@dataclass
class _Chain:
    """The parts of one layer map, collected along the graph."""

    nodes: list[Node]
    inputs: tuple[Node, ...]
    operator: Operator | None = None  # None for a table or a softmax, which is its `source`
    source: nn.Module | None = None
    norm: Norm | None = None
    line: tuple[float, float] = (1.0, 0.0)
    clip_range: ClipRange = field(default_factory=ClipRange)

    def layer_map(self) -> LayerMap:
        """The layer map of these parts."""
        if self.operator is None:
            return SoftmaxMap(_axis(self.source)) if isinstance(self.source, nn.Softmax) else TableMap(self.source)  # type: ignore[arg-type]  # a table has a source
        is_weighted = self.operator.has_weight
        weight = getattr(self.source, "weight", None) if is_weighted else None
        bias = getattr(self.source, "bias", None) if is_weighted else None
        return OperatorMap(self.operator, weight, bias, self.norm, self.line, self.clip_range)


def _axis(softmax: nn.Module) -> int:
    assert isinstance(softmax, nn.Softmax)
    assert softmax.dim is not None
    return softmax.dim


def _chain(node: Node, modules: dict[Node, nn.Module | None]) -> _Chain | None:
    """Follow the graph from `node` as long as the layer map goes on; None if no layer map starts there."""
    chain = _head(node, modules)
    while chain is not None and chain.operator is not None and len(chain.nodes[-1].users) == 1:
        (reader,) = chain.nodes[-1].users
        if not _absorb(chain, reader, modules.get(reader)):
            break
    return chain


def _head(node: Node, modules: dict[Node, nn.Module | None]) -> _Chain | None:
    """A chain that begins with `node`, or None if it begins none."""
    module = modules[node]
    inputs = tuple(arg for arg in node.args if isinstance(arg, Node)) or tuple(node.all_input_nodes)
    if node.op == "call_function":
        return _function_head(node, inputs)
    if isinstance(module, (*BATCH_NORMS, *ACTIVATIONS)):
        chain = _Chain([], inputs, Identity())
        _absorb(chain, node, module)
        return chain
    if isinstance(module, (*FUNCTIONS, nn.Softmax)):
        return _Chain([node], inputs, None, module)
    pad = modules.get(inputs[0]) if inputs else None
    if isinstance(module, CONVOLUTIONS) and isinstance(pad, PADS) and _can_fold(inputs[0], pad, module):
        padded = _convolution(module, tuple(pad.padding))
        return _Chain([inputs[0], node], tuple(inputs[0].all_input_nodes), padded, module)
    if isinstance(module, _ROW_NORMS):
        return _Chain([node], inputs, _normalization(module), module, norm=_channel_affine(module))
    if isinstance(module, UnitNorm):
        return _Chain([node], inputs, Normalization(0.0, is_centered=False), module, line=_unit_line(inputs[0]))
    affine = _operator_of(module)
    return None if affine is None else _Chain([node], inputs, affine, module)


def _unit_line(source: Node) -> tuple[float, float]:
    """What makes a row of root mean square 1 one of length 1."""
    shape = source.meta.get("sample_shape")
    if shape is None:
        raise UnsupportedError(
            f"{location(source)}: found rows of unknown length, needed example_inputs for prepare() to normalise"
        )
    return (shape[-1] ** -0.5, 0.0)


def _function_head(node: Node, inputs: tuple[Node, ...]) -> _Chain | None:
    line = line_of(node)
    if line is not None:
        return _Chain([node], inputs, Identity(), line=line)
    if node.target in _PAIRS:
        return _Chain([node], inputs, _PAIRS[node.target])
    if node.target in REDUCTIONS:
        _, axes, keepdim = node.args
        return _Chain([node], inputs, Reduce(axes, keepdim, is_mean=node.target is torch.mean))  # type: ignore[arg-type]  # canonical arguments
    return None


def _can_fold(node: Node, pad: nn.Module, convolution: nn.Module) -> bool:
    is_crop = min(pad.padding) < 0  # type: ignore[arg-type]  # a tuple
    return len(node.users) == 1 and not is_crop and len(pad.padding) <= 2 * len(convolution.stride)  # type: ignore[arg-type]  # both tuples


def _absorb(chain: _Chain, node: Node, module: nn.Module | None) -> bool:
    """Take a batch norm, a line or an activation into the chain, if it can follow what is there."""
    line = line_of(node)
    if isinstance(module, BATCH_NORMS) and _can_take(chain, module):
        chain.norm = module
    elif line is not None and chain.clip_range == ClipRange():
        chain.line = (chain.line[0] * line[0], chain.line[1] * line[0] + line[1])
    elif isinstance(module, ACTIVATIONS):
        chain.clip_range &= _clip_range(module)
    else:
        return False
    chain.nodes.append(node)
    return True


def _can_take(chain: _Chain, norm: nn.Module) -> bool:
    """Whether a batch norm works on the channels of the chain; behind a linear layer that takes two axes."""
    if chain.norm is not None or chain.clip_range != ClipRange() or chain.line != (1.0, 0.0):
        return False
    if isinstance(chain.operator, (Reduce, MatMul, Normalization)):
        return False
    if not isinstance(chain.source, nn.Linear):
        return True
    is_matrix = len(chain.nodes[-1].meta.get("sample_shape", (0,))) == 1
    return is_matrix and bool(norm.num_features == chain.source.out_features)


def _clip_range(module: nn.Module) -> ClipRange:
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return ClipRange(float(module.min_val), float(module.max_val))
    return ClipRange(minimum=0.0)


def _operator_of(module: nn.Module | None) -> Operator | None:
    if isinstance(module, CONVOLUTIONS):
        return _convolution(module, ())
    if isinstance(module, TRANSPOSED_CONVOLUTIONS):
        return _transposed(module)
    if isinstance(module, nn.Linear):
        return Linear()
    if isinstance(module, nn.Upsample) and module.mode in LINEAR_UPSAMPLING:
        return _interpolation(module)
    for rank, (fixed, adaptive) in enumerate(zip(AVERAGE_POOLS, ADAPTIVE_POOLS, strict=True), start=1):
        if isinstance(module, fixed):
            return _average(module, rank)
        if isinstance(module, adaptive):
            return Average(rank, output_size=_tuple(module.output_size, rank))
    return None


def _average(module: Any, rank: int) -> Average:
    kernel, stride, padding = (_tuple(each, rank) for each in (module.kernel_size, module.stride, module.padding))
    override = getattr(module, "divisor_override", None)
    return Average(rank, kernel, stride, padding, module.ceil_mode, module.count_include_pad, override)


def _interpolation(module: nn.Upsample) -> Interpolation:
    rank = 1 if module.mode == "linear" else 2
    size = None if module.size is None else _tuple(module.size, rank)
    factor = None if module.scale_factor is None else _tuple(module.scale_factor, rank)
    return Interpolation(rank, size, factor, bool(module.align_corners))


def _normalization(module: Any) -> Normalization:
    if isinstance(module, nn.RMSNorm):
        epsilon = torch.finfo(torch.float32).eps if module.eps is None else module.eps
        return Normalization(epsilon, len(module.normalized_shape), is_centered=False)
    if isinstance(module, nn.LayerNorm):
        return Normalization(module.eps, len(module.normalized_shape))
    groups = module.num_groups if isinstance(module, nn.GroupNorm) else module.num_features
    return Normalization(module.eps, 0, groups)


def _channel_affine(module: Any) -> ChannelAffine | None:
    if module.weight is None:
        return None
    axis = -1 if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) else 1
    return ChannelAffine(module.weight, getattr(module, "bias", None), axis)


def _transposed(module: Any) -> TransposedConvolution:
    rank = len(module.stride)
    padding = tuple(int(p) for p in module.padding)
    settings = (tuple(module.output_padding), tuple(module.dilation), module.groups, tuple(module.kernel_size))
    assert len(padding) == rank
    return TransposedConvolution(tuple(module.stride), padding, *settings)


def _convolution(module: nn.Module, explicit: tuple[int, ...]) -> Convolution:
    assert isinstance(module, CONVOLUTIONS)
    rank = len(module.stride)
    if module.padding == "same":
        totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        padding = [(total // 2, total - total // 2) for total in totals]
    elif module.padding == "valid":
        padding = [(0, 0)] * rank
    else:
        padding = [(int(p), int(p)) for p in module.padding]
    for axis in range(len(explicit) // 2):  # as in torch: the last axis first
        before, after = padding[rank - 1 - axis]
        padding[rank - 1 - axis] = (before + explicit[2 * axis], after + explicit[2 * axis + 1])
    return Convolution(tuple(module.stride), tuple(padding), tuple(module.dilation), module.groups)


def _tuple(value: object, rank: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank  # type: ignore[return-value]  # torch's own loose types


def _path(gm: GraphModule, node: Node, used_paths: set[str]) -> str:
    """Where the layer map goes: in the place of its module, or beside the code that adds."""
    if node.op == "call_function":
        prefix, name = module_path(node), getattr(node.target, "__name__", "map")
        return unique_path(gm, f"{prefix}.{name}" if prefix else name)
    path = str(node.target)
    return unique_path(gm, path) if path in used_paths else path


def _replace(gm: GraphModule, chain: _Chain, path: str) -> None:
    gm.add_submodule(path, chain.layer_map().train(gm.training))
    first, last = chain.nodes[0], chain.nodes[-1]
    with gm.graph.inserting_before(last):
        call = gm.graph.call_module(path, chain.inputs)
    call.meta, call.stack_trace = dict(first.meta), first.stack_trace
    last.replace_all_uses_with(call)
    for node in reversed(chain.nodes):
        gm.graph.erase_node(node)
