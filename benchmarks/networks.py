"""The networks that are measured, with batches that two cores train in well under a second; the large ones for GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18, resnet50, vit_b_16
from torchvision.models.resnet import BasicBlock, ResNet

from examples.networks import DSCNN, VGG8

__all__ = [
    "ATTENTION",
    "DS_CNN",
    "DS_CNN_LARGE",
    "GROUPS",
    "LINEAR",
    "MLP",
    "MOBILENET_V2",
    "MOBILENET_V2_LARGE",
    "MOBILENET_V2_QUARTER",
    "PRODUCTS",
    "RESNET10",
    "RESNET18",
    "RESNET18_LARGE",
    "RESNET50",
    "RESNET50_LARGE",
    "VGG8_EIGHTH",
    "VGG8_LARGE",
    "VGG8_QUARTER",
    "VIT",
    "VIT_LARGE",
    "Network",
]


@dataclass(frozen=True)
class Network:
    """How to make a float network, the shape of its batches, and whether these go below zero."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    is_signed: bool = False

    def model(self) -> nn.Module:
        """The float network in training mode, the same one every time."""
        torch.manual_seed(0)
        return self.make().train()

    def batch(self) -> Tensor:
        """Random inputs, the same ones every time."""
        x = torch.rand(self.shape, generator=torch.Generator().manual_seed(0))
        return 2 * x - 1 if self.is_signed else x


class _Attention(nn.Module):
    """An attention block over eight tokens: products of two activations, a softmax, a layer norm, a table."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 16)
        self.query, self.key, self.value, self.project = (nn.Linear(16, 16) for _ in range(4))
        self.norm = nn.LayerNorm(16)
        self.hidden = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of tokens, [batch, 8, 12]."""
        x = self.embed(tokens)
        y = self.norm(x)
        heads = (part(y).unflatten(-1, (2, 8)).transpose(1, 2) for part in (self.query, self.key, self.value))
        x = x + self.project(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        x = x + self.hidden(x)
        logits: Tensor = self.head(x.mean(1))
        return logits


class _Products(nn.Module):
    """Products of unsigned numbers and signed ones, and of signed ones and signed ones."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two products, [batch, 9, 9], of [batch, 9, 33]."""
        y = x.transpose(1, 2)
        return torch.matmul(F.relu(x), y), torch.matmul(x, y)


def _vit(num_classes: int) -> nn.Module:
    """ViT-B/16 whose last layer, which torchvision starts at zero, lets gradients through."""
    model: nn.Module = vit_b_16(num_classes=num_classes)
    nn.init.normal_(model.get_parameter("heads.head.weight"), std=0.02)
    return model


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 33), nn.ReLU(), nn.Linear(33, 10))


def _groups() -> nn.Module:
    """Odd numbers of channels, and kernels of many kinds: 5×5, depthwise, with two outputs, in groups, dilated, 1-D."""
    return nn.Sequential(
        *(nn.Conv2d(3, 5, 5, padding=2), nn.ReLU()),
        *(nn.Conv2d(5, 10, 3, padding=1, groups=5), nn.ReLU()),
        *(nn.Conv2d(10, 15, 3, dilation=2, groups=5), nn.ReLU()),
        *(nn.Conv2d(15, 15, 3, groups=15), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(2)),
        *(nn.Conv1d(15, 7, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(28, 10)),
    )


VGG8_QUARTER = Network("VGG8/4, 32 × 32×32", lambda: VGG8(width_divisor=4), (32, 3, 32, 32))
VGG8_EIGHTH = Network("VGG8/8, 32 × 32×32", lambda: VGG8(width_divisor=8), (32, 3, 32, 32))
DS_CNN = Network("DS-CNN, 32 × 49×10", DSCNN, (32, 1, 49, 10))
RESNET18 = Network("ResNet-18, 16 × 64×64", lambda: resnet18(num_classes=10), (16, 3, 64, 64))
MOBILENET_V2 = Network("MobileNetV2, 16 × 64×64", lambda: mobilenet_v2(num_classes=10), (16, 3, 64, 64))
RESNET50 = Network("ResNet-50, 4 × 224×224", lambda: resnet50(num_classes=10), (4, 3, 224, 224))
VIT = Network("ViT-B/16, 2 × 224×224", lambda: _vit(num_classes=10), (2, 3, 224, 224))
RESNET10 = Network("ResNet-10, 16 × 32×32", lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10), (16, 3, 32, 32))
MOBILENET_V2_QUARTER = Network(
    "MobileNetV2/4, 16 × 32×32", lambda: mobilenet_v2(num_classes=10, width_mult=0.25), (16, 3, 32, 32)
)
VGG8_LARGE = Network("VGG8, 256 × 32×32", VGG8, (256, 3, 32, 32))
DS_CNN_LARGE = Network("DS-CNN, 512 × 49×10", DSCNN, (512, 1, 49, 10))
RESNET18_LARGE = Network("ResNet-18, 128 × 128×128", resnet18, (128, 3, 128, 128))
RESNET50_LARGE = Network("ResNet-50, 64 × 224×224", resnet50, (64, 3, 224, 224))
MOBILENET_V2_LARGE = Network("MobileNetV2, 128 × 224×224", mobilenet_v2, (128, 3, 224, 224))
VIT_LARGE = Network("ViT-B/16, 64 × 224×224", lambda: _vit(num_classes=1000), (64, 3, 224, 224))
LINEAR = Network("linear, 32 × 64", lambda: nn.Linear(64, 10), (32, 64))
MLP = Network("MLP, 32 × 64", _mlp, (32, 64))
ATTENTION = Network("attention, 32 × 8×12", _Attention, (32, 8, 12))
GROUPS = Network("groups, 32 × 12×12", _groups, (32, 3, 12, 12))
PRODUCTS = Network("products, 32 × 9×33", _Products, (32, 9, 33), is_signed=True)
