"""A prepared model does what every nn.Module does: copies, state, devices, averages, hooks, layouts.

This covers `prepared/pickling.py` too.
"""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import ana_fx
from ana_fx.graph import layer_maps
from tests.citizenship.training import TOTAL, WithNorm, WithoutNorm, batch_of, different, prepared, train, trained

X, Y = batch_of(100, 32)


def state_of(qat):
    return {name: tensor.clone() for name, tensor in qat.state_dict().items()}


def assert_same(found, expected):
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


# Copies


@pytest.mark.parametrize("is_training", [True, False])
def test_a_copy_computes_the_same_numbers(is_training):
    qat = trained(prepared(), 4).train(is_training)
    copied = copy.deepcopy(qat)
    assert torch.equal(copied(X), qat(X))


def test_a_copy_is_trained_without_the_original():
    qat = trained(prepared(), 2)
    before, copied = state_of(qat), copy.deepcopy(qat)
    trained(copied)
    assert_same(state_of(qat), before)
    assert different(copied, qat)


def test_a_copy_and_its_original_are_trained_alike():
    qat = trained(prepared(), 2)
    copied = copy.deepcopy(qat)
    assert different(trained(copied), trained(qat)) == []


def test_a_copy_of_a_model_that_awaits_its_scales_takes_its_own():
    qat = prepared(WithoutNorm, is_calibrated=False)
    copied = copy.deepcopy(qat)
    copied(X)
    qat(10 * X)
    scales = [model.get_submodule("0").output_quantizer.scale for model in (copied, qat)]
    assert float(scales[1]) > 5 * float(scales[0])


# State


def test_a_state_is_saved_as_tensors_alone_and_loaded_into_a_new_model(tmp_path):
    qat = trained(prepared(WithoutNorm, is_calibrated=False))
    torch.save(qat.state_dict(), tmp_path / "state.pt")
    other = prepared(WithoutNorm, is_calibrated=False)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other.eval()(X), qat.eval()(X))
    assert torch.equal(ana_fx.convert(other)(X), qat(X))


@pytest.mark.parametrize("annealed", [0, TOTAL // 2, TOTAL])
def test_modes_are_toggled_without_a_change_of_state(annealed):
    qat = trained(prepared(), annealed)
    before, expected = state_of(qat), copy.deepcopy(qat)(X)
    for _ in range(2):
        qat.eval()(X)
        qat.train()
    assert_same(state_of(qat), before)
    assert torch.equal(qat(X), expected)


def test_a_state_from_before_there_were_anchors_is_loaded():
    qat = trained(prepared(), 3)
    state = {name: tensor for name, tensor in qat.state_dict().items() if not name.endswith(".anchor")}
    other = prepared()
    other.load_state_dict(state)
    assert different(other, qat) == []


def test_bools_that_older_states_hold_are_loaded():
    qat = trained(prepared(WithoutNorm), 3)
    state = {name: t.bool() if name.endswith(".calibrated") else t for name, t in qat.state_dict().items()}
    other = prepared(WithoutNorm, is_calibrated=False)
    other.load_state_dict(state)
    assert torch.equal(other.eval()(X), qat.eval()(X))


# Devices


def assert_moves(device):
    qat = trained(prepared(), TOTAL // 2)
    expected = copy.deepcopy(qat).eval()(X)
    moved = copy.deepcopy(qat).to(device)
    found = moved.eval()(X.to(device))
    assert found.device == X.to(device).device
    assert torch.equal(found.cpu(), expected)
    restored = prepared()
    restored.load_state_dict(moved.state_dict())
    assert different(restored, qat) == []
    assert torch.equal(restored.eval()(X), expected)


def test_a_model_is_moved_to_the_device_it_is_on():
    assert_moves(torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_is_moved_to_a_gpu_and_its_state_back():
    assert_moves(torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_that_is_moved_to_a_gpu_is_annealed_there():
    qat = prepared().cuda()
    annealer = ana_fx.Annealer(qat, TOTAL)
    for _ in range(TOTAL):
        annealer.step()
    assert annealer.progress == 1.0
    assert all(not float(q.std) for m in layer_maps(qat).values() for q in m.quantizers())


# Averages of weights


@pytest.mark.parametrize("is_calibrated", [True, False])
@pytest.mark.parametrize("use_buffers", [True, False])
@pytest.mark.parametrize("kind", [WithNorm, WithoutNorm])
def test_an_average_over_training_is_converted(kind, use_buffers, is_calibrated):
    qat = prepared(kind, is_calibrated=is_calibrated)
    optimizer, annealer = torch.optim.Adam(qat.parameters(), lr=0.01), ana_fx.Annealer(qat, TOTAL)
    train(qat, optimizer, annealer, range(1))  # sets the scales, which an average does not
    average = AveragedModel(qat, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=use_buffers)
    for step in range(1, TOTAL):
        train(qat, optimizer, annealer, range(step, step + 1))
        average.update_parameters(qat)
    if not use_buffers:  # then batch statistics are those of the first step, and torch has a remedy
        update_bn([X], average)
    integer = ana_fx.convert(average.module)
    assert torch.equal(integer(X), average.eval()(X))
    weight = average.module.get_submodule("0").weight
    assert not torch.equal(weight, qat.get_submodule("0").weight)


@pytest.mark.parametrize("kind", [WithNorm, WithoutNorm])
def test_an_average_that_begins_before_the_scales_are_known_takes_them_with_its_buffers(kind):
    qat = prepared(kind, is_calibrated=False)
    average = AveragedModel(qat, use_buffers=True)
    trained(qat, 1)
    average.update_parameters(qat)
    assert torch.equal(average.module.eval()(X), qat.eval()(X))


def test_an_average_of_torch_s_own_kind_takes_all_buffers():
    qat = prepared(WithoutNorm, is_calibrated=False)
    average = AveragedModel(qat, use_buffers=True)
    optimizer, annealer = torch.optim.Adam(qat.parameters(), lr=0.01), ana_fx.Annealer(qat, TOTAL)
    for step in range(TOTAL):
        train(qat, optimizer, annealer, range(step, step + 1))
        average.update_parameters(qat)
    integer = ana_fx.convert(average.module)
    assert torch.equal(integer(X), average.eval()(X))


# Pickles


@pytest.mark.parametrize("is_copied", [False, True])
@pytest.mark.parametrize("is_converted", [False, True])
def test_what_cannot_be_pickled_says_so_when_it_is_saved(is_converted, is_copied, tmp_path):
    qat = prepared()
    model = ana_fx.convert(qat) if is_converted else qat
    model = copy.deepcopy(model) if is_copied else model
    with pytest.raises(TypeError, match=r"cannot be pickled.*torch\.save\(qat\.state_dict\(\), path\).*ana_fx\.save"):
        torch.save(model, tmp_path / "model.pt")


# Layouts


@pytest.mark.parametrize("is_annealed", [False, True])
def test_channels_last_gives_the_same_integers(is_annealed):
    qat = trained(prepared(), TOTAL if is_annealed else 2).eval()
    expected = qat(X)
    strided = X.to(memory_format=torch.channels_last)
    assert torch.equal(qat(strided), expected)
    converted = copy.deepcopy(qat).to(memory_format=torch.channels_last)
    assert torch.equal(converted(strided), expected)
    assert torch.equal(converted(X), expected)
    assert torch.equal(ana_fx.convert(converted)(X), expected)


def test_channels_last_is_trained():
    qat = prepared().to(memory_format=torch.channels_last)
    assert torch.isfinite(trained(qat)(X.to(memory_format=torch.channels_last))).all()


# Hooks


@pytest.mark.parametrize("is_training", [True, False])
def test_hooks_see_every_layer_map_once_with_what_it_gives(is_training):
    qat = prepared().train(is_training)
    seen = []
    for path, layer_map in layer_maps(qat).items():
        layer_map.register_forward_hook(lambda _module, _inputs, output, path=path: seen.append((path, output)))
    output = qat(X)
    assert [path for path, _ in seen] == list(layer_maps(qat))
    assert seen[-1][1] is output


def test_a_hook_can_replace_an_output():
    qat = prepared()
    qat.get_submodule("4").register_forward_hook(lambda _module, _inputs, output: 0 * output)
    assert (qat(X) == qat(X)[:1]).all()


def test_gradient_hooks_fire():
    qat = prepared()
    seen = []
    qat.get_submodule("4").weight.register_hook(lambda gradient: seen.append(gradient.shape))
    qat.get_submodule("4").register_full_backward_hook(lambda *_: seen.append("module"))
    nn.functional.cross_entropy(qat(X), Y).backward()
    assert sorted(map(str, seen)) == ["module", "torch.Size([8, 4, 2, 2])"]


# Optimisers


def test_weights_and_biases_keep_their_names():
    names = {name for name, parameter in prepared(WithoutNorm).named_parameters() if parameter.requires_grad}
    assert names == {name for name, _ in WithoutNorm().named_parameters()} | {"5.anchor"}


def test_a_group_of_its_own_trains_only_itself():
    qat = prepared()
    head = list(qat.get_submodule("8").parameters())
    optimizer = torch.optim.SGD([{"params": head}], lr=0.1)
    before = state_of(qat)
    nn.functional.cross_entropy(qat(X), Y).backward()
    optimizer.step()
    changed = {name for name, p in qat.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"8.weight", "8.bias"}


def test_a_frozen_parameter_stays():
    qat = prepared()
    frozen = qat.get_submodule("0").weight.requires_grad_(False)
    before = frozen.clone()
    trained(qat)
    assert frozen.grad is None
    assert torch.equal(frozen, before)


def test_gradients_of_two_halves_are_those_of_the_whole():
    qat = prepared(WithoutNorm)  # batch norms see other batches

    def gradients(*batches):
        qat.zero_grad()
        for x, y in batches:
            nn.functional.cross_entropy(qat(x), y, reduction="sum").backward()
        return [p.grad.clone() for p in qat.parameters() if p.requires_grad]

    whole = gradients((X, Y))
    halves = gradients((X[:16], Y[:16]), (X[16:], Y[16:]))
    for one, other in zip(whole, halves, strict=True):
        # 32 · 16 terms at most (images, positions) are summed in another order; those of the largest sum are as large
        tolerance = 32 * 16 * 2**-24 * float(one.abs().max())
        torch.testing.assert_close(other, one, rtol=0, atol=tolerance)


def test_accumulation_steps_the_annealer_once_for_each_optimiser_step():
    qat = prepared()
    optimizer, annealer = torch.optim.SGD(qat.parameters(), lr=0.1), ana_fx.Annealer(qat, TOTAL)
    for step in range(TOTAL):
        noise = [float(q.std) for m in layer_maps(qat).values() for q in m.quantizers()]
        for part in range(2):
            x, y = batch_of(2 * step + part)
            (nn.functional.cross_entropy(qat(x), y) / 2).backward()
            assert noise == [float(q.std) for m in layer_maps(qat).values() for q in m.quantizers()]
        optimizer.step()
        optimizer.zero_grad()
        annealer.step()
    assert annealer.progress == 1.0
    assert torch.equal(ana_fx.convert(qat)(X), qat.eval()(X))
