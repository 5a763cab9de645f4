"""Batches as a caller gives them: tensors or tuples of tensors, checked before a model sees them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ana_fx.errors import CalibrationError
from ana_fx.precision.image_input import ImageInput
from ana_fx.text.wording import brief

__all__ = ["Batches", "tensors_of"]

_PLAIN = (bool, int, float, type(None))  # arguments of forward that are no tensors
_SHARE = 0.01  # of numbers that may be no pixels: augmentation and random examples leave the range a little


def tensors_of(
    batch: Any, what: str, num_inputs: int | None = None, image: ImageInput | None = None
) -> tuple[Any, ...]:
    """The entries of a batch that a model takes, floats of other widths as float32.

    Args:
        batch: A tensor, or a tuple or list that begins with the model's inputs (the rest, labels say, is as it is).
        what: What it is, for messages.
        num_inputs: How many inputs the model has; None if all entries are inputs.
        image: How the model's images are normalised, if they are.

    Raises:
        TypeError: It is something else.
        CalibrationError: A tensor holds no sample or no numbers, or what no image can be.
    """
    entries = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    entries = entries if num_inputs is None else entries[:num_inputs]
    if not any(isinstance(entry, Tensor) for entry in entries):
        raise TypeError(f"{what} {_is_not(batch)}")
    for index, entry in enumerate(entries):
        where = what if len(entries) == 1 else f"{what}[{index}]"
        if isinstance(entry, Tensor):
            _check(entry, where, image)
        elif not isinstance(entry, _PLAIN):
            raise TypeError(f"{where} {_is_not(entry)}")
    return tuple(entry.float() if _is_float(entry) else entry for entry in entries)


@dataclass(frozen=True)
class Batches:
    """Calibration batches, each checked when its turn comes.

    Args:
        given: What the caller gave.
        num_inputs: As in `tensors_of`.
        image: Likewise.

    Raises:
        TypeError: It does not hold batches.
    """

    given: Iterable[Any]
    num_inputs: int | None = None
    image: ImageInput | None = None

    def __post_init__(self) -> None:
        given: object = self.given
        if isinstance(given, (Tensor, np.ndarray)):
            raise TypeError(f"calibration holds batches, got a single one, {brief(given)}; write calibration=[x]")
        if isinstance(given, Dataset) and not isinstance(given, IterableDataset):
            raise TypeError(
                f"calibration holds batches, got {brief(given)}, which gives samples; put a DataLoader around it"
            )
        if isinstance(given, (Mapping, str, bytes, nn.Module, type)) or not isinstance(given, Iterable):
            raise TypeError(f"calibration holds batches, a list of tensors or a DataLoader say, got {brief(given)}")

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for index, batch in enumerate(self.given):
            yield tensors_of(batch, f"calibration batch {index}", self.num_inputs, self.image)

    def __length_hint__(self) -> int:
        """For progress bars."""
        return operator.length_hint(self.given)


def _is_not(found: object) -> str:
    """What was found in place of a tensor, and how to make one of it."""
    if isinstance(found, (tuple, list)) and found and all(isinstance(size, int) for size in found):
        return f"is a shape, {brief(tuple(found))}; needed a tensor, such as torch.rand{brief(tuple(found))}"
    if isinstance(found, (tuple, list)) and len(found) == 1 and not isinstance(found[0], Tensor):
        return _is_not(found[0])
    needed = f"is {brief(found)}; needed a tensor or a tuple of tensors"
    if isinstance(found, np.ndarray):
        return f"{needed}, as torch.from_numpy makes it"
    if isinstance(found, Mapping):
        return f"{needed}, in the order of the arguments of forward"
    if isinstance(found, (DataLoader, Iterator)):
        return f"{needed}; take one batch of it, next(iter(loader))"
    return needed


def _check(x: Tensor, where: str, image: ImageInput | None) -> None:
    if x.is_meta or x.layout is not torch.strided or x.is_quantized or x.is_complex():
        kind = "on the meta device" if x.is_meta else "complex" if x.is_complex() else "sparse or quantised"
        raise CalibrationError(f"{where} is {kind}, {brief(x)}; needed a dense tensor of real numbers")
    if x.ndim == 0 or len(x) == 0:
        raise CalibrationError(f"{where} holds no sample, {brief(x)}; needed a leading batch axis that is not empty")
    if image is not None:
        _check_image(x, where, image)


def _check_image(x: Tensor, where: str, image: ImageInput) -> None:
    """The numbers are those of normalised pixels; a few may be a little outside."""
    if not x.is_floating_point():
        raise CalibrationError(
            f"{where} holds {brief(x)}; needed what the float model takes, (pixel / 255 - mean) / std; it is the "
            f"exported file that takes pixels"
        )
    mean, std = (torch.tensor(each, device=x.device).reshape(-1, 1, 1) for each in (image.mean, image.std))
    if x.ndim > 1 and len(mean) not in (1, x.shape[1]):
        return  # another refusal says so, with the layer that reads it
    pixels = x.float() * std + mean  # in [0, 1]
    share = float(((pixels < -1.0) | (pixels > 2.0)).float().mean())
    if share > _SHARE:
        low, high = float((-mean / std).min()), float(((1.0 - mean) / std).max())
        raise CalibrationError(
            f"{where} is no normalised image: its numbers go from {float(x.min()):.3g} to {float(x.max()):.3g}, those "
            f"of (pixel / 255 - mean) / std from {low:.3g} to {high:.3g}; normalise it as the float model's inputs "
            f"are, or give ImageInput the mean and the std that they have"
        )


def _is_float(entry: object) -> bool:
    return isinstance(entry, Tensor) and entry.is_floating_point()
