"""Sums, differences, products, matrix products and reductions in every spelling.

This covers passes/canonical/rewrites.py, with the files for the other themes beside it.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ana_fx.passes.canonical.canonicalize import Canonicalize
from ana_fx.passes.frontend.trace_model import trace
from tests.graphs import Written, WrittenForTwo, assert_graph, assert_same_numbers, canonical
from tests.spelling import (
    IMAGE,
    SEQUENCE,
    Spelt,
    assert_spelt_alike,
    each_spelling,
    written,
)

MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "dense": lambda: nn.Linear(6, 5),
    "mean": lambda: nn.AdaptiveAvgPool2d(1),
    "flatten": nn.Flatten,
}
# shape of the input, spelling with modules, other spellings
SPELT: dict[str, Spelt] = {
    "add": (
        IMAGE,
        lambda m, x: x + m.relu(x),
        {
            "operator.add": lambda m, x: operator.add(x, m.relu(x)),
            "operator.iadd": lambda m, x: operator.iadd(x, m.relu(x)),
            "torch.add": lambda m, x: torch.add(x, m.relu(x)),
            "torch.add(other=)": lambda m, x: torch.add(x, other=m.relu(x)),
            "torch.add(input=)": lambda m, x: torch.add(input=x, other=m.relu(x)),
            "torch.add(alpha=1)": lambda m, x: torch.add(x, m.relu(x), alpha=1),
            "x.add": lambda m, x: x.add(m.relu(x)),
            "x.add_": lambda m, x: x.add_(m.relu(x)),
        },
    ),
    "maximum": (
        IMAGE,
        lambda m, x: torch.maximum(x, m.relu(x)),
        {"torch": lambda m, x: torch.maximum(x, other=m.relu(x)), "x": lambda m, x: x.maximum(m.relu(x))},
    ),
    "minimum": (
        IMAGE,
        lambda m, x: torch.minimum(x, m.relu(x)),
        {"torch": lambda m, x: torch.minimum(x, other=m.relu(x)), "x": lambda m, x: x.minimum(m.relu(x))},
    ),
    "mean": (
        IMAGE,
        lambda m, x: m.flatten(m.mean(x)),
        {
            "x.mean((2, 3))": lambda m, x: x.mean((2, 3)),
            "x.mean([3, 2])": lambda m, x: x.mean([3, 2]),
            "x.mean((-2, -1))": lambda m, x: x.mean((-2, -1)),
            "x.mean(dim=)": lambda m, x: x.mean(dim=(-1, -2)),
            "torch.mean": lambda m, x: torch.mean(x, (2, 3)),
            "torch.mean(dim=)": lambda m, x: torch.mean(x, dim=(2, 3), keepdim=False),
        },
    ),
    "mean with keepdim": (
        IMAGE,
        lambda m, x: m.mean(x),
        {
            "x.mean(keepdim)": lambda m, x: x.mean((2, 3), keepdim=True),
            "x.mean(, True)": lambda m, x: x.mean((2, 3), True),
            "F.adaptive_avg_pool2d": lambda m, x: F.adaptive_avg_pool2d(x, 1),
        },
    ),
    "sub": (
        IMAGE,
        lambda m, x: x - m.relu(x),
        {
            "operator.isub": lambda m, x: operator.isub(x, m.relu(x)),
            "torch.sub": lambda m, x: torch.sub(x, m.relu(x)),
            "torch.subtract": lambda m, x: torch.subtract(x, other=m.relu(x)),
            "x.sub": lambda m, x: x.sub(m.relu(x)),
            "x.sub_": lambda m, x: x.sub_(m.relu(x)),
        },
    ),
    "mul": (
        IMAGE,
        lambda m, x: x * m.relu(x),
        {
            "operator.imul": lambda m, x: operator.imul(x, m.relu(x)),
            "torch.mul": lambda m, x: torch.mul(x, m.relu(x)),
            "torch.multiply": lambda m, x: torch.multiply(input=x, other=m.relu(x)),
            "x.mul": lambda m, x: x.mul(m.relu(x)),
            "x.mul_": lambda m, x: x.mul_(m.relu(x)),
        },
    ),
    "add a number": (
        IMAGE,
        lambda m, x: x + 0.3,
        {"torch.add": lambda m, x: torch.add(x, 0.3), "x.add_": lambda m, x: x.add_(0.3)},
    ),
    "add a number first": (IMAGE, lambda m, x: 0.3 + x, {"operator.add": lambda m, x: operator.add(0.3, x)}),
    "subtract a number": (IMAGE, lambda m, x: x - 2, {"x.sub": lambda m, x: x.sub(2)}),
    "subtract from a number": (IMAGE, lambda m, x: 2 - x, {"operator.sub": lambda m, x: operator.sub(2, x)}),
    "add a multiple of a number": (IMAGE, lambda m, x: x + 0.5 * 3, {"alpha": lambda m, x: torch.add(x, 0.5, alpha=3)}),
    "multiply by a number": (
        IMAGE,
        lambda m, x: x * 0.3,
        {"torch.mul": lambda m, x: torch.mul(x, 0.3), "x.mul_": lambda m, x: x.mul_(0.3)},
    ),
    "div": (
        IMAGE,
        lambda m, x: x / 3,
        {
            "operator.itruediv": lambda m, x: operator.itruediv(x, 3),
            "torch.div": lambda m, x: torch.div(x, 3),
            "torch.divide": lambda m, x: torch.divide(x, 3),
            "x.div": lambda m, x: x.div(3),
            "x.div_": lambda m, x: x.div_(3),
        },
    ),
    "matmul": (
        IMAGE,
        lambda m, x: torch.matmul(x, m.relu(x)),
        {
            "operator.matmul": lambda m, x: x @ m.relu(x),
            "torch.matmul(other=)": lambda m, x: torch.matmul(x, other=m.relu(x)),
            "x.matmul": lambda m, x: x.matmul(m.relu(x)),
        },
    ),
    "bmm": (
        (4, 5, 5),
        lambda m, x: torch.matmul(x, m.relu(x)),
        {
            "torch.bmm": lambda m, x: torch.bmm(x, m.relu(x)),
            "torch.bmm(mat2=)": lambda m, x: torch.bmm(x, mat2=m.relu(x)),
            "x.bmm": lambda m, x: x.bmm(m.relu(x)),
        },
    ),
    "mean of an axis": (
        IMAGE,
        lambda m, x: torch.mean(x, (1,), False),
        {
            "x.mean(1)": lambda m, x: x.mean(1),
            "x.mean(dim=[1])": lambda m, x: x.mean(dim=[1]),
            "torch.mean": lambda m, x: torch.mean(x, 1, keepdim=False),
        },
    ),
    "mean of tokens": (
        SEQUENCE,
        lambda m, x: torch.mean(x, (1, 2), True),
        {"x.mean": lambda m, x: x.mean((2, 1), keepdim=True)},
    ),
    "sum": (
        IMAGE,
        lambda m, x: torch.sum(x, (2, 3), True),
        {
            "x.sum": lambda m, x: x.sum((3, 2), keepdim=True),
            "torch.sum": lambda m, x: torch.sum(x, dim=[2, 3], keepdim=True),
        },
    ),
}


@pytest.mark.parametrize(("shape", "modules", "expression"), each_spelling(SPELT))
def test_every_spelling_of_an_operation_gives_the_graph_and_the_bits_of_its_canonical_form(shape, modules, expression):
    assert_spelt_alike(written(modules, MODULES), written(expression, MODULES), torch.randn(shape) * 3)


def test_a_weighted_sum_is_written_out_as_a_product_and_a_sum():
    expression = lambda m, x: torch.add(x, m.relu(x), alpha=0.3)  # noqa: E731  # a model's forward
    gm = canonical(written(expression, MODULES))
    assert_graph(gm, "x -> ReLU -> mul -> add(x, mul) -> output")
    assert gm.meta["is_written_out"]  # torch.add rounds once, a product and a sum round twice: prepare allows for it


def test_a_sum_weighted_by_a_power_of_two_gives_the_same_bits():
    expression = lambda m, x: torch.sub(x, m.relu(x), alpha=2)  # noqa: E731  # a model's forward
    gm = canonical(written(expression, MODULES))
    assert_graph(gm, "x -> ReLU -> mul -> sub(x, mul) -> output")
    assert_same_numbers(gm, written(expression, MODULES), torch.randn(IMAGE))


def test_two_models_inputs_can_be_added():
    assert_graph(canonical(WrittenForTwo(lambda m, x, y: x.add(other=y))), "x -> y -> add(x, y) -> output")


def test_a_parameter_can_be_added():
    model = Written(lambda m, x: x + m.dense.bias, dense=nn.Linear(1, 3))
    gm = canonical(model)
    assert_graph(gm, "x -> add -> output")
    assert_same_numbers(gm, model, torch.randn(4, 3))


def test_arithmetic_may_be_deeper_than_the_stack_of_python():
    gm = trace(Written(lambda m, x: functools.reduce(lambda y, _: y + torch.relu(y), range(1200), x)))
    Canonicalize()(gm)
    assert len([node for node in gm.graph.nodes if node.target is operator.add]) == 1200
