"""Dialects are tables: what stands in them is what targets say they have, and nothing is found by its base."""

from dataclasses import dataclass

import pytest

from ana_fx.operators.sum import Sum
from ana_fx.program.data_movement import Reshape
from ana_fx.target_registry import targets
from ana_fx.targets.dialects.integer import INTEGER
from ana_fx.targets.dialects.qdq import QDQ, QDQ_INT8
from ana_fx.targets.dialects.qlinear import ONNXRUNTIME
from ana_fx.targets.onnx.dialect import dialect_of
from ana_fx.targets.program_needs import MODULE_KINDS

TARGETS = [target for target in targets() if target.file_format.suffix == ".onnx"]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_target_says_it_has_what_its_dialect_can_write(target):
    dialect = dialect_of(target)
    kinds = {operator.kind for operator in (*dialect.operators, *dialect.heads)}
    kinds |= {MODULE_KINDS[module] for module in dialect.modules if module in MODULE_KINDS}
    assert target.operators == kinds


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_target_that_holds_floats_has_writers_for_them(target):
    assert bool(dialect_of(target).float_layers) == target.holds_floats


@pytest.mark.parametrize("dialect", [ONNXRUNTIME, QDQ, QDQ_INT8])
def test_dialects_of_standard_operators_share_what_the_integer_one_writes(dialect):
    assert dialect.operators.keys() == INTEGER.operators.keys()


@dataclass(frozen=True)
class SumOfAnother(Sum):
    """An operator that a table of sums must not take for a sum."""


def test_a_class_is_looked_up_as_it_is():
    assert Sum in INTEGER.operators
    assert SumOfAnother not in INTEGER.operators


def test_an_extended_dialect_leaves_the_other_as_it_is():
    def write(w, subject):
        raise NotImplementedError

    extended = INTEGER.extended({SumOfAnother: write, Reshape: write}, opset=21)
    assert (extended.operators[SumOfAnother], extended.modules[Reshape], extended.opset) == (write, write, 21)
    assert SumOfAnother not in INTEGER.operators
    assert INTEGER.modules[Reshape] is not write
    assert INTEGER.opset == 19


def test_tables_are_not_changed_from_outside():
    with pytest.raises(TypeError, match="does not support item assignment"):
        INTEGER.operators[SumOfAnother] = INTEGER.operators[Sum]
