"""The generator: the same model for the same seed, and every production in use."""

import random

import pytest
from torch import nn

from tests.fuzz.builder import Builder, UnfitError
from tests.fuzz.case import BATCH, Case, Statement, load_text
from tests.fuzz.grammar import PRODUCTIONS, draw_case

SHAPES = [(BATCH, 4), (BATCH, 3, 4), (BATCH, 4, 4, 4), (BATCH, 1, 1, 5), (BATCH, 2, 2, 2, 3)]


def test_a_seed_is_a_case():
    assert draw_case(17) == draw_case(17)
    assert draw_case(17) != draw_case(18)


@pytest.mark.parametrize("production", PRODUCTIONS, ids=lambda production: production.__name__)
def test_a_production_adds_a_statement_that_runs(production):
    for seed in range(100):
        b = Builder(random.Random(seed))
        for shape in SHAPES:
            b.add_input(shape, "signed")
        try:
            production(b)
            break
        except UnfitError:
            continue
    inputs = {name: (tuple(x.shape), "signed") for name, x in b.tensors.items() if name.startswith("x")}
    case = Case(0, inputs, tuple(b.statements), b.statements[-1].results[0]).without_dead_code()
    given = [b.tensors[name] for name in case.inputs]
    assert load_text(case).net().eval()(*given).shape == b.tensors[case.outputs].shape


def test_what_nothing_reads_goes():
    relu, double, half = (
        Statement((name,), (), (f"{name} = {code}",))
        for name, code in [("t1", "F.relu(x0)"), ("t2", "x1 * 2"), ("t3", "t1 / 2")]
    )
    inputs = {"x0": ((BATCH, 2), "unit"), "x1": ((BATCH, 2), "unit")}
    case = Case(0, inputs, (relu, double, half), "t3").without_dead_code()
    assert case.statements == (relu, half)
    assert list(case.inputs) == ["x0"]


def test_the_text_of_a_case_is_python_that_makes_a_module():
    assert all(isinstance(load_text(draw_case(seed)).net(), nn.Module) for seed in range(20))
