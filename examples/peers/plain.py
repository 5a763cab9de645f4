"""Learned step sizes (LSQ) and a static straight-through estimator, in plain PyTorch and nothing else."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from examples.peers.method import Candidate, Method, Widths, ends_of

__all__ = ["Plain"]


class Plain(Method):
    """Each weight and each ReLU gets a step, learnt as Esser et al. (2020) do, or left where it starts.

    A file holds what PyTorch's own exporter makes of it: float operators that round and clip.

    Args:
        name: What tables call it.
        learns_steps: LSQ, else the static straight-through estimator.
    """

    def __init__(self, name: str, *, learns_steps: bool) -> None:
        self.name = name
        self.learns_steps = learns_steps

    def prepare(self, net: nn.Module, example: Tensor, widths: Widths, total_steps: int) -> Candidate:
        """See `Method`."""
        qat = copy.deepcopy(net).train()
        ends = ends_of(qat)
        for name, module in list(qat.named_modules()):
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                top = 2 ** ((widths.ends if name in ends else widths.weight) - 1) - 1
                quantizer = _Quantizer(-top, top, self.learns_steps, len(module.weight))
                quantizer.start(module.weight)
                parametrize.register_parametrization(module, "weight", quantizer)
            elif isinstance(module, nn.ReLU):
                parent, _, child = name.rpartition(".")
                features = nn.Sequential(module, _Quantizer(0, 2**widths.feature - 1, self.learns_steps))
                setattr(qat.get_submodule(parent), child, features)
        is_signed = bool((example < 0).any())
        image = _Quantizer(-128 if is_signed else 0, 127 if is_signed else 255, self.learns_steps)
        whole = nn.Sequential(image, qat)
        starts = [
            module.register_forward_pre_hook(lambda module, inputs: module.start(inputs[0]))
            for module in whole.modules()
            if isinstance(module, _Quantizer) and module.step.numel() == 1
        ]
        with torch.no_grad():
            whole(example)
        for start in starts:
            start.remove()
        return _Exported(whole)


class _Exported(Candidate):
    def export(self, path: Path, example: Tensor) -> None:
        net = self.net.eval()
        for module in net.modules():
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")  # leaves the quantised weight
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this exporter is the older one
            torch.onnx.export(net, (example,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}})


class _Quantizer(nn.Module):
    """Round and clip; the step starts at 2·mean(|x|)/√top, a row of the weight each.

    Args:
        lowest: Lowest level.
        highest: Highest level.
        learns_step: Whether the step is trained.
        num_steps: Steps, one for each entry of axis 0; 1 for a tensor as a whole.
    """

    def __init__(self, lowest: int, highest: int, learns_step: bool, num_steps: int = 1) -> None:
        super().__init__()
        self.lowest, self.highest = lowest, highest
        self.step = nn.Parameter(torch.ones(num_steps), requires_grad=learns_step)

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Take the step from numbers that are to be quantised."""
        size = x.abs().reshape(self.step.numel(), -1).mean(1)
        self.step.copy_((2 * size / self.highest**0.5).clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Multiples of the step, shaped as x."""
        rows = self.step.numel()
        step: Tensor = self.step.reshape(-1, *[1] * (x.ndim - 1)) if rows > 1 else self.step
        if not self.training:
            plain: Tensor = torch.round(x / step).clamp(self.lowest, self.highest)
            return plain * step
        damping = (x.numel() / rows * self.highest) ** -0.5
        step = step * damping + (step - step * damping).detach()
        ratio = (x / step).clamp(self.lowest, self.highest)
        levels: Tensor = ratio + (torch.round(ratio) - ratio).detach()
        return levels * step
