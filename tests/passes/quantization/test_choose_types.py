"""Which type each tensor gets, where a codebook takes the place of the activation."""

import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps


def averaged(precision):
    x = torch.rand(16, 1, 8, 8) - 0.5
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 4)
    )
    return ana_fx.prepare(model, x, precision=precision, calibration=[x], schedule="ste"), x


def test_an_average_of_heavisides_is_no_constant():
    qat, x = averaged(ana_fx.Precision("bipolar", "uint1"))
    types = {
        path: each.output_quantizer.integer_type for path, each in layer_maps(qat).items() if each.output_quantizer
    }
    assert [each.thresholds for each in types.values()] == [(0.0,), (0.5,)]
    assert qat.eval()(x).std(0).min() > 0


def test_an_average_of_signs_may_be_negative():
    qat, _ = averaged(ana_fx.Precision("bipolar", "bipolar", overrides={"3": "int8"}))
    assert layer_maps(qat)["3"].output_quantizer.integer_type.signed
