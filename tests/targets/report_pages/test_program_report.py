"""The facts of a report are those of the program."""

import json

import pytest
import torch

import ana_fx
from ana_fx.errors import VerifyError
from ana_fx.program.integer_layers import IntegerMap
from tests.models import Chain, Residual, example
from tests.programs import converted


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    program = converted(Residual)
    ana_fx.export(program, folder / "net.onnx")
    return ana_fx.report(program, folder / "net.html", files=[folder / "net.onnx"], inputs=example(Residual))


def test_each_layer_map_has_the_numbers_of_its_module(residual):
    program, nodes = converted(Residual), {node.name: node for node in residual.nodes}
    maps = {name: module for name, module in program.named_modules() if isinstance(module, IntegerMap)}
    assert maps
    for name, module in maps.items():
        assert nodes[name].row.accumulator == module.bound
        assert nodes[name].multiplier == int(module.multiplier.abs().max())
        assert nodes[name].levels == (module.lo, module.hi)


def test_the_graph_is_the_program_s(residual):
    arrows = sum(len(node.all_input_nodes) for node in converted(Residual).graph.nodes)
    assert sum(len(node.reads) for node in residual.nodes) == arrows
    assert residual.nodes[0].kind == "input"
    assert residual.nodes[-1].kind == "output"


def test_four_bits_are_an_eighth_of_float(residual):
    assert residual.float_bytes == 4 * residual.num_weights
    assert all(node.weight_bytes == -(-node.num_weights * 4 // 8) for node in residual.nodes if node.weight_bits == 4)
    assert residual.ratio == pytest.approx(8.0, rel=0.01)  # bytes are whole in each layer


def test_saturation_is_counted_on_the_inputs_that_are_given(residual):
    program, x = converted(Residual), example(Residual)
    quantize = next(node for node in residual.nodes if node.kind == "quantize")
    levels = program.get_submodule(quantize.name)(x)
    assert quantize.saturated == pytest.approx(float(((levels == 0) | (levels == 255)).float().mean()))


def test_files_are_run(residual):
    (file,) = residual.files
    assert (file.verified.num_different, file.bytes) == (0, file.path.stat().st_size)


def test_the_json_holds_the_same(residual):
    found = json.loads(residual.data.read_text())
    assert found["weight_bytes"] == residual.weight_bytes
    assert [node["name"] for node in found["nodes"]] == [node.name for node in residual.nodes]


def test_a_file_of_another_program_is_refused_and_nothing_is_written(tmp_path):
    ana_fx.export(converted(Chain), tmp_path / "chain.onnx")
    with pytest.raises((VerifyError, ValueError)):
        ana_fx.report(converted(Residual), tmp_path / "net.html", files=[tmp_path / "chain.onnx"])
    assert not (tmp_path / "net.html").exists()


def test_a_page_is_not_written_over_its_json(tmp_path):
    with pytest.raises(ValueError, match=r"net\.html"):
        ana_fx.report(converted(Chain), tmp_path / "net.json")


def test_what_is_no_program_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"report\(\)"):
        ana_fx.report(torch.nn.Linear(1, 1), tmp_path / "net.html")
