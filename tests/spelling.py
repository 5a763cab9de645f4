"""Spellings of one operation, which must all lead to one canonical graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ana_fx
from tests.graphs import Written, assert_graph, assert_same_numbers, canonical, graph_text

Expression = Callable[..., Any]
Spelt = tuple[tuple[int, ...], Expression, dict[str, Expression]]
"""The shape of the input, the spelling with modules, and other spellings by what is special to them."""

VECTOR, SEQUENCE, IMAGE, VOLUME = (4, 6), (4, 3, 12), (4, 3, 8, 8), (4, 3, 4, 4, 4)


def each_spelling(table: Mapping[str, Spelt]) -> list[Any]:
    """The cases of a test: shape, spelling with modules, another spelling."""
    return [
        pytest.param(shape, modules, expression, id=f"{name} as {other}")
        for name, (shape, modules, others) in table.items()
        for other, expression in others.items()
    ]


def written(expression: Expression, modules: Mapping[str, Callable[[], nn.Module]]) -> Written:
    """A model over the modules that the expression names, with the same numbers each time."""
    torch.manual_seed(0)
    names = [name for name in modules if name in expression.__code__.co_names]
    model = Written(expression, **{name: modules[name]() for name in names})
    for module in model.children():
        if "Norm" in type(module).__name__:
            for name, tensor in module.state_dict().items():
                tensor.uniform_(0.5, 2) if name != "num_batches_tracked" else None
    return model


def assert_spelt_alike(wanted: nn.Module, other: nn.Module, x: Tensor) -> None:
    """Both have one canonical graph, and give the same bits in eval mode and in training."""
    gm = canonical(other)
    assert_graph(gm, graph_text(canonical(wanted)))
    assert_same_numbers(gm, wanted, x)
    assert torch.equal(in_training(gm, x), in_training(wanted, x))


def in_training(model: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(0)  # for dropout
    return model.train()(x)


def refusal(*expressions: Expression, **members: nn.Module) -> str:
    """What is said of a model that returns all these."""
    model = Written(lambda m, x: [expression(m, x) for expression in expressions], **members)
    with pytest.raises(ana_fx.UnsupportedError) as caught:
        canonical(model)
    return str(caught.value)
