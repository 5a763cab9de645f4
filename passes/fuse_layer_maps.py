"""Layer maps: each affine operation with the batch norm, the activation and the padding around it."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.affine import Affine, Average, Convolution, Identity, Linear, Sum
from ana_fx.errors import UnsupportedError, listing
from ana_fx.graph import calls_to, location, module_of, module_path, unique_path
from ana_fx.layer_map import BatchNorm, LayerMap
from ana_fx.passes.dialect import (
    ACTIVATIONS,
    ADAPTIVE_POOLS,
    AVERAGE_POOLS,
    BATCH_NORMS,
    CONVOLUTIONS,
    PADS,
    is_shape,
)
from ana_fx.passes.pass_ import Pass
from ana_fx.quantizers import ClipRange

__all__ = ["FuseLayerMaps"]


@dataclass(frozen=True)
class FuseLayerMaps(Pass):
    """Replace every chain S [-> batch norm] [-> activation] by one layer map.

    before   x -> pad -> conv -> batch norm -> relu -> max pool
    after    x -> layer map -> max pool

    A tensor with a second reader ends the chain. Batch norms and activations that stand alone become
    layer maps over the identity. Requires the canonical dialect.
    """

    name: ClassVar[str] = "fuse-layer-maps"

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        modules = {node: module_of(node) for node in gm.graph.nodes}
        taken: set[Node] = set()
        used_paths: set[str] = set()
        for node in list(gm.graph.nodes):
            if node in taken or not _starts_layer_map(node, modules[node]):
                continue
            chain = _chain(node, modules)
            taken.update(chain.nodes)
            path = _path(gm, node, used_paths)
            used_paths.add(path)
            _replace(gm, chain, path)
        _refuse_pads(gm)
        return bool(taken)


@dataclass
class _Chain:
    """The parts of one layer map, collected along the graph."""

    nodes: list[Node]
    inputs: tuple[Node, ...]
    affine: Affine
    source: nn.Module | None = None
    norm: BatchNorm | None = None
    clip_range: ClipRange = field(default_factory=ClipRange)


def _starts_layer_map(node: Node, module: nn.Module | None) -> bool:
    if node.op == "call_function":
        return node.target is operator.add and not is_shape(node)
    starters = (*CONVOLUTIONS, nn.Linear, *AVERAGE_POOLS, *ADAPTIVE_POOLS, *BATCH_NORMS, *ACTIVATIONS)
    return isinstance(module, starters)


def _chain(node: Node, modules: dict[Node, nn.Module | None]) -> _Chain:
    """Follow the graph from `node` as long as the layer map goes on."""
    chain = _head(node, modules)
    while len(chain.nodes[-1].users) == 1:
        (reader,) = chain.nodes[-1].users
        if not _absorb(chain, reader, modules.get(reader)):
            break
    return chain


def _head(node: Node, modules: dict[Node, nn.Module | None]) -> _Chain:
    module = modules[node]
    inputs = tuple(arg for arg in node.args if isinstance(arg, Node)) or tuple(node.all_input_nodes)
    if module is None:
        return _Chain([node], inputs, Sum())
    if isinstance(module, (*BATCH_NORMS, *ACTIVATIONS)):
        chain = _Chain([], inputs, Identity())
        _absorb(chain, node, module)
        return chain
    pad = modules.get(inputs[0])
    if isinstance(module, CONVOLUTIONS) and isinstance(pad, PADS) and _can_fold(inputs[0], pad, module):
        affine = _convolution(module, tuple(pad.padding))
        return _Chain([inputs[0], node], tuple(inputs[0].all_input_nodes), affine, module)
    return _Chain([node], inputs, _affine(module), module)


def _can_fold(node: Node, pad: nn.Module, convolution: nn.Module) -> bool:
    return len(node.users) == 1 and len(pad.padding) <= 2 * len(convolution.stride)  # type: ignore[arg-type]  # both tuples


def _absorb(chain: _Chain, node: Node, module: nn.Module | None) -> bool:
    """Take a batch norm or an activation into the chain, if it can follow what is there."""
    if isinstance(module, BATCH_NORMS) and _can_take(chain, module):
        chain.norm = module
    elif isinstance(module, ACTIVATIONS):
        chain.clip_range &= _clip_range(module)
    else:
        return False
    chain.nodes.append(node)
    return True


def _can_take(chain: _Chain, norm: BatchNorm) -> bool:
    """Whether a batch norm works on the channels of the chain; behind a linear layer that takes two axes."""
    if chain.norm is not None or chain.clip_range != ClipRange():
        return False
    if not isinstance(chain.source, nn.Linear):
        return True
    is_matrix = len(chain.nodes[-1].meta.get("sample_shape", (0,))) == 1
    return is_matrix and norm.num_features == chain.source.out_features


def _clip_range(module: nn.Module) -> ClipRange:
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return ClipRange(float(module.min_val), float(module.max_val))
    return ClipRange(minimum=0.0)


def _affine(module: nn.Module) -> Affine:
    if isinstance(module, CONVOLUTIONS):
        return _convolution(module, ())
    if isinstance(module, nn.Linear):
        return Linear()
    pools = zip(AVERAGE_POOLS, ADAPTIVE_POOLS, strict=True)
    rank = next(rank for rank, kinds in enumerate(pools, start=1) if isinstance(module, kinds))
    if isinstance(module, AVERAGE_POOLS):
        kernel = _tuple(module.kernel_size, rank)
        return Average(rank, kernel, _tuple(module.stride, rank), _tuple(module.padding, rank))
    return Average(rank, output_size=_tuple(module.output_size, rank))


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
        prefix = module_path(node)
        return unique_path(gm, f"{prefix}.add" if prefix else "add")
    path = str(node.target)
    return unique_path(gm, path) if path in used_paths else path


def _replace(gm: GraphModule, chain: _Chain, path: str) -> None:
    weight = getattr(chain.source, "weight", None)
    bias = getattr(chain.source, "bias", None)
    layer_map = LayerMap(chain.affine, weight, bias, chain.norm, chain.clip_range)
    layer_map.train(gm.training)
    gm.add_submodule(path, layer_map)
    first, last = chain.nodes[0], chain.nodes[-1]
    with gm.graph.inserting_before(last):
        call = gm.graph.call_module(path, chain.inputs)
    call.meta, call.stack_trace = dict(first.meta), first.stack_trace
    last.replace_all_uses_with(call)
    for node in reversed(chain.nodes):
        gm.graph.erase_node(node)


def _refuse_pads(gm: GraphModule) -> None:
    pads = calls_to(gm, *PADS)
    if pads:
        raise UnsupportedError(
            listing(
                f"{len(pads)} padding(s) cannot be folded:",
                [
                    f"{location(node)}: pad() over too many axes, or not alone; needed a convolution as its only reader"
                    for node in pads
                ],
                "pad right before the convolution that needs it",
            )
        )
