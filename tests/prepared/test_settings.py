"""A state tells with which settings it was trained, and goes into no others."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import ana_fx
from ana_fx.prepared.settings import SETTINGS_BUFFER, Settings, settings_of
from tests.citizenship.training import WithNorm

X = torch.rand(8, 1, 6, 6)


def prepared(precision="int4", *, x=X, model=None, **options):
    return ana_fx.prepare(model or WithNorm(), x, precision=precision, **options)


def refusal(state, model) -> str:
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ana_fx.SettingsError) as raised:
        model.load_state_dict(state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return str(raised.value)


FLOOR = ana_fx.Precision("int4", "uint4", rounding="floor")
OTHERS = {
    "precision": (
        {"precision": "ternary"},
        "0.weight_quantizer: the state has int4 [-8, 7], nearest, the model ternary",
    ),
    "rounding": (
        {"precision": FLOOR},
        "0.output_quantizer: the state has uint4 [0, 15], nearest, the model uint4 [0, 15], floor",
    ),
    "sign of the input": (
        {"x": X - 0.5},
        "input_1_quantizer: the state has uint8 [0, 255], nearest, the model int8 [-128, 127]",
    ),
    "target": ({"target": "integer"}, "0: the state has float32 requantizer, weights stored"),
    "shifts": ({"target": "deeploy"}, "the model shift in 32 bits, one shift for all channels"),
    "static mean": ({"schedule": ana_fx.Schedule(mean_constant=0.25)}, "thresholds moved by 0.25 steps"),
    "one layer": (
        {"precision": ana_fx.Precision("int4", "uint4", overrides={"4": "int8"})},
        "4.output_quantizer: the state has uint4 [0, 15], nearest, the model uint8 [0, 255]",
    ),
}


@pytest.mark.parametrize(("options", "difference"), OTHERS.values(), ids=OTHERS)
def test_a_state_of_other_settings_is_refused_with_both_named(options, difference):
    message = refusal(prepared().state_dict(), prepared(**options))
    assert difference in message
    assert '"weight": "int4", "activation": "uint4"' in message
    assert "target 'onnxruntime'" in message
    assert "ana_fx.settings_of(state)" in message


def test_all_differences_are_listed_at_once():
    message = refusal(prepared("int8").state_dict(), prepared("int4"))
    for path in (
        "0.weight_quantizer",
        "0.output_quantizer",
        "4.weight_quantizer",
        "4.output_quantizer",
        "8.weight_quantizer",
    ):
        assert f"\n  {path}: the state has " in message


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": ana_fx.Schedule("normal", "random", "overlapped", learn_scales=True)},
        {"precision": ana_fx.Precision("int4", "uint4", input="uint8")},
        {"target": "qdq"},
    ],
    ids=["schedule", "the same said otherwise", "a target of the same arithmetic"],
)
def test_settings_that_deploy_the_same_network_take_the_state(options):
    qat, other = prepared(), prepared(**options)
    other.load_state_dict(qat.state_dict())
    assert settings_of(other.state_dict()).target == options.get("target", "onnxruntime")


def test_the_settings_of_a_state_prepare_its_model_again():
    precision = ana_fx.Precision("ternary", "uint2", first="int8", overrides={"4": "int4"})
    qat = prepared(precision, target="integer", calibration=[X])
    found = settings_of(qat.state_dict())
    again = ana_fx.prepare(WithNorm(), precision=found.precision, target=found.target)
    again.load_state_dict(qat.state_dict())
    assert torch.equal(ana_fx.convert(again)(X), qat.eval()(X))


def test_an_image_input_comes_back_from_the_state():
    image = ana_fx.ImageInput(0.5, 0.25)
    qat = prepared(ana_fx.Precision("int4", "uint4", image), x=(X - 0.5) / 0.25)
    assert settings_of(qat.state_dict()).precision.input == image


def test_a_state_without_settings_is_loaded_as_before():
    qat, other = prepared("int4", calibration=[X]), prepared("int4")
    state = qat.state_dict()
    del state[SETTINGS_BUFFER]
    assert settings_of(state) is None
    other.load_state_dict(state)
    assert SETTINGS_BUFFER not in state
    assert torch.equal(other.eval()(X), qat.eval()(X))
    assert settings_of(other.state_dict()) is not None


def test_it_holds_inside_another_module_and_in_copies():
    inside = nn.ModuleDict({"net": copy.deepcopy(prepared("int4"))})
    state = nn.ModuleDict({"net": prepared("ternary")}).state_dict()
    assert str(settings_of(state).precision.weight) == "ternary"
    with pytest.raises(ana_fx.SettingsError, match="other settings"):
        inside.load_state_dict(state)
    inside.load_state_dict(nn.ModuleDict({"net": prepared("int4")}).state_dict())


def test_another_head_is_loaded_around_if_the_user_says_so():
    qat, other = prepared(), prepared(ana_fx.Precision("int4", "uint4", output="int8"))
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "8\.output_quantizer\.scale"'):
        other.load_state_dict(qat.state_dict())
    body = {name: tensor for name, tensor in qat.state_dict().items() if not name.startswith("8.")}
    other.load_state_dict(body, strict=False)
    assert torch.equal(other.get_submodule("4").weight, qat.get_submodule("4").weight)
    with pytest.raises(ana_fx.SettingsError, match=r"8\.weight_quantizer: the state has int2"):
        other.load_state_dict(prepared(ana_fx.Precision("int4", "uint4", last="int2")).state_dict(), strict=False)


@pytest.mark.parametrize("decay", [0.9, 0.999])
def test_averages_of_models_keep_the_settings(decay):
    """An average of equal bytes may come out one too low, as 0.9 · 101 + 0.1 · 101 does."""
    qat = prepared(calibration=[X])
    averaged = AveragedModel(qat, use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(decay))
    for _ in range(20):
        averaged.update_parameters(qat)
    drifted = not torch.equal(averaged.module.get_buffer(SETTINGS_BUFFER), qat.get_buffer(SETTINGS_BUFFER))
    assert drifted == (decay == 0.9)
    assert settings_of(averaged.state_dict()) == settings_of(qat.state_dict())
    prepared().load_state_dict(averaged.module.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_a_state_that_was_cast_still_tells_them(dtype):
    state = {name: tensor.to(dtype) for name, tensor in prepared().state_dict().items()}
    assert settings_of(state) == settings_of(prepared().state_dict())


@pytest.mark.parametrize(
    "codes",
    [torch.tensor(1), torch.zeros(5), torch.full((3,), torch.nan), "text", torch.tensor([247, 251], dtype=torch.uint8)],
    ids=["no bytes", "zeros", "NaN", "no tensor", "an empty object"],
)
def test_settings_that_cannot_be_read_are_refused(codes):
    state = prepared().state_dict()
    state[SETTINGS_BUFFER] = codes
    assert "cannot read the settings in the state" in refusal(state, prepared())


def test_they_are_json_that_a_person_can_read():
    text = settings_of(prepared().state_dict()).to_text()
    assert json.loads(text)["layers"]["0.weight_quantizer"] == "int4 [-8, 7], nearest"
    assert Settings.from_text(text).to_text() == text
    assert "uint8" in str(Settings.from_text(text))
