"""The networks that are measured, with batches that two cores train in well under a second; the large ones for GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18, resnet50, vit_b_16
from torchvision.models.resnet import BasicBlock, ResNet

from examples.networks import DSCNN, VGG8

__all__ = [
    "DS_CNN",
    "DS_CNN_LARGE",
    "MOBILENET_V2",
    "MOBILENET_V2_LARGE",
    "MOBILENET_V2_QUARTER",
    "RESNET10",
    "RESNET18",
    "RESNET18_LARGE",
    "RESNET50_LARGE",
    "VGG8_EIGHTH",
    "VGG8_LARGE",
    "VGG8_QUARTER",
    "VIT_LARGE",
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
VGG8_LARGE = Network("VGG8, 256 × 32×32", VGG8, (256, 3, 32, 32))
DS_CNN_LARGE = Network("DS-CNN, 512 × 49×10", DSCNN, (512, 1, 49, 10))
RESNET18_LARGE = Network("ResNet-18, 128 × 128×128", resnet18, (128, 3, 128, 128))
RESNET50_LARGE = Network("ResNet-50, 64 × 224×224", resnet50, (64, 3, 224, 224))
MOBILENET_V2_LARGE = Network("MobileNetV2, 128 × 224×224", mobilenet_v2, (128, 3, 224, 224))
VIT_LARGE = Network("ViT-B/16, 64 × 224×224", vit_b_16, (64, 3, 224, 224))
