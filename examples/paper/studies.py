"""The three studies of the paper: network, data, precision, optimiser; and how far a run is scaled down."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch import Tensor, nn

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
        rearranged: The network with its last layer at the end, for training; this layer stays float.
        readout: What then follows it, without parameters.
    """

    name: str
    title: str
    network: Callable[[int, int], nn.Module]
    precision: ana_fx.Precision
    recipe: Recipe
    stop: float
    rules: tuple[ExclusionRule, ...]
    num_folds: int = 5
    rearranged: Callable[[nn.Module], nn.Module] = lambda net: net
    readout: Callable[[], nn.Module] = nn.Identity

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
        batch: Divisor of the number of examples in a batch.
    """

    width: int = 1
    epochs: float = 1.0
    data: float = 1.0
    batch: int = 1

    def __post_init__(self) -> None:
        if min(self.width, self.batch) < 1 or not 0 < self.epochs <= 1 or not 0 < self.data <= 1:
            raise ValueError(f"a scale has width and batch >= 1 and shares of epochs and data in (0, 1], got {self}")

    @classmethod
    def parse(cls, text: str) -> Scale:
        """From `full`, or from `width=8,epochs=0.04,data=1`, any part of it.

        >>> Scale.parse("width=8,epochs=0.1")
        Scale(width=8, epochs=0.1, data=1.0, batch=1)
        """
        if text == "full":
            return cls()
        try:
            parts = dict(part.split("=") for part in text.split(","))
            values = {name: int(value) if name in ("width", "batch") else float(value) for name, value in parts.items()}
            return cls(**values)  # type: ignore[arg-type]  # an unknown name is refused below
        except (ValueError, TypeError) as error:
            raise ValueError(f"a scale is 'full' or such as 'width=8,epochs=0.04,data=1', got {text!r}") from error

    def recipe(self, recipe: Recipe) -> Recipe:
        """With its share of the epochs and of the batch, at least one of each."""
        batch_size = max(1, recipe.batch_size // self.batch)
        return replace(recipe, epochs=max(1, round(self.epochs * recipe.epochs)), batch_size=batch_size)

    def describe(self, recipe: Recipe) -> str:
        """What pictures say of it."""
        if self == Scale():
            return f"full scale: full width, {recipe.epochs} epochs, all data"
        own = self.recipe(recipe)
        width = "full width" if self.width == 1 else f"1/{self.width} of the width"
        batches = "" if self.batch == 1 else f", batches of {own.batch_size} for {recipe.batch_size}"
        epochs = f"{own.epochs} of {recipe.epochs} epochs"
        return f"reduced scale: {width}, {epochs}, {self.data:.0%} of the given data{batches}"


def _vgg8(width: int, num_classes: int) -> nn.Module:
    return VGG8(width, num_classes)


def _dscnn(width: int, num_classes: int) -> nn.Module:
    return DSCNN(num_classes, max(1, 64 // width))


def _head_first(net: nn.Module) -> nn.Module:
    """DS-CNN with its head before its pool, as a 1×1 convolution.

    The mean over positions is linear, so `MeanOverPositions` behind it makes the same function. But now the pool is
    as float as the last layer. Before it, the pool would be quantised and have an annealing range of its own, which
    the paper's L does not count.
    """
    head = net.get_submodule("classifier.head")
    assert isinstance(net, DSCNN)
    assert isinstance(head, nn.Linear)
    *kept, (last, _) = net.features.named_children()
    assert last == "pool"
    net.features = nn.Sequential(OrderedDict(kept))
    conv = nn.Conv2d(head.in_features, head.out_features, 1)
    conv.weight, conv.bias = nn.Parameter(head.weight.detach()[:, :, None, None]), head.bias
    net.classifier = nn.Sequential(OrderedDict(head=conv))
    return net


class MeanOverPositions(nn.Module):
    """The mean of the logits at all positions."""

    def forward(self, logits: Tensor) -> Tensor:
        """From [batch, classes, height, width] to [batch, classes]."""
        return logits.mean((2, 3))


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
                rearranged=_head_first,
                readout=MeanOverPositions,
            ),
        )
    }
)
