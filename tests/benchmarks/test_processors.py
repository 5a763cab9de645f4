"""The files on every processor: what is compared, what is counted, and what is said where something is missing."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from benchmarks import processor_packages, processors
from benchmarks.compare_files import compare
from benchmarks.networks import LINEAR, PRODUCTS, Network
from benchmarks.processor_cases import ALL, BATCH, FEW, Case, write_cases
from benchmarks.processor_columns import COLUMNS, Outcome, run_column
from benchmarks.processor_packages import NotRunError, web_packages
from benchmarks.processor_table import differences, report

CASE = Case(LINEAR, "ternary", "onnxruntime")
COLUMN = {column.name: column for column in COLUMNS}
NUM_OUTPUTS = 10 * BATCH


def written(folder: Path, *cases: Case) -> list[dict]:
    assert list(write_cases(cases, folder)) == list(cases)
    return json.loads((folder / "cases.json").read_text())


def saturating(folder: Path, weight_type: type, zero_point: int) -> None:
    """A file of one product, of numbers whose pairs leave 16 bits, as a folder of one case."""
    weight = np.full((4, 2), 127 + zero_point, weight_type)
    constants = {"w": weight, "zero_x": np.uint8(0), "zero_w": weight_type(zero_point)}
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", *constants], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["N", 2])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "p.onnx")
    tensors = {"x": np.full((3, 4), 255, np.uint8), "y": np.full((3, 2), 4 * 255 * 127, np.int32)}
    for name, array in tensors.items():
        array.tofile(folder / name)
    x, y = ({"name": k, "type": str(v.dtype), "shape": v.shape, "file": k} for k, v in tensors.items())
    (folder / "cases.json").write_text(json.dumps([{"name": "p", "model": "p.onnx", "inputs": [x], "outputs": [y]}]))


def test_the_zoo_has_every_target_and_precision_for_every_network():
    assert len({case.name for case in ALL}) == len(ALL) == 9 * 4 * 3
    assert set(FEW) < set(ALL)


def test_the_machine_itself_gives_what_the_program_gives(tmp_path):
    written(tmp_path, CASE, replace(CASE, target="qdq"), replace(CASE, network=PRODUCTS))
    found = compare(tmp_path)["cases"]
    assert [each["different"] for each in found.values()] == [0, 0, 0]
    assert [each["compared"] for each in found.values()] == [NUM_OUTPUTS, NUM_OUTPUTS, 2 * 81 * BATCH]


def test_inputs_reach_both_ends_in_one_sample_each_and_together(tmp_path):
    (entry,) = written(tmp_path, replace(CASE, network=replace(LINEAR, is_signed=True)))
    (tensor,) = entry["inputs"]
    x = np.fromfile(tmp_path / tensor["file"], tensor["type"]).reshape(tensor["shape"])
    low, high = x.min(), x.max()
    assert (low, high) == (-128, 127)
    assert (x[0] == high).all()
    assert (x[1] == low).all()
    assert set(np.unique(x[2 : BATCH // 2])) == {low, high}
    assert len(np.unique(x[BATCH // 2 :])) > 200


def test_an_output_that_differs_is_counted(tmp_path):
    (entry,) = written(tmp_path, CASE)
    path = tmp_path / entry["outputs"][0]["file"]
    expected = np.fromfile(path, np.int32)
    expected[[3, 5]] += 1
    expected.tofile(path)
    assert compare(tmp_path)["cases"][CASE.name] == {"different": 2, "compared": NUM_OUTPUTS}


def test_outputs_of_another_type_all_differ(tmp_path):
    (entry,) = written(tmp_path, CASE)
    entry["outputs"][0]["type"] = "uint32"
    (tmp_path / "cases.json").write_text(json.dumps([entry]))
    assert compare(tmp_path)["cases"][CASE.name]["different"] == NUM_OUTPUTS


def test_a_file_that_cannot_be_loaded_is_a_reason(tmp_path):
    (entry,) = written(tmp_path, CASE)
    (tmp_path / entry["model"]).write_bytes(b"no model")
    assert "INVALID_PROTOBUF" in compare(tmp_path)["cases"][CASE.name]["error"]


def test_a_network_that_gives_the_same_for_every_input_shows_nothing_and_is_refused(tmp_path):
    dead = nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    nn.init.constant_(dead[0].bias, -100)
    case = Case(Network("dead", lambda: dead, (8, 64)), "int8", "onnxruntime")
    with pytest.raises(AssertionError, match="dead, int8, onnxruntime does not see its input"):
        written(tmp_path, case)


@pytest.mark.parametrize(("name", "way_out"), [("haswell", "install qemu-user"), ("wasm", "install Node.js with npm")])
def test_what_is_missing_is_named_with_the_way_out(name, way_out, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    outcome = run_column(COLUMN[name], tmp_path, tmp_path)
    assert (outcome.reason, outcome.is_clean) == (way_out, False)


def test_a_worker_that_fails_is_a_reason(tmp_path):
    assert "cases.json" in run_column(COLUMN["native"], tmp_path, tmp_path).reason


def test_a_package_manager_that_fails_is_a_reason_and_leaves_nothing(monkeypatch, tmp_path):
    """A manager that writes half of its work, and fails."""
    npm = tmp_path / "npm"
    npm.write_text('#!/bin/sh\ntouch "$3/half"\necho warning >&2\necho "npm error no network" >&2\nexit 1\n')
    npm.chmod(0o755)
    monkeypatch.setattr(processor_packages, "needed", lambda *_: str(npm))
    with pytest.raises(NotRunError, match=r"^npm failed: npm error no network$"):
        web_packages(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_is_in_the_cache_is_not_fetched_again(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(processor_packages, "needed", lambda *_: calls.append(1) or "true")
    assert web_packages(tmp_path) == web_packages(tmp_path)
    assert len(calls) == 1


def test_the_table_has_a_row_for_each_file_and_a_column_for_each_processor():
    other = replace(CASE, target="qdq")
    native = Outcome(COLUMN["native"], "onnxruntime 1", {each.name: equal(0) for each in (CASE, other)})
    haswell = Outcome(COLUMN["haswell"], "onnxruntime 1", {CASE.name: equal(7), other.name: {"error": "too new"}})
    missing = Outcome(COLUMN["wasm"], reason="install Node.js with npm")
    lines = report([CASE, other], [native, haswell, missing]).splitlines()
    assert "| linear | ternary | onnxruntime | 160 | 0 | **7** | – |" in lines
    assert "| linear | ternary | qdq | 160 | 0 | refused | – |" in lines
    assert "- haswell: linear, ternary, qdq: refused: too new" in lines
    assert any("| not run: install Node.js with npm |" in line for line in lines)
    assert any(line.startswith("| haswell |") and line.endswith("| onnxruntime 1 | 7 of 160 |") for line in lines)


def equal(num_different: int) -> dict[str, int]:
    return {"different": num_different, "compared": NUM_OUTPUTS}


def test_a_check_says_what_differs_and_fails(monkeypatch, capsys):
    monkeypatch.setattr(processors, "FEW", (CASE,))
    assert processors.main(["--only", "native", "--few", "--check"]) == 0
    assert "native: 0 outputs differ in 1 files" in capsys.readouterr().out
    broken = Outcome(COLUMN["native"], "onnxruntime 1", {CASE.name: equal(7)})
    monkeypatch.setattr(processors, "run_column", lambda *_: broken)
    assert processors.main(["--only", "native", "--few", "--check"]) == 1
    assert "native: linear, ternary, onnxruntime: 7 of 160 outputs differ" in capsys.readouterr().out


def test_a_part_of_the_table_is_printed_and_the_whole_is_written(monkeypatch, capsys, tmp_path):
    for name in ("ALL", "FEW"):
        monkeypatch.setattr(processors, name, (CASE,))
    monkeypatch.setattr(processors, "REPORT", tmp_path / "docs" / "processors.md")
    monkeypatch.setattr(processors, "run_column", lambda column, *_: Outcome(column, reason="none"))
    assert processors.main(["--few"]) == 0
    assert not processors.REPORT.exists()
    assert processors.main([]) == 0
    assert processors.REPORT.read_text() in capsys.readouterr().out.replace(f"{processors.REPORT} is written\n", "")


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("qemu-x86_64") or platform.machine() != "x86_64", reason="needs qemu-user on an x86 machine"
)
@pytest.mark.parametrize(("name", "found"), [("haswell", ["haswell: p: 6 of 6 outputs differ"]), ("nehalem", [])])
def test_only_the_kernels_of_avx2_add_products_in_16_bits(name, found, tmp_path):
    """Of bytes with a sign times bytes without; two without are exact everywhere."""
    saturating(tmp_path, np.int8, 0)
    assert differences([run_column(COLUMN[name], tmp_path, tmp_path)]) == found
    saturating(tmp_path, np.uint8, 128)
    assert differences([run_column(COLUMN[name], tmp_path, tmp_path)]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cortex-a72", "neoverse-n1", "wasm"])
def test_foreign_programs_run_the_files(name, monkeypatch, tmp_path):
    """Those that `make processors` fetched: a test fetches nothing."""

    def only_fetched(folder: Path, _: object) -> Path:
        if not folder.exists():
            pytest.skip("needs what `make processors` fetches")
        return folder

    monkeypatch.setattr(processor_packages, "_kept", only_fetched)
    written(tmp_path, CASE)
    outcome = run_column(COLUMN[name], tmp_path, processors.CACHE)
    if outcome.reason.startswith("install"):
        pytest.skip(outcome.reason)
    assert differences([outcome]) == []
    assert outcome.cases == {CASE.name: equal(0)}
