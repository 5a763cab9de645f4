"""States of other models than the prepared one are refused briefly, with what to do."""

import copy

import pytest
import torch
from torch import nn

import ana_fx
from tests.models import Chain, Residual, example


def prepared(model=Chain):
    torch.manual_seed(0)
    return ana_fx.prepare(model(), example(model))


@pytest.mark.parametrize("model", [Chain, Residual])
def test_a_float_state_is_refused_in_one_line(model):
    with pytest.raises(ValueError, match=r"not that of a prepared model.*prepare that") as refused:
        prepared(model).load_state_dict(model().state_dict())
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


def test_the_message_says_which_names_are_others():
    with pytest.raises(ValueError, match=r"'features.1.weight' is 'features.0.norm.weight' here"):
        prepared().load_state_dict(Chain().state_dict())


def test_a_wrapped_models_state_is_told_from_it():
    state = nn.DataParallel(prepared()).state_dict()
    with pytest.raises(ValueError, match=r"begin with 'module.', .*save wrapper.module.state_dict"):
        prepared().load_state_dict(state)


def test_states_of_prepared_models_load_bare_and_wrapped():
    qat = prepared()
    prepared().load_state_dict(qat.state_dict())
    nn.Sequential(prepared()).load_state_dict(nn.Sequential(qat).state_dict())
    nn.DataParallel(prepared()).load_state_dict(nn.DataParallel(qat).state_dict())


def test_a_copy_refuses_too():
    with pytest.raises(ValueError, match="not that of a prepared model"):
        copy.deepcopy(prepared()).load_state_dict(Chain().state_dict())


def test_a_partial_load_is_left_to_torch():
    missing, unexpected = prepared().load_state_dict({"head.bias": torch.ones(10)}, strict=False)
    assert "annealing_step" in missing
    assert not unexpected


def test_a_float_state_is_refused_whatever_is_strict():
    with pytest.raises(ValueError, match="not that of a prepared model"):
        prepared().load_state_dict(Chain().state_dict(), strict=False)


@pytest.mark.parametrize("make", [Chain, lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5))])
def test_a_program_loads_its_own_state(make):
    model, x = make(), example(Chain)
    model(x)
    program = ana_fx.convert(ana_fx.prepare(model, x, calibration=[x]).eval())
    assert str(program.load_state_dict(program.state_dict())) == "<All keys matched successfully>"
