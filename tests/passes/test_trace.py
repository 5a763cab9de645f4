"""Tracing: the model is left alone, and what cannot be traced is explained."""

import copy
import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ana_fx
from ana_fx.passes.trace import trace
from tests.graphs import Written, assert_graph, assert_same_numbers
from tests.models import Chain, example


class BranchesOnData(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


def nested(inner: nn.Module) -> nn.Module:
    """A model that has `inner` at `block.inner`."""
    return Written(lambda m, x: m.block(x), block=Written(lambda m, x: m.inner(x), inner=inner))


class IteratesOverData(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return sum(row for row in x)


class AddsInPlaceToAnAlias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        alias = y
        y += x
        return y + alias


def message_of(model: nn.Module) -> str:
    with pytest.raises(ana_fx.TraceError) as caught:
        ana_fx.prepare(model)
    return str(caught.value)


def test_a_model_becomes_a_graph_of_its_modules_and_functions():
    gm = trace(Written(lambda m, x: torch.relu(m.conv(x)), conv=nn.Conv2d(3, 4, 3)))
    assert_graph(gm, "x -> Conv2d -> relu -> output")


def test_the_graph_computes_the_same_bits_as_the_model():
    model = Chain()
    assert_same_numbers(trace(model), model, example(Chain))


@pytest.mark.parametrize("is_training", [False, True])
def test_the_graph_is_in_the_mode_of_the_model(is_training):
    gm = trace(Chain().train(is_training))
    assert all(module.training is is_training for module in gm.modules())


@pytest.mark.parametrize("is_training", [False, True])
def test_prepare_leaves_the_model_as_it_was(is_training):
    model = Chain().train(is_training)
    before, attributes = copy.deepcopy(model.state_dict()), {m: set(vars(m)) for m in model.modules()}
    ana_fx.prepare(model, example(Chain), precision="ternary", calibration=[example(Chain)])
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(module.training is is_training for module in model.modules())
    assert {m: set(vars(m)) for m in model.modules()} == attributes


def test_training_the_copy_does_not_move_the_model():
    model = Chain()
    before = copy.deepcopy(model.state_dict())
    qat = ana_fx.prepare(model, example(Chain)).train()
    qat(example(Chain)).sum().backward()
    torch.optim.SGD(qat.parameters(), lr=1.0).step()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_control_flow_on_data_is_refused_with_its_module_path():
    assert "'block.inner'" in message_of(nested(BranchesOnData()))


def test_control_flow_on_data_is_refused_with_file_line_and_source():
    lines, first = inspect.getsourcelines(BranchesOnData.forward)
    message = message_of(nested(BranchesOnData()))
    assert f"{Path(__file__).name}:{first + 1}: {lines[1].strip()}" in message


def test_a_trace_error_in_the_outermost_forward_names_the_class():
    assert "BranchesOnData.forward" in message_of(BranchesOnData())


def test_a_trace_error_says_found_needed_and_three_ways_out():
    message = message_of(nested(BranchesOnData()))
    for key in ("found: ", "needed: ", "Ways out: ", "(1)", "(2)", "(3)", "torch.where"):
        assert key in message


def test_a_loop_over_data_is_refused_with_its_line():
    assert "return sum(row for row in x)" in message_of(IteratesOverData())


def test_a_model_traced_by_the_user_is_taken_as_it_is():
    gm = torch.fx.symbolic_trace(Written(lambda m, x: m.conv(x), conv=nn.Conv2d(3, 4, 3)))
    assert_graph(trace(gm), "x -> Conv2d -> output")


def test_an_addition_in_place_to_an_alias_is_refused_with_example_inputs():
    with pytest.raises(ana_fx.TraceError, match=r"AddsInPlaceToAnAlias.*other outputs.*x = x \+ y"):
        ana_fx.prepare(AddsInPlaceToAnAlias(), torch.rand(2, 3, 4, 4))


def test_random_numbers_in_the_forward_are_found_with_example_inputs():
    model = Written(lambda m, x: torch.dropout(m.conv(x), 0.5, train=True), conv=nn.Conv2d(3, 3, 1))
    with pytest.raises(ana_fx.TraceError, match="random numbers in eval mode"):
        ana_fx.prepare(model, torch.rand(2, 3, 4, 4))
