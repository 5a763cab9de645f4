"""What a tool must be able to do to be compared, and the precisions that all of them are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

import ana_fx

__all__ = ["PRECISIONS", "Candidate", "FloatFile", "Method", "Widths", "ends_of"]


@dataclass(frozen=True)
class Widths:
    """Bits of weights and features.

    Args:
        name: What tables call it.
        weight: Bits of the weights; 2 are ternary.
        feature: Bits of the features behind a ReLU, unsigned; 0 for ternary features in the place of the ReLU.
        ends: Bits of the weights of the first and the last layer.
    """

    name: str
    weight: int
    feature: int
    ends: int


PRECISIONS = {
    each.name: each
    for each in (
        Widths("int8", weight=8, feature=8, ends=8),
        Widths("int4", weight=4, feature=4, ends=4),
        Widths("ternary", weight=2, feature=2, ends=8),
        Widths("ternary-ends", weight=2, feature=2, ends=2),
        Widths("all-ternary", weight=2, feature=0, ends=8),
    )
}


@dataclass
class Candidate(ABC):
    """A network that one tool trains.

    Args:
        net: What the loop trains; in eval mode it is what the tool validates.
        annealer: Told after each step of the optimiser.
    """

    net: nn.Module
    annealer: ana_fx.Annealer | None = None

    def finish(self, batches: Iterable[Tensor]) -> None:  # noqa: B027  # most tools do nothing
        """What the tool does at the end of training; `batches` are training inputs."""

    @abstractmethod
    def export(self, path: Path, example: Tensor) -> None:
        """Write the tool's usual ONNX file, with float borders and any number of examples in a batch."""


class Method(ABC):
    """A way of training with few bits; `name` is what tables call it."""

    name: str
    is_taught: bool = False
    replaces_activations: bool = False

    @abstractmethod
    def prepare(self, net: nn.Module, example: Tensor, widths: Widths, total_steps: int) -> Candidate:
        """A candidate from a float network, which stays as it is."""


class FloatFile:
    """An ONNX file with float borders in onnxruntime, on one thread."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits."""
        feed = {self._session.get_inputs()[0].name: inputs.numpy()}
        return torch.from_numpy(self._session.run(None, feed)[0])


def ends_of(net: nn.Module) -> set[str]:
    """Names of the first and the last layer with a weight."""
    names = [name for name, module in net.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    return {names[0], names[-1]}
