"""The K-quantizer of equation 1, held against the sum of Heavisides that it is, and its step against a finer search."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ana_fx.numerics.codebook import Codebook, codebook_scale
from ana_fx.numerics.integer_type import IntegerType

CODEBOOKS = [Codebook((-1, 1), (0.0,)), Codebook((0, 1), (0.0,)), Codebook((-4, -1, 0, 1, 4), (-2.5, -0.5, 0.3, 2.0))]


def plainly(u: float, codebook: Codebook) -> int:
    """Equation 1, one number at a time."""
    heavisides = [u >= threshold for threshold in codebook.thresholds]
    jumps = [high - low for low, high in itertools.pairwise(codebook.values)]
    return codebook.values[0] + sum(jump * step for jump, step in zip(jumps, heavisides, strict=True))


@pytest.mark.parametrize("codebook", CODEBOOKS, ids=str)
def test_levels_are_sums_of_heavisides_that_are_1_at_0(codebook):
    u = torch.cat([torch.linspace(-6, 6, 97), torch.tensor(codebook.thresholds)])
    assert codebook.level(u).tolist() == [plainly(each, codebook) for each in u.tolist()]


@given(st.lists(st.integers(-128, 127), min_size=2, max_size=16, unique=True), st.floats(-200, 200))
def test_a_higher_number_has_no_lower_level_and_every_level_is_one_of_the_codebook(levels, u):
    codebook = IntegerType.of_levels(sorted(levels)).codebook
    low, high = codebook.level(torch.tensor([u, u + 1.0])).tolist()
    assert low <= high
    assert {low, high} <= set(levels)


@pytest.mark.parametrize("codebook", CODEBOOKS, ids=str)
def test_the_step_has_no_more_error_than_those_of_a_fine_grid(codebook):
    x = torch.randn(2, 500)
    found = codebook_scale(x, codebook)
    for row, step in zip(x, found, strict=True):
        grid = step * torch.logspace(-2, 2, 401)
        errors = [float((codebook.level(row / s).mul(s) - row).square().sum()) for s in [step, *grid]]
        assert errors[0] <= min(errors) * 1.02  # the search is of a grid too: within 2 % of the least


def test_the_step_of_a_sign_is_the_mean_magnitude():
    x = torch.randn(1, 1000)
    assert np.isclose(
        float(codebook_scale(x, CODEBOOKS[0])), float(x.abs().mean()), rtol=1e-5
    )  # Lloyd's update is exact


def test_rows_of_zeros_have_a_step():
    assert codebook_scale(torch.zeros(2, 4), CODEBOOKS[1]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("levels", "thresholds", "reason"),
    [
        ([1], None, "has 2 to 16 levels"),
        (list(range(17)), None, "has 2 to 16 levels that rise"),
        ([0, 0, 1], None, "levels that rise"),
        ([0, 1, 2], [0.5], "3 levels have 2 thresholds between them"),
        ([0, 1, 2], [1.5, 0.5], "finite and rising"),
        ([0, 300], None, "1 to 8 bits"),
        ([0, 0.5], None, "which are integers"),
    ],
)
def test_a_codebook_that_is_none_is_refused(levels, thresholds, reason):
    with pytest.raises(ValueError, match=reason):
        IntegerType.of_levels(levels, thresholds)


def test_one_bit_is_two_levels_with_the_threshold_0():
    assert IntegerType.parse("bipolar").codebook == CODEBOOKS[0]
    assert IntegerType(bits=1, signed=False).codebook == CODEBOOKS[1]
    assert [str(IntegerType.parse(name)) for name in ("bipolar", "uint1")] == ["bipolar", "uint1"]


def rows_of_levels(most: int = 16):
    """Levels of some channels, not more than `most` together."""
    some = st.lists(st.sampled_from(range(-8, most - 8)), min_size=2, max_size=5, unique=True).map(sorted)
    return st.lists(some, min_size=2, max_size=4)


@given(rows_of_levels(), st.data())
def test_a_codebook_of_channels_is_that_of_each(levels, data):
    rows = [
        sorted(data.draw(st.sets(st.floats(-9, 9), min_size=len(row) - 1, max_size=len(row) - 1))) for row in levels
    ]
    joined = IntegerType.of_levels(levels, rows)
    u = torch.tensor(data.draw(st.lists(st.floats(-10, 10), min_size=1, max_size=5)), dtype=torch.float64)
    u = torch.cat([u, torch.tensor([*rows[0], -1e6, 1e6], dtype=torch.float64)]).expand(len(levels), -1)
    found = joined.codebook.along(0, 2).level(u)
    own = [IntegerType.of_levels(row, between).codebook for row, between in zip(levels, rows, strict=True)]
    assert found.tolist() == [[plainly(each, codebook) for each in u[0].tolist()] for codebook in own]


def test_levels_of_channels_with_one_row_of_thresholds_have_it_all():
    found = IntegerType.of_levels([[0, 1], [0, 4]], [0.25])
    assert (found.levels, found.thresholds) == ((0, 1, 4), ((0.25, float("inf")), (0.25, 0.25)))


@pytest.mark.parametrize(
    ("levels", "thresholds", "reason"),
    [
        ([0, 1, 2], [[0.5, 1.5], [1.5, 0.5]], "none below another, got 1.5, 0.5 for channel 1"),
        ([0, 1, 2], [[0.5], [0.5, 1.5]], "3 levels have 2 thresholds between them, for each of 2 channels"),
        ([0, 1], [[float("nan")], [0.0]], "got nan for channel 0"),
        ([[0, 1], [0, 2]], [[0.5]], "levels of 2 channels have as many rows of thresholds, got 1"),
        ([list(range(9)), list(range(9, 18))], None, "has 2 to 16 levels"),
        ([[0, 1], [1]], None, "has 2 to 16 levels"),
    ],
)
def test_a_codebook_of_channels_that_is_none_is_refused(levels, thresholds, reason):
    with pytest.raises(ValueError, match=reason):
        IntegerType.of_levels(levels, thresholds)
