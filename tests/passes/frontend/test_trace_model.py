"""Tracing: the model is left alone, and what cannot be traced is explained.

This covers passes/frontend/tracer.py, passes/frontend/shape_proxies.py, passes/frontend/trace_settings.py and
passes/frontend/unwrap.py, which have no other caller.
"""

import copy
import inspect
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ana_fx
from ana_fx.passes.frontend.shape_proxies import Knowledge
from ana_fx.passes.frontend.trace_model import trace
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


def test_all_conditions_on_data_are_refused_together():
    model = Written(lambda m, x: m.second(m.first(x)), first=BranchesOnData(), second=BranchesOnData())
    message = message_of(model)
    assert "'first'" in message
    assert "'second'" in message


def test_the_graph_is_that_of_eval_mode_in_the_mode_of_the_model():
    model = Written(lambda m, x: m.auxiliary(x) if m.training else m.main(x), main=nn.ReLU(), auxiliary=nn.Sigmoid())
    gm = trace(model.train())
    assert gm.training
    assert_graph(gm, "x -> ReLU -> output")


class ComputesWithSizes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if len(x[0]) and height % 2:
            x = F.pad(x, (0, 0, 0, 1))
        mask = x.new_zeros(x.size(2), width)
        mask[0] = 1.0
        assert x.ndim == 4
        return (x + mask).view(batch, channels * x.shape[-2], width)


def test_sizes_are_numbers_and_the_batch_stays_open():
    gm = trace(ComputesWithSizes(), torch.rand(2, 3, 5, 4))
    assert_graph(gm, "x -> pad -> add -> view -> output")
    for batch_size in (1, 2, 7):
        assert_same_numbers(gm, ComputesWithSizes(), torch.rand(batch_size, 3, 5, 4))


def test_a_condition_on_the_batch_size_is_refused():
    model = Written(lambda m, x: x if x.shape[0] > 8 else -x)
    with pytest.raises(ana_fx.TraceError, match=r"x.shape\[0\] > 8"):
        trace(model, torch.rand(2, 3))


def test_inputs_that_do_not_fit_are_told_where_sizes_are_needed():
    model = Written(lambda m, x: x if m.linear(x).shape[1] > 8 else -x, linear=nn.Linear(4, 4))
    with pytest.raises(ana_fx.TraceError, match="on the example inputs an operation says"):
        trace(model, torch.rand(2, 3))


def test_a_comparison_that_holds_for_every_batch_is_decided():
    assert_graph(trace(Written(lambda m, x: x if x.shape[0] > 0 else -x), torch.rand(2, 3)), "x -> output")


def test_a_function_of_torch_takes_what_stands_for_a_tensor():
    assert_graph(trace(Written(lambda m, x: torch.pow(x, 3)), torch.rand(2, 3)), "x -> pow -> output")


class AsksNothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x)) * self.gain
        y += x
        return torch.flatten(torch.cat([y, x.sigmoid()[:, :1] / 2], 1), 1)


def test_sizes_that_no_one_asks_for_are_not_evaluated(monkeypatch):
    monkeypatch.setattr(Knowledge, "evaluate", lambda self: pytest.fail("an operation was evaluated"))
    gm = trace(AsksNothing(), torch.rand(2, 3, 4, 4))
    assert_same_numbers(gm, gm, torch.rand(5, 3, 4, 4))


def writes_before_it_asks(m, x):
    y = x.flatten(1)
    z = y.view(-1, 3, 20)
    y.unsqueeze_(1)
    return z.reshape(z.shape[1], -1) * y.shape[2]


def test_operations_are_evaluated_in_the_order_of_the_code():
    gm = trace(Written(writes_before_it_asks), torch.rand(2, 3, 5, 4))
    assert_same_numbers(gm, Written(writes_before_it_asks), torch.rand(3, 3, 5, 4))


def test_tensors_are_made_for_any_batch():
    model = Written(
        lambda m, x: torch.cat([x, torch.ones(x.shape[0], 2), torch.zeros(1, x.shape[1]).expand(x.size(0), -1)], 1)
    )
    gm = trace(model, torch.rand(2, 3))
    for batch_size in (1, 4):
        assert_same_numbers(gm, model, torch.rand(batch_size, 3))


def assigns_to_slices(m, x):
    y = x * 2
    y[:, 1:, ..., :2] += x[:, 1:, ..., :2]
    y[:, :1].mul_(3)
    y += 1
    return y


def test_assigning_to_slices_is_a_joining_of_parts():
    gm = trace(Written(assigns_to_slices), torch.rand(2, 3, 5, 4))
    assert_same_numbers(gm, Written(assigns_to_slices), torch.rand(3, 3, 5, 4))


@torch.fx.wrap
def adds(x, y):
    return x + y


def test_marked_functions_are_traced_through_unless_the_caller_wraps_them():
    model = Written(lambda m, x: adds(x, x.shape[1]))
    assert_graph(trace(model, torch.rand(2, 3)), "x -> add -> output")
    assert_graph(trace(model, torch.rand(2, 3), wrapped_functions=[adds]), "x -> adds -> output")


class Doubles(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x


@pytest.mark.parametrize("leaf", [Doubles, "block.*"])
def test_leaf_modules_are_kept_whole(leaf):
    assert_graph(trace(nested(Doubles()), leaf_modules=[leaf]), "x -> Doubles -> output")
    assert_graph(trace(nested(Doubles())), "x -> add(x, x) -> output")


class TakesAFlag(nn.Module):
    def forward(self, x: Tensor, negates: bool, mask: Tensor | None = None) -> Tensor:
        x = -x if negates else x
        return x if mask is None else x + mask


def test_concrete_arguments_and_defaults_are_no_inputs():
    gm = trace(TakesAFlag(), torch.rand(2, 3), concrete_args={"negates": True})
    assert_graph(gm, "x -> neg -> output")


def test_an_unknown_concrete_argument_is_refused():
    with pytest.raises(ValueError, match=r"unknown argument of TakesAFlag.forward 'nothing'; known are 'x', 'negates'"):
        trace(TakesAFlag(), concrete_args={"nothing": 1})


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script:DeprecationWarning", "ignore:.torch.jit.script:FutureWarning"
)  # torch.compile itself calls it
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel, torch.compile])
def test_wrappers_are_taken_off_with_a_note(wrap):
    model = Chain()
    gm = trace(wrap(model), example(Chain))
    assert len(gm.meta["notes"]) == 1
    assert_same_numbers(gm, model, example(Chain))


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script:DeprecationWarning", "ignore:.torch.jit.script:FutureWarning"
)  # torch.compile itself calls it
def test_wrappers_inside_a_model_are_taken_off():
    gm = trace(nn.Sequential(torch.compile(nn.ReLU()), nn.Sigmoid()))
    assert_graph(gm, "input -> ReLU -> Sigmoid -> output")


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning", "ignore:.torch.jit.script:FutureWarning")
def test_scripted_modules_are_refused_with_their_paths():
    model = nn.Sequential(nn.ReLU(), torch.jit.script(nn.Sigmoid()))
    with pytest.raises(ana_fx.TraceError, match="module '1'"):
        trace(model)


@dataclass
class Scores:
    logits: Tensor
    hidden: tuple[Tensor, ...]


def test_outputs_are_plain_containers():
    gm = trace(Written(lambda m, x: Scores(x + 1, (x,))), torch.rand(2, 3))
    assert set(gm(torch.ones(1, 3))) == {"logits", "hidden"}


def test_large_models_cost_no_compute_to_trace():
    model = Written(lambda m, x: m.conv(x).flatten(1), conv=nn.Conv2d(3, 4096, 3, padding=1, device="meta"))
    assert_graph(trace(model, torch.rand(2, 3, 512, 512)), "x -> Conv2d -> flatten -> output")


def test_attention_that_is_written_out_is_compared_but_for_the_order_of_its_sums():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.attention(x, x, x, need_weights=False)[0]

    assert trace(Block(), torch.rand(2, 5, 16)).meta["is_written_out"]
