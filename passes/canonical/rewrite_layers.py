"""Rewrites of functions that take parameters of the model, to the layers that own them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.graph import constant_nodes
from ana_fx.passes.canonical.rewrites import Build, Spelling, UnfitError, bound_arguments, replace_by

__all__ = [
    "CONVOLUTION_ARGUMENTS",
    "TRANSPOSED_ARGUMENTS",
    "batch_norm",
    "convolution",
    "group_norm",
    "linear",
    "prelu",
    "row_norm",
]


def _parameter(gm: GraphModule, value: Any, name: str) -> nn.Parameter | None:
    if value is None:
        return None
    tensor = operator.attrgetter(str(value.target))(gm) if isinstance(value, Node) and value.op == "get_attr" else None
    if not isinstance(tensor, nn.Parameter):
        raise UnfitError(f"found a {name} that is computed or constant, needed a parameter of the model")
    return tensor


CONVOLUTION_ARGUMENTS = ["weight", "bias", "stride", "padding", "dilation", "groups"]
TRANSPOSED_ARGUMENTS = ["weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"]


def convolution(kind: Build, names: list[str]) -> Spelling:
    def rewrite(gm: GraphModule, node: Node) -> None:
        arguments = bound_arguments(node, names)
        weight = _parameter(gm, arguments.pop("weight"), "weight")
        bias = _parameter(gm, arguments.pop("bias", None), "bias")
        assert weight is not None
        first, second, *kernel = weight.shape
        groups = arguments.get("groups", 1)
        sizes = (first, second * groups) if "output_padding" in names else (second * groups, first)
        with torch.device("meta"):
            module = kind(*sizes, tuple(kernel), bias=bias is not None, **arguments)
        module.weight, module.bias = weight, bias  # type: ignore[assignment]  # torch itself stores None for no bias
        replace_by(gm, node, module)

    return rewrite


def linear(gm: GraphModule, node: Node) -> None:
    """A linear layer; a bias that is computed from parameters is added behind it."""
    arguments = bound_arguments(node, ["weight", "bias"])
    weight = _parameter(gm, arguments["weight"], "weight")
    assert weight is not None
    given = arguments.get("bias")
    if isinstance(given, Node) and given in constant_nodes(gm) and given.op != "get_attr":
        with gm.graph.inserting_after(node):
            total = gm.graph.call_function(operator.add, (node, given))
        node.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)
        total.meta, total.stack_trace = dict(node.meta), node.stack_trace
        given = None
    bias = _parameter(gm, given, "bias")
    with torch.device("meta"):
        module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    module.weight = weight
    module.bias = bias  # type: ignore[assignment]  # torch itself stores None for no bias
    replace_by(gm, node, module)


def _any_rank(x: torch.Tensor) -> None:
    """Stand in for the check of the input's rank, which the module makes and the function does not."""


def batch_norm(gm: GraphModule, node: Node) -> None:
    arguments = bound_arguments(node, ["running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"])
    statistics = [arguments.get(name) for name in ("running_mean", "running_var")]
    if not all(isinstance(each, Node) and each.op == "get_attr" for each in statistics):
        raise UnfitError("found no running statistics of the model, needed batch norm with running statistics")
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
    replace_by(gm, node, module)


def row_norm(kind: Build, names: str) -> Spelling:
    """Layer norm and root mean square norm, (x, normalized_shape, weight, bias, eps)."""

    def rewrite(gm: GraphModule, node: Node) -> None:
        arguments = bound_arguments(node, names.split())
        weight, bias = (_parameter(gm, arguments.pop(name, None), name) for name in ("weight", "bias"))
        module = kind(elementwise_affine=weight is not None, **arguments)
        if weight is not None:
            module.weight = weight
            if kind is nn.LayerNorm:
                module.bias = bias  # type: ignore[assignment]  # torch itself stores None for no bias
        replace_by(gm, node, module)

    return rewrite


def group_norm(gm: GraphModule, node: Node) -> None:
    arguments = bound_arguments(node, ["num_groups", "weight", "bias", "eps"])
    weight, bias = (_parameter(gm, arguments.pop(name, None), name) for name in ("weight", "bias"))
    num_groups = arguments.pop("num_groups")
    module = nn.GroupNorm(
        num_groups, num_groups if weight is None else len(weight), affine=weight is not None, **arguments
    )
    if weight is not None:
        module.weight, module.bias = weight, bias  # type: ignore[assignment]  # torch itself stores None for no bias
    replace_by(gm, node, module)


def prelu(gm: GraphModule, node: Node) -> None:
    weight = _parameter(gm, bound_arguments(node, ["weight"])["weight"], "weight")
    assert weight is not None
    module = nn.PReLU(len(weight))
    module.weight = weight
    replace_by(gm, node, module)
