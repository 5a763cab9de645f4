"""The layer map φ = σ∘S, the unit of the prepared graph, with its two faces.

In training it computes on reals, with a noisy quantizer. In eval mode it computes what will be
deployed: on levels, exactly. The tensors between layer maps are reals in both modes, multiples of
their quantizer's scale.
"""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ana_fx.errors import CalibrationError
from ana_fx.layers.quantizers import UNKNOWN_SCALE, ClipRange, Quantizer
from ana_fx.numerics.float32 import Float32Module
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.scale_search import positive
from ana_fx.schedule.schedule import AnnealingRange
from ana_fx.target import LayerNeeds

__all__ = ["LayerMap", "Phase", "levels_of"]


class Phase(Enum):
    """What a layer map does in training mode."""

    LEARNING = "learning"
    UNRECORDED = "unrecorded"  # noisy still, but nothing that it learnt could reach the output
    FROZEN = "frozen"  # without noise, parameters and statistics fixed
    DEPLOYED = "deployed"  # frozen, and computing exactly as eval mode does


@dataclass(frozen=True)
class _Kept:
    """An integer form, and what it was computed from.

    Each write into a tensor raises its version: an optimiser's, a loaded state's, an average's, a batch norm's. What
    goes around that, a write into `tensor.data`, is seen after the next call of `train()` or `eval()`.

    Args:
        sources: The tensors, kept so that no other can come to lie in their place.
        writes: The version of each, and where its numbers lie.
        input_shape: Shape of the first input, without the batch.
        form: The form.
    """

    sources: list[Tensor]
    writes: list[tuple[int, int]]
    input_shape: tuple[int, ...]
    form: Any

    def is_of(self, sources: list[Tensor], writes: list[tuple[int, int]], input_shape: tuple[int, ...]) -> bool:
        """Whether it was computed from these tensors as they are."""
        if self.writes != writes or self.input_shape != input_shape or len(self.sources) != len(sources):
            return False
        return all(map(operator.is_, self.sources, sources))

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copied layer map computes its own."""


def _tensors_of(module: nn.Module, *, has_buffers: bool) -> Iterator[Tensor]:
    """Its parameters, and its buffers too; `module.parameters()` would take ten times as long."""
    for kept in (module._parameters, module._buffers if has_buffers else {}):
        for tensor in kept.values():
            if tensor is not None:
                yield tensor
    for child in module._modules.values():
        if child is not None:
            yield from _tensors_of(child, has_buffers=has_buffers)


class LayerMap(Float32Module):
    """A map of one or more tensors, then a quantizer.

    Without any quantizer it is the float layer that it was made from.

    `forward(*tensors, *scales)` takes the input tensors and, once quantised, the scale of each.
    A subclass says what the map is on reals (`real`), which integers its parameters stand for
    (`integer_form`), and what these make of levels (`deployed`). What passes want to know of it they ask:

    - `num_inputs`, `takes_scales`: how many tensors it takes, and whether a scale with each.
    - `reads_bytes`: whether what it reads has eight bits, whatever the precision says.
    - `has_own_scale`: whether its output's scale follows from what it computes, and can be no other.
    - `stays_float`: whether it computes on reals when it is deployed too.
    """

    num_inputs: int = 1
    takes_scales: ClassVar[bool] = True
    reads_bytes: ClassVar[bool] = False
    has_own_scale: ClassVar[bool] = False
    stays_float: ClassVar[bool] = False
    clip_range: ClipRange = ClipRange()

    def __init__(self) -> None:
        super().__init__()
        self.weight_quantizer: Quantizer | None = None
        self.output_quantizer: Quantizer | None = None
        self.input_types: tuple[IntegerType, ...] = ()
        self.annealing_range: AnnealingRange | None = None
        self.leaves_model = False
        self.phase = Phase.LEARNING
        self._form: _Kept | None = None
        self.anchor: nn.Parameter | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether it has any quantizer."""
        return self.output_quantizer is not None or self.weight_quantizer is not None

    @property
    def learns_weight(self) -> bool:
        """Whether it has a weight that learns as long as its noise lasts."""
        return self.weight_quantizer is not None

    @property
    @abstractmethod
    def kind(self) -> str:
        """The name by which targets say that they have it."""

    @property
    def is_bare(self) -> bool:
        """Whether its accumulators can be logits, because nothing follows them."""
        return False

    @property
    def are_logits(self) -> bool:
        """Whether it gives logits where nobody says what its output is."""
        return False

    @property
    def keeps_inputs(self) -> bool:
        """Whether a training step keeps what it reads, for backward."""
        return True

    @property
    def aligns_inputs(self) -> bool:
        """Whether a target that multiplies no coefficient needs inputs of one scale."""
        return False

    @property
    def has_float_form(self) -> bool:
        """Whether files can hold it in floats, between integers."""
        return False

    def channel_axis(self, rank: int) -> int | None:
        """The axis of an output of that rank which carries the channels; None where no axis does."""
        return None

    @property
    def operation(self) -> str:
        """What it computes, in a few words."""
        return type(self).__name__

    def needs(self) -> LayerNeeds:
        """What it needs of a target."""
        output = None if self.output_quantizer is None else self.output_quantizer.integer_type
        return LayerNeeds(self.kind, inputs=tuple(self.input_types), output=output)

    def is_nonnegative(self, *, inputs_are: bool) -> bool:
        """Whether its output is never negative, given whether that is so of its inputs."""
        return False

    def is_nonnegative_inside(self, *, inputs_are: bool) -> bool:
        """The same before its activation, whose place a quantizer may take."""
        return self.is_nonnegative(inputs_are=inputs_are)

    def output_type(self, wanted: IntegerType, *, is_nonnegative: bool, has_bytes: bool) -> IntegerType:
        """The type of its output, if it shares its scale with no other.

        Args:
            wanted: What the precision says.
            is_nonnegative: Whether the output is never negative.
            has_bytes: Whether its readers, or the model's, read eight bits.
        """
        return IntegerType(bits=8, signed=not is_nonnegative) if has_bytes else wanted

    def settle_scale(self, quantizer: Quantizer) -> None:
        """Give the quantizer of its output a first scale, if the layer map alone tells one."""

    def quantizers(self) -> list[Quantizer]:
        """Its quantizers: of the weight, of the output."""
        return [q for q in (self.weight_quantizer, self.output_quantizer) if q is not None]

    @abstractmethod
    def real(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """The map on reals, with noisy quantizers if it has any."""

    @abstractmethod
    def integer_form(self, scales: tuple[Tensor, ...], input_shape: tuple[int, ...]) -> Any:
        """The integers that the current parameters stand for.

        Args:
            scales: The scale of each input.
            input_shape: Shape of the first input.

        Raises:
            CalibrationError: A scale is not known yet.
        """

    @abstractmethod
    def deployed(self, tensors: tuple[Tensor, ...], form: Any, scales: tuple[Tensor, ...]) -> Tensor:
        """An integer form on the levels of `tensors`, times the output's scale."""

    def forward(self, *operands: Tensor) -> Tensor:
        """Reals in, reals out."""
        tensors, scales = operands[: self.num_inputs], operands[self.num_inputs :]
        if (self.training and self.phase is Phase.LEARNING) or not self.is_quantized:
            return self._anchored(self.real(tensors))
        if not self.training:
            return self.deployed(tensors, self.current_form(scales, tensors[0].shape), scales)
        with torch.no_grad():
            if self.phase is Phase.DEPLOYED and all(quantizer.is_calibrated for quantizer in self.quantizers()):
                y = self.deployed(tensors, self._kept_form(scales, tensors[0].shape, is_fixed=True), scales)
            else:
                y = self.real(tensors)
        return self._anchored(y)

    def set_phase(self, phase: Phase) -> None:
        """Enter a phase of training."""
        if phase is not self.phase:
            self.phase = phase
            self.train(self.training)

    def train(self, mode: bool = True) -> LayerMap:
        """As in torch; what was computed once is computed anew."""
        self._form = None
        for quantizer in self.quantizers():
            quantizer.noise_reader.forget()
        super().train(mode)
        return self

    def set_leaves_model(self, leaves_model: bool, *, is_annealed: bool = True) -> None:
        """Say whether the output is one of the model, and whether a time comes when nothing learns any more."""
        self.leaves_model = leaves_model
        device = next((tensor.device for tensor in self.buffers()), None)
        zero = torch.zeros((), device=device)
        self.anchor = nn.Parameter(zero, requires_grad=is_annealed) if leaves_model else None

    def set_reads_levels(self, reads_levels: bool) -> None:
        """Say whether its inputs are levels even while there is noise; only functions need to know."""

    def _anchored(self, y: Tensor) -> Tensor:
        """The output, with an end for the user's backward() even if nothing learns any more.

        The anchor is a zero whose gradient is zero, from the first step to the last: an optimiser leaves it there, and
        a gradient scaler always has a gradient to look at.
        """
        anchor = self.anchor
        return y if anchor is None or not anchor.requires_grad else torch.add(y, anchor, alpha=0.0)

    def current_form(self, scales: tuple[Tensor, ...], input_shape: tuple[int, ...]) -> Any:
        """The integer form of the current parameters and statistics; what is known of it is kept (see `_Kept`)."""
        return self._kept_form(scales, input_shape, is_fixed=False)

    def _kept_form(self, scales: tuple[Tensor, ...], input_shape: tuple[int, ...], *, is_fixed: bool) -> Any:
        """The integer form, computed anew only if something was written that it is computed from.

        The buffers of fixed statistics do not count: what distributes a training writes them at every step.
        """
        if torch.compiler.is_compiling():  # a compiled graph does not keep Python objects
            return self.integer_form(scales, input_shape)
        sources = [*scales, *_tensors_of(self, has_buffers=not is_fixed)]
        try:
            writes = [(source._version, source.data_ptr()) for source in sources]
        except RuntimeError:  # tensors that do not count their writes
            return self.integer_form(scales, input_shape)
        kept = self._form
        if kept is None or not kept.is_of(sources, writes, input_shape[1:]):
            with torch.inference_mode(False):  # what is made in that mode can be used in no other
                form = self.narrowed(self.integer_form(scales, input_shape), input_shape)
            kept = self._form = _Kept(sources, writes, input_shape[1:], form)
        return kept.form

    def narrowed(self, form: Any, input_shape: tuple[int, ...]) -> Any:
        """The form with what is worth knowing if it is kept: bounds of what these parameters can give, not any."""
        return form

    def _check_calibrated(self) -> None:
        for quantizer in self.quantizers():
            if not quantizer.is_calibrated:
                raise CalibrationError(UNKNOWN_SCALE.format(quantizer.name))

    def _apply(self, fn: Any, recurse: bool = True) -> LayerMap:
        self._form = None  # it would stay behind on the old device
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._form = None
        if self.anchor is not None:  # states of older versions have none
            state_dict.setdefault(f"{prefix}anchor", torch.zeros_like(self.anchor))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return self.operation


def levels_of(tensors: tuple[Tensor, ...], scales: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The integers that multiples of a scale stand for, float32."""
    return tuple(torch.round(x.float() / positive(s)) for x, s in zip(tensors, scales, strict=True))
