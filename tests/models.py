"""Small networks with the shapes of trouble, and what the tests do with them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx


class Chain(nn.Module):
    """Convolutions, batch norm, ReLU, max pool, a hidden linear layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.ZeroPad2d((0, 1, 1, 0)),
            nn.Conv2d(8, 12, (3, 2), stride=(1, 2), dilation=(2, 1)),
            nn.BatchNorm2d(12),
            nn.MaxPool2d(2),
            nn.ReLU6(),
            nn.Dropout(0.1),
        )
        self.hidden = nn.Linear(12, 16)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = x.view(x.size(0), -1)
        x = F.relu(self.norm(self.hidden(x)))
        return self.head(x)


class Block(nn.Module):
    """A residual block whose skip may be a strided convolution."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)  # called twice
        self.skip = (
            nn.Sequential(nn.Conv2d(width, out, 1, stride), nn.BatchNorm2d(out)) if stride > 1 else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.skip(x)
        return self.relu(y)


class Residual(nn.Module):
    """Two residual blocks, a global mean and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 12, 2))
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Depthwise(nn.Module):
    """Depthwise-separable convolutions with a linear bottleneck, an average pool and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.grouped = nn.Sequential(nn.Conv2d(8, 16, 3, padding="same", groups=4), nn.Hardtanh(-2, 3))
        self.pool = nn.AvgPool2d(2, stride=2, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.depthwise(self.stem(x))) + self.stem(x)
        x = self.pool(self.grouped(x))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class OneDimensional(nn.Module):
    """1-D convolutions over time, an activation that stands alone, an int8 convolutional head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(4, 8, 5, stride=2, padding=2)
        self.bn = nn.BatchNorm1d(8)
        self.conv2 = nn.Conv1d(8, 8, 3, padding=1)
        self.pool = nn.AvgPool1d(2)
        self.head = nn.Conv1d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv1(x)))
        y = self.conv2(x)
        x = torch.add(y, x).clamp(min=0)
        return self.head(self.pool(F.max_pool1d(x, 2)))


class Shared(nn.Module):
    """One convolution, one batch norm and one ReLU called twice, and a tensor with two readers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.head = nn.Linear(6 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        y = self.relu(self.bn(self.conv(x)))
        z = self.relu(self.bn(self.conv(y)))
        x = F.max_pool2d(x + z, 2)
        return self.head(F.avg_pool2d(x, 2).flatten(1))


class Volume(nn.Module):
    """3-D convolution and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm3d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(F.relu(self.bn(self.conv(x))), 2)
        return self.head(F.adaptive_avg_pool3d(x, 1).flatten(1))


def make_awkward(model: nn.Module) -> nn.Module:
    """Batch norms with negative, zero, tiny and huge gains and nearly no variance."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            with torch.no_grad():
                gains = torch.tensor([1.0, -0.7, 0.0, 1e-12, 300.0, -1e6])
                module.weight.copy_(gains.repeat(module.num_features)[: module.num_features])
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.copy_(torch.rand(module.num_features) * 10.0 ** torch.randint(-12, 3, (1,)))
    return model


INPUT_SHAPES: dict[type[nn.Module], tuple[int, ...]] = {
    Chain: (3, 10, 10),
    Residual: (3, 8, 8),
    Depthwise: (3, 12, 12),
    OneDimensional: (4, 32),
    Shared: (3, 16, 16),
    Volume: (1, 6, 6, 6),
}


def example(kind: type[nn.Module], batch_size: int = 8, *, signed: bool = False) -> Tensor:
    """Inputs for a network; never negative unless `signed`."""
    x = torch.rand(batch_size, *INPUT_SHAPES[kind])
    return x * 2 - 1 if signed else x


def train(qat: GraphModule, shape: tuple[int, ...], num_steps: int, *, signed: bool = False) -> None:
    """Real training steps on random data, to the end of the annealing."""
    qat.train()
    annealer = ana_fx.Annealer(qat, num_steps)
    optimizer = torch.optim.Adam(qat.parameters(), lr=1e-3)
    for _ in range(num_steps):
        x = torch.rand(16, *shape) * (2 if signed else 1) - (1 if signed else 0)
        optimizer.zero_grad()
        qat(x).square().mean().backward()
        optimizer.step()
        annealer.step()
