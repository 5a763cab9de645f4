"""Trained networks, rebuilt in plain PyTorch, with the images and clips that they are judged by.

They are others', but for the small VGG8, which `python -m examples.float_vgg` trains.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ana_fx import IntegerType, Precision
from examples.networks import VGG8, ResNet20

__all__ = ["TRAINED", "Examples", "FoldedDSCNN", "ResNet8", "TrainedNetwork", "jpeg_images"]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ResNet8(nn.Module):
    """The ResNet8 of MLPerf Tiny for 32×32 colour images with pixels from 0 to 255.

    Strided convolutions are padded behind the image only, as Keras pads them; shortcuts have no norm.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(16, eps=1e-3)
        self.block1 = _Block(16, 16)
        self.block2 = _Block(16, 32)
        self.block3 = _Block(32, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images, [batch, 3, 32, 32]."""
        x = F.relu(self.norm1(self.conv1(images)))
        x = self.block3(self.block2(self.block1(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        is_strided = in_channels != out_channels
        conv1 = nn.Conv2d(in_channels, out_channels, 3, 2 if is_strided else 1, 0 if is_strided else 1)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if is_strided else nn.Identity()
        self.conv1 = conv1
        self.norm1 = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, 2) if is_strided else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(self.pad(x))))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class FoldedDSCNN(nn.Module):
    """The DS-CNN of MLPerf Tiny for 49 frames of 10 cepstral coefficients, batch norms folded into its convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 1, 4, 5))
        self.conv = nn.Conv2d(1, 64, (10, 4), stride=2)
        self.block1, self.block2, self.block3, self.block4 = (_separable() for _ in range(4))
        self.head = nn.Linear(64, 12)

    def forward(self, cepstra: Tensor) -> Tensor:
        """Logits of clips, [batch, 1, 49, 10]."""
        x = F.relu(self.conv(self.pad(cepstra)))
        for block in (self.block1, self.block2, self.block3, self.block4):
            x = block(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def _separable() -> nn.Sequential:
    layers = OrderedDict[str, nn.Module]()
    layers["depthwise"] = nn.Conv2d(64, 64, 3, padding=1, groups=64)
    layers["relu1"] = nn.ReLU()
    layers["pointwise"] = nn.Conv2d(64, 64, 1)
    layers["relu2"] = nn.ReLU()
    return nn.Sequential(layers)


@dataclass(frozen=True)
class Examples:
    """What a network is calibrated with, without labels, and what it is judged by.

    Args:
        calibration: Inputs that calibration may choose from.
        inputs: Inputs of the test.
        labels: Their classes.
    """

    calibration: Tensor
    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network of others.

    Args:
        make: The network, untrained.
        weights: The file with its state, below the folder of the data.
        examples: From that folder to its examples.
        input: The type of its inputs; where they are integers already, theirs.
    """

    make: Callable[[], nn.Module]
    weights: str
    examples: Callable[[Path], Examples]
    input: IntegerType | str

    def precision(self, name: str) -> Precision:
        """The preset of that name, with the network's own integers at its input."""
        return replace(Precision.parse(name), input=self.input)

    def load(self, data: Path) -> nn.Module:
        """The network with its weights, in eval mode."""
        model = self.make()
        arrays = np.load(data / self.weights)
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        missing, unexpected = model.load_state_dict(state, strict=False)
        left = [name for name in missing if not name.endswith("num_batches_tracked")]
        if left or unexpected:
            raise ValueError(f"{self.weights} does not fit: missing {left}, unexpected {unexpected}")
        return model.eval()


def _images(data: Path) -> tuple[Tensor, Tensor, Tensor]:
    archive = np.load(data / "cifar10" / "cifar10_original_5k.npz")
    train, test = (torch.from_numpy(archive[name]).permute(0, 3, 1, 2).float() for name in ("x_train", "x_test"))
    return train, test, torch.from_numpy(archive["y_test"])


def _pixels(data: Path) -> Examples:
    return Examples(*_images(data))


def _normalized_images(data: Path) -> Examples:
    train, test, labels = _images(data)
    mean, std = (torch.tensor(each).reshape(-1, 1, 1) for each in _IMAGENET)
    return Examples((train / 255 - mean) / std, (test / 255 - mean) / std, labels)


def _clips(data: Path) -> Examples:
    archive = np.load(data / "speech_commands" / "gsc12_mfcc_int8.npz")
    train, test = ((torch.from_numpy(archive[name]).float()[:, None] - 83) * 0.5847 for name in ("x_train", "x_test"))
    return Examples(train, test, torch.from_numpy(archive["y_test"]))


def jpeg_images(data: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images of CIFAR-10 in [0, 1] that were stored as JPEG, with their classes: for training, for the test."""
    archive = np.load(data / "cifar10" / "cifar10_jpeg_10k.npz")
    train, test = (
        (torch.from_numpy(archive[f"x_{part}"]).permute(0, 3, 1, 2) / 255, torch.from_numpy(archive[f"y_{part}"]))
        for part in ("train", "test")
    )
    return train, test


def _jpeg_examples(data: Path) -> Examples:
    (images, _), (inputs, labels) = jpeg_images(data)
    return Examples(images, inputs, labels)


_CEPSTRA = IntegerType(8, signed=True, zero_point=211)  # from -128 to 127, less 83
TRAINED = {
    "ResNet-20": TrainedNetwork(ResNet20, "pretrained/resnet20_cifar10.npz", _normalized_images, "auto"),
    "ResNet8": TrainedNetwork(ResNet8, "pretrained/mlperf_tiny_resnet8.npz", _pixels, IntegerType(8, signed=False)),
    "VGG8/8": TrainedNetwork(partial(VGG8, 8), "pretrained/vgg8_eighth_cifar10.npz", _jpeg_examples, "auto"),
    "DS-CNN": TrainedNetwork(FoldedDSCNN, "pretrained/mlperf_tiny_dscnn.npz", _clips, _CEPSTRA),
}
