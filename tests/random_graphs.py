"""Random networks over the supported operators, drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from ana_fx.layers.table_map import Elementwise
from ana_fx.passes.canonical.canonical_dialect import FUNCTIONS

_LARGEST = 6  # of an image side, so that networks stay small


@dataclass(frozen=True)
class Step:
    """One operation: what it does with the module and the earlier tensors that it reads.

    It prints as what was drawn, so that a failing example can be read.
    """

    name: str
    reads: tuple[int, ...]
    function: Callable[..., Any] = field(repr=False)
    module: nn.Module | None = None


class RandomNetwork(nn.Module):
    """A list of steps; the outputs are the tensors that no step reads."""

    def __init__(self, steps: list[Step], outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.steps = steps
        self.outputs = outputs
        self.members = nn.ModuleDict({str(i): s.module for i, s in enumerate(steps) if s.module is not None})

    def forward(self, x: Tensor) -> Any:
        tensors = [x]
        for index, step in enumerate(self.steps):
            operands = [tensors[each] for each in step.reads]
            member = (self.members[str(index)],) if step.module is not None else ()
            tensors.append(step.function(*member, *operands))
        found = [tensors[each] for each in self.outputs]
        return found[0] if len(found) == 1 else tuple(found)

    def __repr__(self) -> str:
        lines = [f"  {index}: {step.name}{step.reads}" for index, step in enumerate(self.steps, start=1)]
        return "\n".join(["RandomNetwork", *lines, f"  outputs {self.outputs}"])


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A network in eval mode with drawn weights and statistics, and a batch of inputs."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    x = torch.rand(3, draw(st.integers(1, 4)), draw(st.integers(2, 5)), draw(st.integers(2, 5)))
    if draw(st.booleans()):
        x = x * 2 - 1
    tensors, steps = [x], []
    for _ in range(draw(st.integers(1, 7))):
        step = draw(_steps(tensors))
        operands = [tensors[each] for each in step.reads]
        member = () if step.module is None else (step.module.eval(),)
        with torch.no_grad():
            tensors.append(step.function(*member, *operands))
        steps.append(step)
    read = {each for step in steps for each in step.reads}
    outputs = tuple(index for index in range(1, len(tensors)) if index not in read)
    return RandomNetwork(steps, outputs).eval(), x


def _steps(tensors: list[Tensor]) -> st.SearchStrategy[Step]:
    return st.one_of(_unary(tensors), _unary(tensors), _pairs(tensors))


@st.composite
def _unary(draw: st.DrawFn, tensors: list[Tensor]) -> Step:
    source = draw(st.integers(max(0, len(tensors) - 3), len(tensors) - 1))
    name = draw(st.sampled_from(sorted(_UNARY)))
    made = _UNARY[name](draw, tuple(tensors[source].shape[1:]))
    if made is None:
        return Step("relu", (source,), F.relu)
    if isinstance(made, nn.Module):
        return Step(str(made), (source,), lambda m, x: m(x), made)
    return Step(name, (source,), made)


@st.composite
def _pairs(draw: st.DrawFn, tensors: list[Tensor]) -> Step:
    first, second = (draw(st.integers(0, len(tensors) - 1)) for _ in range(2))
    a, b = tensors[first].shape, tensors[second].shape
    fitting = {"add": torch.add, "sub": torch.sub, "mul": torch.mul} if _broadcasts(a, b) else {}
    if a[2:] == b[2:]:
        fitting["cat"] = lambda x, y: torch.cat([x, y], 1)
    if a[1] == b[1] and a[3] == b[3]:
        fitting["matmul"] = lambda x, y: x @ y.transpose(2, 3)
    if a == b:
        fitting["stack"] = lambda x, y: torch.stack([x, y], 2).flatten(1, 2)
    gate = "gate"
    fitting[gate] = lambda x, y: x * torch.sigmoid(y.mean((1, 2, 3), keepdim=True))
    name = draw(st.sampled_from(sorted(fitting)))
    return Step(name, (first, second), fitting[name])


def _broadcasts(a: torch.Size, b: torch.Size) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(a, b, strict=True))


def _convolution(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    channels, height, width = shape
    kernel = (draw(st.integers(1, min(3, height))), draw(st.integers(1, min(3, width))))
    groups = channels if draw(st.booleans()) else 1
    out = groups * draw(st.integers(1, 3))
    padding, stride = draw(st.integers(0, 1)), draw(st.integers(1, 2))
    convolution = nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=draw(st.booleans()))
    return _with_norm(draw, convolution, out)


def _transposed(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    channels, height, width = shape
    if max(height, width) * 2 > _LARGEST:
        return None
    out, kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, (kernel - 1) // 2))
    output_padding = draw(st.integers(0, stride - 1))
    return _with_norm(draw, nn.ConvTranspose2d(channels, out, kernel, stride, padding, output_padding), out)


def _with_norm(draw: st.DrawFn, module: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(module, _norm(draw, channels)) if draw(st.booleans()) else module


def _norm(draw: st.DrawFn, channels: int) -> nn.Module:
    norm = nn.BatchNorm2d(channels)
    scale = 10.0 ** draw(st.integers(-6, 2))
    with torch.no_grad():
        norm.weight.normal_()
        norm.weight[torch.rand(channels) < 0.1] = 0.0
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.copy_(torch.rand(channels) * scale)
    return norm


def _pool(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    kernel = (draw(st.integers(1, min(3, shape[1]))), draw(st.integers(1, min(3, shape[2]))))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    stride, ceil_mode = draw(st.integers(1, 2)), draw(st.booleans())
    if draw(st.booleans()):
        return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode)
    return nn.AvgPool2d(kernel, stride, padding, ceil_mode, count_include_pad=draw(st.booleans()))


def _adaptive(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    return nn.AdaptiveAvgPool2d((draw(st.integers(1, 5)), draw(st.integers(1, 5))))


def _upsample(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    size = tuple(draw(st.integers(1, _LARGEST)) for _ in range(2))
    if draw(st.booleans()):
        return nn.Upsample(size)
    return nn.Upsample(size, mode="bilinear", align_corners=draw(st.booleans()))


def _function(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    kind = draw(st.sampled_from([k for k in FUNCTIONS if k is not Elementwise]))
    if kind is nn.PReLU:
        return nn.PReLU(shape[0])
    return kind(0.1, -0.3) if kind is nn.Threshold else kind()


def _clip(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    return draw(st.sampled_from([nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.75)]))


def _row_norm(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    kind = draw(st.sampled_from(["layer", "group", "instance", "rms"]))
    if kind in ("layer", "rms"):
        norm: Any = nn.LayerNorm(shape[-1]) if kind == "layer" else nn.RMSNorm(shape[-1], eps=1e-6)
    elif kind == "group":
        norm = nn.GroupNorm(1, shape[0])
    elif shape[1] * shape[2] > 1:
        return nn.InstanceNorm2d(shape[0])
    else:
        return None
    nn.init.normal_(norm.weight)
    return norm  # type: ignore[no-any-return]  # a module


def _line(draw: st.DrawFn, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    factor, offset = draw(st.sampled_from([0.5, -1.0, 3.0, 0.1])), draw(st.sampled_from([0.0, 1.0, -0.25]))
    return draw(st.sampled_from([lambda x: x * factor + offset, lambda x: offset - x / factor, lambda x: x - offset]))


def _movement(draw: st.DrawFn, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    channels, height, width = shape
    start = draw(st.integers(0, height - 1))
    moves: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.transpose(2, 3),
        lambda x: x.permute(0, 3, 1, 2),
        lambda x: x.flip(1),
        lambda x: x.roll((1, -1), (2, 3)),
        lambda x: x[:, :, start:],
        lambda x: x[:, ::2],
        lambda x: x.chunk(2, 1)[0],
        lambda x: x.flatten(2).unsqueeze(1),
        lambda x: x.contiguous().view(x.size(0), 1, channels * height, width),
        lambda x: F.pad(x, (1, 0, 0, 1)),
        lambda x: x.reshape(x.size(0), height, channels, width).transpose(1, 2),
    ]
    return draw(st.sampled_from(moves))


def _reduction(draw: st.DrawFn, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    axes = draw(st.sampled_from([(1,), (2,), (3,), (2, 3), (-1,), (1, 3)]))
    if draw(st.booleans()):
        return lambda x: x.mean(axes, keepdim=True)
    return lambda x: x.sum(axes, keepdim=True)


def _softmax(draw: st.DrawFn, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    axis = draw(st.sampled_from([1, 2, 3, -1]))
    return lambda x: F.softmax(x, axis)


class _Constant(nn.Module):
    """Adds or multiplies a parameter."""

    def __init__(self, shape: tuple[int, ...], adds: bool) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.randn(shape))
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number if self.adds else x * self.number


def _constant(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    shapes = [(shape[0], 1, 1), (1, *shape), (1,), shape[2:]]
    return _Constant(draw(st.sampled_from(shapes)), draw(st.booleans()))


def _batch_norm(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    return _norm(draw, shape[0])


def _linear(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    return nn.Linear(shape[-1], draw(st.integers(1, 4)))


def _dropout(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module | None:
    return nn.Dropout2d(0.3)


_UNARY: dict[str, Callable[[st.DrawFn, tuple[int, ...]], Any]] = {
    "adaptive": _adaptive,
    "batch norm": _batch_norm,
    "clip": _clip,
    "constant": _constant,
    "convolution": _convolution,
    "convolution too": _convolution,
    "dropout": _dropout,
    "function": _function,
    "line": _line,
    "linear": _linear,
    "movement": _movement,
    "movement too": _movement,
    "pool": _pool,
    "reduction": _reduction,
    "row norm": _row_norm,
    "softmax": _softmax,
    "transposed": _transposed,
    "upsample": _upsample,
}
