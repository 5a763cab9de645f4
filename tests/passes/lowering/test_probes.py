"""The inputs on which convert compares: extremes, blocks of them, then examples or random levels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.passes.lowering.probes import probes, probing_batches
from ana_fx.program.layout import BATCH
from tests.graphs import WrittenForTwo

INT4 = IntegerType(4, signed=True)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 5, 6)])
def test_the_extremes_come_first(shape):
    lowest, highest, blocks, corners, *others = probes(INT4, shape, 6)
    assert set(lowest.flatten().tolist()) == {-8}
    assert set(highest.flatten().tolist()) == {7}
    assert set(blocks.flatten().tolist()) <= {-8, 0, 7}
    assert set(corners.flatten().tolist()) <= {-8, 7}
    assert len(others) == 2
    assert all(set(x.flatten().tolist()) <= set(range(-8, 8)) for x in others)


def test_blocks_meet_at_edges_and_differ_between_channels():
    blocks = probes(INT4, (2, 4, 4), 3)[2]
    assert blocks[0].tolist() == [[7, 7, -8, -8], [7, 7, -8, -8], [-8, -8, 0, 0], [-8, -8, 0, 0]]
    assert blocks[1, :, 0].tolist() == [-8, -8, 0, 0]


def test_fewer_samples_are_the_first_ones():
    assert torch.equal(probes(INT4, (3,), 2), probes(INT4, (3,), 7)[:2])


@pytest.mark.parametrize(("given", "used"), [(1, 1), (3, 1), (4, 2), (100, 6)])
def test_a_batch_of_any_size_costs_no_more_than_it_always_did(given, used):
    x = torch.rand(given, 3)
    first, second = probing_batches(ana_fx.prepare(nn.Linear(3, 2), x, calibration=[x]))
    assert (len(first[0]), len(second[0])) == (BATCH, 2 + used)
    assert torch.equal(second[0][2:], x[:used])


def test_without_examples_a_random_sample_stands_in():
    x = torch.rand(4, 3)
    first, second = probing_batches(ana_fx.prepare(nn.Linear(3, 2), calibration=[x]))
    assert (first[0].shape, second[0].shape) == ((2, 3), (3, 3))


def test_an_input_that_nothing_reads_has_a_number_for_each_sample():
    x = torch.rand(5, 3)
    qat = ana_fx.prepare(WrittenForTwo(lambda m, x, y: m.l(x), l=nn.Linear(3, 2)), (x, x), calibration=[(x, x)])
    first, second = probing_batches(qat)
    assert [len(each) for each in (*first, *second)] == [2, 2, 5, 5]
