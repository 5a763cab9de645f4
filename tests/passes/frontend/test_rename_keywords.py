"""Modules whose names are Python's own get others, and a note."""

import torch
from torch import nn

from ana_fx.passes.frontend.trace_model import trace
from tests.graphs import Written, assert_same_numbers


def test_keys_that_are_keywords_get_names_that_code_can_hold():
    heads = nn.ModuleDict({"in": nn.Linear(3, 3), "class": nn.ModuleDict({"def": nn.Linear(3, 2)}), "out": nn.ReLU()})
    model = Written(lambda m, x: m.d["class"]["def"](m.d["out"](m.d["in"](m.d["in"](x)))), d=heads)
    gm = trace(model)
    assert_same_numbers(model, gm, torch.rand(4, 3))
    assert [name for name, _ in gm.named_parameters()] == [
        "d.in_.weight", "d.in_.bias", "d.class_.def_.weight", "d.class_.def_.bias",
    ]  # fmt: skip
    assert gm.meta["notes"] == [
        "'d.in' is called 'd.in_' here: 'in' is a keyword of Python",
        "'d.class' is called 'd.class_' here: 'class' is a keyword of Python",
        "'d.class.def' is called 'd.class_.def_' here: 'def' is a keyword of Python",
    ]
    assert set(model.d) == {"in", "class", "out"}


def test_a_name_that_is_taken_is_left_to_its_owner():
    heads = nn.ModuleDict({"in": nn.Linear(3, 3), "in_": nn.Linear(3, 3)})
    model = Written(lambda m, x: m.d["in_"](m.d["in"](x)), d=heads)
    gm = trace(model)
    assert_same_numbers(model, gm, torch.rand(4, 3))
    assert {name.rpartition(".")[0] for name, _ in gm.named_parameters()} == {"d.in_", "d.in__"}


def test_parameters_are_renamed_too():
    model = Written(lambda m, x: x * getattr(m, "lambda"), **{"lambda": nn.Parameter(torch.ones(3))})
    gm = trace(model)
    assert_same_numbers(model, gm, torch.rand(4, 3))
    assert [name for name, _ in gm.named_parameters()] == ["lambda_"]
