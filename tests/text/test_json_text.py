"""Reports as JSON: every fact, in types that JSON has."""

import json
from pathlib import Path

import ana_fx
from ana_fx.targets.runtimes.kernel_families import KernelFamily
from ana_fx.text.json_text import plain_data
from tests.models import Chain, Residual, example
from tests.programs import converted, trained


def test_a_summary_gives_each_row():
    summary = ana_fx.describe(trained(Residual))
    found = json.loads(summary.to_json())
    assert [row["name"] for row in found["rows"]] == [row.name for row in summary.rows]
    assert found["rows"][0]["scale"] == summary.rows[0].scale


def test_the_reports_of_a_file_give_their_fields(tmp_path):
    program, path = converted(Residual), tmp_path / "model.onnx"
    written = json.loads(ana_fx.export(program, path).to_json())
    assert (written["bytes"], written["path"]) == (path.stat().st_size, str(path))
    assert json.loads(ana_fx.verify(program, path).to_json())["different"] == [0]
    assert json.loads(ana_fx.inspect(path).to_json())["inputs"][0]["name"] == "x"


def test_enumerations_become_values_and_paths_text():
    assert plain_data({1: [KernelFamily.VNNI, Path("a") / "b"]}) == {"1": [KernelFamily.VNNI.value, str(Path("a/b"))]}


def test_every_report_and_what_theory_says_is_json():
    x = example(Chain)
    qat = ana_fx.prepare(Chain(), x, precision="ternary", calibration=[x])
    reports = (
        ana_fx.check_hypotheses(qat),
        ana_fx.compositional_convergence(qat, x, progress=(0.0, 1.0)),
        ana_fx.supported_operators(),
        ana_fx.describe(qat),
    )
    found = [json.loads(each.to_json()) for each in reports]
    assert found[0]["noise"] == str(qat.meta["schedule"].noise)
    assert [each["path"] for each in found[1]["layers"]] == list(ana_fx.annealing_ranges(qat))
    assert "Conv2d" in " ".join(found[2]["modules"])


def test_numbers_that_json_has_no_word_for_are_text():
    assert plain_data([float("inf"), -float("inf"), 0.5]) == ["inf", "-inf", 0.5]
