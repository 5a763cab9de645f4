"""A sample and what the program makes of it, for files that stand beside the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.graph import calls_to, module_of, outputs
from ana_fx.passes.lowering.recording import run
from ana_fx.program.integer_layers import IntegerHead, IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.program.program_borders import Quantize
from ana_fx.program.tensor_spec import sample_shape_of

__all__ = ["Golden", "golden"]

_Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Golden:
    """Integers of one sample, with a batch axis of length 1.

    Args:
        inputs: Levels that each input gets.
        activations: Of each layer, in graph order, by module path.
        outputs: Of each output.
    """

    inputs: tuple[_Integers, ...]
    activations: dict[str, _Integers]
    outputs: tuple[_Integers, ...]


@torch.no_grad()
def golden(program: GraphModule) -> Golden:
    """Run the first of the example inputs, or random levels where there are none."""
    device = next(iter(program.buffers())).device
    quantizers = calls_to(program, Quantize)
    inputs = dict.fromkeys(program.graph.find_nodes(op="placeholder"), torch.zeros(1))  # of those that nothing reads
    examples = dict(zip(inputs, program.meta.get("example_inputs", ()), strict=False))
    for node in quantizers:
        (placeholder,) = node.all_input_nodes
        inputs[placeholder] = examples[placeholder][:1] if placeholder in examples else _random_levels(node)
    seen = run(program, tuple(each.to(device) for each in inputs.values()))
    layers = calls_to(program, IntegerMap, IntegerHead, IntegerMaxPool)
    return Golden(
        tuple(_integers(seen[node]) for node in quantizers),
        {str(node.target): _integers(seen[node]) for node in layers},
        tuple(_integers(seen[node.all_input_nodes[0]]) for _, node in outputs(program)),
    )


def _random_levels(node: Node) -> Tensor:
    quantize = module_of(node)
    assert isinstance(quantize, Quantize)
    kind, generator = quantize.integer_type, torch.Generator().manual_seed(0)
    levels = torch.randint(kind.qmin, kind.qmax + 1, (1, *sample_shape_of(node)), generator=generator)
    return quantize.real(levels.to(quantize.scale.device))


def _integers(tensor: Tensor) -> _Integers:
    return np.asarray(tensor.cpu().numpy()).astype(np.int64)
