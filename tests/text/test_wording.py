"""How errors name what was given: the name that was meant, and never the contents of a tensor."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import ana_fx
from ana_fx.text.wording import brief, unknown
from tests.models import Chain, example
from tests.programs import converted, trained

MEANT = {
    "precision": (lambda: ana_fx.prepare(Chain(), precision="INT4"), "unknown precision 'INT4', did you mean 'int4'"),
    "preset by bits": (lambda: ana_fx.prepare(Chain(), precision=4), "unknown precision 4, did you mean 'int4'"),
    "weight": (lambda: ana_fx.Precision("INT4"), "unknown integer type 'INT4', did you mean 'int4'"),
    "weight by bits": (lambda: ana_fx.Precision(4, 4), "unknown integer type 4, did you mean 'int4'"),
    "rounding": (lambda: ana_fx.Precision(rounding="neares"), "unknown rounding 'neares', did you mean 'nearest'"),
    "output": (lambda: ana_fx.Precision(output="Float"), "unknown output 'Float', did you mean 'float'"),
    "schedule": (lambda: ana_fx.preset("STE"), "unknown schedule 'STE', did you mean 'ste'"),
    "interval": (lambda: ana_fx.Schedule(interval="samestart"), "'samestart', did you mean 'same_start'"),
    "target": (lambda: ana_fx.prepare(Chain(), target="onnx"), "unknown target 'onnx', did you mean 'onnxruntime'"),
    "io": (lambda: ana_fx.export(converted(Chain), "no.onnx", io="Float"), "unknown io 'Float', did you mean 'float'"),
    "runtime": (
        lambda: ana_fx.verify(converted(Chain), "no.onnx", runtimes=["onxruntime"]),
        "unknown runtime 'onxruntime', did you mean 'onnxruntime'",
    ),
}


@pytest.mark.parametrize(("call", "message"), MEANT.values(), ids=MEANT)
def test_a_misspelt_name_is_answered_with_the_one_that_was_meant(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_another_width_is_not_suggested():
    assert (
        unknown("integer type", "int9", ["int8", "uint8"]) == "unknown integer type 'int9'; known are 'int8', 'uint8'"
    )


X = torch.rand(64, 3, 16, 16)
BRIEF = {
    "a tensor": (X, "float32 (64, 3, 16, 16)"),
    "an array": (X.numpy(), "a numpy array, float32 (64, 3, 16, 16)"),
    "a dict": ({"image": X, "label": X, "path": "a", "id": 3}, "a dict of 'image', 'label', 'path' …"),
    "a loader": (DataLoader(list(X)), "a DataLoader"),
    "a module": (nn.Linear(900, 900), "a Linear"),
    "a class": (nn.Linear, "the class Linear"),
    "a long string": ("a" * 1000, f"'{'a' * 39}…"),
    "a shape": ((64, 3, 16, 16), "(64, 3, 16, 16)"),
    "a list of tensors": ([X, X], "a list of 2"),
}


@pytest.mark.parametrize(("value", "words"), BRIEF.values(), ids=BRIEF)
def test_a_value_is_named_in_a_few_words(value, words):
    assert brief(value) == words


WRONG_KINDS = {
    "overrides as a list": (lambda: ana_fx.Precision(overrides=["conv"]), "overrides are a mapping .* got a list of 1"),
    "overrides by type": (
        lambda: ana_fx.Precision(overrides={nn.Linear: "int8"}),
        "module paths.* got the class Linear",
    ),
    "a schedule's overrides": (lambda: ana_fx.Schedule(overrides=["conv"]), "overrides are a mapping from str"),
    "a target as it is": (lambda: ana_fx.prepare(Chain(), target=ana_fx.targets()[0]), "write target='onnxruntime'"),
    "concrete arguments": (lambda: ana_fx.prepare(Chain(), concrete_args=["x"]), "concrete_args is a mapping"),
    "leaf modules": (lambda: ana_fx.prepare(Chain(), leaf_modules=[nn.ReLU()]), "types .* and patterns .* got a ReLU"),
    "functions": (lambda: ana_fx.prepare(Chain(), wrapped_functions=["f"]), "holds functions, got 'f'"),
    "steps": (lambda: ana_fx.Annealer(trained(Chain), 1.5), "total_steps is a whole number.* got 1.5"),
    "a teacher": (lambda: ana_fx.Distiller("resnet18"), "a teacher is a torch.nn.Module, got 'resnet18'"),
    "labels": (lambda: ana_fx.export(converted(Chain), "no.onnx", labels="cat"), "labels is a list .* got 'cat'"),
    "arrays to verify": (
        lambda: ana_fx.verify(converted(Chain), "no.onnx", np.zeros((2, 3))),
        "the input of verify.* is a numpy array, float64 .2, 3.; needed a tensor .*torch.from_numpy",
    ),
}


@pytest.mark.parametrize(("call", "message"), WRONG_KINDS.values(), ids=WRONG_KINDS)
def test_an_argument_of_the_wrong_kind_is_refused_in_one_line(call, message):
    with pytest.raises(TypeError, match=message) as refused:
        call()
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


def test_more_inputs_than_the_program_has_are_refused():
    x = example(Chain)
    with pytest.raises(ValueError, match=r"the program has 1 input.*was given 2 tensor"):
        ana_fx.verify(converted(Chain), "no.onnx", (x, x))
