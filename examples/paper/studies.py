"""The three studies of the paper: network, data, precision, optimiser; and how far a run is scaled down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch import nn

import ana_fx
from ana_fx.study.design_grid import CIFAR10_RULES, SPEECH_COMMANDS_RULES, ExclusionRule
from examples.networks import DSCNN, VGG8
from examples.paper.training import Recipe

__all__ = ["STUDIES", "Scale", "Study"]


@dataclass(frozen=True)
class Study:
    """One of the paper's experiments.

    Args:
        name: Its name, and that of its data set.
        title: What pictures call it.
        network: From a divisor of the width and a number of classes to a float network.
        precision: Of weights and features; the last layer stays float.
        recipe: How it is trained at full length.
        stop: The fraction of training after which all noise is gone.
        rules: Which schedules of the design are left out.
        num_folds: Parts of its cross-validation.
    """

    name: str
    title: str
    network: Callable[[int, int], nn.Module]
    precision: ana_fx.Precision
    recipe: Recipe
    stop: float
    rules: tuple[ExclusionRule, ...]
    num_folds: int = 5

    def schedules(self) -> tuple[ana_fx.Schedule, ...]:
        """The schedules that the study compares."""
        return tuple(replace(each, stop=self.stop) for each in ana_fx.reduced_schedules(self.rules))


@dataclass(frozen=True)
class Scale:
    """By how much a run is smaller than the paper's; 1 everywhere is the paper's.

    Args:
        width: Divisor of the number of channels.
        epochs: Share of the epochs.
        data: Share of the training examples of each class.
    """

    width: int = 1
    epochs: float = 1.0
    data: float = 1.0

    def __post_init__(self) -> None:
        if self.width < 1 or not 0 < self.epochs <= 1 or not 0 < self.data <= 1:
            raise ValueError(f"a scale has a width >= 1 and shares of epochs and data in (0, 1], got {self}")

    @classmethod
    def parse(cls, text: str) -> Scale:
        """From `full`, or from `width=8,epochs=0.04,data=1`, any part of it.

        >>> Scale.parse("width=8,epochs=0.1")
        Scale(width=8, epochs=0.1, data=1.0)
        """
        if text == "full":
            return cls()
        try:
            parts = dict(part.split("=") for part in text.split(","))
            values = {name: int(value) if name == "width" else float(value) for name, value in parts.items()}
            return cls(**values)  # type: ignore[arg-type]  # an unknown name is refused below
        except (ValueError, TypeError) as error:
            raise ValueError(f"a scale is 'full' or such as 'width=8,epochs=0.04,data=1', got {text!r}") from error

    def recipe(self, recipe: Recipe) -> Recipe:
        """With its share of the epochs, at least one."""
        return replace(recipe, epochs=max(1, round(self.epochs * recipe.epochs)))

    def describe(self, recipe: Recipe) -> str:
        """What pictures say of it."""
        if self == Scale():
            return f"full scale: full width, {recipe.epochs} epochs, all data"
        epochs = self.recipe(recipe).epochs
        width = "full width" if self.width == 1 else f"1/{self.width} of the width"
        return f"reduced scale: {width}, {epochs} of {recipe.epochs} epochs, {self.data:.0%} of the given data"


def _vgg8(width: int, num_classes: int) -> nn.Module:
    return VGG8(width, num_classes)


def _dscnn(width: int, num_classes: int) -> nn.Module:
    return DSCNN(num_classes, max(1, 64 // width))


# The last layer stays float; ternary features are −1, 0, 1 and their quantizer takes the place of the ReLU.
_ALL_TERNARY = ana_fx.Precision("ternary", "ternary", output="float")
_INT4 = ana_fx.Precision("int4", "uint4", output="float")
_VGG = Recipe(epochs=500, batch_size=256, learning_rate=1e-3, drop=0.8)
_DSCNN = Recipe(epochs=120, batch_size=256, learning_rate=1e-3, drop=100 / 120)

STUDIES: Mapping[str, Study] = MappingProxyType(
    {
        each.name: each
        for each in (
            Study("cifar10", "CIFAR-10, VGG8, all ternary", _vgg8, _ALL_TERNARY, _VGG, 0.7, CIFAR10_RULES),
            Study("svhn", "SVHN, VGG8, all ternary", _vgg8, _ALL_TERNARY, _VGG, 0.7, SPEECH_COMMANDS_RULES),
            Study(
                "speech_commands",
                "Speech Commands, DS-CNN, INT4/UINT4",
                _dscnn,
                _INT4,
                _DSCNN,
                0.75,
                SPEECH_COMMANDS_RULES,
            ),
        )
    }
)
