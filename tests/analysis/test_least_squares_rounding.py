"""Rounding for the outputs: better than the nearest level, the best there is where all can be tried."""

import itertools

import torch

from ana_fx.analysis.least_squares_rounding import LeastSquares, round_rows


def problem(groups=2, samples=200, inputs=3, rows=2):
    x = torch.randn(groups, samples, inputs) @ torch.randn(groups, inputs, inputs)  # inputs that are correlated
    w = torch.randn(groups, rows, inputs)
    return LeastSquares.of(x, x @ w.mT + torch.randn(rows), w), w


def test_the_weights_with_the_least_error_are_those_that_made_the_outputs():
    found, w = problem()
    # float32 sums of 200 terms err by 200 · 2⁻²⁴, and damping lets that grow a hundredfold at most
    torch.testing.assert_close(found.best, w.double(), atol=2e-3, rtol=0)


def test_samples_that_tell_nothing_leave_the_weights():
    w = torch.randn(1, 2, 3)
    found = LeastSquares.of(torch.zeros(1, 50, 3), torch.zeros(1, 50, 2), w)
    torch.testing.assert_close(found.best, w.double())


def test_no_other_levels_are_better_where_all_can_be_tried():
    found, w = problem()
    scales = w.abs().amax(2, keepdim=True) / 2
    rounded = round_rows(found, scales, -2, 2)
    error = found.error(rounded.levels * rounded.scales)
    all_levels = torch.tensor(list(itertools.product(range(-2, 3), repeat=3)), dtype=torch.float64)
    for group, row in itertools.product(range(2), range(2)):
        alone = LeastSquares(found.curvature[[group]], found.best[[group]][:, [row]])
        every = torch.stack([alone.error(each[None, None] * rounded.scales[group, row]) for each in all_levels])
        torch.testing.assert_close(error[group, row], every.min())


def test_outputs_are_better_than_those_of_the_nearest_levels():
    found, w = problem(groups=1, inputs=30, rows=8)
    scales = w.abs().amax(2, keepdim=True) / 7
    nearest = torch.round(w / scales).clamp(-8, 7).double() * scales.double()
    rounded = round_rows(found, scales, -8, 7)
    assert found.error(rounded.levels * rounded.scales).sum() < 0.5 * found.error(nearest).sum()


def test_one_step_stays_one_step():
    found, w = problem()
    rounded = round_rows(found, (w.abs().max() / 7).reshape(1, 1, 1), -8, 7)
    assert rounded.scales.shape == (1, 1, 1)
    assert int(rounded.levels.min()) >= -8
    assert int(rounded.levels.max()) <= 7
    assert torch.equal(rounded.levels, rounded.levels.round())
