"""One shift for a layer: the same levels, and 32 bits that are counted to the last."""

import numpy as np
import pytest
import torch

from ana_fx.graph import calls_to, module_of
from ana_fx.operators.sum import Sum
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.targets.microcontrollers.common_shift import CommonShift, common_shift
from tests.models import Chain, Residual
from tests.programs import converted
from tests.targets.dialects.test_integer import staircases


def integers(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=object)


def line(multiplier=(3, -5), offset=(7, 9), shift=2, low=(-100, -10), high=(100, 20)) -> CommonShift:
    return CommonShift(integers(*multiplier), integers(*offset), shift, integers(*low), integers(*high))


def maps(*args, **settings) -> list[IntegerMap]:
    program = converted(*args, **settings)
    return [module_of(node) for node in calls_to(program, IntegerMap)]


@pytest.mark.parametrize("target", ["deeploy", "integer"])
@pytest.mark.parametrize("precision", ["ternary", "int4"])
@pytest.mark.parametrize("kind", [Chain, Residual])
def test_levels_are_those_of_the_program_at_both_ends_and_between(kind, precision, target):
    for module in maps(kind, precision, target=target):
        found = common_shift(module)
        fraction = torch.linspace(0, 1, 301, dtype=torch.float64)[:, None]
        low, high = (each.double() for each in torch.broadcast_tensors(module.lowest, module.highest, module.sign)[:2])
        accumulators = torch.round(low + fraction * (high - low)).long()
        unit = int(module.weight.abs().min()) if isinstance(module.operator, Sum) else 1
        accumulators = accumulators // unit * unit
        wanted = module.multiply_shift.level(accumulators * module.sign, 1).long().numpy()
        sums = accumulators.numpy().astype(object) // unit * found.multiplier + found.offset
        assert np.array_equal(np.clip(sums >> found.shift, module.lo, module.hi), wanted)


def test_a_requantizer_with_a_correction_has_none():
    corrected = staircases(torch.linspace(1e-4, 5e-4, 64).tolist(), "onnxruntime", "nearest")
    (module,) = (module for module in corrected.modules() if isinstance(module, IntegerMap))
    assert common_shift(module) is None


def test_moved_levels_are_higher_by_the_distance():
    low, high = line().level_range
    assert line().moved(5).level_range == (low + 5, high + 5)


def test_level_range_is_that_of_all_channels():
    assert line().level_range == (min((-300 + 7) >> 2, (-100 + 9) >> 2), max((300 + 7) >> 2, (50 + 9) >> 2))


@pytest.mark.parametrize(("lo", "hi", "wanted"), [(-5, 5, (-5, 5)), (-1000, 1000, (-74, 76)), (100, 200, (100, 100))])
def test_clipped_levels_reach_no_further_than_the_line(lo, hi, wanted):
    assert line().clipped(lo, hi) == wanted


TOP = 2**31 - 1


@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        ({"multiplier": (1, 1), "offset": (0, 0), "high": (TOP, 1)}, True),
        ({"multiplier": (1, 1), "offset": (1, 0), "high": (TOP, 1)}, False),
        ({"multiplier": (1, 1), "offset": (-1, 0), "high": (TOP + 1, 1)}, False),  # the product comes first
        ({"shift": 30}, True),
        ({"shift": 31}, False),
        ({"offset": (TOP + 1, 0), "low": (-TOP, 0), "high": (-TOP, 0), "multiplier": (1, 1)}, False),
    ],
)
def test_no_step_of_the_arithmetic_leaves_32_bits(settings, fits):
    assert (line(**settings).misfit() is None) == fits


def test_what_a_kernel_adds_for_rounding_counts_too():
    narrow = line(multiplier=(1, 1), offset=(-TOP, 0), low=(0, 0), high=(0, 0))
    assert narrow.misfit() is None
    assert "needed at most 2147483647 and 30" in narrow.misfit(rounding=2)


def test_uniform_lines_have_one_multiplier_and_one_offset():
    assert not line().is_uniform
    assert line(multiplier=(2, 2), offset=(1, 1)).is_uniform
