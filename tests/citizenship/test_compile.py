"""torch.compile takes a prepared model whole, and once for each stage of the annealing.

This covers `training/compiled.py` too.
"""

import copy

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.schedule.degrees import DecayInterval, Strategy
from ana_fx.schedule.noise import NoiseType
from tests.citizenship.training import NUM_DEPTHS, TOTAL, WithNorm, WithoutNorm, batch_of, different, prepared, train
from tests.models import Chain, Depthwise, OneDimensional, Residual, Shared, example

# About torch's own compiler: how it calls itself, and what it looks at where it breaks a graph.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

X, _ = batch_of(100, 32)


def slow(case):
    return pytest.param(case, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Linear(nn.Sequential):
    """The least that has a quantizer."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(36, 3))


class Counter:
    """The backend that runs a graph as it is; it counts how many it was given."""

    def __init__(self):
        self.num_graphs = 0

    def __call__(self, gm, _example_inputs):
        self.num_graphs += 1
        return gm.forward


def compiled(qat, backend):
    return torch.compile(qat, backend=backend, fullgraph=True, dynamic=False)  # an error at the first graph break


def breaks(qat, x):
    return torch._dynamo.explain(qat)(x).graph_break_count


# Graph breaks


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("noise", NoiseType)
def test_no_noise_and_no_strategy_breaks_the_graph(noise, strategy):
    qat = prepared(Linear, noise=noise, strategy=strategy, mean="dynamic")
    assert breaks(qat, X) == 0


@pytest.mark.parametrize("settings", [{"gradient": "relu"}, {"gradient_mean": 0.5}])
def test_no_gradient_breaks_the_graph(settings):
    assert breaks(prepared(Linear, variance="static", **settings), X) == 0


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("kind", [Residual, *map(slow, [Chain, Depthwise, OneDimensional, Shared])])
def test_no_network_breaks_the_graph(kind, is_training):
    qat = ana_fx.prepare(kind(), example(kind), precision="int4", calibration=[example(kind)])
    ana_fx.Annealer(qat, TOTAL)
    assert breaks(qat.train(is_training), example(kind)) == 0


@pytest.mark.parametrize("annealed", [TOTAL // 2, TOTAL])
def test_no_stage_of_the_annealing_breaks_the_graph(annealed):
    qat = prepared()
    annealer = ana_fx.Annealer(qat, TOTAL)
    for _ in range(annealed):
        annealer.step()
    assert breaks(qat, X) == 0


@pytest.mark.parametrize("learn_scales", [False, True])
def test_the_batch_that_sets_the_scales_breaks_no_graph_and_sets_those_of_eager_mode(learn_scales):
    qat = prepared(WithoutNorm, is_calibrated=False, learn_scales=learn_scales)
    other, backend = copy.deepcopy(qat), Counter()
    net = compiled(qat, backend)
    assert torch.equal(net(X), other(X))
    net(X)
    net(X)
    assert backend.num_graphs == 2  # with the search of the scales, and without
    assert different(qat, other) == []


def test_a_model_that_knows_no_shape_of_its_input_remembers_it_when_compiled():
    qat = ana_fx.prepare(Linear())
    compiled(qat, "eager")(X)
    assert qat.get_submodule("input_1_quantizer").shape == (1, 6, 6)


# Compilations


@pytest.mark.parametrize("interval", [DecayInterval.PARTITION, DecayInterval.OVERLAPPED])
def test_training_compiles_once_for_each_stage_at_most(interval):
    backend, qat = Counter(), prepared(interval=interval)
    num_steps = 20
    annealer = ana_fx.Annealer(qat, num_steps)
    net = compiled(qat, backend)
    train(net, torch.optim.Adam(qat.parameters(), lr=0.01), annealer, range(num_steps))
    assert annealer.progress == 1.0
    num_stages = 1 + len({r.end for r in ana_fx.annealing_ranges(qat).values()})
    assert backend.num_graphs <= num_stages <= 1 + NUM_DEPTHS


@pytest.mark.slow
@pytest.mark.parametrize("is_evaluated", [False, True])
def test_a_deep_network_is_compiled_in_all_its_stages_though_they_are_more_than_torch_allows(is_evaluated):
    """Torch allows eight compilations of a code object by default; then `fullgraph` makes the next one an error."""
    backend, num_layers = Counter(), 12
    qat = ana_fx.prepare(nn.Sequential(*(layer for _ in range(num_layers) for layer in (nn.Linear(4, 4), nn.ReLU()))))
    net, x = compiled(qat, backend), torch.rand(2, 4)
    annealer = ana_fx.Annealer(net, 20)
    for _ in range(20):
        qat.train()
        net(x).sum().backward()
        annealer.step()
        if is_evaluated:
            qat.eval()
            net(x)
    num_evaluated = 1 + num_layers // 4 if is_evaluated else 0
    assert backend.num_graphs <= num_layers + 2 + num_evaluated


def test_a_compiled_model_is_annealed_described_and_converted_as_the_model_itself():
    qat = prepared()
    net = compiled(qat, "eager")
    annealer = ana_fx.Annealer(net, 1)
    annealer.step()
    assert not any(float(q.std) for m in layer_maps(qat).values() for q in m.quantizers())
    assert ana_fx.annealing_ranges(net) == ana_fx.annealing_ranges(qat)
    assert str(ana_fx.describe(net)) == str(ana_fx.describe(qat))
    assert ana_fx.reestimate_batch_norms(net, [X]) == ana_fx.reestimate_batch_norms(qat, [X])
    assert torch.equal(ana_fx.convert(net)(X), qat.eval()(X))


def test_noise_that_changes_at_every_step_compiles_nothing():
    backend, qat = Counter(), prepared(interval="overlapped", mean="dynamic", power="progressive")
    annealer = ana_fx.Annealer(qat, 100)
    net = compiled(qat, backend)
    for _ in range(60):  # of the 70 that anneal
        net(X)
        annealer.step()
    assert backend.num_graphs == 1


def test_modes_are_compiled_once_each():
    backend, qat = Counter(), prepared()
    net = compiled(qat, backend)
    for _ in range(3):
        qat.train()
        net(X)
        qat.eval()
        net(X)
    assert backend.num_graphs == 2


def test_scales_and_state_that_are_loaded_compile_nothing():
    backend, qat, other = Counter(), prepared(), prepared()
    net = compiled(qat, backend)
    net(X)
    qat.load_state_dict(other.state_dict())
    net(X)
    assert backend.num_graphs == 1


# Numbers


@pytest.mark.parametrize("strategy", [Strategy.MODE, Strategy.EXPECTATION])
@pytest.mark.parametrize("kind", [WithNorm, WithoutNorm])
def test_a_training_step_gives_the_very_numbers_of_eager_mode(kind, strategy):
    """The backend "aot_eager" runs the same kernels in the same order."""
    qat = prepared(kind, strategy=strategy)
    other = copy.deepcopy(qat)
    for model, net in ((qat, qat), (other, compiled(other, "aot_eager"))):
        train(net, torch.optim.SGD(model.parameters(), lr=0.1), ana_fx.Annealer(model, TOTAL), range(2))
    assert different(other, qat) == []


@pytest.mark.parametrize("backend", ["aot_eager", slow("inductor")])
@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
@pytest.mark.parametrize("kind", [Chain, slow(Residual)])
def test_eval_mode_gives_the_same_integers(kind, target, backend):
    qat = ana_fx.prepare(kind(), example(kind), precision="int4", target=target, calibration=[example(kind)]).eval()
    x = example(kind, 16)
    assert torch.equal(compiled(qat, backend)(x), qat(x))


@pytest.mark.slow
def test_a_network_is_trained_through_inductor_and_converted():
    qat = prepared(WithNorm)
    net = compiled(qat, "inductor")
    train(net, torch.optim.Adam(qat.parameters(), lr=0.01), ana_fx.Annealer(qat, TOTAL), range(TOTAL))
    expected = qat.eval()(X)
    assert torch.equal(net(X), expected)
    assert torch.equal(ana_fx.convert(qat)(X), expected)


@pytest.mark.slow
@pytest.mark.parametrize("noise", NoiseType)
def test_gradients_through_inductor_are_those_of_eager_mode(noise):
    """One layer alone, so that nothing that is rounded reaches a threshold: only the order of sums is another."""
    qat = prepared(Linear, noise=noise)

    def gradient(net):
        qat.zero_grad()
        net(X).square().mean().backward()
        return qat.get_submodule("1").weight.grad.clone()

    expected, found = gradient(qat), gradient(compiled(qat, "inductor"))
    # 32 images are added, and a density (an exp, a sigmoid) is off by less than 64 units in the last place
    torch.testing.assert_close(found, expected, rtol=64 * 2**-24, atol=32 * 2**-24 * float(expected.abs().max()))
