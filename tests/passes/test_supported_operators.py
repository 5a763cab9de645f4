"""The list of operators holds what prepare takes, and nothing that it refuses."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ana_fx
from tests.graphs import Written

X = torch.rand(2, 4, 6, 6)
USED = {
    "nn.Conv2d": nn.Conv2d(4, 4, 3),
    "F.silu": Written(lambda m, x: F.silu(x)),
    "torch.flatten": Written(lambda m, x: torch.flatten(x, 1)),
    "operator.add": Written(lambda m, x: x + x.relu()),
    "x.mean()": Written(lambda m, x: x.mean((2, 3))),
}
REFUSED = {
    "nn.GLU": nn.GLU(1),
    "torch.cumsum": Written(lambda m, x: torch.cumsum(x, 1)),
    "x.argmax()": Written(lambda m, x: x.argmax(1)),
}


@pytest.mark.parametrize("name", USED)
def test_what_is_listed_is_taken(name):
    assert name in ana_fx.supported_operators()
    ana_fx.prepare(USED[name], X, calibration=[X])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_not_listed_and_the_refusal_names_the_list(name):
    assert name not in ana_fx.supported_operators()
    with pytest.raises(ana_fx.UnsupportedError, match=r"ana_fx\.supported_operators\(\) lists what has"):
        ana_fx.prepare(REFUSED[name], X)


def test_every_name_is_one_that_exists():
    spaces = {"nn": nn, "F": F, "torch": torch, "operator": __import__("operator"), "x": torch.Tensor}
    operators = ana_fx.supported_operators()
    for name in (*operators.modules, *operators.functions, *operators.methods):
        space, _, attribute = name.rpartition(".")
        assert not space or hasattr(spaces[space], attribute.removesuffix("()")), name


def test_the_list_prints_in_three_parts():
    text = str(ana_fx.supported_operators())
    assert [line for line in text.splitlines() if line and not line.startswith(" ")] == [
        "modules",
        "functions",
        "methods",
    ]
