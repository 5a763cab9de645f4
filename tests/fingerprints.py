"""SHA-256 of all files and states of a fixed zoo: `python -m tests.fingerprints FILE [--against FILE]`.

A change that says "no number changes" shows it so: run this before and after on one machine, and compare. Weights come
from real training steps, whose floats differ between processors, so fingerprints of two machines are not alike.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx
from examples.networks import DSCNN, VGG8, ResNet20
from tests.models import INPUT_SHAPES

__all__ = ["PRECISIONS", "ZOO", "fingerprints"]

PRECISIONS = ("ternary", "all-ternary", "int4", "int8")
NUM_STEPS = 3


class Transformer(nn.Module):
    """A block of attention with layer norms, softmax and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(6, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embedding(x)).mean(1))


class Upsampling(nn.Module):
    """Transposed convolution, interpolation, concatenation and a convolutional head."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, 2, 1)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.head = nn.Conv2d(19, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.down(x))
        wide = F.interpolate(y, scale_factor=2, mode="bilinear")
        return self.head(torch.cat([F.relu(self.up(y)), wide, x], 1))


class Gated(nn.Module):
    """Tables, products, differences, parameters as operands and group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.gate = nn.Linear(8, 8)
        self.gain = nn.Parameter(torch.rand(8, 1, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm(self.conv(x)))
        gate = torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
        return self.head((y * gate - y * self.gain).mean((2, 3)))


ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{kind.__name__: (kind, shape) for kind, shape in INPUT_SHAPES.items()},
    "VGG8": (lambda: VGG8(16), (3, 32, 32)),
    "DSCNN": (lambda: DSCNN(width=8), (1, 49, 10)),
    "ResNet20": (ResNet20, (3, 16, 16)),
    "Transformer": (Transformer, (5, 6)),
    "Upsampling": (Upsampling, (3, 8, 8)),
    "Gated": (Gated, (3, 8, 8)),
}


def fingerprints(names: Iterable[str] = ZOO, precisions: Iterable[str] = PRECISIONS) -> Iterator[tuple[str, str]]:
    """A name and a SHA-256 for each state and each file, of networks prepared for each target that takes them."""
    precisions = tuple(precisions)
    for name in names:
        for precision in precisions:
            for prepared in ana_fx.targets():
                yield from _of(name, precision, prepared.name)


def _of(name: str, precision: str, target: str) -> Iterator[tuple[str, str]]:
    make, shape = ZOO[name]
    key = f"{name} {precision} {target}"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            qat = _trained(make(), shape, precision, target)
        except ana_fx.AnaFxError as refusal:
            yield f"{key} refused", _sha(type(refusal).__name__.encode())
            return
    yield f"{key} state", _state(qat)
    program = ana_fx.convert(qat)
    yield f"{key} program", _state(program)
    with TemporaryDirectory() as folder:
        for io in ("integer", "float"):
            path = Path(folder) / io / "model.onnx"
            path.parent.mkdir()
            try:
                ana_fx.export(program, path, io=io)
            except (ana_fx.AnaFxError, ValueError) as refusal:
                yield f"{key} {io} refused", _sha(type(refusal).__name__.encode())
            for written in sorted(path.parent.iterdir()):
                yield f"{key} {io} {written.name}", _sha(written.read_bytes())


def _trained(model: nn.Module, shape: tuple[int, ...], precision: str, target: str) -> GraphModule:
    x = torch.rand(8, *shape)
    qat = ana_fx.prepare(model, x, precision=precision, target=target, schedule=ana_fx.Schedule()).train()
    annealer = ana_fx.Annealer(qat, NUM_STEPS)
    optimizer = torch.optim.SGD(qat.parameters(), lr=0.01)
    for _ in range(NUM_STEPS):
        optimizer.zero_grad()
        qat(x).square().mean().backward()
        optimizer.step()
        annealer.step()
    return qat


def _state(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    """Write the fingerprints of the zoo, and name those that differ from others."""
    parser = argparse.ArgumentParser(prog="python -m tests.fingerprints", description=__doc__)
    parser.add_argument("file", type=Path, help="where the fingerprints go")
    parser.add_argument("--against", type=Path, help="earlier ones, with which they are compared")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = dict(entry for name in track(list(ZOO)) for entry in fingerprints([name]))
    options.file.write_text(json.dumps(found, indent=0, sort_keys=True))
    if options.against is None:
        return
    earlier = json.loads(options.against.read_text())
    different = sorted(key for key in found.keys() | earlier.keys() if found.get(key) != earlier.get(key))
    print(*different, f"{len(different)} of {len(found)} differ", sep="\n")  # noqa: T201  # a program
    raise SystemExit(1 if different else 0)


if __name__ == "__main__":
    main()
