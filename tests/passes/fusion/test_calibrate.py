"""Calibration: what it sees, what it leaves as it was, and that no network is worse for it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from examples.networks import DSCNN
from tests.graphs import Written

CEPSTRA = torch.randn(64, 1, 49, 10, generator=torch.Generator().manual_seed(0))


def scale_of_the_pool(model: nn.Module, calibration) -> torch.Tensor:
    qat = ana_fx.prepare(model, CEPSTRA, precision="int4", calibration=calibration)
    return layer_maps(qat)["features.pool"].output_quantizer.scale.detach()


def test_a_network_that_was_never_trained_is_calibrated_as_training_will_see_it():
    model = DSCNN(width=8)
    trained_statistics = copy.deepcopy(model).train()
    for norm in trained_statistics.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
    trained_statistics(CEPSTRA)  # running statistics are now those of the batch
    wanted = scale_of_the_pool(trained_statistics, [CEPSTRA])
    # running variances are unbiased, those of a batch are not: 1 in 64 · 125 · 9, in each of nine norms
    torch.testing.assert_close(scale_of_the_pool(model, [CEPSTRA]), wanted, rtol=0.05, atol=0)


@pytest.mark.parametrize("is_training", [False, True])
def test_calibration_leaves_nothing_behind(is_training):
    model = DSCNN(width=8).train(is_training)
    calibrated, bare = (
        ana_fx.prepare(model, CEPSTRA, precision="int4", calibration=calibration)
        for calibration in ([CEPSTRA, CEPSTRA * 3, CEPSTRA[:5]], None)
    )
    random_state = torch.get_rng_state()
    for name, tensor in bare.state_dict().items():
        if not name.endswith(("scale", "calibrated")):
            assert torch.equal(calibrated.state_dict()[name], tensor), name
    assert [m.training for m in calibrated.modules()] == [m.training for m in bare.modules()]
    hooks = [[(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in q.modules()] for q in (calibrated, bare)]
    assert hooks[0] == hooks[1]
    ana_fx.prepare(model, CEPSTRA, calibration=[CEPSTRA])
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_single_number_a_channel_is_refused_for_a_norm_that_was_never_trained():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(ana_fx.CalibrationError, match=r"calibration batch 0 .*more than one sample"):
        ana_fx.prepare(model, calibration=[torch.rand(1, 4)])


def test_what_overflows_is_refused_by_the_layer_that_does():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.fill_(1e30)
    with pytest.raises(ana_fx.CalibrationError, match=r"not what the model makes of them:\n  module '2'") as raised:
        ana_fx.prepare(model, calibration=[torch.rand(8, 4) + 1])
    assert "module '0'" not in str(raised.value)


def test_what_is_requantised_before_a_join_is_calibrated_too():
    def forward(m, x):
        q, k, v = torch.split(m.conv(x), [1, 4, 4], 1)
        return m.out(v.relu() * (k * q.softmax(-1)).sum(-1, keepdim=True).expand_as(v))

    model = Written(forward, conv=nn.Conv2d(3, 9, 1), out=nn.Conv2d(4, 2, 1))
    x = torch.rand(4, 3, 6, 6)
    for precision in ("int4", "int8", "ternary"):
        qat = ana_fx.prepare(model, x, precision=precision, calibration=[x]).eval()
        assert torch.equal(ana_fx.convert(qat)(x), qat(x))


def test_a_part_that_is_joined_has_the_scale_of_that_part():
    def forward(m, x):
        large, small = m.conv(x).split([2, 2], 1)
        return m.out(torch.cat([large.softmax(1), small], 1))

    model = Written(forward, conv=nn.Conv2d(3, 4, 1), out=nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model.conv.weight[:2] *= 100
        model.conv.bias[:2] *= 100
    x = torch.rand(4, 3, 6, 6)
    qat = ana_fx.prepare(model, x, precision="int4", calibration=[x])
    scales = {name: m.output_quantizer.scale.item() for name, m in layer_maps(qat).items() if m.output_quantizer}
    (requantized,) = (scale for name, scale in scales.items() if name.startswith("getitem"))
    assert requantized < 1  # the large half reaches a hundred


def test_every_layer_of_a_network_that_starts_from_scratch_gets_a_gradient():
    qat = ana_fx.prepare(DSCNN(width=8).train(), CEPSTRA, precision="int4", schedule="ste", calibration=[CEPSTRA])
    ana_fx.Annealer(qat, 10)
    pooled = []
    layer_maps(qat)["features.pool"].register_forward_hook(lambda _module, _inputs, y: pooled.append(y))
    F.cross_entropy(qat(CEPSTRA), torch.arange(64) % 12).backward()
    assert len(pooled[0].unique()) > 4  # of sixteen levels
    assert all(bool(m.weight.grad.any()) for m in layer_maps(qat).values() if getattr(m, "weight", None) is not None)


def zero_maps_and_gradients(model: nn.Module, x: torch.Tensor, calibration) -> tuple[set[str], list[str]]:
    """The layer maps that give only zeros in a second training step, and the parameters with a bad gradient."""
    torch.manual_seed(0)
    qat = ana_fx.prepare(model, x, precision="int4", schedule="ste", calibration=calibration).train()
    ana_fx.Annealer(qat, 10)
    qat(x)
    zero: set[str] = set()
    for name, layer_map in layer_maps(qat).items():
        layer_map.register_forward_hook(
            lambda _module, _inputs, y, name=name: None if bool(y.any()) else zero.add(name)
        )
    qat(x).square().mean().backward()
    gradients = {name: p.grad for name, p in qat.named_parameters() if p.grad is not None}
    return zero, [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())]


@pytest.mark.slow
def test_an_untrained_mobilenet_loses_no_map_to_calibration():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model, x = torchvision.models.mobilenet_v2(num_classes=10), torch.rand(8, 3, 64, 64)
    without, calibrated = (zero_maps_and_gradients(model, x, calibration) for calibration in (None, [x]))
    assert calibrated[0] <= without[0]
    assert calibrated[1] == []


def words(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with one of four slow waves along the frames, which tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (number,), generator=generator)
    phase = torch.rand(number, 1, generator=generator)
    frames = torch.linspace(0, 1, 49)[None]
    waves = torch.sin(2 * torch.pi * ((labels[:, None] + 1) * frames * 2 + phase))
    noise = torch.randn(number, 1, 49, 10, generator=generator)
    return noise + waves[:, None, :, None], labels


def accuracy_after_training(*, is_calibrated: bool) -> float:
    torch.manual_seed(0)
    x, y = words(1024, 0)
    qat = ana_fx.prepare(
        DSCNN(num_classes=4, width=8).train(), x[:64], precision="int4", calibration=[x[:64]] if is_calibrated else None
    )
    optimizer, num_epochs = torch.optim.Adam(qat.parameters(), lr=0.01), 6
    annealer = ana_fx.Annealer(qat, num_epochs * 16)
    for _ in range(num_epochs):
        for some in torch.randperm(1024).split(64):
            F.cross_entropy(qat(x[some]), y[some]).backward()
            optimizer.step()
            optimizer.zero_grad()
            annealer.step()
    x, y = words(512, 1)
    return float((qat.eval()(x).argmax(1) == y).float().mean())


@pytest.mark.slow
def test_a_keyword_network_learns_from_scratch_as_well_with_calibration_as_without():
    with_calibration, without = (accuracy_after_training(is_calibrated=each) for each in (True, False))
    assert without > 0.7  # of four classes
    assert with_calibration > without - 0.08  # three standard deviations of a difference of two such shares of 512
