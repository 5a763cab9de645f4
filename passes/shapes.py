"""The shape of one sample at every node."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from ana_fx.errors import ConvertError
from ana_fx.graph import calls_to, location, module_of
from ana_fx.quantizers import InputQuantizer

__all__ = ["record_shapes", "sample_inputs"]


def sample_inputs(qat: GraphModule, batch_size: int, seed: int | None = None) -> tuple[Tensor, ...]:
    """Inputs of the shapes that the model was trained on: zeros, or random levels over the whole range.

    Raises:
        ConvertError: The model has not seen an input yet.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    inputs = []
    for node in calls_to(qat, InputQuantizer):
        quantizer = module_of(node)
        assert isinstance(quantizer, InputQuantizer)
        if quantizer.shape is None:
            raise ConvertError(
                f"the shape of input {node.all_input_nodes[0].name!r} is not known: the model has not seen a batch; "
                f"give prepare() example_inputs, or train a step"
            )
        shape = (batch_size, *quantizer.shape)
        if generator is None:
            inputs.append(torch.zeros(shape))
            continue
        low, high = quantizer.integer_type.qmin, quantizer.integer_type.qmax
        levels = torch.randint(low, high + 1, shape, generator=generator)
        inputs.append(levels * quantizer.scale.detach().cpu())
    return tuple(inputs)


@torch.no_grad()
def record_shapes(qat: GraphModule) -> None:
    """Write `node.meta["sample_shape"]`, the shape without the leading axis, at every tensor.

    Raises:
        ConvertError: A shape depends on the batch in another way than by its leading axis.
    """
    try:
        first, second = ({node: tuple(x.shape) for node, x in run(qat, sample_inputs(qat, n)).items()} for n in (2, 3))
    except RuntimeError as error:
        raise ConvertError(
            f"the model cannot run on 2 and on 3 samples: {str(error).splitlines()[0]}; "
            f"needed a leading batch axis of any size; write x.flatten(1) or x.view(x.size(0), -1)"
        ) from error
    for node, shape in first.items():
        other = second[node]
        if shape[1:] != other[1:] or (shape[:1] != other[:1] and shape[0] * 3 != other[0] * 2):
            raise ConvertError(
                f"{location(node)}: its output has shape {shape} for 2 samples and {other} for 3; "
                f"needed a leading batch axis and fixed other axes"
            )
        node.meta["sample_shape"] = shape[1:]


def run(gm: GraphModule, inputs: tuple[Tensor, ...]) -> dict[Node, Tensor]:
    """The tensor at every node for these inputs."""
    recorder = _Recorder(gm)
    recorder.run(*inputs)
    return recorder.seen


class _Recorder(Interpreter):
    def __init__(self, gm: GraphModule) -> None:
        super().__init__(gm)
        self.seen: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.seen[n] = result
        return result
