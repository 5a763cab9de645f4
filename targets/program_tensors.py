"""What a program says of its tensors: the shape of a sample, and the type of the levels."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import Node

from ana_fx.graph import module_of
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.integer_modules import IntegerHead

__all__ = ["levels_type", "numpy", "sample_shape_of"]


def sample_shape_of(node: Node) -> tuple[int, ...]:
    """The shape of a node's tensor without the batch axis."""
    return tuple(node.meta["sample_shape"])


def levels_type(node: Node) -> IntegerType | None:
    """The type of a node's levels, which the module that computed them states; None for accumulators of a head."""
    while True:
        module = module_of(node)
        integer_type = getattr(module, "integer_type", None)
        if integer_type is not None:
            return integer_type  # type: ignore[no-any-return]  # torch's modules give any attribute
        if type(module) is IntegerHead:
            return None
        node = node.all_input_nodes[0]


def numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The tensor as an array of its own type."""
    return np.asarray(tensor.detach().cpu().numpy())
