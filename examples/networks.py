"""The networks of the examples in plain PyTorch; nothing in them knows of quantisation."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DSCNN", "VGG8", "ResNet20"]


class VGG8(nn.Module):
    """VGG8 for 32×32 colour images: 128-M-256-256-M-512-512-M, then 8192-1024-1024-10.

    Args:
        width_divisor: Every number of channels and of hidden features is divided by it; it divides 128.
        num_classes: Features of the output.
    """

    def __init__(self, width_divisor: int = 1, num_classes: int = 10) -> None:
        if width_divisor < 1 or 128 % width_divisor:
            raise ValueError(f"width_divisor is a divisor of 128, got {width_divisor}")
        super().__init__()
        small, medium, large, hidden = (width // width_divisor for width in (128, 256, 512, 1024))
        self.features = nn.Sequential(
            OrderedDict(
                conv1=_convolution(3, small),
                pool1=nn.MaxPool2d(2),
                conv2=_convolution(small, medium),
                conv3=_convolution(medium, medium),
                pool2=nn.MaxPool2d(2),
                conv4=_convolution(medium, large),
                conv5=_convolution(large, large),
                pool3=nn.MaxPool2d(2),
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                linear1=_linear(large * 4 * 4, hidden),
                linear2=_linear(hidden, hidden),
                head=nn.Linear(hidden, num_classes),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images, [batch, 3, 32, 32]."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


class DSCNN(nn.Module):
    """DS-CNN for keyword spotting: a convolution, four depthwise-separable ones, a mean, a linear head.

    Args:
        num_classes: Features of the output; 12 for Speech Commands.
        width: Channels of every convolution.
    """

    def __init__(self, num_classes: int = 12, width: int = 64) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                pad=nn.ZeroPad2d((1, 1, 4, 5)),  # the paper's "same": 49×10 becomes 25×5
                conv=_convolution(1, width, (10, 4), stride=2, padding=0),
                block1=_separable(width),
                block2=_separable(width),
                block3=_separable(width),
                block4=_separable(width),
                pool=nn.AdaptiveAvgPool2d(1),
            )
        )
        self.classifier = nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=nn.Linear(width, num_classes)))

    def forward(self, cepstra: Tensor) -> Tensor:
        """Logits of mel-frequency cepstra, [batch, 1, 49 frames, 10 coefficients]."""
        logits: Tensor = self.classifier(self.features(cepstra))
        return logits


class ResNet20(nn.Module):
    """ResNet-20 for 32×32 colour images, with shortcuts that have no parameters.

    A shortcut into half the size takes every second pixel and pads the channels with zeros on both sides. The names
    of parameters are those of torchvision's ResNets, but for `linear`.

    Args:
        num_classes: Features of the output.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16)
        self.layer2 = _stage(16, 32)
        self.layer3 = _stage(32, 64)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images, [batch, 3, 32, 32]."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class _BasicBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.stride = 1 if in_channels == out_channels else 2
        self.padding = (out_channels - in_channels) // 2
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(y + x)


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:
    channels = (in_channels, out_channels, out_channels, out_channels)
    return nn.Sequential(*(_BasicBlock(*pair) for pair in pairwise(channels)))


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int] = 3,
    *,
    stride: int = 1,
    padding: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(out_channels), relu=nn.ReLU()))


def _separable(width: int) -> nn.Sequential:
    depthwise = _convolution(width, width, groups=width)
    pointwise = _convolution(width, width, 1, padding=0)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))


def _linear(in_features: int, out_features: int) -> nn.Sequential:
    linear = nn.Linear(in_features, out_features, bias=False)
    return nn.Sequential(OrderedDict(linear=linear, norm=nn.BatchNorm1d(out_features), relu=nn.ReLU()))
