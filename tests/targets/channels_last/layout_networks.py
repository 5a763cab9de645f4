"""Networks that have all operators of files whose images lie with their channels last."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

import ana_fx
from examples.networks import DSCNN, VGG8, ResNet20
from tests.models import Depthwise, OneDimensional, Residual, Shared, example


class Joined(nn.Module):
    """Branches that are joined, groups, dilation, odd strides and pads, differences, a flattened image."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.left = nn.Sequential(nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4), nn.ReLU())
        self.right = nn.Conv2d(8, 8, (3, 1), padding=(1, 0))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.mean = nn.AvgPool2d(3, 1, 1)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16 * 4 * 4, 5)

    def forward(self, x):
        x = self.stem(x)
        left, right = self.left(x), self.right(x)
        x = torch.cat([left, left - right], 1)
        return self.head(torch.relu(self.norm(self.mean(self.pool(x)))).flatten(1))


class Rows(nn.Module):
    """Linear layers over rows, a transposition, a slice, and two outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(5, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return x, self.second(x[:, :, ::2].transpose(1, 2))


class Sums(nn.Module):
    """Sums of an input, of one tensor with itself, whose ties are exact, and with factors; maxima and minima."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        y = self.conv(x)
        return x + y, y + y, y - 0.5 * x, torch.maximum(x, y), torch.minimum(y, y.mean((2, 3), keepdim=True))


class Gates(nn.Module):
    """A squeeze-and-excitation, hard swishes, a product of tensors of one size, and probabilities."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Hardswish())
        self.squeeze = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Sigmoid())
        self.left, self.right = nn.Conv2d(8, 4, 3), nn.Sequential(nn.Conv2d(8, 4, 3), nn.PReLU(4))
        self.head = nn.Sequential(nn.Linear(4, 7), nn.Softmax(1))

    def forward(self, x):
        x = self.stem(x)
        x = x * self.squeeze(x.mean((2, 3), keepdim=True))
        x = self.left(x) * self.right(x)
        return self.head((x - x.mean((2, 3), keepdim=True)).mean((2, 3)))


class Decoder(nn.Module):
    """Down and up again, in three ways, and a row that becomes longer."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.BatchNorm2d(6), nn.ReLU6())
        self.odd = nn.Sequential(nn.ConvTranspose2d(6, 6, 3, 2, 1, 1, groups=2), nn.ReLU())
        self.near = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 3, padding=1))
        self.row = nn.ConvTranspose1d(3, 2, 5, 3, dilation=2)

    def forward(self, x):
        x = self.up(self.down(x))
        return self.near(x), self.row(self.near[1](self.odd(x)).mean(2))


NETWORKS = {
    "VGG8/8": (partial(VGG8, 8), (3, 32, 32)),
    "DS-CNN": (DSCNN, (1, 49, 10)),
    "ResNet-20": (ResNet20, (3, 32, 32)),
    "residual": (Residual, (3, 8, 8)),
    "depthwise": (Depthwise, None),
    "one-dimensional": (OneDimensional, None),
    "shared": (Shared, None),
    "joined": (Joined, (3, 15, 15)),
    "rows": (Rows, (5, 6)),
    "sums": (Sums, (2, 6, 6)),
    "gates": (Gates, (3, 9, 9)),
    "decoder": (Decoder, (3, 8, 8)),
}


def trained_program(target, name, precision):
    """An integer program that has seen one training batch, and inputs that go beyond it."""
    make, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        x = example(make) if shape is None else torch.rand(8, *shape)
        qat = ana_fx.prepare(model, x, precision=precision, target=target)
        qat.train()(x)
        return ana_fx.convert(qat.eval()), torch.cat([x, 3 * torch.randn_like(x)])
