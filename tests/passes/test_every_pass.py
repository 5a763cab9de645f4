"""Every pass keeps the contract: it says truthfully whether it changed anything, and a second run changes nothing.

The pipelines of `prepare` and `convert` run pass by pass; before and after each, everything that a graph, its modules
and its nodes hold is compared.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

import ana_fx
import ana_fx.passes
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonicalize import Canonicalize
from ana_fx.passes.canonical.drop_identities import DropIdentities
from ana_fx.passes.checks.check_trace import CheckTrace
from ana_fx.passes.convert import integer_pipeline
from ana_fx.passes.frontend.trace_model import trace
from ana_fx.passes.prepare import Wanted, training_pipeline
from ana_fx.target_registry import target_called
from tests.models import INPUT_SHAPES, Block, Chain


class Joined(nn.Module):
    """Identities, tables, softmax, constants, a concatenation with the input, a sum, and a max pool before a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.same, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.Identity(), nn.MaxPool2d(2)
        self.row, self.head = nn.Parameter(torch.rand(4, 1, 1)), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.same(self.conv(x))).relu()
        z = torch.cat([torch.sigmoid(y) + self.row, self.pool(x)], 1)
        return self.head(torch.softmax(z, 1).mean((2, 3)) + z.mean((2, 3)))


IMAGE = ana_fx.ImageInput(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
CASES: dict[str, tuple[type[nn.Module] | Any, ana_fx.Precision, str]] = {
    "a chain": (Chain, ana_fx.Precision.parse("int4"), "onnxruntime"),
    "joins with a table, 4 bits": (Joined, ana_fx.Precision.parse("int4"), "integer"),
    "joins, 8 bits": (Joined, ana_fx.Precision.parse("int8"), "onnxruntime"),
    "a sum of one scale": (lambda: Block(3, 3, 1), ana_fx.Precision.parse("ternary"), "deeploy"),
    "first and last": (Chain, ana_fx.Precision("ternary", "uint2", first="int8", last="int8"), "onnxruntime"),
    "an island of floats": (
        Chain,
        ana_fx.Precision("int4", "uint4", overrides={"hidden": "float"}),
        "onnxruntime",
    ),
    "a normalised image": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)),
        ana_fx.Precision("int4", "uint4", input=IMAGE),
        "onnxruntime",
    ),
}


def kinds() -> list[type[Pass]]:
    """Every pass there is."""
    for info in pkgutil.walk_packages(ana_fx.passes.__path__, "ana_fx.passes."):
        importlib.import_module(info.name)
    found = [*Pass.__subclasses__()]
    for kind in found:
        found += [each for each in kind.__subclasses__() if each not in found]
    return [kind for kind in found if kind.__module__.startswith("ana_fx.")]


def steps(case: str) -> Iterator[tuple[Pass, GraphModule]]:
    """Each pass of `prepare` and `convert`, with the graph as it is before."""
    make, precision, target = CASES[case]
    model, x = make().eval(), torch.rand(4, *INPUT_SHAPES[Chain])
    wanted = Wanted(precision, ana_fx.preset("ste"), target_called(target))
    gm = trace(model, x)
    front = (Canonicalize(), DropIdentities(), CheckTrace(model, (x,), {}))
    for each in (*front, *training_pipeline(wanted, (x,), [x]), *integer_pipeline(wanted.target)):
        yield each, gm


@pytest.mark.parametrize("case", CASES)
def test_a_pass_that_says_so_changed_nothing_and_a_second_run_changes_nothing(case):
    for each, gm in steps(case):
        before = everything(gm)
        modified = each(gm).modified
        after = everything(gm)
        assert modified == (after != before), each.name
        assert not each(gm).modified, each.name
        assert everything(gm) == after, each.name


def test_the_cases_run_every_pass_and_let_each_change_something_that_is_to_change_anything():
    ran, changed = set(), set()
    for case in CASES:
        for each, gm in steps(case):
            ran.add(type(each))
            changed.update([type(each)] if each(gm).modified else [])
    assert ran == set(kinds())
    assert {kind for kind in ran - changed if not re.match("Check|Compare", kind.__name__)} == set()


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_a_pass_is_frozen_and_its_file_its_class_and_its_name_are_the_same_words(kind):
    assert dataclasses.fields(kind) is not None
    assert kind.__dataclass_params__.frozen
    words = re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()
    assert kind.name == words
    assert kind.__module__.rpartition(".")[2].replace("_", "-") == words
    assert kind.__doc__ is not None


def everything(gm: GraphModule) -> list[Any]:
    """What a graph, the modules it calls and its nodes hold, as plain values."""
    nodes = [
        (node.name, node.op, node.target, str(node.args), str(node.kwargs), plain(facts(node)))
        for node in gm.graph.nodes
    ]
    called = {str(node.target) for node in gm.graph.nodes if node.op == "call_module"}
    modules = [
        (path, type(module), plain(vars(module))) for path, module in gm.named_modules() if in_one_of(called, path)
    ]
    notes = {name: gm.meta.get(name) for name in ("notes", "precision", "order_breaks", "scale_groups")}
    return [nodes, modules, plain(gm.state_dict()), plain(notes)]


def in_one_of(called: set[str], path: str) -> bool:
    return any(f"{path}.".startswith(f"{each}.") for each in called)


def facts(node: Node) -> dict[str, Any]:
    return {name: node.meta.get(name) for name in ("observation", "tensor")}


def plain(value: Any) -> Any:
    """A value that can be compared: tensors as lists, objects as what they hold; what begins with _ is theirs alone."""
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().flatten().tolist()
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items() if not str(key).startswith("_")}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Enum)):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    return value if isinstance(value, (int, float, str, Enum)) else repr(value)
