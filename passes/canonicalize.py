"""One spelling for each operation: functional and method forms become modules."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.errors import UnsupportedError, listing
from ana_fx.graph import location, module_of, module_path, unique_path
from ana_fx.passes.dialect import ACTIVATIONS, DROPOUTS, SUPPORTED_MODULES, is_shape, unsupported_reason
from ana_fx.passes.pass_ import Pass

__all__ = ["Canonicalize"]

Build = Callable[..., nn.Module]


class _UnfitError(Exception):
    """Why a spelling cannot be rewritten."""


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Rewrite every operation to a supported module, or refuse all that have none.

    before   x -> F.relu(x) -> x.mean((2, 3)) -> torch.add(x, y) -> x.contiguous()
    after    x -> ReLU      -> AdaptiveAvgPool2d(1) -> Flatten   -> operator.add(x, y)

    Shape arithmetic (`x.size(0)`, `x.shape`) and reshapes are left as they are.
    """

    name: ClassVar[str] = "canonicalize"

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        problems = [f"{location(node)}: {reason}" for node in list(gm.graph.nodes) if (reason := _rewrite(gm, node))]
        if problems:
            raise UnsupportedError(
                listing(
                    f"{len(problems)} operation(s) cannot be quantised:",
                    problems,
                    "replace them by supported ones, or keep this part of the model outside prepare()",
                )
            )
        gm.graph.eliminate_dead_code()
        return True


def _rewrite(gm: GraphModule, node: Node) -> str | None:
    """Bring one node to its canonical form; the reason if there is none."""
    if node.op == "call_module":
        module = module_of(node)
        if getattr(module, "inplace", False) and _is_overwritten_early(node):
            return _OVERWRITES
        if isinstance(module, (*ACTIVATIONS, *DROPOUTS)):
            module.inplace = False  # a graph has no aliases; prepare compares it with the model
        return unsupported_reason(module)
    if node.op in ("placeholder", "output", "get_attr") or is_shape(node):
        return None
    spelling = _SPELLINGS.get(node.target)
    if spelling is None:
        return f"{_name(node)}() is not supported; modules are: {', '.join(k.__name__ for k in SUPPORTED_MODULES)}"
    if _name(node).endswith("_") and _is_overwritten_early(node):
        return _OVERWRITES
    try:
        return spelling(gm, node)
    except (_UnfitError, TypeError, ValueError) as reason:
        return f"{_name(node)}(): {reason}"


_OVERWRITES = "works in place on a tensor that is used again later; needed a tensor of its own; drop inplace"


def _is_overwritten_early(node: Node) -> bool:
    return any(user > node for user in node.all_input_nodes[0].users if user is not node)


def _name(node: Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def _module(names: str, build: Build) -> Callable[[GraphModule, Node], None]:
    """A rewrite to the module that `build` makes of the arguments called `names`, after the input."""

    def rewrite(gm: GraphModule, node: Node) -> None:
        arguments = _bound(node, names.split())
        if any(isinstance(value, Node) for value in arguments.values()):
            raise _UnfitError("found an argument computed by the graph, needed a constant")
        if arguments.get("inplace") and _is_overwritten_early(node):
            raise _UnfitError(_OVERWRITES)
        _call(gm, node, build(**arguments))

    return rewrite


def _bound(node: Node, names: list[str]) -> dict[str, Any]:
    """The arguments after the first by name, whichever way they were given."""
    positional = dict(zip(names, node.args[1:], strict=False))
    keywords = {key: value for key, value in node.kwargs.items() if key != "input"}
    return positional | keywords


def _input(node: Node) -> Node:
    source = node.args[0] if node.args else node.kwargs["input"]
    if not isinstance(source, Node):
        raise _UnfitError(f"found {source!r} where a tensor of the graph was needed")
    return source


def _call(gm: GraphModule, node: Node, module: nn.Module, *, then: nn.Module | None = None) -> None:
    """Replace a node by a call to a new module (and another after it), installed beside the caller."""
    reason = unsupported_reason(module)
    if reason is not None:
        raise _UnfitError(reason)
    source = _input(node)
    for each in (module, then):
        if each is None:
            continue
        prefix = module_path(node)
        path = unique_path(gm, f"{prefix}.{node.name}" if prefix else node.name)
        gm.add_submodule(path, each.train(gm.training))
        with gm.graph.inserting_before(node):
            source = gm.graph.call_module(path, (source,))
        source.meta, source.stack_trace = dict(node.meta), node.stack_trace
    node.replace_all_uses_with(source)
    gm.graph.erase_node(node)


def _add(gm: GraphModule, node: Node) -> None:
    operands = (_input(node), _bound(node, ["other"]).get("other"))
    alpha = node.kwargs.get("alpha", 1)
    if not all(isinstance(operand, Node) and operand.op != "get_attr" for operand in operands):
        raise _UnfitError("found a constant or a parameter, needed two tensors that the graph computes")
    if alpha != 1:
        raise _UnfitError(f"found alpha={alpha}, needed 1")
    node.op, node.target, node.args, node.kwargs = "call_function", operator.add, operands, {}


def _mean(gm: GraphModule, node: Node) -> None:
    arguments = _bound(node, ["dim", "keepdim"])
    axes = arguments.get("dim")
    if not isinstance(axes, (tuple, list)) or sorted(axes) not in ([2, 3], [-2, -1]):
        raise _UnfitError(f"found mean over {axes}, needed both image axes: (2, 3) or (-2, -1)")
    _call(gm, node, nn.AdaptiveAvgPool2d(1), then=None if arguments.get("keepdim") else nn.Flatten())


def _clamp(minimum: float | None = None, maximum: float | None = None) -> nn.Module:
    low = -torch.inf if minimum is None else float(minimum)
    high = torch.inf if maximum is None else float(maximum)
    if not low <= 0.0 <= high:
        raise _UnfitError(f"found a clamp to [{low}, {high}], needed a range that holds zero")
    return nn.ReLU() if (low, high) == (0.0, torch.inf) else nn.Hardtanh(low, high)


def _parameter(gm: GraphModule, value: Any, name: str) -> nn.Parameter | None:
    if value is None:
        return None
    tensor = operator.attrgetter(str(value.target))(gm) if isinstance(value, Node) and value.op == "get_attr" else None
    if not isinstance(tensor, nn.Parameter):
        raise _UnfitError(f"found a {name} that is computed or constant, needed a parameter of the model")
    return tensor


def _convolution(kind: Build) -> Callable[[GraphModule, Node], None]:
    def rewrite(gm: GraphModule, node: Node) -> None:
        arguments = _bound(node, ["weight", "bias", "stride", "padding", "dilation", "groups"])
        weight = _parameter(gm, arguments.pop("weight"), "weight")
        bias = _parameter(gm, arguments.pop("bias", None), "bias")
        assert weight is not None
        out_channels, in_channels, *kernel = weight.shape
        groups = arguments.get("groups", 1)
        with torch.device("meta"):
            module = kind(in_channels * groups, out_channels, tuple(kernel), bias=bias is not None, **arguments)
        module.weight, module.bias = weight, bias  # type: ignore[assignment]  # torch itself stores None for no bias
        _call(gm, node, module)

    return rewrite


def _linear(gm: GraphModule, node: Node) -> None:
    arguments = _bound(node, ["weight", "bias"])
    weight = _parameter(gm, arguments["weight"], "weight")
    bias = _parameter(gm, arguments.get("bias"), "bias")
    assert weight is not None
    with torch.device("meta"):
        module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    module.weight = weight
    module.bias = bias  # type: ignore[assignment]  # torch itself stores None for no bias
    _call(gm, node, module)


def _any_rank(x: torch.Tensor) -> None:
    """In place of a module's check of its input's rank: the function checks nothing either."""


def _batch_norm(gm: GraphModule, node: Node) -> None:
    arguments = _bound(node, ["running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"])
    statistics = [arguments.get(name) for name in ("running_mean", "running_var")]
    if not all(isinstance(each, Node) and each.op == "get_attr" for each in statistics):
        raise _UnfitError("found no running statistics of the model, needed batch norm with running statistics")
    mean, variance = (operator.attrgetter(str(each.target))(gm) for each in statistics if isinstance(each, Node))
    weight = _parameter(gm, arguments.get("weight"), "weight")
    bias = _parameter(gm, arguments.get("bias"), "bias")
    settings = {name: arguments[name] for name in ("momentum", "eps") if name in arguments}
    module = nn.BatchNorm2d(len(mean), affine=weight is not None, **settings)
    module._check_input_dim = _any_rank  # type: ignore[method-assign, assignment]  # the rank is unknown
    module.running_mean, module.running_var = mean, variance
    if weight is not None:
        module.weight = weight
        module.bias = bias if bias is not None else nn.Parameter(torch.zeros_like(weight), requires_grad=False)
    _call(gm, node, module)


def _drop(gm: GraphModule, node: Node) -> None:
    node.replace_all_uses_with(_input(node))
    gm.graph.erase_node(node)


def _keep(gm: GraphModule, node: Node) -> None:
    """A reshape is canonical as it is."""


def _pad(pad: tuple[int, ...], mode: str = "constant", value: float | None = None) -> nn.Module:
    if mode != "constant" or value not in (None, 0, 0.0):
        raise _UnfitError(f"found padding mode {mode!r} with value {value}, needed constant zeros")
    if not 1 <= len(pad) // 2 <= 3:
        raise _UnfitError(f"found {len(pad) // 2} padded axes, needed one to three")
    kinds: tuple[Build, ...] = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
    kind = kinds[(len(pad) + 1) // 2 - 1]
    return kind(tuple(pad), 0.0)


def _dropout(kind: type[nn.modules.dropout._DropoutNd]) -> Callable[[GraphModule, Node], None]:
    return _module("p train inplace", lambda p=0.5, train=True, training=True, inplace=False: kind(p))


def _avg_pool(kind: Build) -> Callable[[GraphModule, Node], None]:
    return _module("kernel_size stride padding ceil_mode count_include_pad divisor_override", kind)


def _max_pool(kind: Build) -> Callable[[GraphModule, Node], None]:
    return _module("kernel_size stride padding dilation ceil_mode return_indices", kind)


def _adaptive(kind: Build) -> Callable[[GraphModule, Node], None]:
    return _module("output_size", kind)


_RELU = _module("inplace", lambda inplace=False: nn.ReLU())
_RELU6 = _module("inplace", lambda inplace=False: nn.ReLU6())
_HARDTANH = _module(
    "min_val max_val inplace", lambda min_val=-1.0, max_val=1.0, inplace=False: nn.Hardtanh(min_val, max_val)
)
_CLAMP = _module("min max", lambda min=None, max=None: _clamp(min, max))  # torch's names

_SPELLINGS: dict[Any, Callable[[GraphModule, Node], None]] = {
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), _RELU),
    F.relu6: _RELU6,
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _HARDTANH),
    **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clip", "clamp_", "clip_"), _CLAMP),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((F.conv1d, torch.conv1d), _convolution(nn.Conv1d)),
    **dict.fromkeys((F.conv2d, torch.conv2d), _convolution(nn.Conv2d)),
    **dict.fromkeys((F.conv3d, torch.conv3d), _convolution(nn.Conv3d)),
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    **dict.fromkeys((F.max_pool1d, torch.max_pool1d), _max_pool(nn.MaxPool1d)),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool(nn.MaxPool2d)),
    **dict.fromkeys((F.max_pool3d, torch.max_pool3d), _max_pool(nn.MaxPool3d)),
    **dict.fromkeys((F.avg_pool1d, torch.avg_pool1d), _avg_pool(nn.AvgPool1d)),
    F.avg_pool2d: _avg_pool(nn.AvgPool2d),
    F.avg_pool3d: _avg_pool(nn.AvgPool3d),
    **dict.fromkeys((F.adaptive_avg_pool1d, torch.adaptive_avg_pool1d), _adaptive(nn.AdaptiveAvgPool1d)),
    F.adaptive_avg_pool2d: _adaptive(nn.AdaptiveAvgPool2d),
    F.adaptive_avg_pool3d: _adaptive(nn.AdaptiveAvgPool3d),
    **dict.fromkeys((F.dropout, torch.dropout), _dropout(nn.Dropout)),
    F.dropout1d: _dropout(nn.Dropout1d),
    F.dropout2d: _dropout(nn.Dropout2d),
    F.dropout3d: _dropout(nn.Dropout3d),
    F.pad: _module("pad mode value", _pad),
    **dict.fromkeys(("contiguous", "clone", torch.clone), _drop),
    **dict.fromkeys((torch.flatten, torch.reshape, "flatten", "view", "reshape"), _keep),
}
