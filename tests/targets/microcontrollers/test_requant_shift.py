"""Ranges of levels from clips to an even number of levels."""

import numpy as np
import pytest

from ana_fx.targets.microcontrollers.common_shift import CommonShift
from ana_fx.targets.microcontrollers.requant_shift import requant_steps


def line(shift=0, multiplier=1, offset=0, low=-1000, high=1000):
    return CommonShift(*(np.array([each], dtype=object) for each in (multiplier, offset)), shift,
                       *(np.array([each], dtype=object) for each in (low, high)))  # fmt: skip


@pytest.mark.parametrize(
    ("lo", "hi", "num_steps"),
    [
        (0, 255, 1),
        (0, 3, 1),
        (-8, 7, 1),
        (-128, 127, 1),
        (-1, 1, 2),
        (-127, 127, 2),
        (0, 200, 2),
        (0, 4, 2),
        (-8, 1, 2),
        (-128, 0, 2),
    ],
)
@pytest.mark.parametrize("shift", [0, 3])
def test_one_or_two_even_clips_make_every_range(lo, hi, num_steps, shift):
    steps = requant_steps(line(shift, 3, 5), lo, hi)
    assert len(steps) == num_steps
    accumulators = np.arange(-1000, 1001)
    x = accumulators
    for step in steps:
        addend = int(step.line.offset[0]) - step.half
        total = x * int(step.line.multiplier[0]) + addend + step.half
        x = np.clip(total >> step.line.shift, step.lo, step.hi)
    assert np.array_equal(x, np.clip((3 * accumulators + 5) >> shift, lo, hi))


def test_a_range_that_nothing_exceeds_needs_no_clip_of_its_own():
    (step,) = requant_steps(line(low=0, high=100), 0, 100)
    assert (step.num_levels, step.signed) == (256, False)


def test_a_range_far_from_zero_has_no_clips():
    assert requant_steps(line(), 5, 9) is None
