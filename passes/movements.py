"""How an operation moves numbers, found by running it on the numbers' names.

Every input element gets an identity, 1, 2, 3, …, which float64 holds exactly below 2**53. What comes out says
where each element comes from; zero is a zero that was filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.movement import Concat, Movement, Pad, Permute, Rearrange, Reshape, Slice, Take

__all__ = ["BATCH", "Layout", "derive"]

BATCH = 2  # samples in the batch that the operation is run on


@dataclass(frozen=True)
class Layout:
    """How a tensor of the user's graph lies in the program: batch axis first.

    Args:
        shape: The user's tensor for a batch of BATCH samples.
        batch_axis: Which axis carries the batch, sample after sample if it carries more than that; the
            program has it in front. None for a constant, which the program repeats for each sample.

    Holds: the batch axis exists and its length is a multiple of BATCH.
    """

    shape: tuple[int, ...]
    batch_axis: int | None

    def __post_init__(self) -> None:
        if self.batch_axis is None:
            return
        if not 0 <= self.batch_axis < len(self.shape):
            raise ValueError(f"found batch axis {self.batch_axis}, needed one of the axes of {self.shape}")
        length = self.shape[self.batch_axis]
        if length == 0 or length % BATCH:
            raise ValueError(f"found a batch axis of length {length}, needed a multiple of {BATCH}")

    @property
    def rows(self) -> int:
        """Rows of the program's tensor in a sample: more than one where windows or heads joined the batch."""
        return 1 if self.batch_axis is None else self.shape[self.batch_axis] // BATCH

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of one row: that of the program's tensor without its leading axis."""
        if self.batch_axis is None:
            return self.shape
        return self.shape[: self.batch_axis] + self.shape[self.batch_axis + 1 :]

    def part(self, parts: int) -> tuple[int, ...]:
        """The shape of one of so many equal parts of the batch."""
        rows = BATCH * self.rows // parts
        return self.row if rows == 1 else (rows, *self.row)

    def user(self, x: Tensor) -> Tensor:
        """The user's tensor from that of the program."""
        x = x[0] if self.batch_axis is None else x.movedim(0, self.batch_axis)
        return x.clone(memory_format=torch.contiguous_format)


@torch.no_grad()
def derive(fn: Callable[..., Tensor], inputs: Sequence[Layout], output: Layout) -> list[Movement]:
    """The modules that do on the program's tensors what `fn` does on the user's.

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
        modules = _classify(origins, inputs, output, parts)
        assert torch.equal(_apply(modules, names), found)
        return modules
    raise ValueError("found an output that mixes samples, needed each sample to come from the same sample of the input")


def _names(inputs: Sequence[Layout], parts: int) -> list[Tensor]:
    """The program's tensors of identities, counted through part after part, in a part through all inputs.

    A constant has in each part those of the first.
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
    """What `fn` makes of the identities, as the program's tensor.

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
    """Where the elements of a part come from, counted in a part from one, int64; None if parts are mixed.

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


def _classify(origins: Tensor, inputs: Sequence[Layout], output: Layout, parts: int) -> list[Movement]:
    """Structured modules, or one `Rearrange`."""
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
    """The shortest chain that starts with a `Concat`, if there is one."""
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
        """Go on with that shape; one `Reshape` takes the place of another."""
        if self.modules and isinstance(self.modules[-1], Reshape):
            self.modules.pop()
            self.shapes.pop()
        if shape != self.shapes[-1]:
            self.add(Reshape(shape), shape)

    def structured(self, origins: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> _Chain | None:
        """This chain, gone on to `target` by structured modules; None if there are none."""
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
        """Zeros around a box without any."""
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


def _apply(modules: list[Movement], inputs: list[Tensor]) -> Tensor:
    first, *others = modules
    x: Tensor = first(*inputs)
    for module in others:
        x = module(x)
    return x
