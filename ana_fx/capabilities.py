"""What a target can hold, as far as `prepare` must know it."""

from __future__ import annotations

from dataclasses import dataclass

from ana_fx.numbers import IntegerType

__all__ = ["CAPABILITIES", "Capabilities", "capabilities_of"]

_PAIR_LIMIT = 2**15 - 1


@dataclass(frozen=True)
class Capabilities:
    """Limits of the arithmetic that a target's files run on.

    Args:
        name: The target.
        stored_weight_max: Largest absolute value of a stored weight.
        sums_pairs_in_16_bits: Whether some of its kernels add two products in 16 bits and saturate
            (x86 without VNNI).
        shifts: Whether it requantises with integer multiplications and shifts rather than with the
            float32 formula of the QLinear operators.
    """

    name: str
    stored_weight_max: int = 127
    sums_pairs_in_16_bits: bool = False
    shifts: bool = False

    def headroom(self, weight_magnitude: int, input_type: IntegerType) -> int:
        """The largest odd factor by which weights of that magnitude may be stored.

        It is odd because then no accumulator meets a tie of an odd number of half steps.
        """
        factor = self.stored_weight_max // weight_magnitude
        if self.sums_pairs_in_16_bits:
            factor = min(factor, _PAIR_LIMIT // (2 * stored_magnitude(input_type) * weight_magnitude))
        return max(1, factor - (factor % 2 == 0))


def stored_magnitude(input_type: IntegerType) -> int:
    """The largest byte that a kernel multiplies: signed inputs are shifted by 128 to unsigned ones."""
    return input_type.qmax + 128 if input_type.signed else input_type.qmax


CAPABILITIES = {
    "onnxruntime": Capabilities("onnxruntime", sums_pairs_in_16_bits=True),
    "integer": Capabilities("integer", shifts=True),
}


def capabilities_of(target: str) -> Capabilities:
    """The limits of a target by name; ValueError if there is none of that name."""
    if target not in CAPABILITIES:
        raise ValueError(f"unknown target {target!r}; known are {', '.join(map(repr, CAPABILITIES))}")
    return CAPABILITIES[target]
