"""What is annealed stops: no graph, no gradient, no drift."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layers.constant_map import ConstantMap
from ana_fx.layers.layer_map import Phase
from tests.graphs import Written
from tests.models import Chain, Residual, Shared, example

STEPS = 20


def prepared(kind, **schedule):
    return ana_fx.prepare(kind(), example(kind), precision="ternary", schedule=ana_fx.Schedule(**schedule))


def step(qat, optimizer, annealer, kind):
    qat.train()
    qat(example(kind, 16)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    annealer.step()


def phases(qat):
    return [layer_map.phase for layer_map in layer_maps(qat).values()]


@pytest.mark.parametrize(
    ("kind", "interval", "strategy"),
    [
        (Chain, "partition", "mode"),
        (Chain, "same_start", "expectation"),
        (Chain, "overlapped", "random"),
        (Residual, "partition", "expectation"),
        (Residual, "same_start", "random"),
        (Shared, "partition", "random"),
        (Shared, "overlapped", "mode"),
    ],
)
def test_a_layer_map_does_not_move_once_its_noise_is_gone(kind, interval, strategy):
    qat = prepared(kind, interval=interval, strategy=strategy)
    annealer, optimizer = ana_fx.Annealer(qat, STEPS), torch.optim.AdamW(qat.parameters(), lr=1e-2, weight_decay=0.1)
    frozen = {}
    for _ in range(STEPS):
        step(qat, optimizer, annealer, kind)
        for path, layer_map in layer_maps(qat).items():
            if layer_map.phase in (Phase.FROZEN, Phase.DEPLOYED):
                frozen.setdefault(path, {name: t.clone() for name, t in layer_map.state_dict().items()})
    assert set(frozen) == set(layer_maps(qat))
    for path, before in frozen.items():
        after = layer_maps(qat)[path].state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before), path


def test_a_frozen_layer_map_gets_no_gradient_and_keeps_no_graph():
    qat = prepared(Chain)
    annealer, optimizer = ana_fx.Annealer(qat, STEPS), torch.optim.SGD(qat.parameters(), lr=1e-2, momentum=0.9)
    while phases(qat)[0] is Phase.LEARNING:
        step(qat, optimizer, annealer, Chain)
    seen = []
    first, second = list(layer_maps(qat).values())[:2]
    first.register_forward_hook(lambda module, args, output: seen.append(output))
    qat(example(Chain, 16)).square().mean().backward()
    assert not seen[0].requires_grad
    assert all(parameter.grad is None for parameter in first.parameters())
    assert all((parameter.grad is not None) is parameter.requires_grad for parameter in second.parameters())


def test_a_write_to_a_layer_that_runs_as_deployed_shows_in_training_too():
    qat = prepared(Residual)
    annealer = ana_fx.Annealer(qat, 1)
    x = example(Residual, 16)
    qat.train()(x)
    annealer.step()
    before = qat(x)
    with torch.no_grad():
        qat.get_submodule("head").bias.neg_()
    assert not torch.equal(qat(x), before)
    assert torch.equal(qat(x), qat.eval()(x))


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad, torch.optim.RMSprop])
def test_the_anchor_of_the_output_stays_zero_under_every_optimiser(optimizer):
    qat = prepared(Chain)
    annealer, optimizer = ana_fx.Annealer(qat, STEPS), optimizer(qat.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(STEPS):
        step(qat, optimizer, annealer, Chain)
    assert qat.get_submodule("head").anchor.item() == 0.0


def test_training_goes_on_to_the_end_though_nothing_learns_any_more():
    qat = prepared(Residual)
    annealer, optimizer = ana_fx.Annealer(qat, STEPS), torch.optim.Adam(qat.parameters())
    for _ in range(STEPS):
        step(qat, optimizer, annealer, Residual)
    assert set(phases(qat)) == {Phase.DEPLOYED}
    assert all(parameter.grad is None for parameter in qat.parameters())


def test_an_annealed_network_trains_on_what_it_will_deploy():
    qat = prepared(Residual, strategy="expectation")
    annealer, optimizer = ana_fx.Annealer(qat, STEPS), torch.optim.Adam(qat.parameters())
    for _ in range(STEPS):
        step(qat, optimizer, annealer, Residual)
    x = example(Residual, 32)
    assert torch.equal(qat.train()(x), qat.eval()(x))
    assert torch.equal(qat(x), ana_fx.convert(qat)(x))


def test_a_branch_that_ends_later_still_learns():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.deep1, self.deep2, self.head = (
                nn.Linear(4, 4),
                nn.Linear(4, 4),
                nn.Linear(4, 4),
                nn.Linear(4, 2),
            )

        def forward(self, x):
            x = self.stem(x).relu()
            return self.head(self.deep2(self.deep1(x).relu()).relu() + x)

    qat = ana_fx.prepare(Branches(), torch.rand(8, 4), schedule=ana_fx.Schedule())
    annealer = ana_fx.Annealer(qat, 100)
    while annealer.progress < ana_fx.annealing_ranges(qat)["stem"].end:
        annealer.step()
    qat.train()(torch.rand(8, 4)).sum().backward()
    assert qat.get_submodule("stem").weight.grad is None
    assert qat.get_submodule("deep1").weight.grad is not None


def test_what_reaches_the_output_only_through_annealed_layers_records_nothing():
    qat = prepared(Chain, interval="same_end")
    maps = list(layer_maps(qat).values())
    ana_fx.Annealer(qat, 100)
    from ana_fx.annealing.freezing import set_phases

    set_phases(qat, set(maps[1:]))
    assert maps[0].phase is Phase.UNRECORDED
    qat.train()(example(Chain, 4)).sum().backward()
    assert {name: p.grad.item() for name, p in qat.named_parameters() if p.grad is not None} == {"head.anchor": 0.0}


def test_a_shared_convolution_learns_until_its_last_call_is_annealed():
    qat = prepared(Shared)
    annealer, optimizer = ana_fx.Annealer(qat, 40), torch.optim.Adam(qat.parameters())
    ranges = ana_fx.annealing_ranges(qat)
    first, second = ranges["conv"], ranges["conv_1"]
    while annealer.progress < first.end:
        step(qat, optimizer, annealer, Shared)
    assert qat.get_submodule("conv").phase is Phase.UNRECORDED
    before = qat.get_submodule("conv").weight.clone()
    step(qat, optimizer, annealer, Shared)
    assert not torch.equal(before, qat.get_submodule("conv").weight)
    while annealer.progress < second.end:
        step(qat, optimizer, annealer, Shared)
    assert {qat.get_submodule("conv").phase, qat.get_submodule("conv_1").phase} == {Phase.DEPLOYED}


def test_gradients_that_were_accumulated_are_dropped_when_a_layer_stops():
    qat = prepared(Chain)
    annealer = ana_fx.Annealer(qat, STEPS)
    first = next(iter(layer_maps(qat).values()))
    qat.train()(example(Chain, 8)).sum().backward()
    assert first.weight.grad is not None
    while first.phase is Phase.LEARNING:
        annealer.step()
    assert first.weight.grad is None


def test_a_rebuilt_and_reloaded_model_is_in_the_same_phase():
    qat = prepared(Chain)
    annealer = ana_fx.Annealer(qat, STEPS)
    for _ in range(8):
        annealer.step()
    other = prepared(Chain)
    other_annealer = ana_fx.Annealer(other, STEPS)
    other.load_state_dict(qat.state_dict())
    other_annealer.step()
    annealer.step()
    assert phases(other) == phases(qat)
    assert Phase.DEPLOYED in phases(qat)


def test_what_a_constant_is_computed_from_learns_until_the_constant_is_annealed():
    position, gain = nn.Parameter(torch.randn(1, 4)), nn.Parameter(torch.randn(1, 4))
    model = Written(
        lambda m, x: m.head(m.stem(x) + torch.tanh(m.position) * m.gain),
        stem=nn.Linear(4, 4),
        head=nn.Linear(4, 2),
        position=position,
        gain=gain,
    )
    qat = ana_fx.prepare(model, torch.rand(8, 4), calibration=[torch.rand(8, 4)], schedule=ana_fx.Schedule())
    annealer, optimizer = ana_fx.Annealer(qat, 100), torch.optim.SGD(qat.parameters(), lr=0.1, weight_decay=0.1)
    (constant,) = (each for each in layer_maps(qat).values() if isinstance(each, ConstantMap))
    qat(torch.rand(8, 4)).square().sum().backward()
    assert qat.position.grad is not None
    assert qat.gain.grad is not None
    while constant.phase is Phase.LEARNING:
        annealer.step()
    assert qat.position.grad is None
    assert qat.gain.grad is None
    before = qat.position.detach().clone()
    qat(torch.rand(8, 4)).square().sum().backward()
    optimizer.step()
    assert torch.equal(qat.position, before)
    assert qat.get_submodule("head").weight.grad is not None


def test_a_parameter_that_two_constants_share_learns_until_the_last_is_annealed():
    model = Written(
        lambda m, x: m.head((m.stem(x) + m.row).relu() * (m.row + 1.0)),
        stem=nn.Linear(4, 4),
        head=nn.Linear(4, 2),
        row=nn.Parameter(torch.randn(1, 4)),
    )
    qat = ana_fx.prepare(model, torch.rand(8, 4), calibration=[torch.rand(8, 4)], schedule=ana_fx.Schedule())
    first, second = (each for each in layer_maps(qat).values() if isinstance(each, ConstantMap))
    annealer = ana_fx.Annealer(qat, 100)
    while first.phase is Phase.LEARNING and second.phase is Phase.LEARNING:
        annealer.step()
    qat(torch.rand(8, 4)).square().sum().backward()
    is_learning = Phase.LEARNING in (first.phase, second.phase)
    assert (qat.row.grad is not None) is is_learning


def test_a_last_layer_map_without_parameters_can_be_trained_to_the_end():
    qat = ana_fx.prepare(nn.Sequential(nn.Linear(4, 2), nn.Sigmoid()), torch.rand(8, 4), schedule=ana_fx.Schedule())
    annealer = ana_fx.Annealer(qat, 4)
    for _ in range(5):
        qat(torch.rand(8, 4)).sum().backward()
        annealer.step()


def test_static_noise_never_stops_a_layer():
    qat = prepared(Chain, variance="static")
    annealer = ana_fx.Annealer(qat, STEPS)
    for _ in range(STEPS):
        annealer.step()
    assert set(phases(qat)) == {Phase.LEARNING}


class WithDropout(nn.Module):
    """Layers with a dropout between them that drops nothing, as many models have it."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.dropout = nn.Dropout(p)

    def forward(self, x):
        return self.third(torch.relu(self.second(self.dropout(torch.relu(self.first(x))))))


@pytest.mark.parametrize(("p", "phase"), [(0.0, Phase.DEPLOYED), (0.1, Phase.FROZEN)])
def test_a_layer_behind_a_dropout_that_drops_nothing_runs_as_deployed(p, phase):
    x = torch.rand(8, 6)
    qat = ana_fx.prepare(WithDropout(p), x, calibration=[x], schedule=ana_fx.Schedule()).train()
    annealer = ana_fx.Annealer(qat, 3)
    for _ in range(2):
        annealer.step()
    assert layer_maps(qat)["second"].phase is phase
