"""What is said of a training that left noise, and of one that learns with the two calls alone."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

import ana_fx
from ana_fx.graph import quantizers
from tests.citizenship.training import TOTAL, WithNorm, WithoutNorm, batch_of, trained


def fresh(kind=WithNorm, schedule="best-dynamic"):
    """A prepared model that no annealer has seen, with all its scales."""
    return ana_fx.prepare(kind(), batch_of(0)[0], precision="int4", schedule=schedule, calibration=[batch_of(-1)])


def train_alone(qat, num_steps=2):
    """The plain loop, without an annealer; the loss of each step, on the same batch."""
    optimizer, losses = torch.optim.Adam(qat.parameters(), lr=0.02), []
    x, _ = batch_of(0, 64)
    y = x.flatten(1)[:, 14:17].argmax(1)
    for _ in range(num_steps):
        loss = nn.functional.cross_entropy(qat(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def said(qat, caplog):
    """The notes of the program and the model, and what the log says; all three are the same."""
    caplog.clear()
    notes = ana_fx.describe(ana_fx.convert(qat)).notes
    assert ana_fx.describe(qat).notes == notes
    assert [(r.name, r.levelno, r.message) for r in caplog.records] == [("ana_fx", logging.WARNING, n) for n in notes]
    return notes


# Two calls are enough


@pytest.mark.parametrize(
    "schedule", ["best-dynamic", "ste", "lsq", ana_fx.Schedule(mean="dynamic", strategy="expectation")]
)
@pytest.mark.parametrize("kind", [WithNorm, WithoutNorm])
def test_training_without_an_annealer_learns(kind, schedule):
    qat = fresh(kind, schedule)
    before = {name: p.clone() for name, p in qat.named_parameters() if name.endswith("weight")}
    losses = train_alone(qat, 60)
    assert losses[-1] < 0.9 * losses[0]  # without noise it is 0.93 and 1.00
    assert all(not torch.equal(p, before[name]) for name, p in qat.named_parameters() if name in before)


@pytest.mark.parametrize("schedule", ["best-dynamic", "ste", ana_fx.Schedule(mean="dynamic", power="progressive")])
def test_a_prepared_model_has_the_noise_that_an_annealer_begins_with(schedule):
    qat = fresh(schedule=schedule)
    found = {name: (q.mean.clone(), q.std.clone()) for name, q in quantizers(qat)}
    ana_fx.Annealer(qat, TOTAL)
    assert found == {name: (q.mean, q.std) for name, q in quantizers(qat)}
    assert float(found["0.weight_quantizer"][1]) > 0


def test_eval_mode_does_not_know_the_noise():
    qat, x = fresh(schedule=ana_fx.Schedule(mean="dynamic", strategy="random")).eval(), batch_of(1)[0]
    before = qat(x)
    for _, quantizer in quantizers(qat):
        quantizer.mean.zero_()
        quantizer.std.zero_()
    assert torch.equal(qat(x), before)


# Nothing is said


@pytest.mark.parametrize("schedule", ["best-dynamic", "ste", "lsq", ana_fx.Schedule(strategy="random")])
def test_nothing_is_said_of_a_model_that_was_not_trained(schedule, caplog):
    assert said(fresh(schedule=schedule), caplog) == ()


@pytest.mark.parametrize("schedule", ["ste", "lsq"])
def test_nothing_is_said_of_static_noise_without_an_annealer(schedule, caplog):
    qat = fresh(schedule=schedule)
    train_alone(qat)
    assert said(qat, caplog) == ()


@pytest.mark.parametrize("schedule", ["best-dynamic", "lsq", ana_fx.Schedule(mean="dynamic", strategy="random")])
def test_nothing_is_said_of_a_training_that_was_annealed(schedule, caplog):
    assert said(trained(fresh(schedule=schedule)), caplog) == ()


@pytest.mark.parametrize("use_buffers", [False, True])
def test_nothing_is_said_of_an_average_over_a_training_that_was_annealed(use_buffers, caplog):
    qat = fresh()
    average = AveragedModel(qat, use_buffers=use_buffers)
    for _ in range(2):
        trained(qat)
        average.update_parameters(qat)
    update_bn([batch_of(0)[0]], average)
    assert said(average.module, caplog) == ()


# Something is said


def test_a_training_that_forgot_the_annealer_is_told(caplog):
    qat = fresh()
    train_alone(qat)
    (note,) = said(qat, caplog)
    assert note.startswith("The model was trained, but no noise was annealed: 3 of 3 layer maps")
    assert "make ana_fx.Annealer(qat, total_steps) and call its step()" in note


def test_a_training_that_made_an_annealer_and_never_stepped_it_is_told(caplog):
    qat = fresh()
    ana_fx.Annealer(qat, TOTAL)
    train_alone(qat)
    assert "no noise was annealed" in said(qat, caplog)[0]


def test_a_training_that_ends_too_early_is_told_how_far_it_came(caplog):
    qat = trained(fresh(), num_steps=4, total=400)
    (note,) = said(qat, caplog)
    assert note.startswith("Annealing is at 1 %: 3 of 3 layer maps still have noise after 4 steps; train on")


def test_a_state_that_is_loaded_tells_how_many_steps_it_had(caplog):
    qat = fresh()
    qat.load_state_dict(trained(fresh(), num_steps=4).state_dict())
    assert said(qat, caplog)[0].startswith("Annealing stopped after 4 steps: 2 of 3 layer maps still have noise")


def test_random_noise_that_is_left_is_told_to_be_missing_from_the_program(caplog):
    qat = trained(fresh(schedule=ana_fx.Schedule(strategy="random")), num_steps=4)
    assert "strategy 'random' draws this noise in training, eval mode and the program do not" in said(qat, caplog)[0]


def test_random_noise_that_never_vanishes_is_told(caplog):
    qat = fresh(schedule=ana_fx.Schedule(strategy="random", variance="static"))
    train_alone(qat)
    assert said(qat, caplog)[0].startswith("Strategy 'random' draws noise in training that eval mode")


def test_a_copy_is_told_what_its_original_is(caplog):
    qat = fresh()
    train_alone(qat)
    assert said(copy.deepcopy(qat), caplog) == said(qat, caplog) != ()


# Too few steps for a schedule


def test_a_training_with_no_step_for_some_layers_is_told_which_and_what_to_do(caplog):
    layers = [layer for _ in range(7) for layer in (nn.Linear(4, 4), nn.ReLU())]
    qat = ana_fx.prepare(nn.Sequential(*layers), torch.rand(2, 4), schedule=ana_fx.Schedule())
    ana_fx.Annealer(qat, 5)
    (record,) = caplog.records
    assert "3 of 7 layer maps hold none of 5 training steps" in record.message
    assert "noise vanishes at once: 2, 6, 10; " in record.message
    assert "needed 11 steps, or a schedule with wider ranges" in record.message
    caplog.clear()
    annealer = ana_fx.Annealer(qat, 11)
    assert all(stage.first_step < stage.last_step for stage in annealer.stages)
    assert "hold none" not in caplog.text


def test_a_training_that_freezes_layers_after_a_handful_of_steps_is_told_how_many_it_needs(caplog):
    layers = [layer for _ in range(7) for layer in (nn.Linear(4, 4), nn.ReLU())]
    qat = ana_fx.prepare(
        nn.Sequential(*layers), torch.rand(2, 4), schedule=ana_fx.Schedule()
    )  # a layer is frozen after each tenth of training
    ana_fx.Annealer(qat, 80)
    (record,) = caplog.records
    assert "2 of 7 layer maps are frozen after 8 of 80 training steps, or few more: 0, 2; " in record.message
    assert "needed 200 steps in all, or a schedule that freezes nothing, such as the static 'lsq'" in record.message
    caplog.clear()
    ana_fx.Annealer(qat, 200)
    assert caplog.records == []


@pytest.mark.parametrize("schedule", ["lsq", ana_fx.Schedule(interval="overlapped")])
def test_a_schedule_that_gives_every_layer_all_the_time_is_not_told(schedule, caplog):
    layers = [layer for _ in range(7) for layer in (nn.Linear(4, 4), nn.ReLU())]
    ana_fx.Annealer(ana_fx.prepare(nn.Sequential(*layers), torch.rand(2, 4), schedule=schedule), 5)
    assert caplog.records == []
