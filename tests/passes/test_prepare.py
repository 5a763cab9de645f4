"""Preparation as a whole: what it takes, what it leaves alone, and what it notes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.passes.prepare import Wanted, training_pipeline
from ana_fx.prepared.graph_form import GraphForm, form_of
from ana_fx.target_registry import target_called
from tests.models import INPUT_SHAPES, Chain, example


@pytest.mark.parametrize("kind", INPUT_SHAPES)
def test_the_model_is_not_touched(kind):
    model = kind().eval()
    state, text = copy.deepcopy(model.state_dict()), str(model)
    ana_fx.prepare(model, example(kind), calibration=[example(kind)])
    assert str(model) == text
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("is_training", [False, True])
def test_the_copy_is_in_the_mode_of_the_model(is_training):
    qat = ana_fx.prepare(Chain().train(is_training))
    assert all(module.training is is_training for module in qat.modules())


def test_a_prepared_model_knows_what_it_was_prepared_with():
    precision = ana_fx.Precision("ternary", "uint2", last="int8")
    qat = ana_fx.prepare(Chain(), example(Chain), precision=precision, schedule="ste", target="integer")
    assert form_of(qat) is GraphForm.QUANTIZED
    assert qat.meta["target"] == "integer"
    assert qat.meta["schedule"] == ana_fx.preset("ste")
    assert qat.meta["precision"].of("head").weight == precision.last


def test_the_pipeline_is_a_tuple_of_frozen_values():
    wanted = Wanted(ana_fx.Precision.parse("int8"), ana_fx.Schedule(), target_called("onnxruntime"))
    assert training_pipeline(wanted, (), None) == training_pipeline(wanted, (), None)


def test_labels_behind_the_inputs_of_a_batch_are_ignored():
    x, labels = torch.rand(2, 3), torch.tensor([0, 1])
    qat = ana_fx.prepare(nn.Linear(3, 2), (x, labels), calibration=[(x, labels)])
    assert len(qat.meta["example_inputs"]) == 1
