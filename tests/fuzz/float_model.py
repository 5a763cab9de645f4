"""The float model of a case, with weights and statistics of its own, and its example inputs."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.fuzz.builder import tensor_of
from tests.fuzz.case import Loaded

__all__ = ["UnsoundError", "float_model", "leaves", "scramble"]


class UnsoundError(Exception):
    """The float model itself does not run, so that there is nothing to test."""


@torch.no_grad()
def float_model(case: Loaded) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model of a case in eval mode, and an input for each argument.

    Raises:
        UnsoundError: It does not run, or gives numbers that are not finite.
    """
    generator = torch.Generator().manual_seed(case.seed)
    examples = {name: tensor_of(shape, kind, generator) for name, (shape, kind) in case.inputs.items()}
    try:
        model = case.net()
        scramble(model, case.seed)
        outputs = model.eval()(*(x.clone() for x in examples.values()))
    except Exception as error:
        raise UnsoundError(str(error)) from error
    found = leaves(outputs)
    if not found or not all(bool(x.isfinite().all()) for x in found):
        raise UnsoundError("no finite output")
    return model, examples


@torch.no_grad()
def scramble(model: nn.Module, seed: int) -> None:
    """Draw parameters and statistics from their names, so that those that stay keep theirs when a case shrinks."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        is_statistic = name.endswith(("running_mean", "running_var"))
        if not is_statistic and not isinstance(tensor, nn.Parameter):
            continue
        own = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        magnitude = 10.0 ** int(torch.randint(-3, 2, (), generator=own)) if own.initial_seed() % 4 == 0 else 1.0
        drawn = torch.randn(tensor.shape, generator=own)
        if name.endswith("running_var"):
            drawn = torch.rand(tensor.shape, generator=own) * magnitude
        elif tensor.dim() > 1:
            drawn *= magnitude / tensor[0].numel() ** 0.5
        elif tensor.dim() == 1 and own.initial_seed() % 3 == 0:
            drawn[torch.rand(tensor.shape, generator=own) < 0.2] = 0.0  # dead channels
        tensor.copy_(drawn)


def leaves(outputs: object) -> list[Tensor]:
    """The tensors among outputs, whatever containers hold them."""
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
