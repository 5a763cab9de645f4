"""The networks that are measured, with batches that two cores train in well under a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18
from torchvision.models.resnet import BasicBlock, ResNet

from examples.networks import DSCNN, VGG8

__all__ = [
    "DS_CNN",
    "MOBILENET_V2",
    "MOBILENET_V2_QUARTER",
    "RESNET10",
    "RESNET18",
    "VGG8_EIGHTH",
    "VGG8_QUARTER",
    "Network",
]


@dataclass(frozen=True)
class Network:
    """How to make a float network, and the shape of its batches."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def model(self) -> nn.Module:
        """The float network in training mode, the same one every time."""
        torch.manual_seed(0)
        return self.make().train()

    def batch(self) -> Tensor:
        """Random inputs, the same ones every time."""
        return torch.rand(self.shape, generator=torch.Generator().manual_seed(0))


VGG8_QUARTER = Network("VGG8/4, 32 × 32×32", lambda: VGG8(width_divisor=4), (32, 3, 32, 32))
VGG8_EIGHTH = Network("VGG8/8, 32 × 32×32", lambda: VGG8(width_divisor=8), (32, 3, 32, 32))
DS_CNN = Network("DS-CNN, 32 × 49×10", DSCNN, (32, 1, 49, 10))
RESNET18 = Network("ResNet-18, 16 × 64×64", lambda: resnet18(num_classes=10), (16, 3, 64, 64))
MOBILENET_V2 = Network("MobileNetV2, 16 × 64×64", lambda: mobilenet_v2(num_classes=10), (16, 3, 64, 64))
RESNET10 = Network("ResNet-10, 16 × 32×32", lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10), (16, 3, 32, 32))
MOBILENET_V2_QUARTER = Network(
    "MobileNetV2/4, 16 × 32×32", lambda: mobilenet_v2(num_classes=10, width_mult=0.25), (16, 3, 32, 32)
)
