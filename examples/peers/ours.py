"""ana_fx as its README says, and the same with a teacher or with annealed noise."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx
from examples.peers.method import Candidate, Method, Widths

__all__ = ["AnaFx"]


class AnaFx(Method):
    """Any schedule of ana_fx; what is exported is the integer program, quantised and dequantised inside the file.

    Args:
        name: What tables call it.
        schedule: Name of a preset, or a schedule.
        is_taught: Whether the float network teaches it.
    """

    replaces_activations = True

    def __init__(self, name: str, schedule: str | ana_fx.Schedule, *, is_taught: bool = False) -> None:
        self.name = name
        self.is_taught = is_taught
        self._schedule = schedule

    def prepare(self, net: nn.Module, example: Tensor, widths: Widths, total_steps: int) -> Candidate:
        """See `Method`."""
        features = f"uint{widths.feature}" if widths.feature else "ternary"
        ends = _weight(widths.ends)
        precision = ana_fx.Precision(_weight(widths.weight), features, first=ends, last=ends)
        qat = ana_fx.prepare(net.train(), example, precision=precision, schedule=self._schedule)
        return _Prepared(qat, ana_fx.Annealer(qat, total_steps))


class _Prepared(Candidate):
    def finish(self, batches: Iterable[Tensor]) -> None:
        assert isinstance(self.net, GraphModule)
        ana_fx.reestimate_batch_norms(self.net, batches)

    def export(self, path: Path, example: Tensor) -> None:
        assert isinstance(self.net, GraphModule)
        ana_fx.export(ana_fx.convert(self.net), path, target="onnxruntime", io="float")


def _weight(bits: int) -> str:
    return "ternary" if bits == 2 else f"int{bits}"
