"""The tables of TFLite and TOSA: each writer has its limits beside it, and what a table lacks is refused by name."""

from __future__ import annotations

import pytest
from torch import nn

from ana_fx.errors import ExportError
from ana_fx.operators.linear import Linear
from ana_fx.targets.channels_last.upsamplings import NearestResize, SpreadConvolution
from ana_fx.targets.channels_last.writer_dialect import WriterDialect
from ana_fx.targets.tflite import tflite_dialect
from ana_fx.targets.tflite.tflite_dialect import TFLITE
from ana_fx.targets.tosa.tosa_dialect import TOSA
from tests.targets.tflite.test_tflite_program import written

FORMS = {NearestResize, SpreadConvolution}  # of several nodes, each of which has limits of its own


def without(table, kind):
    return {each: entry for each, entry in table.items() if each is not kind}


@pytest.mark.parametrize("dialect", [TFLITE, TOSA])
def test_what_has_a_writer_has_limits(dialect):
    assert set(dialect) - FORMS == set(dialect.limits)


@pytest.mark.parametrize(
    ("dialect", "reason"),
    [
        (WriterDialect(without(TFLITE, Linear), TFLITE.limits), "no writer for Linear, needed one in its table"),
        (WriterDialect(TFLITE, without(TFLITE.limits, Linear)), "no limits for Linear, needed them beside its writer"),
    ],
)
def test_an_operator_that_a_table_lacks_is_refused_by_name(dialect, reason, tmp_path, monkeypatch):
    monkeypatch.setattr(tflite_dialect, "TFLITE", dialect)
    with pytest.raises(ExportError, match=rf"module '0'.*target 'litert' has {reason}"):
        written(tmp_path, nn.Sequential(nn.Linear(4, 2)), 4)
    assert not (tmp_path / "m.tflite").exists()


def test_an_emitter_that_is_no_dialect_of_tflite_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tflite_dialect, "TFLITE", 3)
    with pytest.raises(TypeError, match="of target 'litert' is 3, needed a WriterDialect"):
        written(tmp_path, nn.Sequential(nn.Linear(4, 2)), 4)
