"""Numbers on CPUs a block at a time, which stays in the cache, and room for those in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["ONE", "blocks", "flat", "rooms_like"]

_BLOCK = 2**18  # numbers for each thread
ONE = torch.ones((), dtype=torch.float32, device="cpu")  # as a tensor: calls wrap a number anew each time


def blocks(steps: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same block of each tensor, of one layout, and its steps; in the order of memory."""
    size, num_rows = tensors[0].numel(), steps.numel()
    most = _BLOCK * torch.get_num_threads()
    if size <= most:
        yield *tensors, steps
    elif num_rows == 1:
        yield from ((*parts, steps) for parts in zip(*(flat(each).split(most) for each in tensors), strict=True))
    else:
        row = size // num_rows
        rows = [each.as_strided((num_rows, row), (row, 1)) for each in tensors]
        together = max(1, most // row)
        yield from zip(*(each.split(together) for each in (*rows, steps.reshape(num_rows, 1))), strict=True)


def flat(x: Tensor) -> Tensor:
    """Its numbers in the order of memory."""
    return x.as_strided((x.numel(),), (1,))


class _Room(threading.local):
    """A thread's room for intermediate numbers; to ask the system for it each time would take as long as to use it."""

    buffer = torch.empty(0, dtype=torch.float32, device="cpu")


_ROOM = _Room()


def rooms_like(block: Tensor, number: int) -> list[Tensor]:
    """So many float32 tensors in the layout of a block for numbers in between, until this thread asks again."""
    size, buffer = block.numel(), _ROOM.buffer
    if buffer.numel() < number * size:
        buffer = torch.empty(number * size, dtype=torch.float32, device="cpu")
        if size <= _BLOCK * torch.get_num_threads():  # a longer row has its own
            _ROOM.buffer = buffer
    return [buffer.as_strided(block.shape, block.stride(), index * size) for index in range(number)]
