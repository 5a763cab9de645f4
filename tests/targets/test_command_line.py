"""The command line, as a user types it: `command_output.py` too."""

import io
import pickle
import shutil
import sys
import warnings
from importlib import import_module

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from typer.testing import CliRunner

import ana_fx
from ana_fx.targets.command_line import app
from ana_fx.targets.compare import verify_files
from ana_fx.targets.runtimes import base_runtime
from tests.models import Chain, example
from tests.programs import converted, trained


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file, its program in both forms, and inputs of both kinds."""
    path = tmp_path_factory.mktemp("command_line")
    program, x = converted(Chain), example(Chain)
    ana_fx.export(program, path / "model.onnx", labels=[f"class {i}" for i in range(program(x).shape[1])])
    batch = torch.export.Dim.DYNAMIC
    ana_fx.save(program, path / "program.anafx")
    ana_fx.export(program, path / "other.onnx", target="integer", io="float")
    torch.export.save(torch.export.export(program, (x,), dynamic_shapes=({0: batch},)), path / "program.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # people still have such files
        torch.jit.save(torch.jit.trace(program, (x,)), path / "program.pt")
    np.save(path / "floats.npy", x.numpy())
    scale = next(module for module in program.modules() if hasattr(module, "real")).scale
    levels = np.rint(x.numpy() / scale.numpy()).clip(0, 255).astype(np.uint8)
    np.save(path / "levels.npy", levels)
    np.savez(path / "inputs.npz", x=levels)
    head = program.get_submodule("head_1_dequantize")
    logits = np.rint(program(x).detach().numpy() / head.scale.numpy()).astype(np.int64)
    np.savez(path / "reals.npz", x=x.numpy(), output=program(x).detach().numpy())
    np.savez(path / "integers.npz", x=levels, output=logits)
    return path


def test_targets_are_listed():
    result = run("targets")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("onnxruntime", "integer", "2 to 8 bits"))


def test_inspect_says_what_stands_in_a_file(folder):
    result = run("inspect", folder / "model.onnx")
    assert result.exit_code == 0
    for text in ("target onnxruntime", "integer borders", "QLinearConv", "bytes of int8", "uint8", "class 3"):
        assert text in result.stdout


@pytest.mark.parametrize("target", ["integer", "onnxruntime"])
def test_inspect_tells_integers_from_floats(tmp_path, target):
    ana_fx.export(converted(Chain), tmp_path / "a.onnx", target=target)
    assert ana_fx.inspect(tmp_path / "a.onnx").float_nodes == ()
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="real")],
        "floats",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    entries = {
        f"{name}.{key}": value
        for name in "xy"
        for key, value in (("scale", "1.0"), ("zero_point", "0"), ("type", "int8"))
    }
    helper.set_model_props(model, entries)
    onnx.save(model, tmp_path / "b.onnx")
    assert ana_fx.inspect(tmp_path / "b.onnx").float_nodes == ("real",)


def test_verify_compares_a_file_with_a_saved_program(folder):
    arguments = ("--inputs", folder / "floats.npy", "--against", folder / "program.anafx")
    result = run("verify", folder / "model.onnx", *arguments)
    assert result.exit_code == 0, result.stderr
    assert "0 of 80 outputs differ" in result.stdout


def test_verify_finds_weights_that_changed(folder, tmp_path):
    _change_a_weight(folder / "model.onnx", tmp_path / "changed.onnx")
    result = run("verify", tmp_path / "changed.onnx", "--against", folder / "program.anafx")
    assert result.exit_code == 1
    assert "differs from the program at" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def _change_a_weight(path, changed):
    model = onnx.load(path)
    *_, weight = (each for each in model.graph.initializer if each.name.endswith(".weight"))
    array = onnx.numpy_helper.to_array(weight).copy()
    array[:, 0] += 1
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(model, changed)


# what `verify` does, without the process that limits it


@pytest.mark.parametrize("inputs", ["floats.npy", "levels.npy", "inputs.npz", "reals.npz"])
def test_inputs_are_floats_or_integers_in_either_form(folder, inputs):
    report = verify_files(folder / "model.onnx", folder / "program.anafx", [folder / inputs])
    assert (report.num_outputs, report.num_different) == (80, 0)


@pytest.mark.parametrize(
    ("against", "numbers"), [("program.anafx", 160), ("other.onnx", 160), ("reals.npz", 80), ("integers.npz", 80)]
)
def test_no_inputs_are_needed(folder, tmp_path, against, numbers):
    report = verify_files(folder / "model.onnx", folder / against)
    assert (report.num_outputs, report.num_different) == (numbers, 0)
    _change_a_weight(folder / "model.onnx", tmp_path / "changed.onnx")
    with pytest.raises(ana_fx.VerifyError, match="differs from the program at"):
        verify_files(tmp_path / "changed.onnx", folder / against)


def test_a_file_whose_last_layer_is_float_is_compared_with_its_program(tmp_path):
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)), torch.rand(4, 3, 6, 6)
    precision = ana_fx.Precision("int4", "uint4", output="float")
    program = ana_fx.convert(ana_fx.prepare(model, x, precision=precision, calibration=[x]))
    ana_fx.export(program, tmp_path / "model.onnx")
    ana_fx.save(program, tmp_path / "program.anafx")
    np.save(tmp_path / "x.npy", x.numpy())
    for inputs in ([], [tmp_path / "x.npy"]):
        assert verify_files(tmp_path / "model.onnx", tmp_path / "program.anafx", inputs).num_different == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
@pytest.mark.parametrize("program", ["program.pt2", "program.pt"])
def test_programs_of_torch_run_only_if_their_code_is_trusted(folder, program):
    files = (folder / "model.onnx", folder / program, [folder / "floats.npy"])
    with pytest.raises(ana_fx.VerifyError, match="programs that torch saved hold code"):
        verify_files(*files)
    assert verify_files(*files, trusts_code=True).num_different == 0


def test_errors_are_one_line_without_a_traceback(folder, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x07 not onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    np.save(tmp_path / "wrong.npy", np.zeros((2, 3), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "bad.pt2").write_bytes(b"nothing")
    for result, reason in (
        (run("inspect", tmp_path / "bad.onnx"), "cannot load"),
        (run("inspect", tmp_path / "empty.onnx"), "it holds no graph"),
        (run("inspect", tmp_path / "none.onnx"), "No such file"),
        (run("verify", folder / "model.onnx", "--against", tmp_path / "bad.pt2"), "hold code"),
    ):
        assert result.exit_code == 1
        assert reason in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    wrong, objects = [tmp_path / "wrong.npy"], [tmp_path / "objects.npy"]
    for against, inputs, reason in (
        ("program.anafx", wrong, "was given float32 (2, 3)"),
        ("program.anafx", objects, "numpy.save"),
        ("none.onnx", [], "No such file"),
        ("inputs.npz", [], "found x, needed output"),
    ):
        with pytest.raises(ana_fx.VerifyError) as caught:
            verify_files(folder / "model.onnx", folder / against, inputs)
        assert reason in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('pickled code was run')",)


def test_a_torch_program_under_another_name_is_not_loaded(folder, tmp_path):
    for name in ("program.pt2", "program.pt"):
        shutil.copy(folder / name, tmp_path / "program.anafx")
        with pytest.raises(ana_fx.VerifyError, match=r"needed a file that ana_fx\.save wrote"):
            verify_files(folder / "model.onnx", tmp_path / "program.anafx")


def _pickled_bomb():
    buffer = io.BytesIO()
    torch.save(Bomb(), buffer, pickle_module=pickle)
    return buffer.getvalue()


def test_external_data_are_refused(tmp_path):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/hostname")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "external",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [tensor],
    )
    (tmp_path / "a.onnx").write_bytes(helper.make_model(graph, ir_version=9).SerializeToString())
    result = run("inspect", tmp_path / "a.onnx")
    assert "keeps tensors in other files" in result.stderr


def test_export_goes_from_a_state_to_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    torch.save(trained(Chain).state_dict(), "state.pt")
    np.save("example.npy", example(Chain).numpy())
    arguments = ("--state", "state.pt", "--example", "example.npy", "--precision", "int4")
    result = run("export", "tests.models:Chain", "out.onnx", *arguments)
    assert result.exit_code == 0, result.stderr
    assert "QLinearConv" in result.stdout
    assert ana_fx.verify(converted(Chain), "out.onnx").num_different == 0


def saved(tmp_path, monkeypatch, precision="ternary", target="integer"):
    """A trained state and example inputs, in the folder that the command runs in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    qat = trained(Chain, precision, target=target)
    torch.save(qat.state_dict(), "state.pt")
    np.save("example.npy", example(Chain).numpy())
    return qat


def export_of(state="state.pt", example="example.npy", *more):
    return run("export", "tests.models:Chain", "out.onnx", "--state", state, "--example", example, *more)


def test_export_takes_its_settings_from_the_state(tmp_path, monkeypatch):
    qat = saved(tmp_path, monkeypatch)
    result = export_of()
    assert result.exit_code == 0, result.stderr
    assert ana_fx.verify(ana_fx.convert(qat), "out.onnx").num_different == 0


def test_export_takes_the_type_of_the_input_from_the_state(tmp_path, monkeypatch):
    qat = saved(tmp_path, monkeypatch)
    np.save("example.npy", example(Chain).numpy() - 0.5)
    result = export_of()
    assert result.exit_code == 0, result.stderr
    assert ana_fx.verify(ana_fx.convert(qat), "out.onnx").num_different == 0


@pytest.mark.parametrize(
    ("option", "given", "difference"),
    [
        ("--precision", "int8", "0.weight_quantizer: the state has ternary [-1, 1], nearest, the model int8"),
        ("--prepared-for", "onnxruntime", "the state has shift in 64 bits"),
    ],
)
def test_export_refuses_what_contradicts_the_state(option, given, difference, tmp_path, monkeypatch):
    saved(tmp_path, monkeypatch)
    result = export_of("state.pt", "example.npy", option, given)
    assert result.exit_code == 1
    assert difference in result.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_export_needs_the_settings_of_a_state_that_tells_none(tmp_path, monkeypatch):
    qat = saved(tmp_path, monkeypatch)
    state = {name: tensor for name, tensor in qat.state_dict().items() if name != "quantization_settings"}
    torch.save({"model": state}, "old.pt")
    result = export_of("old.pt")
    assert result.exit_code == 1
    assert "old.pt does not tell its settings; needed --precision and --prepared-for" in result.stderr
    result = export_of("old.pt", "example.npy", "--precision", "ternary", "--prepared-for", "integer")
    assert result.exit_code == 0, result.stderr
    assert ana_fx.verify(ana_fx.convert(qat), "out.onnx").num_different == 0


@pytest.mark.parametrize("state", [[1, 2], {"model": 3}, {1: torch.ones(2)}])
def test_a_state_that_is_none_is_refused(state, tmp_path, monkeypatch):
    saved(tmp_path, monkeypatch)
    torch.save(state, "wrong.pt")
    result = export_of("wrong.pt")
    assert result.exit_code == 1
    assert "cannot load wrong.pt" in result.stderr


def test_export_saves_the_program_for_verify(tmp_path, monkeypatch):
    saved(tmp_path, monkeypatch, "int4", "onnxruntime")
    assert export_of("state.pt", "example.npy", "--precision", "int4", "--save", "out.anafx").exit_code == 0
    x = example(Chain)
    assert torch.equal(ana_fx.load("out.anafx")(x), converted(Chain)(x))


@pytest.mark.parametrize(
    ("model", "reason"),
    [("nowhere:Model", "cannot import"), ("tests.models:example", "missing"), ("builtins:dict", "made dict, needed a")],
)
def test_a_model_that_cannot_be_made_is_refused(tmp_path, model, reason):
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    result = run("export", model, tmp_path / "a.onnx", "--state", tmp_path / "s.pt", "--example", tmp_path / "x.npy")
    assert result.exit_code == 1
    assert reason in (result.stderr or str(result.exception))
    assert not (tmp_path / "a.onnx").exists()


def test_a_state_with_code_is_refused(tmp_path):
    (tmp_path / "s.pt").write_bytes(_pickled_bomb())
    np.save(tmp_path / "x.npy", example(Chain).numpy())
    arguments = ("--state", tmp_path / "s.pt", "--example", tmp_path / "x.npy")
    result = run("export", "tests.models:Chain", tmp_path / "a.onnx", *arguments)
    assert result.exit_code == 1
    assert "needed the state_dict of the prepared model" in result.stderr


@pytest.mark.parametrize("wrong", [["one"], ["a"] * 11])
def test_labels_that_are_not_one_for_each_channel_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=f"{len(wrong)} labels for outputs with"):
        ana_fx.export(converted(Chain), tmp_path / "a.onnx", labels=wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_said():
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"ana-fx {ana_fx.__version__}, torch {torch.__version__}")


def test_operators_are_listed():
    result = run("operators")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("nn.Conv2d", "F.relu", "x.mean()"))


def test_verify_runs_a_file_in_each_runtime_that_is_named(folder, tmp_path):
    ana_fx.export(converted(Chain), tmp_path / "integer.onnx", target="integer")
    arguments = ("--inputs", folder / "floats.npy", "--against", folder / "program.anafx")
    runtimes = ("--runtimes", "onnxruntime", "--runtimes", "onnx.reference")
    result = run("verify", tmp_path / "integer.onnx", *arguments, *runtimes)
    assert result.exit_code == 0, result.stderr
    assert "(onnxruntime " in result.stdout
    assert ", onnx.reference " in result.stdout


@pytest.mark.parametrize("against", ["program.anafx", "integers.npz", "other.onnx"])
def test_verify_runs_a_file_in_all_runtimes_of_its_target_that_are_installed(folder, tmp_path, against):
    ana_fx.export(converted(Chain), tmp_path / "integer.onnx", target="integer")
    report = verify_files(tmp_path / "integer.onnx", folder / against)
    assert [title.partition(" ")[0] for title in report.runtimes] == ["onnxruntime", "onnx.reference"]
    assert (report.different, report.not_run) == ((0, 0), ())


def without_package(monkeypatch, *missing):
    """Have these packages be not installed, as far as runtimes see."""

    def imported(name):
        if name in missing:
            raise ImportError(f"No module named {name!r}")
        return import_module(name)

    monkeypatch.setattr(base_runtime, "import_module", imported)


def test_verify_says_which_runtime_of_the_target_is_not_installed(folder, tmp_path, monkeypatch):
    ana_fx.export(converted(Chain), tmp_path / "integer.onnx", target="integer")
    without_package(monkeypatch, "onnx")
    report = verify_files(tmp_path / "integer.onnx", folder / "program.anafx")
    assert report.not_run == ("onnx.reference",)
    assert str(report).endswith("; not run in onnx.reference, for lack of a package)")


def test_verify_is_refused_where_no_runtime_of_the_target_is_installed(folder, tmp_path, monkeypatch):
    ana_fx.export(converted(Chain), tmp_path / "integer.onnx", target="integer")
    without_package(monkeypatch, "onnx", "onnxruntime")
    with pytest.raises(ana_fx.VerifyError, match="runtime 'onnxruntime' needs the package 'onnxruntime'"):
        verify_files(tmp_path / "integer.onnx", folder / "program.anafx")


def test_the_runtime_in_which_an_output_differs_is_named(folder, tmp_path):
    ana_fx.export(converted(Chain), tmp_path / "integer.onnx", target="integer")
    arrays = dict(np.load(folder / "integers.npz"))
    np.savez(tmp_path / "wrong.npz", x=arrays["x"], output=arrays["output"] + 1)
    with pytest.raises(ana_fx.VerifyError, match="output 'output' in onnxruntime differs from the program at"):
        verify_files(tmp_path / "integer.onnx", tmp_path / "wrong.npz")


def test_a_misspelt_runtime_is_answered_in_one_line(folder):
    arguments = ("--inputs", folder / "floats.npy", "--against", folder / "program.anafx")
    result = run("verify", folder / "model.onnx", *arguments, "--runtimes", "onxruntime")
    assert result.exit_code == 1
    assert result.stderr.strip().endswith("'reference-kernels'")
    assert "did you mean 'onnxruntime'?" in result.stderr


NO_FUNCTIONS = {
    "a number": ("sys:maxsize", "'sys:maxsize' is 9223372036854775807, needed a function that makes the model"),
    "a function that raises": ("builtins:iter", "'builtins:iter' raised TypeError: iter expected"),
    "a module that raises": ("antigravity_that_is_not_there:make", "cannot import"),
}


@pytest.mark.parametrize(("reference", "reason"), NO_FUNCTIONS.values(), ids=NO_FUNCTIONS)
def test_what_makes_no_model_is_answered_in_one_line(tmp_path, reference, reason):
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    result = run("export", reference, tmp_path / "a.onnx", "--state", tmp_path / "s", "--example", tmp_path / "x.npy")
    assert result.exit_code == 1
    assert reason in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["state.pt", "state.pt2"])
def test_a_state_in_place_of_a_program_is_not_loaded(folder, tmp_path, name):
    torch.save(trained(Chain).state_dict(), tmp_path / name)
    result = run("verify", folder / "model.onnx", "--inputs", folder / "floats.npy", "--against", tmp_path / name)
    assert result.exit_code == 1
    assert f"{name} is not loaded: programs that torch saved hold code" in result.stderr


def test_report_writes_a_page_and_its_data_beside_the_program(folder, tmp_path):
    page = tmp_path / "net.html"
    options = ["--output", page, "--file", folder / "model.onnx", "--inputs", folder / "floats.npy"]
    result = run("report", folder / "program.anafx", *options)
    assert result.exit_code == 0, result.output
    assert "layer maps" in result.stdout
    assert "model.onnx" in page.read_text()
    assert page.with_suffix(".json").exists()


def test_report_of_what_is_no_program_is_refused_in_one_line(folder, tmp_path):
    result = run("report", folder / "model.onnx", "--output", tmp_path / "net.html")
    assert result.exit_code == 1
    assert "needed a file that ana_fx.save wrote" in result.stderr
