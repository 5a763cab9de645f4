"""The sample that stands beside a file."""

import numpy as np
import torch
from torch import nn

import ana_fx
from ana_fx.targets.microcontrollers.golden import golden
from tests.models import Residual
from tests.programs import converted


def test_it_is_the_first_example_input():
    program = converted(Residual, target="deeploy")
    sample = golden(program)
    x = program.meta["example_inputs"][0][:1]
    with torch.no_grad():
        logits = program(x)
    assert np.array_equal(sample.inputs[0], program.get_submodule("x_quantizer")(x).numpy())
    scale = program.get_submodule("head_1_dequantize").scale.numpy()
    assert np.array_equal(sample.outputs[0].astype(np.float32) * scale, logits.numpy())


def test_every_layer_is_there_in_the_order_of_the_graph():
    names = list(golden(converted(Residual, target="deeploy")).activations)
    assert names[0] == "stem.0"
    assert names[-2:] == ["mean_1", "head_1"] or names[-2:] == ["mean", "head"]
    assert sum("add" in name for name in names) == 2


def test_without_examples_it_is_random_over_the_whole_range_and_always_the_same():
    qat = ana_fx.prepare(nn.Sequential(nn.Linear(400, 3)), precision="int4", target="deeploy")
    qat.train()(torch.rand(4, 400))
    program = ana_fx.convert(qat)
    first, second = golden(program), golden(program)
    assert first.inputs[0].min() < -100
    assert first.inputs[0].max() > 100
    assert np.array_equal(first.inputs[0], second.inputs[0])
