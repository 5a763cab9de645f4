"""Tensors as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["numpy"]


def numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The tensor as an array of its own type."""
    return np.asarray(tensor.detach().cpu().numpy())
