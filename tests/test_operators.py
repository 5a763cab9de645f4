"""Every operator in the middle of a small network, from floats to files: no integer differs anywhere."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torchvision.ops import DropBlock2d, StochasticDepth

import ana_fx
from ana_fx.layers.table_map import Elementwise
from ana_fx.passes.canonical.canonical_dialect import FUNCTIONS
from tests.graphs import Written, WrittenForTwo
from tests.programs import settled

Expression = Callable[..., Any]

SHAPES: dict[int, tuple[int, ...]] = {0: (6,), 1: (3, 12), 2: (3, 8, 8), 3: (2, 4, 4, 4)}
IMAGE = SHAPES[2]
WIDTH = 4


def conv(in_channels: int = 3, out_channels: int = WIDTH, kernel: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, **{"padding": kernel // 2, **settings})


def stem(rank: int) -> nn.Module:
    kinds: tuple[Callable[..., nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return nn.Linear(6, WIDTH) if rank == 0 else kinds[rank - 1](SHAPES[rank][0], WIDTH, 3, padding=1)


def network(middle: Expression, rank: int = 2, **members: Any) -> nn.Module:
    """stem -> middle -> flatten -> linear head, on WIDTH channels and so many spatial axes."""
    model = Written(
        lambda m, x: m.head(middle(m, m.stem(x)).flatten(1)), stem=stem(rank), head=nn.LazyLinear(3), **members
    )
    model.input_shapes = (SHAPES[rank],)
    return model


def layered(*modules: nn.Module, rank: int = 2) -> nn.Module:
    """stem -> modules -> flatten -> linear head."""
    return network(lambda m, y: m.layers(y), rank, layers=nn.Sequential(*modules))


def whole(forward: Expression, *shapes: tuple[int, ...], **members: Any) -> nn.Module:
    """A model whose forward is written out, for one or two inputs of these shapes."""
    model = (Written, WrittenForTwo)[len(shapes) == 2](forward, **members)
    model.input_shapes = shapes or (IMAGE,)
    return model


def awake(norm: nn.Module) -> nn.Module:
    """A normalisation that does something."""
    for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, *((0.5, 2.0) if "var" in name else (-1.5, 1.5)))
    return norm


def on_two(join: Expression, **members: Any) -> nn.Module:
    """An operation on two convolutions of one tensor."""
    return network(lambda m, y: join(m, m.a(y), m.b(y)), a=conv(WIDTH), b=conv(WIDTH, bias=False), **members)


SUMS = {
    "add two tensors": lambda: on_two(lambda m, a, b: a + b),
    "subtract two tensors": lambda: on_two(lambda m, a, b: a - b),
    "add with alpha": lambda: on_two(lambda m, a, b: torch.add(a, b, alpha=3)),
    "subtract with alpha": lambda: on_two(lambda m, a, b: torch.sub(a, b, alpha=0.5)),
    "multiply two tensors": lambda: on_two(lambda m, a, b: a * b),
    "multiply by a gate": lambda: on_two(lambda m, a, b: a * torch.sigmoid(b)),
    "multiply unsigned tensors": lambda: on_two(lambda m, a, b: a.relu() * b.relu()),
    "square by itself": lambda: network(lambda m, y: y * y),
    "double by itself": lambda: network(lambda m, y: y + y),
    "nothing by itself": lambda: network(lambda m, y: y - y),
    "add with batch norm and relu": lambda: on_two(
        lambda m, a, b: m.norm(a + b).relu(), norm=awake(nn.BatchNorm2d(WIDTH))
    ),
    "multiply with batch norm": lambda: on_two(lambda m, a, b: m.norm(a * b), norm=awake(nn.BatchNorm2d(WIDTH))),
    "add broadcast channels": lambda: on_two(lambda m, a, b: a + b.mean((2, 3), keepdim=True)),
    "add a smaller tensor first": lambda: on_two(lambda m, a, b: b.mean((2, 3), keepdim=True) + a),
    "squeeze and excitation": lambda: network(
        lambda m, y: y * torch.sigmoid(m.fc(F.adaptive_avg_pool2d(y, 1))), fc=nn.Conv2d(WIDTH, WIDTH, 1)
    ),
    "gate first": lambda: network(
        lambda m, y: torch.sigmoid(m.fc(F.adaptive_avg_pool2d(y, 1))) * y, fc=nn.Conv2d(WIDTH, WIDTH, 1)
    ),
    "sum of three": lambda: on_two(lambda m, a, b: a + b + a.relu()),
    "in place": lambda: on_two(lambda m, a, b: a.add_(b).relu_()),
    "sum with the input": lambda: whole(lambda m, x: m.b(m.a(x) + x), a=conv(3, 3), b=conv()),
}
CONSTANTS = {
    "add a number": lambda: network(lambda m, y: y + 0.7),
    "subtract a number": lambda: network(lambda m, y: y - 1),
    "subtract from a number": lambda: network(lambda m, y: 1 - y),
    "multiply by a number": lambda: network(lambda m, y: y * 2.5),
    "multiply by a negative number": lambda: network(lambda m, y: -0.3 * y),
    "divide by a number": lambda: network(lambda m, y: y / 3),
    "a line": lambda: network(lambda m, y: (2 * y - 1) / 3 + 0.1),
    "a line then relu": lambda: network(lambda m, y: (2 * y - 0.1).relu()),
    "a line behind relu": lambda: network(lambda m, y: y.relu() * 2 - 0.1),
    "a line behind a sum": lambda: on_two(lambda m, a, b: (a + b) * 0.5 + 0.2),
    "a line around a batch norm": lambda: network(lambda m, y: m.norm(y) * 2 + 1, norm=awake(nn.BatchNorm2d(WIDTH))),
    "a line before a batch norm": lambda: network(lambda m, y: m.norm(y * 2 + 1), norm=awake(nn.BatchNorm2d(WIDTH))),
    "an input that is scaled": lambda: whole(lambda m, x: m.a((x - 0.5) / 0.25), a=conv()),
    "a negative": lambda: network(lambda m, y: -y),
    "a number that is a parameter": lambda: network(lambda m, y: y * m.gain, gain=nn.Parameter(torch.tensor(0.3))),
    "layer scale": lambda: network(lambda m, y: y * m.gain, gain=nn.Parameter(torch.randn(WIDTH, 1, 1))),
    "a bias for each channel": lambda: network(lambda m, y: y + m.bias, bias=nn.Parameter(torch.randn(1, WIDTH, 1, 1))),
    "a parameter first": lambda: network(lambda m, y: m.bias - y, bias=nn.Parameter(torch.randn(1, WIDTH, 1, 1))),
    "a position": lambda: network(lambda m, y: y + m.position, position=nn.Parameter(torch.randn(1, WIDTH, 8, 8))),
    "a position that is a buffer": lambda: network(
        lambda m, y: y + m.position, position=nn.Buffer(torch.randn(WIDTH, 8, 8))
    ),
    "a computed constant": lambda: network(
        lambda m, y: y + torch.tanh(m.position) * 0.5, position=nn.Parameter(torch.randn(WIDTH, 8, 8))
    ),
    "a mask": lambda: network(lambda m, y: y * m.mask, mask=nn.Buffer(torch.tensor([1.0, 0, 1, 1]).reshape(-1, 1, 1))),
    "a constant of zeros": lambda: network(lambda m, y: y + m.zero, zero=nn.Buffer(torch.zeros(WIDTH, 1, 1))),
    "a constant that is joined": lambda: network(
        lambda m, y: torch.cat([y, m.row.expand(y.size(0), -1, -1, -1)], 1), row=nn.Parameter(torch.randn(1, 1, 8, 8))
    ),
    "a constant that is repeated, then moved": lambda: network(
        lambda m, y: torch.cat([y.flatten(2), m.token.expand(y.size(0), -1).unsqueeze(2)], 2),
        token=nn.Parameter(torch.randn(WIDTH)),
    ),
    "a matrix product with a parameter": lambda: network(
        lambda m, y: y @ m.matrix, matrix=nn.Parameter(torch.randn(8, 5))
    ),
    "a constant with two readers": lambda: network(
        lambda m, y: (y + m.bias) * m.bias, bias=nn.Parameter(torch.randn(WIDTH, 1, 1))
    ),
}
JOINS = {
    "cat of two convolutions": lambda: on_two(lambda m, a, b: torch.cat([a, b], 1)),
    "cat of different scales": lambda: on_two(lambda m, a, b: torch.cat([a * 100, b], 1)),
    "cat of signed and unsigned": lambda: on_two(lambda m, a, b: torch.cat([a.relu(), b], 1)),
    "cat of one tensor twice": lambda: network(lambda m, y: torch.cat([y, y], 1)),
    "cat with the input": lambda: whole(lambda m, x: m.b(torch.cat([m.a(x), x], 1)), a=conv(), b=conv(7)),
    "cat with the input first": lambda: whole(lambda m, x: m.b(torch.cat([x, m.a(x)], 1)), a=conv(), b=conv(7)),
    "cat along an image axis": lambda: on_two(lambda m, a, b: torch.cat([a, b], dim=-1)),
    "cat of a softmax": lambda: on_two(lambda m, a, b: torch.cat([a.softmax(1), b], 1)),
    "cat of a table and a convolution": lambda: on_two(lambda m, a, b: torch.cat([F.gelu(a), b], 1)),
    "cat that a table reads": lambda: on_two(lambda m, a, b: F.silu(torch.cat([a, b], 1))),
    "cat of what a table reads too": lambda: on_two(lambda m, a, b: torch.cat([F.silu(a), a, b], 1)),
    "cat of cats": lambda: on_two(lambda m, a, b: torch.cat([torch.cat([a, b], 1), a.relu()], 1)),
    "dense block": lambda: network(
        lambda m, y: torch.cat([y, m.b(torch.cat([y, m.a(y)], 1))], 1), a=conv(WIDTH), b=conv(2 * WIDTH)
    ),
    "stack": lambda: on_two(lambda m, a, b: torch.stack([a, b], 1)),
    "chunk": lambda: on_two(lambda m, a, b: operator.mul(*a.chunk(2, 1))),
    "chunk and cat": lambda: network(
        lambda m, y: (lambda a, b: torch.cat([a, m.a(b)], 1))(*y.chunk(2, dim=1)), a=conv(WIDTH // 2, 2)
    ),
    "gated linear unit": lambda: network(lambda m, y: (lambda a, b: a * b.sigmoid())(*y.chunk(2, 1))),
    "split": lambda: network(lambda m, y: (lambda a, b: torch.cat([b, a.relu()], 1))(*torch.split(y, [1, 3], 1))),
    "split by size": lambda: network(lambda m, y: (lambda a, b: a - b)(*y.split(2, 1))),
    "unbind": lambda: network(lambda m, y: (lambda a, b, c, d: a + d)(*y.unbind(1))),
    "slice": lambda: network(lambda m, y: y[:, 1:, ::2, :-1]),
    "index": lambda: network(lambda m, y: y[:, 0]),
    "index from the end": lambda: network(lambda m, y: y[:, :, -1, ...]),
    "index by a list": lambda: network(lambda m, y: y[:, [2, 0, 0]]),
    "select": lambda: network(lambda m, y: y.select(1, 2)),
    "focus": lambda: network(lambda m, y: torch.cat([y[..., ::2, ::2], y[..., 1::2, 1::2]], 1)),
}
REDUCTIONS = {
    "mean of the image": lambda: network(lambda m, y: y.mean((2, 3))),
    "mean with keepdim": lambda: network(lambda m, y: y.mean([2, 3], keepdim=True)),
    "mean of channels": lambda: network(lambda m, y: y.mean(1)),
    "mean of a negative axis": lambda: network(lambda m, y: y.mean(dim=-1, keepdim=True)),
    "mean of channels and rows": lambda: network(lambda m, y: torch.mean(y, (1, 2))),
    "mean of everything but the batch": lambda: network(lambda m, y: y.mean((1, 2, 3), keepdim=True)),
    "mean of tokens": lambda: network(lambda m, y: y.flatten(2).transpose(1, 2).mean(1)),
    "mean then relu": lambda: network(lambda m, y: y.mean(1).relu()),
    "mean of a volume": lambda: network(lambda m, y: y.mean((2, 3, 4)), 3),
    "sum of the image": lambda: network(lambda m, y: y.sum((2, 3))),
    "sum of channels": lambda: network(lambda m, y: torch.sum(y, 1, keepdim=True)),
    "sum of a negative axis": lambda: network(lambda m, y: y.sum(-2)),
    "sum then a line": lambda: network(lambda m, y: y.sum(dim=(1, 3)) / 8 - 0.1),
}
POOLS = {
    "average": lambda: layered(nn.AvgPool2d(2)),
    "average with padding": lambda: layered(nn.AvgPool2d(3, 2, 1)),
    "average that does not count padding": lambda: layered(nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    "ceil average": lambda: layered(nn.AvgPool2d(3, 2, ceil_mode=True)),
    "ceil average with padding": lambda: layered(nn.AvgPool2d((3, 2), (2, 3), (1, 0), ceil_mode=True)),
    "ceil average that does not count": lambda: layered(nn.AvgPool2d(3, 2, 1, True, False)),
    "average with a divisor": lambda: layered(nn.AvgPool2d(2, divisor_override=3)),
    "ceil average with a divisor": lambda: layered(nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=5)),
    "sum over windows": lambda: layered(nn.AvgPool2d(3, 1, 1, divisor_override=1)),
    "average of a sequence": lambda: layered(nn.AvgPool1d(3, 2, 1), rank=1),
    "ceil average of a sequence": lambda: layered(nn.AvgPool1d(5, 3, 2, True, False), rank=1),
    "average of a volume": lambda: layered(nn.AvgPool3d(2, 1), rank=3),
    "ceil average of a volume": lambda: layered(nn.AvgPool3d(3, 2, 1, True, False), rank=3),
    "adaptive average": lambda: layered(nn.AdaptiveAvgPool2d(4)),
    "adaptive average to one": lambda: layered(nn.AdaptiveAvgPool2d(1)),
    "adaptive average that does not divide": lambda: layered(nn.AdaptiveAvgPool2d((3, 5))),
    "adaptive average that enlarges": lambda: layered(nn.AdaptiveAvgPool2d((None, 11))),
    "adaptive average of a sequence": lambda: layered(nn.AdaptiveAvgPool1d(5), rank=1),
    "adaptive average of a volume": lambda: layered(nn.AdaptiveAvgPool3d((3, 2, 1)), rank=3),
    "average with batch norm and relu": lambda: layered(
        nn.AvgPool2d(3, 2, 1, True, False), awake(nn.BatchNorm2d(WIDTH)), nn.ReLU()
    ),
    "max": lambda: layered(nn.MaxPool2d(2)),
    "max with padding": lambda: layered(nn.MaxPool2d((3, 2), (2, 1), (1, 0))),
    "max with dilation": lambda: layered(nn.MaxPool2d(2, 1, 1, dilation=2)),
    "ceil max": lambda: layered(nn.MaxPool2d(3, 2, ceil_mode=True)),
    "ceil max with padding and dilation": lambda: layered(nn.MaxPool2d(2, 3, 1, 2, ceil_mode=True)),
    "max of a sequence": lambda: layered(nn.MaxPool1d(3, 2, 1, ceil_mode=True), rank=1),
    "max of a volume": lambda: layered(nn.MaxPool3d(2, 2, 1), rank=3),
    "max then relu": lambda: layered(nn.MaxPool2d(2), nn.ReLU()),
    "max then a table": lambda: layered(nn.MaxPool2d(2), nn.SiLU()),
    "max of the input": lambda: whole(lambda m, x: m.a(F.max_pool2d(x, 2)), a=conv()),
    "adaptive max": lambda: layered(nn.AdaptiveMaxPool2d((4, 2))),
    "adaptive max of a sequence": lambda: layered(nn.AdaptiveMaxPool1d(3), rank=1),
    "spatial pyramid": lambda: network(
        lambda m, y: torch.cat([y, F.max_pool2d(y, 5, 1, 2), F.max_pool2d(F.max_pool2d(y, 5, 1, 2), 5, 1, 2)], 1)
    ),
}
TRANSPOSED = {
    "transposed": lambda: layered(nn.ConvTranspose2d(WIDTH, 3, 3)),
    "transposed with stride": lambda: layered(nn.ConvTranspose2d(WIDTH, 3, 2, 2)),
    "transposed with everything": lambda: layered(
        nn.ConvTranspose2d(WIDTH, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, dilation=(2, 1))
    ),
    "transposed with negative padding": lambda: layered(nn.ConvTranspose2d(WIDTH, 2, 1, 2, 2)),
    "transposed with more padding than kernel": lambda: layered(nn.ConvTranspose2d(WIDTH, 2, 1, padding=1)),
    "transposed with batch norm and relu": lambda: layered(
        nn.ConvTranspose2d(WIDTH, 2, 3, 2, 1, 1, bias=False), awake(nn.BatchNorm2d(2)), nn.ReLU()
    ),
    "depthwise transposed": lambda: layered(nn.ConvTranspose2d(WIDTH, WIDTH, 4, 2, 1, groups=WIDTH)),
    "transposed sequence": lambda: layered(nn.ConvTranspose1d(WIDTH, 2, 4, 2, 1), rank=1),
    "transposed sequence with everything": lambda: layered(
        nn.ConvTranspose1d(WIDTH, 4, 3, 3, 2, 1, 2, True, 2), rank=1
    ),
    "transposed last": lambda: whole(lambda m, x: m.b(m.a(x).relu()), a=conv(), b=nn.ConvTranspose2d(WIDTH, 2, 2, 2)),
    "convolution of one axis": lambda: layered(nn.Conv1d(WIDTH, 3, 5, 2, 2, 2, 1), rank=1),
    "convolution of three axes": lambda: layered(nn.Conv3d(WIDTH, 4, 2, 1, 1, groups=2), rank=3),
}
UPSAMPLING = {
    "nearest": lambda: layered(nn.Upsample(scale_factor=2)),
    "nearest by a fraction": lambda: layered(nn.Upsample(scale_factor=(1.5, 0.5))),
    "nearest to a size": lambda: layered(nn.Upsample(size=(5, 11))),
    "nearest exact": lambda: layered(nn.Upsample(size=(5, 11), mode="nearest-exact")),
    "nearest of a sequence": lambda: layered(nn.Upsample(scale_factor=3), rank=1),
    "nearest of a volume": lambda: layered(nn.Upsample(scale_factor=2), rank=3),
    "functional nearest": lambda: network(lambda m, y: F.interpolate(y, scale_factor=2.0)),
    "bilinear": lambda: layered(nn.Upsample(scale_factor=2, mode="bilinear")),
    "bilinear with corners": lambda: layered(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
    "bilinear to a size": lambda: layered(nn.Upsample(size=(5, 13), mode="bilinear")),
    "bilinear by a fraction": lambda: layered(nn.UpsamplingBilinear2d(scale_factor=1.5)),
    "linear": lambda: layered(nn.Upsample(scale_factor=2.5, mode="linear"), rank=1),
    "functional bilinear": lambda: network(lambda m, y: F.interpolate(y, (9, 9), mode="bilinear", align_corners=False)),
    "bilinear then relu": lambda: layered(nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU()),
    "bilinear to the size of another": lambda: whole(
        lambda m, x: m.b(F.interpolate(m.a(x), x.shape[2:], mode="bilinear") + m.c(x)),
        a=conv(stride=2),
        b=conv(WIDTH),
        c=conv(),
    ),
    "feature pyramid": lambda: whole(
        lambda m, x: m.c(F.interpolate(m.b(m.a(x)), scale_factor=2.0) + m.a(x)),
        a=conv(),
        b=conv(WIDTH, stride=2),
        c=conv(WIDTH),
    ),
}
MOVEMENTS = {
    "pixel shuffle": lambda: layered(nn.PixelShuffle(2)),
    "pixel unshuffle": lambda: layered(nn.PixelUnshuffle(2)),
    "channel shuffle": lambda: layered(nn.ChannelShuffle(2)),
    "channel shuffle by hand": lambda: network(
        lambda m, y: (
            y.view(y.size(0), 2, y.size(1) // 2, y.size(2), y.size(3))
            .transpose(1, 2)
            .contiguous()
            .view(y.size(0), -1, y.size(2), y.size(3))
        )
    ),
    "flatten by view": lambda: network(lambda m, y: y.view(y.size(0), -1)),
    "flatten by shape": lambda: network(lambda m, y: y.reshape(y.shape[0], y.shape[1] * y.shape[2] * y.shape[3])),
    "flatten then a convolution": lambda: network(lambda m, y: m.a(y.flatten(2)), a=nn.Conv1d(WIDTH, 2, 3)),
    "unflatten": lambda: network(lambda m, y: m.a(y.unflatten(1, (2, 2)).flatten(2, 3)), a=nn.Conv2d(2, 2, 3)),
    "squeeze": lambda: network(lambda m, y: m.a(y.mean((2, 3), True).squeeze(-1).squeeze(-1)), a=nn.Linear(WIDTH, 2)),
    "unsqueeze": lambda: network(lambda m, y: m.a(y.unsqueeze(1)), a=nn.Conv3d(1, 2, 3)),
    "permute": lambda: network(lambda m, y: m.a(y.permute(0, 2, 3, 1)), a=nn.Linear(WIDTH, 2)),
    "permute there and back": lambda: network(
        lambda m, y: m.a(y.permute(0, 2, 3, 1)).relu().permute(0, 3, 1, 2), a=nn.Linear(WIDTH, WIDTH)
    ),
    "tokens": lambda: network(lambda m, y: m.a(y.flatten(2).transpose(1, 2)), a=nn.Linear(WIDTH, 2)),
    "windows": lambda: network(
        lambda m, y: m.a(y.reshape(y.size(0), WIDTH, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, WIDTH)).view(
            y.size(0), -1
        ),
        a=nn.Linear(WIDTH, 2),
    ),
    "roll": lambda: network(lambda m, y: torch.roll(y, (-1, 2), (2, 3))),
    "flip": lambda: network(lambda m, y: y.flip(-1)),
    "repeat": lambda: network(lambda m, y: y.repeat(1, 2, 1, 1)),
    "expand": lambda: network(lambda m, y: y.mean((2, 3), True).expand(-1, -1, 8, 8)),
    "unfold": lambda: layered(nn.Unfold(3, padding=1, stride=2)),
    "zero pad before a convolution": lambda: layered(nn.ZeroPad2d((1, 2, 0, 3)), conv(WIDTH)),
    "zero pad before a pool": lambda: layered(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2)),
    "zero pad of channels": lambda: network(
        lambda m, y: F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + m.a(y), a=conv(WIDTH, 8, stride=2)
    ),
    "negative pad": lambda: network(lambda m, y: F.pad(y, (-1, 2, 0, -3))),
    "even crop before a convolution": lambda: network(
        lambda m, y: m.a(F.pad(y, (-1, -1, -2, -2))), a=conv(WIDTH, padding=0)
    ),
    "crop before a convolution": lambda: network(lambda m, y: m.a(F.pad(y, (-1, 0, 0, -2))), a=nn.Conv2d(WIDTH, 2, 3)),
    "pad and crop before a convolution": lambda: network(lambda m, y: m.a(F.pad(y, (-1, 2))), a=conv(WIDTH, padding=0)),
    "reflection pad": lambda: layered(nn.ReflectionPad2d((2, 1, 0, 3)), conv(WIDTH)),
    "replication pad": lambda: layered(nn.ReplicationPad2d(2)),
    "circular pad": lambda: layered(nn.CircularPad2d((1, 2, 3, 0))),
    "functional reflection pad": lambda: network(lambda m, y: F.pad(y, (1, 1, 2, 0), mode="reflect")),
    "pad of a sequence": lambda: layered(nn.ConstantPad1d((2, 1), 0.0), nn.Conv1d(WIDTH, 2, 3), rank=1),
    "causal pad": lambda: network(lambda m, y: m.a(F.pad(y, (2, 0))), 1, a=nn.Conv1d(WIDTH, 2, 3)),
}
DROPOUTS = {
    "dropout": lambda: layered(nn.Dropout(0.5)),
    "dropout of channels": lambda: layered(nn.Dropout2d(0.5), nn.ReLU()),
    "dropout of a sequence": lambda: layered(nn.Dropout1d(0.5), rank=1),
    "dropout of a volume": lambda: layered(nn.Dropout3d(0.5), rank=3),
    "functional dropout": lambda: network(lambda m, y: F.dropout(y, 0.5, m.training)),
    "alpha dropout": lambda: layered(nn.SELU(), nn.AlphaDropout(0.2)),
    "feature alpha dropout": lambda: layered(nn.SELU(), nn.FeatureAlphaDropout(0.2)),
    "stochastic depth of rows": lambda: network(
        lambda m, y: y + m.drop(m.a(y)), a=conv(WIDTH), drop=StochasticDepth(0.5, "row")
    ),
    "stochastic depth of batches": lambda: network(
        lambda m, y: y + m.drop(m.a(y)), a=conv(WIDTH), drop=StochasticDepth(0.5, "batch")
    ),
    "drop block": lambda: layered(DropBlock2d(0.2, 3)),
}
BATCH_NORMS = {
    "batch norm before a convolution": lambda: layered(awake(nn.BatchNorm2d(WIDTH)), conv(WIDTH)),
    "batch norm and relu before a convolution": lambda: layered(
        nn.MaxPool2d(2), awake(nn.BatchNorm2d(WIDTH)), nn.ReLU(), conv(WIDTH)
    ),
    "batch norm first": lambda: whole(lambda m, x: m.a(m.norm(x)), a=conv(), norm=awake(nn.BatchNorm2d(3))),
    "batch norm alone": lambda: layered(nn.ReLU(), awake(nn.BatchNorm2d(WIDTH)), nn.MaxPool2d(2)),
    "batch norm after batch norm": lambda: layered(awake(nn.BatchNorm2d(WIDTH)), awake(nn.BatchNorm2d(WIDTH))),
    "batch norm without affine": lambda: layered(conv(WIDTH), nn.BatchNorm2d(WIDTH, affine=False)),
    "batch norm after a linear layer": lambda: layered(
        nn.Linear(WIDTH, 5), awake(nn.BatchNorm1d(5)), nn.ReLU(), rank=0
    ),
    "batch norm after a linear layer on tokens": lambda: network(
        lambda m, y: m.norm(m.a(y.flatten(2).transpose(1, 2)).transpose(1, 2)),
        a=nn.Linear(WIDTH, 5),
        norm=awake(nn.BatchNorm1d(5)),
    ),
    "batch norm of tokens": lambda: network(
        lambda m, y: m.norm(m.a(y.flatten(2).transpose(1, 2))), a=nn.Linear(WIDTH, 5), norm=awake(nn.BatchNorm1d(64))
    ),
    "batch norm of a sequence": lambda: layered(awake(nn.BatchNorm1d(WIDTH)), rank=1),
    "batch norm of a volume": lambda: layered(awake(nn.BatchNorm3d(WIDTH)), rank=3),
    "batch norm after a concatenation": lambda: on_two(
        lambda m, a, b: m.norm(torch.cat([a, b], 1)).relu(), norm=awake(nn.BatchNorm2d(2 * WIDTH))
    ),
}
NORMS = {
    "layer norm": lambda: network(lambda m, y: m.norm(y.flatten(2).transpose(1, 2)), norm=awake(nn.LayerNorm(WIDTH))),
    "layer norm without affine": lambda: network(lambda m, y: F.layer_norm(y, (8,))),
    "layer norm of several axes": lambda: layered(nn.LayerNorm((WIDTH, 8, 8), elementwise_affine=False)),
    "layer norm without bias": lambda: layered(awake(nn.LayerNorm(8, bias=False))),
    "layer norm then gelu": lambda: layered(awake(nn.LayerNorm(8)), nn.GELU()),
    "channels last layer norm": lambda: network(
        lambda m, y: m.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=awake(nn.LayerNorm(WIDTH))
    ),
    "root mean square norm": lambda: layered(awake(nn.RMSNorm(8))),
    "root mean square norm without weight": lambda: layered(nn.RMSNorm(8, elementwise_affine=False)),
    "group norm": lambda: layered(awake(nn.GroupNorm(2, WIDTH))),
    "group norm of a sequence": lambda: layered(awake(nn.GroupNorm(2, WIDTH)), rank=1),
    "group norm with relu": lambda: layered(awake(nn.GroupNorm(1, WIDTH)), nn.ReLU()),
    "group norm without affine": lambda: layered(nn.GroupNorm(WIDTH, WIDTH, affine=False)),
    "rows of length one": lambda: network(lambda m, y: F.normalize(y, dim=-1)),
    "instance norm": lambda: layered(nn.InstanceNorm2d(WIDTH)),
    "instance norm with affine": lambda: layered(awake(nn.InstanceNorm2d(WIDTH, affine=True)), nn.ReLU()),
    "instance norm of a sequence": lambda: layered(nn.InstanceNorm1d(WIDTH), rank=1),
    "instance norm of a volume": lambda: layered(nn.InstanceNorm3d(WIDTH), rank=3),
    "norm of the input": lambda: whole(lambda m, x: m.a(m.norm(x)), a=conv(), norm=nn.InstanceNorm2d(3)),
}
ATTENTION = {
    "softmax of channels": lambda: network(lambda m, y: F.softmax(y, dim=1)),
    "softmax of the last axis": lambda: layered(nn.Softmax(-1)),
    "softmax of a smaller axis": lambda: network(lambda m, y: (y * 20).softmax(2)),
    "softmax last": lambda: whole(lambda m, x: m.a(x).flatten(1).softmax(1), a=conv()),
    "matmul": lambda: on_two(lambda m, a, b: torch.matmul(a, b)),
    "matmul with a transpose": lambda: on_two(lambda m, a, b: a @ b.transpose(-2, -1)),
    "batched matmul": lambda: on_two(lambda m, a, b: torch.bmm(a.flatten(2), b.flatten(2).mT)),
    "matmul with a line and relu": lambda: on_two(lambda m, a, b: (a @ b * 0.1).relu()),
    "matmul of unsigned": lambda: on_two(lambda m, a, b: a.relu() @ b),
    "matmul with itself": lambda: network(lambda m, y: y @ y),
    "attention": lambda: Attention(),
    "windowed attention": lambda: WindowedAttention(),
}
READERS = {
    "several consumers with different activations": lambda: network(
        lambda m, y: torch.cat([y.relu(), F.relu6(y), F.gelu(y), y], 1)
    ),
    "a consumer behind batch norm": lambda: network(lambda m, y: m.norm(y) + y, norm=awake(nn.BatchNorm2d(WIDTH))),
    "an input used twice": lambda: whole(lambda m, x: m.a(x) + m.b(x), a=conv(), b=conv(kernel=1)),
    "two inputs": lambda: whole(
        lambda m, x, y: m.c(m.a(x) + m.b(y)), IMAGE, (2, 8, 8), a=conv(), b=conv(2), c=conv(WIDTH)
    ),
    "two inputs that are added": lambda: whole(lambda m, x, y: m.a(x + y), IMAGE, IMAGE, a=conv()),
    "two inputs that are multiplied": lambda: whole(lambda m, x, y: m.a(x * y), IMAGE, IMAGE, a=conv()),
    "two inputs that are joined": lambda: whole(lambda m, x, y: m.a(torch.cat([x, y], 1)), IMAGE, IMAGE, a=conv(6)),
    "two inputs of different rank": lambda: whole(
        lambda m, x, y: m.b(m.a(x) + m.c(y)[:, :, None, None]), IMAGE, (5,), a=conv(), b=conv(WIDTH), c=nn.Linear(5, 4)
    ),
    "an attention between two inputs": lambda: whole(
        lambda m, x, y: F.softmax(m.a(x) @ m.b(y).mT, -1) @ y, (5, 6), (7, 6), a=nn.Linear(6, 4), b=nn.Linear(6, 4)
    ),
    "a tuple": lambda: whole(lambda m, x: (m.a(x), m.b(m.a(x))), a=conv(), b=conv(WIDTH)),
    "a list": lambda: whole(lambda m, x: [m.b(m.a(x)), m.a(x).relu()], a=conv(), b=conv(WIDTH)),
    "a dict": lambda: whole(
        lambda m, x: {"image": m.a(x), "logits": m.b(m.a(x).mean((2, 3)))}, a=conv(), b=nn.Linear(WIDTH, 3)
    ),
    "nested outputs": lambda: whole(
        lambda m, x: (m.a(x), {"deep": [m.b(m.a(x)), F.gelu(m.a(x))]}), a=conv(), b=conv(WIDTH)
    ),
    "an output that is read on": lambda: whole(
        lambda m, x: (lambda y: (y, m.b(y)))(m.a(x).relu()), a=conv(), b=conv(WIDTH)
    ),
    "chunks as outputs": lambda: whole(lambda m, x: [*m.a(x).chunk(2, 1)], a=conv()),
    "a convolution used twice": lambda: network(lambda m, y: m.a(m.a(y).relu()), a=conv(WIDTH)),
    "a table used twice": lambda: network(lambda m, y: m.a(y) + m.a(y.relu()), a=nn.GELU()),
}


class Attention(nn.Module):
    """Patches, a class token, positions, and a transformer block."""

    input_shapes = ((3, 8, 8),)

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 5, 8))
        self.norm1, self.norm2 = awake(nn.LayerNorm(8)), awake(nn.LayerNorm(8))
        self.qkv, self.project = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(n, -1, -1), x], dim=1) + self.position
        q, k, v = self.qkv(self.norm1(x)).reshape(n, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) * 4**-0.5).softmax(dim=-1)
        x = x + self.project((attention @ v).transpose(1, 2).reshape(n, 5, 8))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


class WindowedAttention(nn.Module):
    """Shifted windows with a bias for each pair of positions, as in Swin transformers."""

    input_shapes = ((3, 8, 8),)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 24), nn.Linear(8, 3)
        self.bias = nn.Parameter(torch.randn(7, 2))
        self.pairs = nn.Buffer((torch.arange(4)[:, None] - torch.arange(4) + 3).flatten())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(self.stem(x).permute(0, 2, 3, 1), (-1, -1), (1, 2))
        n = x.shape[0]
        windows = x.view(n, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(n * 4, 4, 8)
        q, k, v = self.qkv(windows).reshape(n * 4, 4, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias[self.pairs].view(4, 4, 2).permute(2, 0, 1).unsqueeze(0)
        y = ((q * 4**-0.5) @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        y = y.transpose(1, 2).reshape(n, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(n, 4, 4, 8)
        return self.head((x + y).mean((1, 2)))


# what a function is built with, if not by its defaults; a layer map of its own for each
SETTINGS: dict[type[nn.Module], tuple[Any, ...]] = {nn.PReLU: (WIDTH,), nn.Threshold: (0.1, 0.2)}
ELEMENTWISE: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "neg": (torch.neg, {}),
    "abs": (torch.abs, {}),
    "square": (torch.square, {}),
    "pow": (torch.pow, {"exponent": 3}),
    "exp": (torch.exp, {}),
    "erf": (torch.erf, {}),
    "sin": (torch.sin, {}),
    "cos": (torch.cos, {}),
    "clamp": (torch.clamp, {"min": 0.2, "max": 0.9}),
}
EVERY_FUNCTION = {
    **{
        kind.__name__: (lambda kind=kind: layered(kind(*SETTINGS.get(kind, ()))))
        for kind in FUNCTIONS
        if kind is not Elementwise
    },
    "PReLU of one": lambda: layered(nn.PReLU()),
    **{name: (lambda made=made: layered(Elementwise(made[0], **made[1]))) for name, made in ELEMENTWISE.items()},
    "sqrt of what is positive": lambda: network(lambda m, y: torch.sqrt(y.clamp(min=0.1))),
    "log1p of what is positive": lambda: network(lambda m, y: torch.log1p(y.relu())),
    "rsqrt of what is positive": lambda: network(lambda m, y: torch.rsqrt(y.clamp(0.5, 2))),
    "a function of a function": lambda: network(lambda m, y: torch.tanh(F.silu(y))),
    "a function of the input": lambda: whole(lambda m, x: m.a(torch.tanh(x)), a=conv()),
    "a function last": lambda: whole(lambda m, x: torch.sigmoid(m.a(x)), a=conv()),
    "relu": lambda: layered(nn.ReLU()),
    "relu6": lambda: layered(nn.ReLU6()),
    "hardtanh": lambda: layered(nn.Hardtanh(-0.5, 0.25)),
}
OPERATORS: dict[str, Callable[[], nn.Module]] = {
    **SUMS, **CONSTANTS, **JOINS, **REDUCTIONS, **POOLS, **TRANSPOSED, **UPSAMPLING, **MOVEMENTS, **DROPOUTS,
    **BATCH_NORMS, **NORMS, **ATTENTION, **READERS,
    **{f"function {name}": make for name, make in EVERY_FUNCTION.items()},
}  # fmt: skip
PRECISIONS = ("int8", "int4", "ternary")
TARGETS = {"onnxruntime": ("onnxruntime", "integer"), "integer": ("integer",)}  # the files of each


def every_case() -> list[Any]:
    """Each operator at each precision for each target; the quick tests take one of them for each operator."""
    cases = []
    for index, name in enumerate(OPERATORS):
        for number, (precision, target) in enumerate(itertools.product(PRECISIONS, TARGETS)):
            marks = [] if number == index % 6 else [pytest.mark.slow]
            names = f"{name}-{precision}-{target}"
            cases.append(pytest.param(OPERATORS[name], precision, target, id=names, marks=marks))
    return cases


def made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        model.eval()(*inputs_of(model))  # tells the head its size
    return model.train()


def inputs_of(model: nn.Module, batch_size: int = 4) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch_size, *shape) for shape in model.input_shapes)


def leaves(outputs: Any) -> list[Tensor]:
    return pytree.tree_leaves(outputs)


def trained(model: nn.Module, precision: str, target: str) -> torch.fx.GraphModule:
    """A prepared network after two training steps, annealed."""
    qat = ana_fx.prepare(model, inputs_of(model), precision=precision, target=target)
    annealer, optimizer = ana_fx.Annealer(qat, 2), torch.optim.SGD(qat.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        sum(y.square().mean() for y in leaves(qat(*inputs_of(model, 8)))).backward()
        assert all(bool(p.grad.isfinite().all()) for p in qat.parameters() if p.grad is not None)
        optimizer.step()
        annealer.step()
    return settled(qat).eval()


@pytest.mark.parametrize(("make", "precision", "target"), every_case())
def test_an_operator_in_the_middle_of_a_network_ships_the_integers_that_were_trained(make, precision, target, tmp_path):
    model = made(make)
    qat = trained(model, precision, target)
    program, x = ana_fx.convert(qat), inputs_of(model, 5)
    with torch.no_grad():
        wanted, found = qat(*x), program(*x)
    assert pytree.tree_structure(found) == pytree.tree_structure(wanted)
    assert all(map(torch.equal, leaves(found), leaves(wanted)))
    for name in TARGETS[target]:
        ana_fx.export(program, tmp_path / f"{name}.onnx", target=name)
        assert ana_fx.verify(program, tmp_path / f"{name}.onnx").num_different == 0
