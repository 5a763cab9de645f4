"""The step with the least squared error, against the best of a dense grid."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ana_fx.layers.fake_quantize import quantize
from ana_fx.numerics import scale_search as scale
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.levels import Levels
from ana_fx.numerics.scale_search import least_squares_scale, positive

TYPES = ["ternary", *(f"int{bits}" for bits in range(2, 9)), *(f"uint{bits}" for bits in range(2, 9))]


def levels_of(name, offset=0.5):
    integer_type = IntegerType.parse(name)
    return Levels(integer_type.qmin, integer_type.qmax, offset)


def squared_error(x, scales, levels):
    """For each step, the squared error of quantising all of x with it."""
    steps = scales.double()[:, None]
    return (
        (x.double() - steps * torch.floor(x.double() / steps + levels.offset).clamp(levels.lo, levels.hi))
        .square()
        .sum(1)
    )


def best_error(x, levels):
    """The least squared error over 5.5 octaves of steps, each 0.3 % larger than the one before."""
    largest = float(x.abs().max()) / max(-levels.lo, levels.hi)
    return squared_error(x, largest * 1.003 ** torch.arange(170, -1100, -1, dtype=torch.float64), levels).min()


def shapes_of_data(count):
    """Numbers as weights and activations are: normal, uniform, heavy-tailed, rectified, lopsided."""
    normal = torch.randn(count)
    return {
        "normal": normal,
        "uniform": torch.rand(count) * 2 - 1,
        "heavy-tailed": normal**3,
        "rectified": normal.relu(),
        "lopsided": normal.exp(),
    }


@pytest.mark.parametrize("shape", shapes_of_data(1))
@pytest.mark.parametrize("name", TYPES)
def test_error_is_within_five_percent_of_the_best(name, shape):
    levels, x = levels_of(name), shapes_of_data(1536)[shape]
    scale = least_squares_scale(x[None], levels)
    # With many levels the error is jagged in the step; the search looks at steps 0.9 % apart.
    assert float(squared_error(x, scale, levels)) <= 1.05 * float(best_error(x, levels))


@pytest.mark.parametrize("name", ["ternary", "int3", "int4", "int8", "uint2", "uint4", "uint8"])
def test_floor_rounding_gets_a_step_of_its_own(name):
    levels, x = levels_of(name, offset=0.0), torch.randn(1536)
    scale = least_squares_scale(x[None], levels)
    # With many levels the error is jagged in the step; the search looks at steps 0.9 % apart.
    assert float(squared_error(x, scale, levels)) <= 1.05 * float(best_error(x, levels))


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), name=st.sampled_from(TYPES), exponent=st.floats(-12.0, 12.0))
def test_numbers_on_a_grid_that_use_its_last_level_give_that_grid(seed, name, exponent):
    torch.manual_seed(seed)
    levels, scale = levels_of(name), torch.tensor(2.0**exponent)
    steps = torch.randint(levels.lo, levels.hi + 1, (500,))
    steps[:2] = torch.tensor([levels.hi, 1])  # with a one in it, no coarser grid holds all of them
    found = least_squares_scale((steps * scale)[None], levels)[0]
    # Σ x·n / Σ n² of numbers x that were rounded once.
    assert float(found) == pytest.approx(float(scale), rel=2.0**-22)
    assert torch.equal(quantize(steps * scale, found, levels), steps.float())


@pytest.mark.parametrize("depth", [16, 255])
def test_pixels_get_the_step_of_pixels(depth):
    pixels = torch.arange(256).clamp_max(depth) / depth
    found = least_squares_scale(pixels[None], Levels(0, depth, 0.5))
    assert torch.equal(quantize(pixels, found, Levels(0, depth, 0.5)), torch.arange(256.0).clamp_max(depth))


@pytest.mark.parametrize("name", ["ternary", "int4", "uint8"])
def test_steps_are_as_large_as_the_numbers(name):
    levels, x = levels_of(name), torch.rand(1, 500)
    expected = least_squares_scale(x, levels)
    assert torch.equal(least_squares_scale(x * 1024, levels), expected * 1024)
    assert torch.equal(least_squares_scale(x / 1024, levels), expected / 1024)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), name=st.sampled_from(TYPES))
def test_each_row_is_on_its_own(seed, name):
    torch.manual_seed(seed)
    rows, levels = torch.randn(6, 50) * torch.logspace(-3, 3, 6)[:, None], levels_of(name)
    together = least_squares_scale(rows, levels)
    apart = torch.cat([least_squares_scale(row[None], levels) for row in rows])
    torch.testing.assert_close(together, apart, rtol=2.0**-22, atol=0)  # float64 sums may be grouped otherwise


def test_rows_of_zeros_get_the_mean_of_the_others():
    rows = torch.randn(4, 50)
    rows[1] = 0.0
    scales = least_squares_scale(rows, levels_of("int4"))
    others = scales[[0, 2, 3]].double().mean()
    assert float(scales[1]) == pytest.approx(float(others), rel=2.0**-23)  # the three were rounded to float32


@pytest.mark.parametrize("name", ["ternary", "int8", "uint4"])
def test_zeros_alone_get_the_step_one(name):
    assert torch.equal(least_squares_scale(torch.zeros(3, 20), levels_of(name)), torch.ones(3))


@pytest.mark.parametrize("bits", range(2, 9))
def test_unsigned_levels_ignore_negative_numbers(bits):
    levels, x = levels_of(f"uint{bits}"), torch.randn(3, 200)
    # The same numbers are rounded; only what is added to every candidate's error differs.
    torch.testing.assert_close(
        least_squares_scale(x, levels), least_squares_scale(x.relu(), levels), rtol=2.0**-22, atol=0
    )


def test_negative_numbers_alone_leave_unsigned_levels_at_the_step_one():
    assert torch.equal(least_squares_scale(-torch.rand(2, 20), levels_of("uint4")), torch.ones(2))


@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e30, 1e37])
def test_extreme_numbers_give_finite_positive_steps(size):
    scale = least_squares_scale(torch.randn(2, 100).clamp(-3, 3) * size, levels_of("int4"))
    assert bool((torch.isfinite(scale) & (scale > 0)).all())


def test_a_long_row_is_sampled_without_moving_the_step_much():
    x, levels = torch.randn(1, 300_000), levels_of("int4")
    scale = least_squares_scale(x, levels)
    error, *others = (float(squared_error(x[0], scale * factor, levels)) for factor in (1.0, 0.9, 0.95, 1.05, 1.1))
    assert error <= 1.02 * min(others)


def test_positive_keeps_a_step_that_crossed_zero_or_reached_it():
    found = positive(torch.tensor([-0.5, 0.5, 0.0]))
    assert found[:2].tolist() == [0.5, 0.5]
    assert 0 < float(found[2]) < 2.0**-50


def plain_search(x, w, levels):
    """The search of `least_squares_scale`, one candidate after the other."""

    def levels_of(step):
        return torch.clamp(torch.floor(x / step[:, None] + levels.offset), levels.lo, levels.hi)

    def error_of(step):
        return (w * (levels_of(step) * step[:, None] - x) ** 2).sum(1)

    best = torch.maximum(x.amax(1) / levels.hi, x.amin(1) / levels.lo)
    for octaves in (scale._COARSE, scale._FINE, scale._FINEST):
        center = best
        for exponent in octaves:
            candidate = center * 2.0**exponent
            best = torch.where(error_of(candidate) < error_of(best), candidate, best)
    for _ in range(scale._NUM_REFINEMENTS):
        n = levels_of(best)
        candidate = (w * x * n).sum(1) / (w * n * n).sum(1)
        best = torch.where(error_of(candidate) < error_of(best), candidate, best)
    return best


@pytest.mark.parametrize(("rows", "columns"), [(1, 5000), (7, 333), (300, 1000)])
@pytest.mark.parametrize("has_weights", [False, True])
@pytest.mark.parametrize("largest", [7, 127])  # with many levels most candidates are left out
def test_candidates_and_rows_that_are_tried_together_give_the_steps_of_a_plain_search(
    rows, columns, has_weights, largest
):
    x, levels = torch.randn(rows, columns), Levels(-largest - 1, largest, 0.5)
    weights = torch.rand(rows, columns) if has_weights else None
    plain = plain_search(x, torch.ones_like(x) if weights is None else weights, levels)
    assert torch.equal(scale.least_squares_scale(x, levels, weights), plain)


def test_candidates_whose_ends_tell_that_they_lose_are_not_tried(monkeypatch):
    tried, errors = [], scale._Rows._errors
    monkeypatch.setattr(scale._Rows, "_errors", lambda self, steps: tried.append(len(steps)) or errors(self, steps))
    scale.least_squares_scale(torch.randn(40, 500), Levels(-127, 127, 0.5))
    assert sum(tried) < len(scale._COARSE) + len(scale._FINE) + len(scale._FINEST)
