"""The borders of a program: what it takes, what it refuses, and what it makes of numbers that are none.

This covers passes/lowering/lower_borders.py and passes/lowering/lowering_context.py too.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.softmax_map import SoftmaxMap
from ana_fx.layers.table_map import TableMap
from ana_fx.passes.lowering.lower import rule_of
from tests.graphs import WrittenForTwo

IMAGE = ana_fx.ImageInput(mean=(0.5, 0.4), std=(0.2, 0.3))


def ready(model: nn.Module, *inputs: torch.Tensor, **settings: object) -> GraphModule:
    qat = ana_fx.prepare(model, inputs, calibration=[inputs], **settings)
    qat.train()(*inputs)
    return qat.eval()


@torch.no_grad()
def test_a_program_refuses_samples_of_another_shape_than_it_was_proven_for():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    qat = ready(model, torch.rand(4, 3, 8, 8))
    program = ana_fx.convert(qat)
    assert qat(torch.rand(2, 3, 16, 16)).shape == (2, 2)
    assert torch.equal(program(torch.ones(5, 3, 8, 8)), qat(torch.ones(5, 3, 8, 8)))
    for shape in [(2, 3, 16, 16), (3, 8, 8), (2, 3, 8, 9)]:
        with pytest.raises(ValueError, match=r"found an input of shape \(.*\), needed \[N, 3, 8, 8\].*proven"):
            program(torch.rand(shape))


@torch.no_grad()
def test_a_program_that_checks_shapes_can_be_exported_and_compiled():
    x = torch.rand(4, 3)
    program = ana_fx.convert(ready(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), x))
    batch = torch.export.Dim("batch")
    exported = torch.export.export(program, (x,), dynamic_shapes=({0: batch},)).module()
    compiled = torch.compile(program, backend="eager", fullgraph=True)
    for each in (torch.rand(7, 3), torch.rand(2, 3)):
        assert torch.equal(exported(each), program(each))
        assert torch.equal(compiled(each), program(each))


@torch.no_grad()
@pytest.mark.parametrize("io", ["integer", "float"])
@pytest.mark.parametrize("wanted", ["uint8", "int8", "int4", "uint3", IMAGE], ids=str)
def test_nan_is_the_lowest_level_in_eval_mode_in_the_program_and_in_the_file(wanted, io, tmp_path):
    x = torch.rand(4, 2, 5, 5)
    qat = ready(nn.Conv2d(2, 3, 3), x, precision=ana_fx.Precision("int8", "int8", input=wanted))
    program = ana_fx.convert(qat)
    broken = torch.where(torch.rand_like(x) < 0.3, torch.nan, x * 2)
    lowest = torch.where(broken.isnan(), -torch.inf, broken)
    assert bool(torch.isfinite(program(broken)).all())
    for model in (qat, program):
        assert torch.equal(model(broken), program(lowest))
    ana_fx.export(program, tmp_path / "model.onnx", io=io)
    assert ana_fx.verify(program, tmp_path / "model.onnx", broken).num_different == 0


def test_nan_is_to_be_seen_in_training():
    qat = ready(nn.Conv2d(2, 3, 3), torch.rand(4, 2, 5, 5)).train()
    assert bool(qat(torch.full((1, 2, 5, 5), torch.nan)).isnan().all())


@torch.no_grad()
@pytest.mark.parametrize("io", ["integer", "float"])
@pytest.mark.parametrize("forward", [lambda m, x, y: m.l(x), lambda m, y, x: m.l(x)])
def test_an_input_that_nothing_reads_is_taken_by_the_program_and_left_out_of_the_file(forward, io, tmp_path):
    is_first = forward.__code__.co_varnames[1] == "x"
    x, mask = torch.rand(3, 4), torch.ones(3, 7, dtype=torch.bool)
    inputs = (x, mask) if is_first else (mask, x)
    qat = ready(WrittenForTwo(forward, l=nn.Linear(4, 2)), *inputs)
    program = ana_fx.convert(qat)
    assert torch.equal(program(*inputs), qat(*inputs))
    ana_fx.export(program, tmp_path / "model.onnx", io=io)
    assert ana_fx.verify(program, tmp_path / "model.onnx").num_different == 0
    assert ana_fx.verify(program, tmp_path / "model.onnx", inputs).num_outputs == 3 * 2
    with pytest.raises(ValueError, match=r"the program has 2 input\(s\), verify\(\) was given 1"):
        ana_fx.verify(program, tmp_path / "model.onnx", x)


class Halved(LayerMap):
    """A layer map of other hands, for which lowering has no rule."""

    kind = "halved"

    def real(self, tensors):
        return tensors[0] / 2

    integer_form = deployed = real


class HalvedTable(TableMap):
    """Computes something else than the class for which there is a rule."""

    def real(self, tensors):
        return super().real(tensors) / 2


@pytest.mark.parametrize("make", [Halved, lambda: HalvedTable(nn.Tanh())], ids=["a kind of its own", "a subclass"])
def test_a_layer_map_without_a_rule_of_lowering_is_refused_by_its_name(make):
    qat = ready(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.rand(4, 3))
    quantizer = qat.get_submodule("0").output_quantizer
    strange = make()
    strange.output_quantizer, strange.input_types = quantizer, (quantizer.integer_type,)
    qat.set_submodule("0", strange)
    node = next(node for node in qat.graph.nodes if node.target == "0")
    with pytest.raises(
        ana_fx.ConvertError, match=rf"module '0'.*{type(strange).__name__} has no integer form, needed one of"
    ):
        rule_of(node, {})


def test_the_integers_of_a_layer_map_are_worked_out_once(monkeypatch):
    x, computed = torch.rand(4, 6), []
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 2), nn.Softmax(-1))
    qat = ana_fx.prepare(model, x, calibration=[x])
    for kind in (OperatorMap, TableMap, SoftmaxMap):

        def form_of(self, *given, of=kind.integer_form):
            computed.append(self)
            return of(self, *given)

        monkeypatch.setattr(kind, "integer_form", form_of)
    ana_fx.convert(qat)
    assert len(computed) == len(set(computed)) == len(layer_maps(qat))
