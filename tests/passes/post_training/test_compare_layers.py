"""Which layer hurts: errors of its own and inherited ones, and planted faults by the layer's name."""

import json
import math

import pytest
import torch
from torch import nn

import ana_fx
from tests.models import Residual

X = torch.rand(64, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Plain(nn.Sequential):
    """Four layers without norms, whose outputs are about as large as what they read."""

    def __init__(self):
        convolutions = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)]
        for each in convolutions:
            nn.init.kaiming_normal_(each.weight, generator=torch.Generator().manual_seed(1))
            nn.init.zeros_(each.bias)
        first, second, third = convolutions
        relus = nn.ReLU(), nn.ReLU(), nn.ReLU()
        super().__init__(
            first, relus[0], second, relus[1], third, relus[2], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        )


def compared(model, precision="int8", batches=(X,)):
    model = model.eval()
    qat = ana_fx.prepare(model, X, precision=precision, calibration=list(batches))
    return ana_fx.compare_layers(qat, model, list(batches))


def row(report, name):
    return next(each for each in report.rows if each.name == name)


def test_a_sound_network_has_no_faults():
    assert compared(Plain()).faulty == ()


def test_a_layer_with_few_bits_has_the_largest_error_of_its_own():
    wide = ana_fx.Precision("int8", "uint8", overrides={"2": ana_fx.Precision("int2", "uint8")})
    report = compared(Plain(), wide)
    assert report.worst.name == "2"
    assert row(report, "4").own_snr > row(report, "4").snr + 10  # most of its error was there before


def test_the_ratio_is_that_of_whole_runs():
    model = Residual().eval()
    qat = ana_fx.prepare(model, X, precision="int4", calibration=[X])
    report = ana_fx.compare_layers(qat, model, [X[:40], X[40:]])
    with torch.no_grad():
        wanted, found = model(X).double(), qat.eval()(X).double()
    ratio = 10 * math.log10(float(wanted.square().sum() / (found - wanted).square().sum()))
    assert report.rows[-1].snr == pytest.approx(ratio, abs=1e-3)  # float32 sums in another order


def test_without_a_float_network_the_models_own_parameters_count():
    model = Residual().eval()
    qat = ana_fx.prepare(model, X, precision="int4", calibration=[X])
    report, own = ana_fx.compare_layers(qat, model, [X]), ana_fx.compare_layers(qat, None, [X])
    assert [each.snr for each in own.rows] == pytest.approx([each.snr for each in report.rows], abs=1e-3)


def test_weights_that_are_fifty_times_too_large_are_named():
    model = Plain()
    model[2].weight.data *= 50
    (faulty,) = compared(model).faulty
    assert faulty.name == "2"
    assert "weights are out of proportion" in faulty.faults[0]


def test_a_dead_channel_is_named():
    model = Plain()
    model[2].weight.data[3] = 0
    (faulty,) = compared(model).faulty
    assert (faulty.name, faulty.dead) == ("2", 1)
    assert "1 channel(s) are dead" in faulty.faults[0]


def test_rare_outliers_are_named():
    model = Plain()
    outlier = torch.zeros(1, 3, 12, 12)
    outlier[0, :, 4:7, 4:7] = 2000.0
    report = compared(model, batches=(X, X, X, torch.cat([outlier, X])))
    assert "rare outliers" in row(report, "0").faults[0] or "rare outliers" in report.rows[0].faults[0]


def test_outputs_that_saturate_are_named():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(800, 4)).eval()
    model[0].weight.data *= 50  # its norm has other statistics now
    (faulty,) = compared(model, "int4").faulty
    assert faulty.name == "0"
    assert "saturate" in faulty.faults[0]


def test_the_report_is_a_table_json_html_and_a_picture():
    report = compared(Plain(), "int4")
    assert str(report).count("\n") > len(report.rows)
    data = json.loads(report.to_json())
    assert [each["name"] for each in data["layers"]] == [each.name for each in report.rows]
    assert data["worst"] == report.worst.name
    assert report.to_html().startswith("<!DOCTYPE html>")
    assert len(report.plot().axes[0].patches) == 2 * len(report.rows)


def test_another_network_is_refused():
    qat = ana_fx.prepare(Plain().eval(), X, calibration=[X])
    with pytest.raises(ValueError, match="model is not the network that qat was prepared from"):
        ana_fx.compare_layers(qat, nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(800, 4)), [X])


def test_the_model_stays_as_it_is():
    model = Residual()
    qat = ana_fx.prepare(model, X, precision="int4", calibration=[X])
    before = {name: value.clone() for name, value in qat.state_dict().items()}
    ana_fx.compare_layers(qat, model, [X])
    assert qat.training
    assert all(torch.equal(value, before[name]) for name, value in qat.state_dict().items())
