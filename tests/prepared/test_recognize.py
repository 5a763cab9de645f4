"""Wrapped models are unwrapped where that is unambiguous; other models are refused in one line."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import ana_fx
from tests.models import Chain, example
from tests.programs import converted, trained

CALLS = {
    "Annealer": lambda model: ana_fx.Annealer(model, 10),
    "convert": ana_fx.convert,
    "describe": ana_fx.describe,
    "annealing_ranges": ana_fx.annealing_ranges,
    "plot_schedule": ana_fx.plot_schedule,
    "reestimate_batch_norms": lambda model: ana_fx.reestimate_batch_norms(model, [example(Chain)]),
    "check_hypotheses": ana_fx.check_hypotheses,
    "compositional_convergence": lambda model: ana_fx.compositional_convergence(model, example(Chain)),
    "export": lambda model: ana_fx.export(model, "no.onnx"),
    "verify": lambda model: ana_fx.verify(model, "no.onnx"),
}
OTHERS = {
    "a float model": (Chain, ValueError, "a model that was not prepared; write qat = ana_fx.prepare"),
    "a wrapped float model": (lambda: nn.DataParallel(Chain()), ValueError, "got Chain, a model that was not prepared"),
    "a graph": (lambda: torch.fx.symbolic_trace(nn.ReLU()), ValueError, "a model that was not prepared"),
    "a model that holds one": (lambda: nn.Sequential(trained(Chain)), ValueError, "which holds one at '0'; give that"),
    "a class": (lambda: nn.Linear, TypeError, "got the class Linear"),
    "a name": (lambda: "resnet18", TypeError, "got 'resnet18'"),
    "nothing": (lambda: None, TypeError, "got None"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("make", "error", "message"), OTHERS.values(), ids=OTHERS)
def test_another_model_is_refused_in_one_line(call, make, error, message):
    with pytest.raises(error, match=message) as refused:
        call(make())
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("call", [CALLS["export"], CALLS["verify"]])
def test_a_prepared_model_is_told_to_be_converted(call):
    with pytest.raises(ValueError, match=r"got Chain, a prepared model; write integer = ana_fx\.convert\(qat\)"):
        call(trained(Chain))


@pytest.mark.parametrize("make", [trained, converted])
def test_what_was_prepared_is_not_prepared_again(make):
    with pytest.raises(ValueError, match=r"prepare.. needs a float model, got") as refused:
        ana_fx.prepare(make(Chain), example(Chain))
    assert len(str(refused.value)) < 150


def test_a_model_that_holds_a_prepared_one_is_not_prepared():
    with pytest.raises(ValueError, match="found one that was prepared already at '0'"):
        ana_fx.prepare(nn.Sequential(trained(Chain), nn.ReLU()), example(Chain))


@pytest.mark.parametrize("wrapper", [nn.DataParallel, AveragedModel])
def test_wrappers_are_taken_off(wrapper):
    qat, x = trained(Chain), example(Chain)
    wrapped = wrapper(qat)
    assert torch.equal(ana_fx.convert(wrapped)(x), ana_fx.convert(qat)(x))
    assert ana_fx.describe(wrapped) == ana_fx.describe(qat)
    assert ana_fx.annealing_ranges(wrapped) == ana_fx.annealing_ranges(qat)


def test_the_annealer_steps_the_model_inside_its_wrapper():
    qat = ana_fx.prepare(Chain(), example(Chain))
    ana_fx.Annealer(nn.DataParallel(qat), 10).step()
    assert int(qat.get_buffer("annealing_step")) == 1


def test_the_annealer_refuses_an_average_that_is_not_trained():
    with pytest.raises(ValueError, match="needs the model that is trained, got an AveragedModel of it"):
        ana_fx.Annealer(AveragedModel(trained(Chain)), 10)


def test_a_wrapped_program_is_exported_and_verified(tmp_path):
    program = nn.DataParallel(converted(Chain))
    ana_fx.export(program, tmp_path / "a.onnx")
    assert ana_fx.verify(program, tmp_path / "a.onnx").num_different == 0


def test_a_program_has_the_ranges_of_its_model():
    assert ana_fx.annealing_ranges(converted(Chain)) == ana_fx.annealing_ranges(trained(Chain))
