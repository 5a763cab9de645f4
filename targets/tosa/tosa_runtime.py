"""What runs .tosa files: Arm's reference model."""

from __future__ import annotations

from ana_fx.targets.runtimes.base_runtime import Runtime
from ana_fx.targets.tosa.reference_process import outputs_of

__all__ = ["TOSA_RUNTIMES"]

_NAME, _PACKAGE, _DISTRIBUTION = "tosa-reference-model", "tosa_reference_model", "tosa-tools"

TOSA_RUNTIMES = {_NAME: Runtime(_NAME, _PACKAGE, outputs_of, extra="tosa", distribution=_DISTRIBUTION)}
"""Arm's reference model, which checks what the specification demands of a graph and of each number."""
