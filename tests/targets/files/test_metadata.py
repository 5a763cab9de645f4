"""What the metadata say of a file's borders, those of a float layer included.

They cover `files/border.py` too.
"""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.targets.compare import verify_against
from ana_fx.targets.onnx.onnx_file import borders

HEADS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 5)),
    "convolutional": lambda: nn.Conv2d(4, 5, 2, bias=False),
    "reshaped": lambda: nn.Sequential(nn.Conv2d(4, 5, 2), nn.Flatten()),
}
X = torch.rand(6, 3, 8, 8)


def with_a_float_head(name: str) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), HEADS[name]())
    qat = ana_fx.prepare(model, X, precision=ana_fx.Precision("ternary", "uint2", output="float"), calibration=[X])
    return ana_fx.convert(qat.eval())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("io", ["integer", "float"])
@pytest.mark.parametrize("target", ["onnxruntime", "integer", "qdq"])
def test_a_float_output_is_described(tmp_path, head, io, target):
    program = with_a_float_head(head)
    ana_fx.export(program, tmp_path / "a.onnx", io=io, target=target)
    (output,) = ana_fx.inspect(tmp_path / "a.onnx").outputs
    assert (output.levels, output.dtype, output.shape) == ("float32", np.float32, tuple(program(X).shape[1:]))
    assert "float32" in str(ana_fx.inspect(tmp_path / "a.onnx"))


@pytest.mark.parametrize("head", HEADS)
def test_files_that_say_nothing_of_their_float_output_are_read(tmp_path, head):
    """Those that were written before its type was."""
    ana_fx.export(with_a_float_head(head), tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    kept = {e.key: e.value for e in model.metadata_props if e.key not in ("output.type", "output.shape")}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, kept)
    (_, (output,)) = borders(model)
    assert output.levels == "float32"


@pytest.mark.parametrize("head", HEADS)
def test_a_float_output_equals_the_programs_to_what_rounding_explains(tmp_path, head):
    program = with_a_float_head(head)
    ana_fx.export(program, tmp_path / "a.onnx")
    assert verify_against(tmp_path / "a.onnx", program, [X.numpy()]).num_different == 0


@pytest.mark.parametrize("head", HEADS)
def test_a_float_layer_that_changed_is_found(tmp_path, head):
    program = with_a_float_head(head)
    ana_fx.export(program, tmp_path / "a.onnx")
    path = next(name for name, module in program.named_modules() if type(module).__name__ == "OperatorMap")
    program.get_submodule(path).weight.data[0] *= 1.01
    with pytest.raises(ana_fx.VerifyError, match="output 'output' in onnxruntime differs from the program"):
        verify_against(tmp_path / "a.onnx", program, [X.numpy()])


def test_a_float_layer_that_gives_no_number_is_found(tmp_path):
    program = with_a_float_head("linear")
    ana_fx.export(program, tmp_path / "a.onnx")
    path = next(name for name, module in program.named_modules() if type(module).__name__ == "OperatorMap")
    program.get_submodule(path).bias.data[0] = torch.nan
    with pytest.raises(ana_fx.VerifyError, match="differs from the program at 6 of 30 numbers"):
        verify_against(tmp_path / "a.onnx", program, [X.numpy()])


def test_an_integer_output_is_described_as_before(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    ana_fx.export(ana_fx.convert(ana_fx.prepare(model, X, calibration=[X]).eval()), tmp_path / "a.onnx")
    (output,) = ana_fx.inspect(tmp_path / "a.onnx").outputs
    assert (output.levels, output.dtype) == ("int32", np.int32)


def test_another_file_is_refused(tmp_path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["x2"])], "other", [value], [])
    with pytest.raises(ana_fx.VerifyError, match="the metadata do not describe 'x'"):
        borders(onnx.helper.make_model(graph))
