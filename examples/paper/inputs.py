"""From stored examples to what a network reads: augmentation, and the cepstra of speech."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torchaudio.transforms import MFCC

from examples.paper.data import Examples, Splits

__all__ = ["Batches", "Inputs", "inputs_of"]

_NUM_COEFFICIENTS, _NUM_MELS = 10, 40
_FRAME, _STEP = 0.04, 0.02  # seconds: 49 frames in a second
_SHIFT = 0.1  # seconds, the farthest a word is moved
_NOISE_SHARE, _LOUDEST = 0.8, 0.1  # how many clips get noise, and how much of it
_STATISTICS = 512  # clips that the mean and deviation of each coefficient are taken from


class Inputs(Protocol):
    """How stored inputs become what a network reads."""

    def augmented(self, stored: Tensor, generator: torch.Generator) -> Tensor:
        """For training."""
        ...

    def plain(self, stored: Tensor) -> Tensor:
        """For measuring."""
        ...


def inputs_of(splits: Splits) -> Inputs:
    """How the inputs of a data set are read."""
    return Images() if splits.sample_rate is None else Cepstra(splits)


class Images:
    """Pixels in [0, 1]; for training, moved by up to four pixels and mirrored.

    They are not standardised, so that the input is unsigned; the first batch norm does that.
    """

    _MARGIN = 4

    def augmented(self, stored: Tensor, generator: torch.Generator) -> Tensor:
        """See `Inputs`."""
        count, _, height, width = stored.shape
        padded = nn.functional.pad(self.plain(stored), (self._MARGIN,) * 4)
        top, left = torch.randint(2 * self._MARGIN + 1, (2, count, 1), generator=generator)
        rows, columns = top + torch.arange(height), left + torch.arange(width)
        is_mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(is_mirrored, columns.flip(1), columns)
        indices = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).to(stored.device)
        flat = indices.reshape(count, 1, -1).expand(-1, stored.shape[1], -1)
        return padded.flatten(2).gather(2, flat).reshape(stored.shape)

    def plain(self, stored: Tensor) -> Tensor:
        """See `Inputs`."""
        return stored.float() / 255


class Cepstra:
    """Mel-frequency cepstra, [number, 1, 49, 10], each coefficient standardised.

    For training, clips are shifted in time and mixed with background noise.
    """

    def __init__(self, splits: Splits) -> None:
        assert splits.sample_rate is not None
        self._frame = round(_FRAME * splits.sample_rate)
        self._farthest = round(_SHIFT * splits.sample_rate)
        self._noises = splits.noises
        arguments = {
            "n_fft": 2 * self._frame,  # finer than the frame: every mel filter then holds a frequency
            "win_length": self._frame,
            "hop_length": round(_STEP * splits.sample_rate),
            "n_mels": _NUM_MELS,
            "f_min": 20.0,
            "center": False,
        }
        self._mfcc = MFCC(splits.sample_rate, _NUM_COEFFICIENTS, melkwargs=arguments, log_mels=True)
        self._mean, self._std = torch.zeros(()), torch.ones(())
        seen = self.plain(splits.train.inputs[:: max(1, len(splits.train) // _STATISTICS)])
        self._mean, self._std = seen.mean((0, 1, 2)), seen.std((0, 1, 2))

    def augmented(self, stored: Tensor, generator: torch.Generator) -> Tensor:
        """See `Inputs`."""
        clips = self._shifted(stored.float(), generator)
        if self._noises is not None:
            chosen = torch.randint(len(self._noises), (len(stored),), generator=generator)
            loudness = _LOUDEST * torch.rand(len(stored), 1, generator=generator)
            loudness *= torch.rand(len(stored), 1, generator=generator) < _NOISE_SHARE
            clips = clips + loudness.to(clips.device) * self._noises[chosen].to(clips)
        return self._cepstra(clips)

    def plain(self, stored: Tensor) -> Tensor:
        """See `Inputs`."""
        return self._cepstra(stored.float())

    def _shifted(self, clips: Tensor, generator: torch.Generator) -> Tensor:
        shifts = torch.randint(2 * self._farthest + 1, (len(clips), 1), generator=generator)
        padded = nn.functional.pad(clips, (self._farthest, self._farthest))
        return padded.gather(1, (shifts + torch.arange(clips.shape[1])).to(clips.device))

    def _cepstra(self, clips: Tensor) -> Tensor:
        margin = self._frame // 2  # the transform is twice as long as the frame
        cepstra = self._mfcc.to(clips.device)(nn.functional.pad(clips / 2**15, (margin, margin)))
        maps: Tensor = cepstra.transpose(1, 2)[:, None]
        return (maps - self._mean.to(clips.device)) / self._std.to(clips.device)


@dataclass
class Batches:
    """Shuffled batches of augmented inputs; the n-th epoch of a seed is the same whatever happened before.

    Args:
        examples: What is trained on.
        inputs: How it is read.
        batch_size: Examples of a step; a rest is left out.
        seed: Of order and augmentation.
        device: Where batches go.
        rank: Which of `world_size` equal parts of every batch this process takes.
        world_size: Processes that share the batches.
    """

    examples: Examples
    inputs: Inputs
    batch_size: int
    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return max(1, len(self.examples) // self.batch_size)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, counted from 0."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + number)
        order = torch.randperm(len(self.examples), generator=generator)
        for step in range(len(self)):
            whole = order[step * self.batch_size : (step + 1) * self.batch_size]
            batch = self.examples.take(whole[self.rank :: self.world_size])
            stored, labels = batch.inputs.to(self.device), batch.labels.to(self.device)
            yield self.inputs.augmented(stored, generator), labels

    def measured(self, examples: Examples) -> Iterator[tuple[Tensor, Tensor]]:
        """All of some examples, not augmented, in order."""
        for start in range(0, len(examples), 2 * self.batch_size):
            indices = torch.arange(start, min(start + 2 * self.batch_size, len(examples)))
            batch = examples.take(indices)
            yield self.inputs.plain(batch.inputs.to(self.device)), batch.labels.to(self.device)
