"""The staircase of a codebook gives each accumulator the level of the real number that it stands for."""

from fractions import Fraction

import pytest
import torch

from ana_fx.numerics.codebook import Codebook
from ana_fx.numerics.levels import Levels
from ana_fx.requantizers.line_fit import LineFit
from ana_fx.requantizers.threshold_staircase import fit_thresholds

CODEBOOKS = [Codebook((-1, 1), (0.0,)), Codebook((0, 1, 3, 8), (0.5, 2.0, 5.5))]


def line(gain, offset, y_scale=0.5):
    gain, offset = (torch.tensor(each, dtype=torch.float64) for each in (gain, offset))
    return LineFit(gain, offset, torch.tensor(0.25), torch.tensor(y_scale), Levels(0, 1, 0.5), 1000)


@pytest.mark.parametrize("codebook", CODEBOOKS, ids=str)
@pytest.mark.parametrize("gain", [0.5, -0.5, 0.03125, -3.0])
@pytest.mark.parametrize("offset", [0.0, 1.0, -0.375, 100.0])
def test_each_accumulator_has_the_level_of_its_real_number(codebook, gain, offset):
    staircase, sign = fit_thresholds(line([gain], [offset]), codebook)
    accumulators = torch.arange(-1000, 1001)
    found = staircase.level((accumulators * sign.long())[None], 0)[0]
    steps = [(Fraction(gain) * Fraction(0.25) * a + Fraction(offset)) / Fraction(0.5) for a in accumulators.tolist()]
    wanted = [codebook.values[sum(step >= Fraction(each) for each in codebook.thresholds)] for step in steps]
    assert found.tolist() == wanted


def test_a_flat_channel_is_a_constant():
    staircase, sign = fit_thresholds(line([0.0, 0.0], [1.0, -1.0]), CODEBOOKS[0])
    assert sign.tolist() == [0.0, 0.0]
    assert staircase.level(torch.tensor([[-900, 900], [-900, 900]]) * 0, 0).tolist() == [[1.0, 1.0], [-1.0, -1.0]]
