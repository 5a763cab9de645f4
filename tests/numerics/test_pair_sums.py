"""Sums of two neighbouring products: bounded tightly, in the order in which kernels pair weights."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ana_fx.numerics.pair_sums import PAIR_LIMIT, largest_pair_sum, largest_safe_weight


def brute_force(rows: list[list[int]], largest: int) -> int:
    """The same by trying both ends of both inputs of every pair."""
    worst = 0
    for row in rows:
        for first, second in zip(row[::2], itertools.chain(row[1::2], [0]), strict=False):
            worst = max(worst, *(abs(a * first + b * second) for a in (0, largest) for b in (0, largest)))
    return worst


@given(st.lists(st.integers(-127, 127), min_size=1, max_size=9), st.integers(1, 255))
def test_the_bound_of_a_matrix_is_that_of_its_neighbours(row, largest):
    assert largest_pair_sum(torch.tensor([row]), largest) == brute_force([row], largest)


@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_a_kernel_is_paired_along_its_channels_and_along_its_positions(data, channels, height, width):
    numbers = data.draw(st.lists(st.integers(-127, 127), min_size=channels * height * width, max_size=36))
    weight = torch.tensor(numbers[: channels * height * width]).reshape(1, channels, height, width)
    orders = weight.flatten(1).tolist(), weight.permute(0, 2, 3, 1).flatten(1).tolist()
    assert largest_pair_sum(weight, 255) == max(brute_force(rows, 255) for rows in orders)


@pytest.mark.parametrize("largest", [1, 15, 127, 128, 255])
def test_the_largest_safe_weight_is_safe_and_the_next_is_not(largest):
    safe = largest_safe_weight(largest)
    assert 2 * largest * safe <= PAIR_LIMIT < 2 * largest * (safe + 1)


def test_seven_bits_are_safe_next_to_bytes():
    assert largest_safe_weight(255) == 64
