"""Nodes of a program that one operator of a file computes: transposed convolutions, and resizing to the nearest.

A program has a transposed convolution as a convolution behind what puts zeros between numbers, and crops them:
Reshape, Pad, Reshape and at times Slice; and an upsampling to the nearest as one Take for each axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from ana_fx.graph import module_of
from ana_fx.operators.convolution import Convolution
from ana_fx.program.data_movement import Pad, Reshape, Slice, Take
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.tensor_spec import sample_shape_of

__all__ = ["NearestResize", "SpreadConvolution", "Upsampling", "upsamplings"]


_Slices = tuple[tuple[int, int, int], ...]  # (start, stop, step) along each axis


@dataclass(frozen=True)
class SpreadConvolution:
    """A convolution of an image with zeros between its numbers.

    A transposed convolution computes the same: at the place of each number it adds the kernel, turned around, times it.

    Args:
        convolution: The convolution; its stride is 1.
        strides: How far apart numbers are scattered, along each spatial axis.
        margins: How many of the first rows of what they add up to are dropped, along each spatial axis.
    """

    convolution: Convolution
    strides: tuple[int, ...]
    margins: tuple[int, ...]


@dataclass(frozen=True)
class NearestResize:
    """An image whose rows and columns are repeated.

    Args:
        factors: How often each row, and each column, stands there.
    """

    factors: tuple[int, int]


@dataclass(frozen=True)
class Upsampling:
    """Several nodes of a program that are written as one operator.

    Args:
        form: What they compute.
        source: The node that they read.
        inner: The nodes without the last one, at which the operator is written.
    """

    form: SpreadConvolution | NearestResize
    source: Node
    inner: tuple[Node, ...]


def upsamplings(program: GraphModule) -> dict[Node, Upsampling]:
    """Find the nodes that are written as one operator, by the last node; nothing else reads the others."""
    found: dict[Node, Upsampling] = {}
    taken: set[Node] = set()
    for node in program.graph.nodes:
        upsampling = _spread(node) or _nearest(node)
        if upsampling is not None and taken.isdisjoint(upsampling.inner):
            found[node] = upsampling
            taken |= {node, *upsampling.inner}
    return found


def _spread(node: Node) -> Upsampling | None:
    module = module_of(node)
    if not isinstance(module, IntegerMap) or not isinstance(convolution := module.operator, Convolution):
        return None
    inner = _chain(node, (Slice, Reshape, Pad, Reshape)) or _chain(node, (Reshape, Pad, Reshape))
    if inner is None or set(convolution.stride) != {1}:
        return None
    (source,) = inner[-1].all_input_nodes
    strides = _strides(source, *(module_of(each) for each in inner[:-4:-1]))
    if strides is None:
        return None
    spread = sample_shape_of(inner[-3])
    first = module_of(inner[0])
    slices = first.slices if isinstance(first, Slice) else tuple((0, size, 1) for size in spread)
    reaches = _reaches(convolution, module)
    margins = _margins(convolution, reaches, slices, spread)
    if margins is None:
        return None
    reached = zip(margins, sample_shape_of(node)[1:], spread[1:], reaches, strict=True)
    if any(margin < 0 or margin + size > wide + reach - 1 for margin, size, wide, reach in reached):
        return None  # TRANSPOSE_CONV has no rows that no number can reach
    return Upsampling(SpreadConvolution(convolution, strides, margins), source, tuple(inner))


def _strides(source: Node, apart: object, zeros: object, together: object) -> tuple[int, ...] | None:
    """Return how far apart three movements put numbers along each spatial axis; None if they do something else."""
    assert isinstance(apart, Reshape)
    assert isinstance(zeros, Pad)
    assert isinstance(together, Reshape)
    channels, *sizes = sample_shape_of(source)
    if apart.shape != (channels, *(each for size in sizes for each in (size, 1))):
        return None
    strides = tuple(1 + after for _, after in zeros.padding[2::2])
    pads = tuple(pair for stride in strides for pair in ((0, 0), (0, stride - 1)))
    spread = (channels, *(size * stride for size, stride in zip(sizes, strides, strict=True)))
    return strides if (zeros.padding, together.shape) == (((0, 0), *pads), spread) else None


def _margins(
    convolution: Convolution, reaches: tuple[int, ...], slices: _Slices, spread: tuple[int, ...]
) -> tuple[int, ...] | None:
    """How many of the first rows that numbers reach are dropped; None if zeros stand where numbers were dropped."""
    if slices[0] != (0, spread[0], 1) or any(step != 1 for _, _, step in slices):
        return None
    margins = []
    axes = zip(slices[1:], spread[1:], convolution.padding, reaches, strict=True)
    for (start, stop, _), size, (before, after), reach in axes:
        if (start and before) or (stop < size and after):
            return None
        margins.append(reach - 1 - before + start)
    return tuple(margins)


def _reaches(convolution: Convolution, module: IntegerMap) -> tuple[int, ...]:
    """How many numbers the kernel of a convolution spans along each axis."""
    assert module.weight is not None
    return tuple(d * (k - 1) + 1 for d, k in zip(convolution.dilation, module.weight.shape[2:], strict=True))


def _nearest(node: Node) -> Upsampling | None:
    """Return the upsampling that two Takes are, if each repeats all numbers of its axis equally often."""
    inner = _chain(node, (Take,))
    if not isinstance(module_of(node), Take) or inner is None:
        return None
    (source,) = inner[0].all_input_nodes
    shape = sample_shape_of(source)
    if len(shape) != 3:
        return None
    factors = {}
    for each in (inner[0], node):
        module = module_of(each)
        assert isinstance(module, Take)
        size = shape[module.axis - 1]
        factor, rest = divmod(len(module.index), size)
        if rest or not torch.equal(module.index, torch.arange(size).repeat_interleave(factor).to(module.index)):
            return None
        factors[module.axis] = factor
    if set(factors) != {2, 3}:
        return None
    return Upsampling(NearestResize((factors[2], factors[3])), source, tuple(inner))


def _chain(node: Node, kinds: tuple[type, ...]) -> list[Node] | None:
    """Return the nodes before a node, nearest first, if they call modules of these kinds and have no other reader."""
    found = []
    for kind in kinds:
        sources = node.all_input_nodes
        if len(sources) != 1 or type(module_of(sources[0])) is not kind or len(sources[0].users) != 1:
            return None
        node = sources[0]
        found.append(node)
    return found
