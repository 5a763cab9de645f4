"""Reconstruction: outputs come nearer to the float network's, and what ships is still what eval mode computes."""

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from tests.models import Depthwise, OneDimensional, Residual, Shared

NETWORKS = {
    "residual": (Residual, (3, 16, 16)),
    "depthwise": (Depthwise, (3, 16, 16)),
    "one-dimensional": (OneDimensional, (4, 40)),
    "shared": (Shared, (3, 16, 16)),
}


def prepared(name, precision="int3", **settings):
    make, shape = NETWORKS[name]
    model, batches = make().eval(), list(torch.randn(4, 32, *shape))
    qat = ana_fx.prepare(model, batches[0][:2], precision=precision, calibration=batches, **settings)
    return model, qat, batches


@torch.no_grad()
def error(model, qat, batches):
    return sum(float((model(x) - qat.eval()(x)).square().sum()) for x in batches)


@pytest.mark.parametrize("name", ["residual", "depthwise", "one-dimensional"])
def test_outputs_come_nearer_to_those_of_the_float_network(name):
    model, qat, batches = prepared(name)
    before = error(model, qat, batches)
    ana_fx.reconstruct(qat, batches)
    assert error(model, qat, batches) < 0.6 * before


@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
def test_what_is_converted_is_what_eval_mode_computes(target):
    _, qat, batches = prepared("residual", "int4", target=target)
    program = ana_fx.convert(ana_fx.reconstruct(qat, batches))
    assert torch.equal(program(batches[0]), qat.eval()(batches[0]))


@pytest.mark.parametrize("schedule", ["ste", "lsq", "best-static", "best-dynamic"])
def test_a_model_that_was_never_trained_is_converted_without_a_word_on_training(schedule, caplog):
    _, qat, batches = prepared("residual", schedule=schedule)
    for each in (qat, ana_fx.reconstruct(qat, batches)):
        program = ana_fx.convert(each)
        assert torch.equal(program(batches[0]), each.eval()(batches[0]))
    assert caplog.records == []


def test_weights_stand_in_the_middle_of_their_levels():
    _, qat, batches = prepared("residual", ana_fx.Precision("int3", "uint3", rounding="floor"))
    ana_fx.reconstruct(qat, batches)
    for layer_map in layer_maps(qat).values():
        quantizer = layer_map.weight_quantizer
        if quantizer is not None:
            rest = layer_map.weight / quantizer.scale - quantizer.quantize(layer_map.weight)
            torch.testing.assert_close(rest, torch.full_like(rest, 0.5), atol=1e-5, rtol=0)  # floats of at most 4


def test_a_shared_weight_keeps_its_numbers():
    model, qat, batches = prepared("shared")
    ana_fx.reconstruct(qat, batches)
    assert torch.equal(layer_maps(qat)["conv"].weight, model.conv.weight)
    assert not torch.equal(layer_maps(qat)["stem"].weight, model.stem.weight)


def test_levels_of_a_codebook_keep_their_numbers():
    model, qat, batches = prepared("residual", ana_fx.Precision("bipolar", "uint4"))
    ana_fx.reconstruct(qat, batches)
    assert torch.equal(layer_maps(qat)["stem.0"].weight, model.stem[0].weight)


def test_the_mean_of_each_channel_is_the_float_networks():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    x = torch.rand(64, 4)
    qat = ana_fx.reconstruct(ana_fx.prepare(model, x, precision="int2", calibration=[x]), [x])
    layer_map = layer_maps(qat)["0"]
    read = qat.input_1_quantizer(x)
    weight = layer_map.weight_quantizer.quantize(layer_map.weight) * layer_map.weight_quantizer.scale
    torch.testing.assert_close((read @ weight.T + layer_map.bias).mean(0), model[0](x).mean(0))


def test_the_mode_and_the_names_of_the_state_stay():
    _, qat, batches = prepared("residual")
    names = list(qat.state_dict())
    qat.train()
    assert ana_fx.reconstruct(qat, batches) is qat
    assert qat.training
    assert list(qat.state_dict()) == names


def test_other_models_are_refused():
    with pytest.raises(ValueError, match=r"reconstruct\(\) needs a model from ana_fx.prepare"):
        ana_fx.reconstruct(nn.Linear(2, 2), [torch.rand(2, 2)])
