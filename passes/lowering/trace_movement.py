"""How an operation moves numbers, found by running it on the numbers' names.

Every input element gets an identity, 1, 2, 3, …, which float64 holds exactly below 2**53. What comes out says
where each element comes from; zero is a zero that was filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ana_fx.passes.lowering.classify_movement import classify_movement
from ana_fx.program.data_movement import Movement, Reshape
from ana_fx.program.layout import BATCH, Layout

__all__ = ["derive"]


@torch.no_grad()
def derive(fn: Callable[..., Tensor], inputs: Sequence[Layout], output: Layout) -> list[Movement]:
    """Find the modules that do on the program's tensors what `fn` does on the user's.

    Args:
        fn: The user's operation, on float64 tensors of the user's shapes.
        inputs: Their layouts.
        output: The layout of the result, with a batch axis.

    Returns:
        Modules to be applied one after the other: the first takes all inputs, the others one tensor.
        None of them for the identity.

    Raises:
        ValueError: `fn` does more than move numbers, or moves them between samples.
    """
    if output.batch_axis is None:
        raise ValueError("found an output without a batch axis, needed one; compute a constant beforehand")
    parts_of_samples = math.gcd(*(layout.rows for layout in (*inputs, output)))
    for parts in sorted({BATCH * parts_of_samples, BATCH}, reverse=True):  # by themselves, if nothing joins them
        names = _names(inputs, parts)
        found = _moved_names(fn, names, inputs, output)
        if len(names) == 1 and torch.equal(found.flatten(), names[0].flatten()):
            return [] if inputs[0].row == output.row else [Reshape(output.row)]
        origins = _origins(found.reshape(parts, -1), inputs, parts)
        if origins is None:
            continue
        modules = classify_movement(origins, inputs, output, parts)
        assert torch.equal(_apply(modules, names), found)
        return modules
    raise ValueError("found an output that mixes samples, needed each sample to come from the same sample of the input")


def _names(inputs: Sequence[Layout], parts: int) -> list[Tensor]:
    """Return the program's inputs with an identity in place of each element.

    Identities are counted on from part to part of the batch, and within a part from input to input. A constant is no
    part of the batch: it has one identity for each element, counted in the first part.
    """
    sizes = [math.prod(layout.part(parts)) for layout in inputs]
    names, before = [], 1
    for layout, size in zip(inputs, sizes, strict=True):
        first = torch.arange(before, before + size, dtype=torch.float64)
        later = torch.arange(parts, dtype=torch.float64) * (0 if layout.batch_axis is None else sum(sizes))
        names.append((later[:, None] + first).reshape(BATCH * layout.rows, *layout.row))
        before += size
    return names


def _moved_names(fn: Callable[..., Tensor], names: list[Tensor], inputs: Sequence[Layout], output: Layout) -> Tensor:
    """Apply `fn` to the identities, and return the result as the program's tensor.

    Raises:
        ValueError: `fn` is not a movement.
    """
    found = _run(fn, names, inputs, output)
    largest = max(float(each.max()) for each in names)
    if not bool(((found >= 0) & (found <= largest) & (found == found.round())).all()):
        raise ValueError("found numbers that are none of the inputs', needed an operation that only moves numbers")
    # a movement moves other numbers alike; averages, maxima and ReLUs do not, whatever they made of the identities
    if not torch.equal(_run(fn, [-each.square() for each in names], inputs, output), -found.square()):
        raise ValueError("found a result that depends on the numbers' values, needed an operation that only moves them")
    return found


def _run(fn: Callable[..., Tensor], program: list[Tensor], inputs: Sequence[Layout], output: Layout) -> Tensor:
    result = fn(*(layout.user(x) for layout, x in zip(inputs, program, strict=True)))
    if result.shape != output.shape or result.numel() == 0:
        raise ValueError(f"found a result of shape {tuple(result.shape)}, needed {output.shape} and not empty")
    assert output.batch_axis is not None
    return result.to(torch.float64).movedim(output.batch_axis, 0)


def _origins(found: Tensor, inputs: Sequence[Layout], parts: int) -> Tensor | None:
    """Return where each element comes from, counted from one within a part, int64; None if parts are joined.

    Raises:
        ValueError: Parts are not treated alike.
    """
    sizes = [math.prod(layout.part(parts)) for layout in inputs]
    shared, before = found == 0, 0  # what has the same identity in each part: zeros and constants
    for layout, size in zip(inputs, sizes, strict=True):
        if layout.batch_axis is None:
            shared |= (found > before) & (found <= before + size)
        before += size
    origins = torch.where(shared, found, found - torch.arange(parts)[:, None] * sum(sizes))
    if bool(((origins < 1) & ~shared).any()) or bool((origins > sum(sizes)).any()):
        return None
    if bool((origins != origins[0]).any()):
        if parts > BATCH:
            return None  # the rows of a sample may differ
        raise ValueError("found samples whose numbers move differently, needed all samples to be treated alike")
    return origins[0].to(torch.int64)


def _apply(modules: list[Movement], inputs: list[Tensor]) -> Tensor:
    first, *others = modules
    x: Tensor = first(*inputs)
    for module in others:
        x = module(x)
    return x
