"""What was seen of each tensor of a float graph when it ran."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.fx import Node

__all__ = ["Observation", "note_samples", "note_shape", "observation_of"]

_KEY = "observation"  # of `Node.meta`; no other file knows it


@dataclass(frozen=True)
class Observation:
    """What was seen of the tensor that a node gives.

    Args:
        sample_shape: Its shape without the batch axis; None if the graph did not run yet.
        samples: Some of its numbers, float32, [N] on the CPU; None if no calibration batch was seen.
    """

    sample_shape: tuple[int, ...] | None = None
    samples: Tensor | None = None


_NOTHING = Observation()


def observation_of(node: Node) -> Observation:
    """What was seen of the tensor that a node gives."""
    observation: Observation = node.meta.get(_KEY, _NOTHING)
    return observation


def note_shape(node: Node, sample_shape: tuple[int, ...]) -> None:
    """Note the shape of a sample."""
    if observation_of(node).sample_shape != sample_shape:
        node.meta[_KEY] = replace(observation_of(node), sample_shape=sample_shape)


def note_samples(node: Node, samples: Tensor) -> None:
    """Note some numbers."""
    node.meta[_KEY] = replace(observation_of(node), samples=samples)
