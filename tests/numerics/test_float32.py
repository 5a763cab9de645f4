"""Models of any floating type are prepared in float32; what was prepared stays in it."""

import pytest
import torch
from torch import nn

import ana_fx
from tests.models import Chain, example
from tests.programs import converted, trained

X = example(Chain)
TYPES = [torch.float16, torch.bfloat16, torch.float64]


def train_and_ship(qat, x, folder):
    """A step, then a file that equals the program."""
    annealer = ana_fx.Annealer(qat, 1)
    qat.train()(x).sum().backward()
    annealer.step()
    program = ana_fx.convert(qat.eval())
    ana_fx.export(program, folder / "a.onnx")
    return ana_fx.verify(program, folder / "a.onnx")


@pytest.mark.parametrize("dtype", TYPES)
def test_a_model_of_another_floating_type_is_prepared_in_float32(dtype, tmp_path):
    model = Chain().to(dtype)
    qat = ana_fx.prepare(model, X.to(dtype))
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert any(str(dtype).removeprefix("torch.") in note for note in ana_fx.describe(qat).notes)
    assert train_and_ship(qat, X.to(dtype), tmp_path).num_different == 0


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("make", [trained, converted])
def test_what_was_prepared_refuses_another_floating_type_as_a_whole(make, dtype):
    module = make(Chain)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(TypeError, match=r"computes in float32.*train it under torch.autocast"):
        module.to(dtype)
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype is after[name].dtype for name in before)


def test_what_was_prepared_may_be_moved_and_made_float():
    assert ana_fx.prepare(Chain(), X).to("cpu", torch.float32).float() is not None


def test_a_default_of_float64_changes_nothing(tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        qat = ana_fx.prepare(Chain(), X)
        assert {t.dtype for t in qat.state_dict().values() if t.is_floating_point()} == {torch.float32}
        assert train_and_ship(qat, X, tmp_path).num_different == 0
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_model_prepared_in_inference_mode_can_be_trained(tmp_path):
    with torch.inference_mode():
        qat = ana_fx.prepare(Chain(), torch.rand_like(X), calibration=[torch.rand_like(X)])
    assert train_and_ship(qat, X, tmp_path).num_different == 0


def test_weights_without_numbers_are_refused():
    with pytest.raises(ana_fx.UnsupportedError, match="the weights of Chain are on the meta device"):
        ana_fx.prepare(Chain().to("meta"), X)


def test_a_default_device_without_numbers_is_refused():
    with torch.device("meta"), pytest.raises(ValueError, match="torch's default device is 'meta'"):
        ana_fx.prepare(nn.ReLU(), X)
