"""What the fuzzer does with a failure: tell it from a refusal, shrink it, write it down, and go on."""

import pytest
import torch

import ana_fx
from ana_fx.layers.table_map import TableMap
from ana_fx.program.program_borders import Dequantize
from tests.fuzz.campaign import Worker
from tests.fuzz.case import BATCH, Case, Statement, load, load_text
from tests.fuzz.corpus import open_sites, write_case
from tests.fuzz.float_model import UnsoundError, scramble
from tests.fuzz.outcome import CRASH, LOSSLESS, MISMATCH, REFUSED, outcome_of
from tests.fuzz.run_one import run_one
from tests.fuzz.shrink import shrink

LINES = ["F.relu(x0)", "self.conv2(t1)", "torch.sigmoid(t2)", "t3.flatten(1)", "self.linear5(t4)"]
MEMBERS = {1: ["self.conv2 = nn.Conv2d(2, 3, 3, padding=1)"], 4: ["self.linear5 = nn.Linear(48, 4)"]}


def case() -> Case:
    """A small network with a table in its middle."""
    statements = [
        Statement((f"t{index + 1}",), tuple(MEMBERS.get(index, [])), (f"t{index + 1} = {line}",))
        for index, line in enumerate(LINES)
    ]
    settings = {"precision": {"weight": "int4", "activation": "uint8"}, "steps": 2, "target": "integer"}
    return Case(5, {"x0": ((BATCH, 2, 4, 4), "signed")}, tuple(statements), "t5", settings)


def test_a_sound_case_is_lossless():
    assert run_one(load_text(case())).kind == LOSSLESS


def test_a_crash_is_shrunk_to_the_line_that_crashes(monkeypatch):
    def crash(*_: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(TableMap, "__init__", crash)
    outcome = run_one(load_text(case()))
    assert outcome.kind == CRASH
    small = shrink(case(), outcome)
    assert [each.lines for each in small.statements] == [("t3 = torch.sigmoid(x0)",)]
    assert (small.settings, small.seed) == ({}, 0)


def test_a_difference_between_two_forms_is_a_mismatch(monkeypatch):
    convert = ana_fx.convert

    def wrong(qat):
        program = convert(qat)
        for each in program.modules():
            if isinstance(each, Dequantize):
                each.scale.mul_(2)
        return program

    monkeypatch.setattr(ana_fx, "convert", wrong)
    outcome = run_one(load_text(case()))
    assert outcome.kind == MISMATCH
    assert "numbers differ" in outcome.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ana_fx.UnsupportedError("fold() has no integer form; needed one of these"), REFUSED),
        (ana_fx.UnsupportedError("no"), CRASH),
        (ana_fx.ConvertError("needed nothing; this is a bug of ana_fx"), CRASH),
        (ana_fx.MismatchError("needed 1, found 2"), MISMATCH),
        (ana_fx.VerifyError("needed 1, found 2"), MISMATCH),
        (ValueError("needed something of torch"), CRASH),
    ],
)
def test_only_a_clear_error_of_ours_is_a_refusal(error, kind):
    assert outcome_of(error, "prepare").kind == kind


def test_what_was_written_may_not_be_refused():
    error = ana_fx.AnaFxError("needed another runtime")
    assert [outcome_of(error, stage).kind for stage in ("export", "file of qdq")] == [REFUSED, CRASH]


def test_a_model_that_does_not_run_in_floats_is_no_case():
    broken = Case(0, {"x0": ((BATCH, 2), "unit")}, (Statement(("t1",), (), ("t1 = x0 @ x0",)),), "t1")
    with pytest.raises(UnsoundError):
        run_one(load_text(broken))


def test_a_case_is_written_and_read(tmp_path):
    outcome = outcome_of(KeyError("planted"), "prepare")
    path = write_case(case(), outcome, tmp_path)
    read = load(path)
    assert (read.inputs, read.settings, read.seed) == (case().inputs, case().settings, 5)
    assert run_one(read).kind == LOSSLESS
    assert open_sites(tmp_path) == set()
    path.write_text(path.read_text().replace("OPEN = None", "OPEN = 'why'"))
    assert open_sites(tmp_path) == {outcome.same}


def test_a_process_that_dies_is_a_crash(tmp_path):
    worker = Worker()
    worker.give("run", 0, tmp_path)
    worker.process.kill()
    found = worker.result()
    assert found.kind == CRASH
    assert "exit code -9" in found.site


def test_weights_stay_when_a_case_shrinks():
    nets = [load_text(each).net() for each in (case(), Case(5, case().inputs, case().statements[1:2], "t2"))]
    for net in nets:
        scramble(net, 5)
    assert torch.equal(nets[0].conv2.weight, nets[1].conv2.weight)
