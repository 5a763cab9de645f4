"""Staircases on which all of TFLite's kernels agree; `requantizers/kernel_fits.py` says which fit is whose."""

import pytest
import torch

from ana_fx.numerics.levels import Levels
from ana_fx.requantizers.agreed_staircase import agreed_channels, fit_agreed
from ana_fx.requantizers.fixed_point_staircase import in_fixed_point
from ana_fx.requantizers.kernel_fits import KERNEL_FITS
from ana_fx.requantizers.line_fit import LineFit
from ana_fx.requantizers.requantizer import Requantizer

BOUND = 600
CHANNELS = 32
OTHERS = (Requantizer.Q31, Requantizer.Q31_HALF_UP, Requantizer.SINGLE_ROUNDING)


def line(num_levels):
    """A line for each channel, that reaches about all levels."""
    torch.manual_seed(0)
    gain = (0.5 + torch.rand(CHANNELS).double()) * num_levels / (2 * BOUND)
    offset = torch.randn(CHANNELS).double()
    return LineFit(gain, offset, torch.tensor(1.0), torch.tensor(1.0), Levels(0, num_levels - 1, 0.5), BOUND)


def every_level(staircase):
    return staircase.level(torch.arange(-BOUND, BOUND + 1).expand(CHANNELS, -1), 0)


def ends():
    return torch.full((CHANNELS,), -BOUND), torch.full((CHANNELS,), BOUND)


@pytest.mark.parametrize(("num_levels", "factor"), [(4, 127), (16, 17), (256, 127), (256, 17)])
def test_all_kernels_give_the_levels_of_a_fit(num_levels, factor):
    staircase, _ = fit_agreed(line(num_levels), factor)
    assert bool(agreed_channels(staircase, *ends()).all())
    levels = every_level(staircase)
    assert all(torch.equal(every_level(in_fixed_point(staircase, each)), levels) for each in OTHERS)


@pytest.mark.parametrize("num_levels", [4, 16, 256])
def test_it_stays_near_its_line(num_levels):
    """A bias off by half an accumulator, at most 1.5 / 2400 of the levels, and a slope by 5 % of them."""
    wanted = line(num_levels)
    staircase, _ = fit_agreed(wanted, 17)
    real = wanted.gain[:, None] * torch.arange(-BOUND, BOUND + 1) + wanted.offset[:, None]
    distance = (every_level(staircase) - real.clamp(0, num_levels - 1)).abs()
    assert float(distance.max()) < 0.5 + num_levels * (1.5 / 2400 + 0.05)


@pytest.mark.parametrize("factor", [2, 3])
def test_two_fold_weights_do_for_a_byte_if_ties_lie_far_apart(factor):
    """As they do behind many products: 2**18 accumulators for 256 levels."""
    torch.manual_seed(0)
    gain = (0.5 + torch.rand(CHANNELS).double()) / 1024
    wide = LineFit(gain, torch.randn(CHANNELS).double(), *torch.ones(2), Levels(-128, 127, 0.5), 2**17)
    staircase, _ = fit_agreed(wide, factor)
    assert bool(agreed_channels(staircase, *(torch.full((CHANNELS,), end) for end in (-(2**17), 2**17))).all())
    assert float((staircase.slope / gain - 1).abs().max()) < 0.005  # half of one in 1024 / 1.5, with chances to spare


@pytest.mark.parametrize("distance", [16.0, 16.1, 511.0, 8171.4287])
def test_a_distance_of_ties_at_a_power_of_two_or_just_below_is_passed(distance):
    """There the first rounding of fixed-point kernels moves a stored accumulator by almost one."""
    gain = torch.full((CHANNELS,), 1.0 / distance, dtype=torch.float64)
    bound = int(300 * distance)
    steep = LineFit(gain, torch.randn(CHANNELS).double(), *torch.ones(2), Levels(-128, 127, 0.5), bound)
    staircase, _ = fit_agreed(steep, 2)
    assert bool(agreed_channels(staircase, *(torch.full((CHANNELS,), end) for end in (-bound, bound))).all())
    assert float((staircase.slope / gain - 1).abs().max()) < 0.02


def test_channels_on_which_kernels_differ_are_told():
    staircase, _ = fit_agreed(line(256), 1)
    differs = torch.stack([every_level(in_fixed_point(staircase, each)) != every_level(staircase) for each in OTHERS])
    assert torch.equal(agreed_channels(staircase, *ends()), ~differs.any(2).any(0))
    assert not bool(agreed_channels(staircase, *ends()).any())


def test_each_formula_that_scales_give_has_a_fit():
    assert set(KERNEL_FITS) == set(Requantizer) - {Requantizer.SHIFT}
