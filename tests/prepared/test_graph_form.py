"""Which of our graphs a module is."""

from __future__ import annotations

import copy

import pytest
from torch import nn

import ana_fx
from ana_fx.prepared.graph_form import GraphForm, form_of, is_prepared, is_program
from tests.models import Chain
from tests.programs import converted, trained


def test_prepare_convert_and_load_say_what_they_return(tmp_path):
    ana_fx.save(converted(Chain), tmp_path / "a.anafx")
    for program in (converted(Chain), copy.deepcopy(converted(Chain)), ana_fx.load(tmp_path / "a.anafx")):
        assert form_of(program) is GraphForm.PROGRAM
        assert is_program(program)
        assert not is_prepared(program)
    assert is_prepared(copy.deepcopy(trained(Chain)))


@pytest.mark.parametrize("module", [nn.ReLU(), nn.Sequential(nn.ReLU())])
def test_another_module_has_no_form(module):
    module.meta = {"form": GraphForm.PROGRAM}
    assert form_of(module) is None
