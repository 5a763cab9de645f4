"""Movements against the plainest way to write them."""

import pytest
import torch

from ana_fx.program.data_movement import Concat, Movement, Pad, Permute, Rearrange, Reshape, Slice, Take

DTYPES = [torch.uint8, torch.int8, torch.int32, torch.float32]
REVERSED = torch.tensor([3, 2, 1, 0])

MOVEMENTS = {
    "reshape": (Reshape((2, 6)), lambda x: x.reshape(len(x), 2, 6)),
    "reshape of samples to rows": (Reshape((4,)), lambda x: x.flatten(0, 1)),
    "permute": (Permute((0, 2, 1)), lambda x: x.transpose(1, 2)),
    "slice": (Slice(((1, 2, 1), (0, 4, 3))), lambda x: x[:, 1:2, ::3]),
    "take": (Take(2, REVERSED), lambda x: x.flip(2)),
    "take repeatedly": (Take(1, torch.tensor([2, 2, 0])), lambda x: torch.stack([x[:, 2], x[:, 2], x[:, 0]], 1)),
    "pad": (
        Pad(((0, 1), (2, 0))),
        lambda x: torch.cat([x.new_zeros(len(x), 4, 2), torch.cat([x, x.new_zeros(len(x), 1, 4)], 1)], 2),
    ),
    "rearrange": (
        Rearrange(torch.tensor([12, 0, 1, 1]), (2, 2), (12,)),
        lambda x: torch.stack([x[:, 2, 3], x[:, 0, 0] * 0, x[:, 0, 0], x[:, 0, 0]], 1).reshape(-1, 2, 2),
    ),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(("movement", "plain"), MOVEMENTS.values(), ids=MOVEMENTS)
def test_movements_move_numbers_of_any_type(movement, plain, batch_size, dtype):
    x = torch.randint(0, 128, (batch_size, 3, 4)).to(dtype)
    found = movement(x)
    assert found.dtype == dtype
    assert torch.equal(found, plain(x))


def test_concat_and_rearrange_take_several_tensors():
    x, y = torch.randint(0, 128, (3, 2, 4)), torch.randint(0, 128, (3, 1, 4))
    joined = torch.cat([x, y], 1)
    assert torch.equal(Concat(1)(x, y), joined)
    assert torch.equal(Rearrange(torch.arange(1, 13), (3, 4), (8, 4))(x, y), joined)


def test_rearrange_gathers_the_rows_of_a_sample():
    rows = torch.arange(12).reshape(6, 2)  # of three samples
    swapped = Rearrange(torch.tensor([3, 4, 1, 2]), (2,), (4,))(rows)
    assert torch.equal(swapped, rows[[1, 0, 3, 2, 5, 4]])


def test_indices_are_all_that_is_stored():
    for movement, _ in MOVEMENTS.values():
        assert isinstance(movement, Movement)
        assert not list(movement.parameters())
        assert {buffer.dtype for buffer in movement.buffers()} <= {torch.int64}


def test_modules_say_what_they_do():
    assert str(Reshape((2, 3))) == "Reshape((2, 3))"
    assert str(Permute((0, 2, 1))) == "Permute((0, 2, 1))"
    assert str(Slice(((0, 4, 2), (1, 2, 1)))) == "Slice(0:4:2, 1:2:1)"
    assert str(Take(2, REVERSED)) == "Take(axis=2, index=[3, 2, 1, 0])"
    assert str(Take(1, torch.arange(100))) == "Take(axis=1, index=[0, 1, 2, 3, …, 99])"
    assert str(Pad(((0, 1), (2, 0)))) == "Pad(((0, 1), (2, 0)))"
    assert str(Concat(1)) == "Concat(axis=1)"
    assert str(Rearrange(torch.tensor([0, 1]), (2,), (4,))) == "Rearrange(index=[0, 1], shape=(2,), sizes=(4,))"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Permute((1, 0)), r"found order \(1, 0\), needed 0"),
        (lambda: Permute((0, 2, 2)), "each once"),
        (lambda: Slice(((3, 0, -1),)), r"found slice \(3, 0, -1\)"),
        (lambda: Take(0, REVERSED), "found axis 0, needed one behind the batch"),
        (lambda: Take(1, REVERSED.float()), "needed torch.int64 of rank 1"),
        (lambda: Pad(((0, -1),)), "a Slice crops"),
        (lambda: Concat(0), "found axis 0, needed one behind the batch"),
        (lambda: Rearrange(REVERSED[None], (4,), (4,)), "of rank 2, needed torch.int64 of rank 1"),
    ],
)
def test_what_is_no_movement_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
