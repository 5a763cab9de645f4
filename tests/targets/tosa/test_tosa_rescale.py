"""RESCALE in Arm's reference model, next to ties and at the ends of what it takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.errors import ExportError
from ana_fx.requantizers.fixed_point_staircase import FixedPointStaircase
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.target_registry import target_called
from ana_fx.targets.tosa.graph_builder import GraphBuilder
from ana_fx.targets.tosa.tosa_rescale import as_int32
from ana_fx.targets.tosa.tosa_runtime import TOSA_RUNTIMES
from ana_fx.targets.tosa.tosa_schema import SINGLE_ROUND, DataType, Op
from ana_fx.targets.tosa.tosa_writer import TosaWriter

reference_model = pytest.mark.extra("tosa", "tosa_reference_model")
CHANNELS, PLACES = 256, 60
ROUNDINGS = {"single": SINGLE_ROUND, "double": 3}


def run(data, **feeds):
    return TOSA_RUNTIMES["tosa-reference-model"].run(data, feeds)


def scales():
    """A multiplier and a shift for each channel: all exponents that slopes of ours have, powers of two among them."""
    rng = np.random.default_rng(0)
    multiplier = rng.integers(2**30, 2**31, CHANNELS)
    multiplier[::2] = 2**30
    return multiplier, rng.integers(23, 52, CHANNELS)


def accumulators(multiplier, shift):
    """Integers on both sides of ties, int64, [places, channels]."""
    rng = np.random.default_rng(1)
    level = rng.integers(-128, 128, (PLACES // 3, CHANNELS)) + 0.5
    near = np.rint(level * 2.0**shift / multiplier)
    limit = np.minimum(2 ** (shift - 1), 2**31) - 1
    return np.concatenate([near - 1, near, near + 1]).clip(-limit, limit).astype(np.int64)


def one_rescale(multiplier, shift, zero_point, *, rounding=SINGLE_ROUND, places=PLACES):
    """A file of RESCALE from int32 to int8."""
    builder = GraphBuilder()
    x = builder.tensor("x", (places, len(multiplier)), DataType.INT32)
    constants = {
        "multiplier": multiplier.astype(np.int32),
        "shift": shift.astype(np.int8),
        "x_zero": np.array([0], np.int32),
        "y_zero": np.array([zero_point], np.int8),
    }
    y = builder.tensor("y", (places, len(multiplier)))
    builder.inputs["x"], builder.outputs["y"] = x, y
    builder.operator(
        Op.RESCALE,
        [x, *(builder.constant(name, array) for name, array in constants.items())],
        y,
        scale32=1,
        rounding_mode=rounding,
        per_channel=int(len(multiplier) > 1),
        input_unsigned=0,
        output_unsigned=0,
    )
    return builder.pack({})


def rounded(accumulator, multiplier, shift):
    """The formula, in integers of any size."""
    product = accumulator.astype(object) * multiplier.astype(object)
    half = [1 << int(each - 1) for each in shift]
    return np.array([[int(p + h) >> int(s) for p, h, s in zip(row, half, shift, strict=True)] for row in product])


@reference_model
@pytest.mark.parametrize("zero_point", [0, -128, 112])
def test_it_is_the_formula_next_to_ties(zero_point):
    multiplier, shift = scales()
    acc = accumulators(multiplier, shift)
    (found,) = run(one_rescale(multiplier, shift, zero_point), x=acc[None].astype(np.int32))
    assert np.array_equal(found[0], (rounded(acc, multiplier, shift) + zero_point).clip(-128, 127))


@reference_model
def test_the_accumulators_tell_it_from_two_roundings():
    """So that the test above could fail."""
    multiplier, shift = scales()
    x = accumulators(multiplier, shift)[None].astype(np.int32)
    found = {name: run(one_rescale(multiplier, shift, 0, rounding=each), x=x)[0] for name, each in ROUNDINGS.items()}
    assert (found["single"] != found["double"]).sum() > 100


def test_eval_mode_has_the_formula():
    multiplier, shift = scales()
    acc = accumulators(multiplier, shift)
    slope = torch.from_numpy(multiplier * 2.0 ** -shift.astype(float))
    one = torch.ones((), dtype=torch.float64)
    staircase = FixedPointStaircase(
        -128,
        127,
        1,
        torch.zeros(CHANNELS, dtype=torch.int64),
        one,
        slope,
        one,
        rounding=Requantizer.SINGLE_ROUNDING.value,
    )
    assert torch.equal(staircase.fixed_point()[0], torch.from_numpy(multiplier))
    found = staircase.level(torch.from_numpy(acc), 1).to(torch.int64)
    assert np.array_equal(found.numpy(), rounded(acc, multiplier, shift).clip(-128, 127))


@reference_model
def test_a_value_beyond_its_shift_is_refused_by_the_reference_model():
    multiplier, shift = np.array([2**30]), np.array([23])
    file = one_rescale(multiplier, shift, 0, places=1)
    with pytest.raises(ValueError, match="value should stay within"):
        run(file, x=np.full((1, 1, 1), 2**22, np.int32))
    (found,) = run(file, x=np.full((1, 1, 1), 2**22 - 1, np.int32))
    assert found.item() == 127


def test_an_accumulator_beyond_its_shift_is_refused_at_export(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    qat = ana_fx.prepare(model, torch.rand(2, 1, 8, 8), precision="int8", target="tosa")
    qat.train()(torch.rand(2, 1, 8, 8))
    integer = ana_fx.convert(qat.eval())
    first = integer.get_submodule("0")
    first.staircase = replace(first.staircase, bias=torch.tensor([0, 2**31 - 1]))
    with pytest.raises(ExportError, match=r"module '0'.*accumulator can reach \d+, needed at most \d+ for RESCALE"):
        ana_fx.export(integer, tmp_path / "m.tosa")


@reference_model
@pytest.mark.parametrize("factor", [1, 3, -1, -5, 127, 2**20])
def test_bytes_times_a_factor_are_exact(factor):
    builder, every_byte = GraphBuilder(), np.arange(-128, 128, dtype=np.int8)
    w = TosaWriter(builder, target_called("tosa"), "x", None, (), (256,), None)
    x = builder.tensor("x", (256,))
    builder.inputs["x"] = x
    builder.outputs["y"] = as_int32(w, x, (256,), 100, factor)
    (found,) = run(builder.pack({}), x=every_byte[None])
    assert np.array_equal(found[0], (every_byte.astype(np.int64) - 100) * factor)
