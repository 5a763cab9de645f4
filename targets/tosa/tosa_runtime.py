"""What runs .tosa files: Arm's reference model."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ana_fx.targets.runtimes.base_runtime import Arrays, Runtime

__all__ = ["TOSA_RUNTIMES"]

Array = np.ndarray[Any, Any]

_LEVEL = "EIGHTK"  # the limits of sizes that every implementation has


def _reference_model(data: bytes, feeds: Arrays) -> list[Array]:
    """The outputs of the reference model, sample after sample: the batch of a file is 1."""
    model = import_module("tosa_reference_model")
    rows = [_outputs(model, data, [array[None] for array in sample]) for sample in zip(*feeds.values(), strict=True)]
    return [np.concatenate(outputs) for outputs in zip(*rows, strict=True)]


def _outputs(model: Any, data: bytes, inputs: list[Array]) -> list[Array]:
    outputs, status = model.run(data, inputs, tosa_level=_LEVEL)
    if status != model.GraphStatus.TOSA_VALID:
        raise ValueError(f"it says {status.name}")
    return list(outputs)


TOSA_RUNTIMES = {
    "tosa-reference-model": Runtime(
        "tosa-reference-model", "tosa_reference_model", _reference_model, extra="tosa", distribution="tosa-tools"
    )
}
"""Arm's reference model, which checks what the specification demands of a graph and of each number."""
