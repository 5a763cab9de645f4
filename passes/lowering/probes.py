"""Makes inputs that reach what data rarely does: extreme levels everywhere, and blocks of them that meet at edges."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.errors import ConvertError
from ana_fx.graph import calls_to, module_of
from ana_fx.layers.input_quantizers import InputQuantizer
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.layout import BATCH

__all__ = ["probes", "probing_batches"]

_NUM_EXTREMES = 4
_MOST_EXAMPLES = 8  # enough to see that data flows as it should; the cost of a conversion grows with them

Batch = tuple[Tensor, ...]


def probes(integer_type: IntegerType, shape: tuple[int, ...], num: int) -> Tensor:
    """Return levels of samples of a shape, int64, [num, *shape]; the same in every call.

    First come the lowest level everywhere, the highest, blocks of the highest, the lowest and 0, and a random choice
    between highest and lowest; then random levels.
    """
    generator = torch.Generator().manual_seed(0)
    low, high = integer_type.qmin, integer_type.qmax
    ends = torch.tensor([low, high])
    extremes = [
        torch.full(shape, low),
        torch.full(shape, high),
        torch.tensor([high, low, 0])[_block(shape) % 3],
        ends[torch.randint(2, shape, generator=generator)],
    ]
    others = torch.randint(low, high + 1, (max(num - _NUM_EXTREMES, 0), *shape), generator=generator)
    return torch.cat([torch.stack(extremes), others])[:num]


def _block(shape: tuple[int, ...]) -> Tensor:
    """Number the blocks of a sample, element by element: each channel is one, and each axis behind it is cut in two."""
    number = torch.zeros(shape, dtype=torch.int64)
    for axis, size in enumerate(shape):
        position = torch.arange(size)
        along = position if axis == 0 else 2 * position // size
        number += along.reshape(-1, *[1] * (len(shape) - axis - 1))
    return number


def probing_batches(qat: GraphModule) -> tuple[Batch, Batch]:
    """Return BATCH samples and a larger batch: the extremes of `probes`, then example inputs or a random sample.

    An input that nothing reads has a number for each sample.

    Raises:
        ConvertError: The model has not seen an input yet.
    """
    readers = {call.all_input_nodes[0]: module_of(call) for call in calls_to(qat, InputQuantizer)}
    examples = _examples(qat, readers)
    num_others = max(1, min((len(x) for x in examples.values()), default=1) - BATCH)
    first, second = [], []
    for node in qat.graph.find_nodes(op="placeholder"):
        samples = torch.zeros(_NUM_EXTREMES + num_others)
        if node in readers:
            samples = _samples(node, readers[node])
            samples = torch.cat([samples[:_NUM_EXTREMES], examples.get(node, samples[_NUM_EXTREMES:])[:num_others]])
        first.append(samples[:BATCH])
        second.append(samples[BATCH:])
    return tuple(first), tuple(second)


def _examples(qat: GraphModule, readers: Mapping[Node, object]) -> dict[Node, Tensor]:
    """Return some examples of each input that is read; none at all unless each input has some."""
    placeholders = qat.graph.find_nodes(op="placeholder")
    given = dict(zip(placeholders, qat.meta.get("example_inputs", ()), strict=False))
    found = {node: x[:_MOST_EXAMPLES].cpu() for node, x in given.items() if node in readers and isinstance(x, Tensor)}
    return found if len(found) == len(readers) and all(map(len, found.values())) else {}


def _samples(node: Node, quantizer: object) -> Tensor:
    """Return real inputs of one quantizer: all extremes, and a random sample."""
    assert isinstance(quantizer, InputQuantizer)
    if quantizer.shape is None:
        raise ConvertError(
            f"the shape of input {node.name!r} is not known: the model has not seen a batch; "
            f"give prepare() example_inputs, or train a step"
        )
    levels = probes(quantizer.integer_type, quantizer.shape, _NUM_EXTREMES + 1)
    return quantizer.real(levels.to(quantizer.scale.device)).cpu()
