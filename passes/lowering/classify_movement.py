"""The plainest modules that move numbers from where an index says they come from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.program.data_movement import Concat, Movement, Pad, Permute, Rearrange, Reshape, Slice, Take
from ana_fx.program.layout import Layout

__all__ = ["classify_movement"]


def classify_movement(origins: Tensor, inputs: Sequence[Layout], output: Layout, parts: int) -> list[Movement]:
    """Return structured modules that move elements as `origins` says, or one `Rearrange` if there are none.

    Args:
        origins: For each element of a part of the output, the number of the input element that goes there, from one; 0
            for a zero.
        inputs: The layouts of the inputs.
        output: The layout of the output.
        parts: Into how many parts the batch is divided, all of which are treated alike.
    """
    sources, target = [layout.part(parts) for layout in inputs], output.part(parts)
    chain: _Chain | None = None
    if len(inputs) == 1:
        chain = _Chain(inputs[0].row).structured(origins, sources[0], target)
    elif all(layout.row == source for layout, source in zip(inputs, sources, strict=True)):
        chain = _concatenated(origins, sources, target)
    if chain is None:
        return [Rearrange(origins.clone(), output.row, tuple(map(math.prod, sources)))]
    chain.reshape(output.row)
    return chain.modules


def _concatenated(origins: Tensor, sources: list[tuple[int, ...]], target: tuple[int, ...]) -> _Chain | None:
    """Return the shortest chain that starts with a `Concat`; None if there is none."""
    found: list[_Chain] = []
    for axis in range(len(sources[0])):
        if len({(len(source), source[:axis], source[axis + 1 :]) for source in sources}) > 1:
            continue
        shape = (*sources[0][:axis], sum(source[axis] for source in sources), *sources[0][axis + 1 :])
        names = torch.arange(1, math.prod(shape) + 1).split([math.prod(source) for source in sources])
        joined = torch.cat([each.reshape(source) for each, source in zip(names, sources, strict=True)], axis).flatten()
        position = torch.zeros(len(joined) + 1, dtype=torch.int64)
        position[joined] = torch.arange(1, len(joined) + 1)
        chain = _Chain(())
        chain.add(Concat(axis + 1), shape)
        if chain.structured(position[origins], shape, target) is None:
            continue
        if len(chain.modules) == 1:
            return chain
        found.append(chain)
    return min(found, key=lambda chain: len(chain.modules), default=None)


class _Chain:
    """Modules one after the other, and the shapes of a row between them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.modules: list[Movement] = []
        self.shapes = [shape]

    def add(self, module: Movement, shape: tuple[int, ...]) -> None:
        self.modules.append(module)
        self.shapes.append(shape)

    def reshape(self, shape: tuple[int, ...]) -> None:
        """Continue with that shape; a `Reshape` at the end is replaced by this one."""
        if self.modules and isinstance(self.modules[-1], Reshape):
            self.modules.pop()
            self.shapes.pop()
        if shape != self.shapes[-1]:
            self.add(Reshape(shape), shape)

    def structured(self, origins: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> _Chain | None:
        """Continue this chain to `target` by structured modules and return it; None if none do it."""
        if bool((origins == 0).any()):
            return self._padded(origins, source, target)
        if torch.equal(origins, torch.arange(1, math.prod(source) + 1)):
            self.reshape(target)
            return self
        for source_view, target_view in _views(origins, source, target):
            picks = _picks(origins, source_view, target_view)
            if picks is not None:
                self.reshape(source_view)
                self._pick(picks, target_view)
                self.reshape(target)
                return self
        return None

    def _padded(self, origins: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> _Chain | None:
        """Continue with the zeros around a box that holds none; None if the zeros are elsewhere."""
        origins = origins.reshape(target)
        if not bool(origins.any()):
            return None
        padding = []
        for axis, length in enumerate(target):
            (hits,) = origins.movedim(axis, 0).reshape(length, -1).any(1).nonzero(as_tuple=True)
            before, after = int(hits[0]), length - 1 - int(hits[-1])
            padding.append((before, after))
            origins = origins.narrow(axis, before, length - before - after)
        inside = origins.flatten()
        if not bool(inside.all()) or self.structured(inside, source, tuple(origins.shape)) is None:
            return None
        self.add(Pad(tuple(padding)), target)
        return self

    def _pick(self, picks: list[_Pick], target: tuple[int, ...]) -> None:
        """Pick on each axis, then bring the axes in order, up to axes of length one."""
        sizes = self.shapes[-1]
        slices = [pick.slice() for pick in picks]
        shape = tuple(size if each is None else len(range(*each)) for each, size in zip(slices, sizes, strict=True))
        if shape != sizes:
            whole = [(0, size, 1) if each is None else each for each, size in zip(slices, sizes, strict=True)]
            self.add(Slice(tuple(whole)), shape)
        for axis, pick in enumerate(picks):
            if slices[axis] is None:
                shape = (*shape[:axis], len(pick.indices), *shape[axis + 1 :])
                self.add(Take(axis + 1, pick.indices.clone()), shape)
        held: list[int | None] = [pick.axes[0] if pick.axes else None for pick in picks]  # target axis of each axis
        if any(len(pick.axes) > 1 for pick in picks):
            held = [axis for pick in picks for axis in pick.axes]
            self.reshape(tuple(target[axis] for axis in held if axis is not None))
        self._order(held, target)

    def _order(self, held: list[int | None], target: tuple[int, ...]) -> None:
        axes = [axis for axis in held if axis is not None]
        if axes == sorted(axes):
            return
        singles = [position for position, axis in enumerate(held) if axis is None]
        order = []
        for axis in range(len(target)):
            if axis in axes:
                order.append(held.index(axis))
            elif singles:
                order.append(singles.pop(0))
        order += singles
        self.add(Permute((0, *(axis + 1 for axis in order))), tuple(self.shapes[-1][axis] for axis in order))


@dataclass(frozen=True)
class _Pick:
    """The indices that are picked on one axis, and the target axes, longer than one, that they run over."""

    indices: Tensor
    axes: tuple[int, ...]

    def slice(self) -> tuple[int, int, int] | None:
        """(start, stop, step), or None if they do not rise evenly."""
        start, last = int(self.indices[0]), int(self.indices[-1])
        step = int(self.indices[1]) - start if len(self.indices) > 1 else 1
        if step < 1 or not torch.equal(self.indices, start + step * torch.arange(len(self.indices))):
            return None
        return start, last + 1, step


def _picks(origins: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> list[_Pick] | None:
    """What is picked on each axis of `source`; None if an axis of `target` moves along several of them."""
    coordinates = _coordinates(origins, source, target)
    runs_over = [[axis for axis in range(len(target)) if _varies(each, axis)] for each in coordinates]
    used = [axis for axes in runs_over for axis in axes]
    if not source or len(used) != len(set(used)):
        return None
    for axis, length in enumerate(target):
        if length > 1 and axis not in used:  # repeats; best of an axis of length one
            home = min(
                range(len(source)),
                key=lambda a: (bool(runs_over[a]), min((abs(b - axis) for b in runs_over[a]), default=abs(a - axis))),
            )
            runs_over[home] = sorted([*runs_over[home], axis])
    return [_pick(each, axes) for each, axes in zip(coordinates, runs_over, strict=True)]


def _pick(coordinate: Tensor, axes: list[int]) -> _Pick:
    """The indices in the order of the axes, or else, if they rise evenly then, in that of their steps."""
    table = coordinate[tuple(slice(None) if axis in axes else 0 for axis in range(coordinate.ndim))]
    pick = _Pick(table.flatten(), tuple(axes))
    if pick.slice() is not None:
        return pick
    steps = [int((table.select(place, 1) - table.select(place, 0)).flatten()[0]) for place in range(table.ndim)]
    places = sorted(range(table.ndim), key=lambda place: -steps[place])
    sorted_pick = _Pick(table.permute(places).flatten(), tuple(axes[place] for place in places))
    return pick if sorted_pick.slice() is None else sorted_pick


def _coordinates(origins: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> list[Tensor]:
    """For each axis of `source` where on it the elements of `target` come from."""
    rest, coordinates = origins.reshape(target) - 1, []
    for size in reversed(source):
        coordinates.append(rest % size)
        rest = rest // size
    return coordinates[::-1]


def _varies(coordinate: Tensor, axis: int) -> bool:
    return coordinate.shape[axis] > 1 and not bool((coordinate == coordinate.narrow(axis, 0, 1)).all())


def _views(
    origins: Tensor, source: tuple[int, ...], target: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes of source and target to look for picks in: as they are, then with axes split or merged."""
    yield source, target
    digits = _digits(origins)
    if digits is None:
        return
    sizes = tuple(size for size, _ in digits)
    yield source, sizes
    dense = sorted(digits, key=lambda digit: -digit[1])
    strides = [math.prod(size for size, _ in dense[place + 1 :]) for place in range(len(dense))]
    if math.prod(sizes) == math.prod(source) and strides == [stride for _, stride in dense]:
        yield tuple(size for size, _ in dense), sizes


def _digits(origins: Tensor) -> list[tuple[int, int]] | None:
    """Sizes and strides, outermost first, of the coarsest shape in which origins rise evenly along each axis."""
    digits = []
    while len(origins) > 1:
        step = int(origins[1] - origins[0])
        uneven = (origins != origins[0] + step * torch.arange(len(origins))).nonzero()
        size = int(uneven[0]) if len(uneven) else len(origins)
        if len(origins) % size:
            return None
        rows = origins.reshape(-1, size)
        if not torch.equal(rows, rows[:, :1] + step * torch.arange(size)):
            return None
        digits.append((size, step))
        origins = rows[:, 0]
    return digits[::-1]
