"""A target: what a family of tools can hold, which `prepare` obeys and `export` checks."""

from __future__ import annotations

from dataclasses import dataclass

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.pair_sums import largest_safe_weight
from ana_fx.operators.operator_list import built_in_kinds, operator_kinds
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.text.wording import with_article

__all__ = ["ONNX", "OPERATORS", "FileFormat", "LayerNeeds", "Requantizer", "Target"]

OPERATORS = built_in_kinds() | {"constant", "max_pool", "movement", "softmax", "table"}

_WHOLE_BITS = (2, 4, 8)
_FOUR_BITS = 4


@dataclass(frozen=True)
class FileFormat:
    """A family of files.

    Args:
        suffix: By which its files are told from those of other families, ".onnx".
        code: Where the code is that makes, reads and runs them, "module:object", imported when it is needed; the object
            is an `ana_fx.targets.file_family.FileFamily`.
    """

    suffix: str
    code: str


ONNX = FileFormat(".onnx", "ana_fx.targets.onnx.onnx_family:ONNX_FAMILY")


@dataclass(frozen=True)
class LayerNeeds:
    """What a layer map, or another node of the graph, needs of a target.

    Args:
        operator: One of OPERATORS.
        weight: Type of the weights, or None.
        inputs: Types of the inputs.
        output: Type of the output, or None for raw accumulators and floats.
        num_gains: How many slopes its requantizer has: 1, or one for each channel.
        num_axes: Spatial axes of a convolution or a pool, else 0.
        leaves_float: Whether it stays in floats.
        leaves_logits: Whether its accumulators leave the model.
        clips_negative: Whether its activation clips at a negative number.
    """

    operator: str
    weight: IntegerType | None = None
    inputs: tuple[IntegerType, ...] = ()
    output: IntegerType | None = None
    num_gains: int = 1
    num_axes: int = 0
    leaves_float: bool = False
    leaves_logits: bool = False
    clips_negative: bool = False


@dataclass(frozen=True)
class Target:
    """A dialect and the limits of the arithmetic behind it.

    Args:
        name: What `prepare(target=…)` and `export(target=…)` take.
        summary: The dialect and who reads it, in a line.
        emitter: What writes its files, "module:object", imported when it is needed. The object is of the kind that the
            family of files asks for: a `Dialect` for ONNX.
        operators: The kinds of layer maps that it has, of OPERATORS and of operators that packages register.
        weight_bits: Fewest and most bits of a weight.
        activation_bits: Fewest and most bits of an activation.
        holds_codebooks: Whether levels may be those of a codebook, which thresholds tell apart one by one.
        signed_activations: Whether activations between layers may be signed.
        per_channel: Whether each channel may have a slope of its own.
        spatial_axes: Numbers of spatial axes that convolutions and pools may have.
        holds_floats: Whether layers may stay in floats.
        holds_logits: Whether a last layer's accumulators may leave the model; if not, it gives levels of 8 bits.
        accumulator_bits: Width of accumulators.
        requantizer: The formula that eval mode uses for models that are prepared for it.
        requantizer_bits: Width in which multiplier · acc + offset is computed.
        common_shift: Whether all channels of a layer have one shift.
        aligned_sums: Whether the tensors of a sum must have one scale, because no coefficient is multiplied.
        whole_ranges: Whether activations are clipped to 2, 4 or 8 bits and to nothing else, so that an activation
            such as ReLU6 must end at the highest level.
        stored_weight_max: Largest absolute value of a stored weight.
        packs_four_bits: Whether it stores weights of at most four bits in four; their head-room stays within ±7 then.
        least_headroom: The least factor by which weights are stored larger than they are trained; 2 keeps trained ones
            within ±63.
        sums_pairs_in_16_bits: The operators, of OPERATORS, some of whose kernels add two products in 16 bits and
            saturate (x86 without VNNI; see `ana_fx.numerics.pair_sums`). Their weights are trained and stored within
            what cannot saturate. Depthwise convolutions add no pairs.
        saturates: Whether it writes weights that can saturate there all the same, for processors without such kernels.
        borders: Values of `export(io=…)` that it takes.
        runtimes: What `verify` runs its files in if it is not told.
        file_format: The family of its files.
        exact_runtimes: Those in which no output may differ, since their arithmetic is that of the files; None: all.
            In others `verify` counts what differs.
    """

    name: str
    summary: str
    emitter: str
    operators: frozenset[str] = OPERATORS
    weight_bits: tuple[int, int] = (1, 8)
    activation_bits: tuple[int, int] = (1, 8)
    holds_codebooks: bool = True
    signed_activations: bool = True
    per_channel: bool = True
    spatial_axes: frozenset[int] = frozenset({1, 2, 3})
    holds_floats: bool = True
    holds_logits: bool = True
    accumulator_bits: int = 32
    requantizer: Requantizer = Requantizer.SHIFT
    requantizer_bits: int = 64
    common_shift: bool = False
    aligned_sums: bool = False
    whole_ranges: bool = False
    stored_weight_max: int = 127
    packs_four_bits: bool = False
    least_headroom: int = 1
    sums_pairs_in_16_bits: frozenset[str] = frozenset()
    saturates: bool = False
    borders: tuple[str, ...] = ("integer", "float")
    runtimes: tuple[str, ...] = ("onnxruntime",)
    file_format: FileFormat = ONNX
    exact_runtimes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits"):
            low, high = getattr(self, name)
            if not 1 <= low <= high <= 8:
                raise ValueError(f"{name} is a range within 1 to 8, got {low} to {high}")

    def check_operators(self) -> None:
        """Raise ValueError if it names an operator that nobody registered."""
        named = self.operators | self.sums_pairs_in_16_bits
        if not named <= OPERATORS and not named <= (known := OPERATORS | operator_kinds()):
            unknown = ", ".join(sorted(named - known))
            raise ValueError(
                f"target {self.name!r} names unknown operators {unknown}; known are {', '.join(sorted(known))}"
            )

    def largest_weight(self, operator: str, input_type: IntegerType, *, is_depthwise: bool = False) -> int:
        """The largest absolute value of a trained weight that this operator has next to inputs of that type."""
        return self._largest_stored(operator, input_type, is_depthwise=is_depthwise) // self.least_headroom

    def headroom(
        self, operator: str, weight_magnitude: int, input_type: IntegerType, *, weight_bits: int | None = None
    ) -> int:
        """The largest factor by which weights of that magnitude may be stored (see `factor_within`).

        Args:
            operator: The kind of the layer map.
            weight_magnitude: The largest absolute value of a weight.
            input_type: What the weights meet.
            weight_bits: Of a trained weight; None where the operator says what the weights are.
        """
        largest = self._largest_stored(operator, input_type)
        if self.packs_four_bits and weight_bits is not None and weight_bits <= _FOUR_BITS:
            largest = min(largest, 2 ** (_FOUR_BITS - 1) - 1)
        return self.factor_within(largest // weight_magnitude)

    def factor_within(self, most: int) -> int:
        """The largest odd factor up to `most`, for then no accumulator meets a tie of an odd number of half steps.

        It is even where an odd one would be less than the least head-room.
        """
        odd = most - (most % 2 == 0)
        return max(1, odd if odd >= self.least_headroom else most)

    def _largest_stored(self, operator: str, input_type: IntegerType, *, is_depthwise: bool = False) -> int:
        """The largest absolute value of a weight that this operator stores next to inputs of that type."""
        if operator not in self.sums_pairs_in_16_bits or is_depthwise:
            return self.stored_weight_max
        return min(self.stored_weight_max, largest_safe_weight(stored_magnitude(input_type)))

    def refusals(self, layer: LayerNeeds) -> list[str]:
        """Why this target cannot hold a layer, a reason for each; empty if it can."""
        reasons = []
        if layer.operator not in self.operators:
            reasons.append(f"it is {with_article(layer.operator)}, needed one of {', '.join(sorted(self.operators))}")
        if layer.num_axes and layer.num_axes not in self.spatial_axes:
            allowed = " or ".join(map(str, sorted(self.spatial_axes)))
            reasons.append(f"it has {layer.num_axes} spatial axes, needed {allowed}")
        if layer.leaves_float and not self.holds_floats:
            reasons.append(
                "it stays in floats, needed integers: give it a width in overrides, or output='int8', or take target "
                "'onnxruntime'"
            )
        if layer.leaves_logits and not self.holds_logits:
            reasons.append("its output is int32, needed output='int8'")
        if layer.weight is not None:
            reasons += _width("weights", layer.weight, self.weight_bits)
        for name, each in (*(("input", each) for each in layer.inputs), ("output", layer.output)):
            if each is not None:
                reasons += _width(f"its {name}", each, self.activation_bits)
                if self.whole_ranges and (each.bits not in _WHOLE_BITS or each.narrow):
                    reasons.append(f"its {name} is {each}, needed all levels of 2, 4 or 8 bits")
        if layer.output is not None and layer.output.levels and not self.holds_codebooks:
            reasons.append(f"its output is {layer.output}, needed all levels of a range")
        if layer.output is not None and layer.output.signed and not self.signed_activations:
            reasons.append(f"its output is {layer.output}, needed an unsigned type: put a ReLU behind it")
        if layer.clips_negative and self.whole_ranges:
            reasons.append("its activation clips at a negative number, needed a ReLU, a ReLU6 or none")
        if layer.num_gains > 1 and not self.per_channel:
            reasons.append("its channels have slopes of their own, needed one for all: leave out the batch norm")
        return reasons


def stored_magnitude(input_type: IntegerType) -> int:
    """The largest byte that a kernel multiplies: signed inputs are shifted by 128 to unsigned ones."""
    if not input_type.signed:
        return input_type.qmax
    return input_type.qmax + (128 if input_type.zero_point is None else input_type.zero_point)


def _width(what: str, integer_type: IntegerType, bits: tuple[int, int]) -> list[str]:
    low, high = bits
    if low <= integer_type.bits <= high:
        return []
    verb = "have" if what == "weights" else "has"
    return [f"{what} {verb} {integer_type.bits} bits ({integer_type}), needed {low} to {high}"]
