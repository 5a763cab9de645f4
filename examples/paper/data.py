"""The data sets of the studies, whole in memory, and the folds of a cross-validation.

A data set is read from the folder that torchvision or torchaudio keeps it in, or from a NumPy archive (`.npz`) with
the arrays `x_train`, `y_train`, `x_test`, `y_test`: for images uint8, [number, height, width, channels]; for speech
int16, [number, samples], with `sample_rate` and, if clips called `_silence_` shall be mixed in, `class_names`.
"""

from __future__ import annotations

import wave
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["SOURCES", "Examples", "Splits", "load"]

WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
SILENCE, UNKNOWN = "_silence_", "_unknown_"
_CLASSES = (*WORDS, SILENCE, UNKNOWN)
_SHARE_OF_OTHERS = 0.1  # silence and unknown words, each as a share of the ten words' clips


@dataclass(frozen=True)
class Examples:
    """Inputs as they are stored, and their classes, int64.

    Images: uint8, [number, channels, height, width]. Speech: int16, [number, samples].
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Examples:
        """Those at `indices`."""
        return Examples(self.inputs[indices], self.labels[indices])

    def first(self, share: float) -> Examples:
        """A share of each class, at least one example: the first ones."""
        kept = [torch.nonzero(self.labels == label).flatten() for label in self.labels.unique()]
        return self.take(torch.cat([each[: max(1, round(share * len(each)))] for each in kept]).sort().values)


@dataclass(frozen=True)
class Splits:
    """What is trained on and what is measured on.

    Args:
        train: For training.
        test: For measuring.
        num_classes: Classes.
        sample_rate: Samples a second; None for images.
        noises: Background noise, int16, [number, samples]; None for images or where there is none.
    """

    train: Examples
    test: Examples
    num_classes: int
    sample_rate: int | None = None
    noises: Tensor | None = None

    def limited(self, share: float) -> Splits:
        """A share of each class of the training set; the test set stays whole."""
        return self if share == 1.0 else replace(self, train=self.train.first(share))

    def fold(self, index: int, num_folds: int) -> Splits:
        """Train on all but one part of the training set and measure on that part; the test set is not touched.

        The parts are random, the same ones whatever the trial.
        """
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0))
        held_out = torch.zeros(len(self.train), dtype=torch.bool)
        held_out[order[index::num_folds]] = True
        return replace(
            self,
            train=self.train.take(torch.nonzero(~held_out).flatten()),
            test=self.train.take(torch.nonzero(held_out).flatten()),
        )


def load(name: str, path: Path, *, download: bool = False) -> Splits:
    """A data set by name, from a folder or from an archive.

    Args:
        name: One of `SOURCES`; a name that archives alone have is not needed there.
        path: The folder, or a `.npz` file.
        download: Fetch it into the folder first.
    """
    if path.suffix == ".npz":
        return _load_archive(path)
    try:
        return SOURCES[name](path, download)
    except (RuntimeError, FileNotFoundError) as error:
        raise SystemExit(
            f"found no complete copy of {name} in {path}: {error}; add --download, or say --data"
        ) from None


def _load_archive(path: Path) -> Splits:
    if not path.exists():
        raise SystemExit(f"found no archive {path}; needed a .npz file with x_train, y_train, x_test and y_test")
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    parts = []
    for part in ("train", "test"):
        inputs = torch.from_numpy(arrays[f"x_{part}"])
        is_image = inputs.dtype == torch.uint8
        if is_image:
            inputs = inputs.permute(0, 3, 1, 2).contiguous() if inputs.ndim == 4 else inputs[:, None]
        parts.append(Examples(inputs, torch.from_numpy(arrays[f"y_{part}"]).long()))
    num_classes = 1 + int(max(part.labels.max() for part in parts))
    if is_image:
        return Splits(parts[0], parts[1], num_classes)
    classes = [str(each) for each in arrays.get("class_names", ())]
    noises = None
    if SILENCE in classes:
        noises = parts[0].inputs[parts[0].labels == classes.index(SILENCE)]
    return Splits(parts[0], parts[1], num_classes, int(arrays["sample_rate"]), noises)


def _load_cifar10(folder: Path, download: bool) -> Splits:
    from torchvision.datasets import CIFAR10

    parts = []
    for is_train in (True, False):
        data = CIFAR10(folder, train=is_train, download=download)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        parts.append(Examples(images, torch.tensor(data.targets)))
    return Splits(parts[0], parts[1], num_classes=10)


def _load_svhn(folder: Path, download: bool) -> Splits:
    from torchvision.datasets import SVHN

    parts = []
    for part in ("train", "test"):
        data = SVHN(folder, split=part, download=download)
        parts.append(Examples(torch.from_numpy(np.ascontiguousarray(data.data)), torch.from_numpy(data.labels)))
    return Splits(parts[0], parts[1], num_classes=10)


def _load_speech_commands(folder: Path, download: bool) -> Splits:
    """The 12 classes: ten words, other words, and silence cut from the recordings of background noise."""
    from torchaudio.datasets import SPEECHCOMMANDS

    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Examples] = []
    for part in ("training", "testing"):
        data = SPEECHCOMMANDS(folder, subset=part, download=download)
        noises = _noises(sorted((Path(data._path) / "_background_noise_").glob("*.wav")))
        facts = [data.get_metadata(index) for index in range(len(data))]
        files = [(Path(data._archive) / path, word) for path, _, word, *_ in facts]
        parts.append(_twelve_classes(files, noises, seed=len(parts)))
    return Splits(parts[0], parts[1], len(_CLASSES), sample_rate=16000, noises=noises)


def _twelve_classes(files: list[tuple[Path, str]], noises: Tensor, seed: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    words = [(path, _CLASSES.index(word)) for path, word in files if word in WORDS]
    others = [path for path, word in files if word not in WORDS]
    num_others = max(1, round(_SHARE_OF_OTHERS * len(words)))
    chosen = torch.randperm(len(others), generator=generator)[:num_others].tolist()
    words += [(others[index], _CLASSES.index(UNKNOWN)) for index in chosen]
    silence = noises[torch.randint(len(noises), (num_others,), generator=generator)].float()
    silence *= torch.rand(num_others, 1, generator=generator)
    clips = torch.stack([_read(path, noises.shape[1]) for path, _ in words])
    labels = torch.tensor([label for _, label in words] + [_CLASSES.index(SILENCE)] * num_others)
    return Examples(torch.cat([clips, silence.to(torch.int16)]), labels)


def _noises(recordings: list[Path]) -> Tensor:
    """Recordings of any length, cut into seconds."""
    seconds = [_read(path)[: _num_samples(path) // 16000 * 16000].reshape(-1, 16000) for path in recordings]
    if not seconds:
        raise RuntimeError("its folder _background_noise_ holds no recording")
    return torch.cat(seconds)


def _num_samples(path: Path) -> int:
    with wave.open(str(path)) as file:
        return int(file.getnframes())


def _read(path: Path, num_samples: int | None = None) -> Tensor:
    """A recording of 16 bits a sample, cut or padded with zeros to a length."""
    with wave.open(str(path)) as file:
        samples = torch.from_numpy(np.frombuffer(file.readframes(file.getnframes()), np.int16).copy())
    if num_samples is None:
        return samples
    return torch.nn.functional.pad(samples, (0, max(0, num_samples - len(samples))))[:num_samples]


SOURCES: dict[str, Callable[[Path, bool], Splits]] = {
    "cifar10": _load_cifar10,
    "svhn": _load_svhn,
    "speech_commands": _load_speech_commands,
}
