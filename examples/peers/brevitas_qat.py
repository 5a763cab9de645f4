"""Brevitas with the quantizers of its tutorials; exported as quantise, clip, dequantise (QCDQ)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.export import export_onnx_qcdq
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Uint8ActPerTensorFloat
from torch import Tensor, nn

from examples.peers.method import Candidate, Method, Widths, ends_of

__all__ = ["Brevitas"]


class Brevitas(Method):
    """Scales of weights from their largest number in each channel, those of features learnt after 300 steps."""

    name = "brevitas"

    def prepare(self, net: nn.Module, example: Tensor, widths: Widths, total_steps: int) -> Candidate:
        """See `Method`."""
        qat = copy.deepcopy(net).train()
        ends = ends_of(qat)
        for name, module in list(qat.named_modules()):
            parent, _, child = name.rpartition(".")
            replacement = _quantized(module, widths.ends if name in ends else widths.weight, widths.feature)
            if replacement is not None:
                setattr(qat.get_submodule(parent), child, replacement)
        is_signed = bool((example < 0).any())
        act_quant = Int8ActPerTensorFloat if is_signed else Uint8ActPerTensorFloat
        return _Exported(nn.Sequential(qnn.QuantIdentity(act_quant=act_quant), qat))


def _quantized(module: nn.Module, weight_bits: int, feature_bits: int) -> nn.Module | None:
    """Brevitas' layer for one of PyTorch's, or None where there is nothing to quantise."""
    options: dict[str, Any] = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": weight_bits}
    replacement: nn.Module
    if isinstance(module, nn.Conv2d):
        replacement = qnn.QuantConv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            stride=module.stride,
            padding=module.padding,
            dilation=module.dilation,
            groups=module.groups,
            bias=module.bias is not None,
            **options,
        )
    elif isinstance(module, nn.Linear):
        replacement = qnn.QuantLinear(module.in_features, module.out_features, module.bias is not None, **options)
    elif isinstance(module, nn.ReLU):
        return qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=feature_bits)  # type: ignore[no-any-return]
    else:
        return None
    replacement.load_state_dict(module.state_dict(), strict=False)
    return replacement


class _Exported(Candidate):
    def export(self, path: Path, example: Tensor) -> None:
        with torch.no_grad():
            export_onnx_qcdq(
                self.net.eval(),
                args=example,
                export_path=str(path),
                dynamo=False,
                input_names=["x"],
                dynamic_axes={"x": {0: "batch"}},
            )
