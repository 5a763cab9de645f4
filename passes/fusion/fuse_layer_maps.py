"""Layer maps: each operation with the batch norm, the line, the activation and the padding around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.errors import UnsupportedError
from ana_fx.graph import constant_nodes, location, module_of, module_path, unique_path
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.norms import ChannelAffine, Norm
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import ClipRange
from ana_fx.layers.softmax_map import SoftmaxMap
from ana_fx.layers.table_map import TableMap
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.identity import Identity
from ana_fx.operators.normalization import UnitNorm
from ana_fx.operators.operator_list import function_spellings, module_spellings
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import (
    ACTIVATIONS,
    BATCH_NORMS,
    CONVOLUTIONS,
    FUNCTIONS,
    PADS,
    is_movement,
    is_shape,
    line_of,
)
from ana_fx.passes.canonical.canonical_graph import CANONICAL
from ana_fx.passes.fusion.fused_graph import FUSED
from ana_fx.passes.fusion.observation import observation_of

__all__ = ["FuseLayerMaps", "modules_of", "why_alone"]

Modules = dict[Node, nn.Module | None]
_NO_LINE = (1.0, 0.0)
_LAST_CHANNELS = (nn.LayerNorm, nn.RMSNorm)


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
    requires: ClassVar[Dialect] = CANONICAL
    ensures: ClassVar[Dialect] = FUSED

    def run(self, gm: GraphModule) -> bool:
        taken = constant_nodes(gm)
        num_constants = len(taken)
        used_paths: set[str] = set()
        modules = modules_of(gm)  # before layer maps take the places of modules that are called again
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
    operator: Operator | None = None  # None for a function, whose layer map is complete
    source: nn.Module | None = None
    norm: Norm | None = None
    line: tuple[float, float] = _NO_LINE
    clip_range: ClipRange = field(default_factory=ClipRange)

    def layer_map(self) -> LayerMap:
        """The layer map of these parts."""
        if self.operator is None:
            assert self.source is not None
            return SoftmaxMap(_axis(self.source)) if isinstance(self.source, nn.Softmax) else TableMap(self.source)
        is_weighted = self.operator.has_weight
        weight = getattr(self.source, "weight", None) if is_weighted else None
        bias = getattr(self.source, "bias", None) if is_weighted else None
        return OperatorMap(self.operator, weight, bias, self.norm, self.line, self.clip_range)


def _axis(softmax: nn.Softmax) -> int:
    assert softmax.dim is not None
    return softmax.dim


def modules_of(gm: GraphModule) -> Modules:
    """The module that each node calls."""
    return {node: module_of(node) for node in gm.graph.nodes}


def _chain(node: Node, modules: Modules) -> _Chain | None:
    """Follow the graph from `node` as long as the layer map goes on; None if no layer map starts there."""
    chain = _head(node, modules)
    while chain is not None and (reader := _next(chain, modules)) is not None:
        _absorb(chain, reader, modules.get(reader))
    return chain


def _next(chain: _Chain, modules: Modules) -> Node | None:
    """The node that the chain absorbs next, or None where it ends."""
    last = chain.nodes[-1]
    if chain.operator is None or len(last.users) != 1:
        return None
    (reader,) = last.users
    return reader if _obstacle(chain, reader, modules.get(reader)) is None else None


def why_alone(node: Node, modules: Modules) -> str | None:
    """Why what a node computes does not become a part of the layer map before it; None if it does, or begins one.

    Args:
        node: A node of a canonical graph.
        modules: What each node calls, from before the layer maps are fused.
    """
    if not _can_follow(node, modules):
        return None
    start = node
    while _can_follow(start, modules):
        start = start.all_input_nodes[0]
    chain = _chain(start, modules)
    if chain is None or chain.operator is None:
        return f"no operator stands before it, but {start.name!r}"
    if node in chain.nodes:
        return None
    last = chain.nodes[-1]
    if len(last.users) > 1:
        return f"{last.name!r} has {len(last.users)} readers, needed one"
    (reader,) = last.users
    return _obstacle(chain, reader, modules.get(reader))


def _can_follow(node: Node, modules: Modules) -> bool:
    """Whether a node is a batch norm, a line or an activation."""
    return isinstance(modules.get(node), (*BATCH_NORMS, *ACTIVATIONS)) or line_of(node) is not None


def _head(node: Node, modules: Modules) -> _Chain | None:
    """A chain that begins with `node`, or None if it begins none."""
    module = modules.get(node)
    inputs = tuple(arg for arg in node.args if isinstance(arg, Node)) or tuple(node.all_input_nodes)
    if node.op == "call_function":
        return _function_head(node, inputs)
    if isinstance(module, (*BATCH_NORMS, *ACTIVATIONS)):
        chain = _Chain([], inputs, Identity())
        _absorb(chain, node, module)
        return chain
    if isinstance(module, (*FUNCTIONS, nn.Softmax)):
        return _Chain([node], inputs, None, module)
    if module is None or is_movement(node):  # an upsampling to the nearest is both
        return None
    make = next((found for kind in type(module).__mro__ if (found := module_spellings().get(kind))), None)
    return None if make is None else _module_head(node, module, make(module), modules)


def _module_head(node: Node, module: nn.Module, operator: Operator, modules: Modules) -> _Chain:
    """The chain that begins with a module of an operator, and with the padding or the line around it."""
    source = node.all_input_nodes[0]
    pad = modules.get(source)
    if isinstance(module, CONVOLUTIONS) and isinstance(pad, PADS) and _can_fold(source, pad, module):
        padded = operator.padded(pad.padding)  # type: ignore[attr-defined]  # a convolution
        return _Chain([source, node], tuple(source.all_input_nodes), padded, module)
    line = _unit_line(source) if isinstance(module, UnitNorm) else _NO_LINE
    return _Chain([node], (source,), operator, module, norm=_channel_affine(module, operator), line=line)


def _unit_line(source: Node) -> tuple[float, float]:
    """What makes a row of root mean square 1 one of length 1."""
    shape = observation_of(source).sample_shape
    if shape is None:
        raise UnsupportedError(
            f"{location(source)}: found rows of unknown length, needed example_inputs for prepare() to normalise"
        )
    return (shape[-1] ** -0.5, 0.0)


def _function_head(node: Node, inputs: tuple[Node, ...]) -> _Chain | None:
    line = line_of(node)
    if line is not None:
        return _Chain([node], inputs, Identity(), line=line)
    spelling = function_spellings().get(node.target)
    if spelling is None:
        return None
    return _Chain([node], inputs, spelling.build(*node.args[spelling.num_tensors :]))


def _can_fold(node: Node, pad: nn.Module, convolution: nn.Module) -> bool:
    """Whether a padding becomes that of the convolution which alone reads it."""
    is_crop = min(pad.padding) < 0  # type: ignore[arg-type]  # a tuple
    return len(node.users) == 1 and not is_crop and len(pad.padding) <= 2 * len(convolution.stride)  # type: ignore[arg-type]  # both tuples


def _obstacle(chain: _Chain, node: Node, module: nn.Module | None) -> str | None:
    """Why a node cannot follow what is in the chain; None if it can."""
    has_activation = chain.clip_range != ClipRange()
    if isinstance(module, BATCH_NORMS):
        return "a batch norm follows an activation" if has_activation else _norm_obstacle(chain, module)
    if isinstance(module, ACTIVATIONS):
        return None
    if line_of(node) is None:
        return f"{node.name!r} is no batch norm, line or activation"
    return "a line follows an activation" if has_activation else None


def _norm_obstacle(chain: _Chain, norm: Any) -> str | None:
    """Why a batch norm does not work on the channels of the chain; behind a linear layer that takes two axes."""
    assert chain.operator is not None
    if chain.norm is not None or chain.line != _NO_LINE:
        return "a batch norm follows another norm or a line"
    if not chain.operator.takes_batch_norm:
        return f"no batch norm becomes a part of a {chain.operator.kind}"
    rank = 1 + len(observation_of(chain.nodes[-1]).sample_shape or (0,))
    if isinstance(chain.source, nn.Linear) and chain.operator.channel_axis(rank) != 1:
        return f"a batch norm normalises axis 1, the channels of a linear layer are axis {rank - 1}"
    num_channels = getattr(chain.source, "out_features", norm.num_features)
    if num_channels != norm.num_features:
        return f"a batch norm has {norm.num_features} channels, the layer {num_channels}"
    return None


def _absorb(chain: _Chain, node: Node, module: nn.Module | None) -> None:
    """Take a batch norm, a line or an activation into the chain."""
    line = line_of(node)
    if isinstance(module, BATCH_NORMS):
        chain.norm = module
    elif line is not None:
        chain.line = (chain.line[0] * line[0], chain.line[1] * line[0] + line[1])
    else:
        chain.clip_range &= _clip_range(module)
    chain.nodes.append(node)


def _clip_range(module: nn.Module | None) -> ClipRange:
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return ClipRange(float(module.min_val), float(module.max_val))
    return ClipRange(minimum=0.0)


def _channel_affine(module: Any, operator: Operator) -> ChannelAffine | None:
    """The weight and bias of each channel that belong to a norm, not to the operator."""
    if operator.has_weight or getattr(module, "weight", None) is None:
        return None
    axis = -1 if isinstance(module, _LAST_CHANNELS) else 1
    return ChannelAffine(module.weight, getattr(module, "bias", None), axis)


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
