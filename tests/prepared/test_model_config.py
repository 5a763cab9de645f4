"""Models in the style of Hugging Face keep the class of their output, their `config` and its labels.

The stand-in follows the protocol of `transformers`: outputs are ordered dictionaries that are dataclasses and leave out
what is None, and `config` is an object with `id2label`. The last test has the package itself.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ana_fx
from ana_fx.prepared.model_config import labels_of

LABELS = {0: "cat", 1: "dog", 2: "boat"}


@dataclass
class ImageClassifierOutput(OrderedDict):
    """As `transformers.modeling_outputs.ImageClassifierOutputWithNoAttention`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None:
                OrderedDict.__setitem__(self, each.name, value)

    def __getitem__(self, key: Any) -> Any:
        return dict(self.items())[key] if isinstance(key, str) else tuple(self.values())[key]


class Classifier(nn.Module):
    """With the arguments of a model of Hugging Face, which users leave out."""

    def __init__(self, labels: Any = None) -> None:
        super().__init__()
        self.config = SimpleNamespace(id2label=labels or LABELS, use_return_dict=True)
        self.conv, self.norm, self.classifier = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, len(LABELS))

    def forward(self, pixel_values, labels=None, output_hidden_states=None, return_dict=None) -> ImageClassifierOutput:
        return_dict = self.config.use_return_dict if return_dict is None else return_dict
        hidden = torch.relu(self.norm(self.conv(pixel_values)))
        logits = self.classifier(hidden.mean((2, 3)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        if not return_dict:
            return (logits,)
        return ImageClassifierOutput(loss=loss, logits=logits)


IMAGES = torch.rand(4, 3, 8, 8)


def prepared(model=None):
    return ana_fx.prepare((model or Classifier()).eval(), IMAGES, precision="int4", calibration=[IMAGES])


def test_the_prepared_model_and_the_program_give_outputs_of_the_models_class():
    qat = prepared()
    program = ana_fx.convert(qat)
    for each in (qat, program, copy.deepcopy(qat), copy.deepcopy(program)):
        output = each(IMAGES)
        assert type(output) is ImageClassifierOutput
        assert output.loss is None
        assert list(output) == ["logits"]
        assert torch.equal(output.logits, output["logits"])
        assert torch.equal(output[0], qat(IMAGES).logits)


def test_they_keep_the_config_and_it_is_their_own():
    model = Classifier()
    qat = prepared(model)
    program = ana_fx.convert(qat)
    model.config.id2label = {}
    for each in (qat, program, copy.deepcopy(qat), copy.deepcopy(program)):
        assert each.config.id2label == LABELS


def test_it_trains_in_a_loop_that_reads_logits_from_the_output():
    qat = prepared().train()
    before = qat.get_submodule("conv").weight.detach().clone()
    nn.functional.cross_entropy(qat(IMAGES).logits, torch.tensor([0, 1, 2, 0])).backward()
    torch.optim.SGD(qat.parameters(), lr=0.1).step()
    assert not torch.equal(qat.get_submodule("conv").weight, before)


def test_it_compiles():
    qat = prepared()
    compiled = torch.compile(qat, backend="eager")
    assert torch.equal(compiled(IMAGES).logits, qat(IMAGES).logits)


def test_a_file_says_the_labels_of_the_config(tmp_path):
    program = ana_fx.convert(prepared())
    ana_fx.export(program, tmp_path / "model.onnx")
    assert ana_fx.inspect(tmp_path / "model.onnx").labels == tuple(LABELS.values())
    assert ana_fx.verify(program, tmp_path / "model.onnx", IMAGES).num_different == 0
    ana_fx.export(program, tmp_path / "model.onnx", labels=["a", "b", "c"])
    assert ana_fx.inspect(tmp_path / "model.onnx").labels == ("a", "b", "c")


@pytest.mark.parametrize("labels", [{0: "cat", 1: "dog"}, {1: "cat", 2: "dog", 3: "boat"}, {"x": "cat"}, ["cat"]])
def test_labels_that_are_not_those_of_the_channels_are_left_out(labels, tmp_path):
    program = ana_fx.convert(prepared(Classifier(labels)))
    ana_fx.export(program, tmp_path / "model.onnx")
    assert ana_fx.inspect(tmp_path / "model.onnx").labels == ()


def test_labels_of_a_config_that_was_read_from_json_have_keys_of_text():
    assert labels_of(prepared(Classifier({"0": "cat", "1": "dog", "2": "boat"}))) == ("cat", "dog", "boat")


def test_a_saved_program_gives_a_dictionary(tmp_path):
    """A file holds data alone, no class."""
    program = ana_fx.convert(prepared())
    ana_fx.save(program, tmp_path / "program.anafx")
    output = ana_fx.load(tmp_path / "program.anafx")(IMAGES)
    assert type(output) is dict
    assert torch.equal(output["logits"], program(IMAGES).logits)


def test_what_is_no_config_is_left_alone():
    model = nn.Linear(3, 2)
    model.config = lambda: LABELS
    assert not hasattr(ana_fx.prepare(model, torch.rand(2, 3)), "config")


@pytest.mark.extra("hub", "transformers")
def test_a_resnet_of_transformers(tmp_path):
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3, id2label=LABELS
    )
    model, x = ResNetForImageClassification(config).eval(), torch.rand(2, 3, 32, 32)
    qat = ana_fx.prepare(model, x, calibration=[x])
    program = ana_fx.convert(qat)
    assert type(program(x)) is type(model(x))
    assert program.config.id2label == LABELS
    ana_fx.export(program, tmp_path / "model.onnx")
    assert ana_fx.verify(program, tmp_path / "model.onnx", x).num_different == 0
