"""PyTorch's own QAT in graph mode (torch.ao), exported by PyTorch's exporter as QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    QConfigMapping,
    disable_observer,
)
from torch.ao.quantization.quantize_fx import prepare_qat_fx

from examples.peers.method import Candidate, Method, Widths, ends_of

__all__ = ["TorchAo"]


class TorchAo(Method):
    """Weights per channel, symmetric; features per tensor; ranges are moving averages of minimum and maximum."""

    name = "torch.ao"

    def prepare(self, net: nn.Module, example: Tensor, widths: Widths, total_steps: int) -> Candidate:
        """See `Method`."""
        mapping = QConfigMapping().set_global(_config(widths.weight, widths.feature))
        for name in ends_of(net):
            mapping = mapping.set_module_name(name, _config(widths.ends, widths.feature))
        return _Exported(prepare_qat_fx(copy.deepcopy(net).train(), mapping, (example,)))


def _config(weight_bits: int, feature_bits: int) -> QConfig:
    top = 2 ** (weight_bits - 1) - 1
    weight = FakeQuantize.with_args(
        observer=MovingAveragePerChannelMinMaxObserver,
        quant_min=-top - (weight_bits == 8),  # the only eight-bit range that its exporter takes
        quant_max=top,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
    feature = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=2**feature_bits - 1, dtype=torch.quint8
    )
    return QConfig(activation=feature, weight=weight)


class _Exported(Candidate):
    def finish(self, batches: Iterable[Tensor]) -> None:
        self.net.apply(disable_observer)

    def export(self, path: Path, example: Tensor) -> None:
        whole = nn.Sequential(self.net).eval()  # the exporter does not take a bare GraphModule
        torch.onnx.export(
            whole, (example,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}}, opset_version=17
        )
