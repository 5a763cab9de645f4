"""The search: the best widths there are, within every budget; impossible ones are refused."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ana_fx.analysis.search_widths import cost_of, search_widths
from ana_fx.analysis.sensitivities import ActivationSensitivity, Sensitivities, WeightSensitivity, bits_of
from ana_fx.errors import PrecisionError
from ana_fx.precision.precision import Precision

WEIGHTS, ACTIVATIONS = ("ternary", "int4", "int8"), ("uint2", "uint4", "uint8")


@st.composite
def measured(draw):
    """Sensitivities of a chain of layers, of which the second and third outputs are joined."""
    error = st.floats(0, 1)
    activations = tuple(
        ActivationSensitivity(layers, {width: draw(error) for width in ACTIVATIONS}) for layers in (("a",), ("b", "c"))
    )
    weights = tuple(
        WeightSensitivity(
            (path,), {width: draw(error) for width in WEIGHTS}, draw(st.integers(1, 99)), (macs,), (source,)
        )
        for path, macs, source in (("a", 50, None), ("b", 70, 0), ("d", 20, 1))
    )
    return Sensitivities(weights, activations)


def every_precision():
    for w, a in itertools.product(itertools.product(WEIGHTS, repeat=3), itertools.product(ACTIVATIONS, repeat=2)):
        overrides = {"a": Precision(w[0], a[0]), "b": Precision(w[1], a[1]), "c": Precision("int8", a[1])}
        yield Precision("int8", "uint8", overrides={**overrides, "d": Precision(w[2])})


@given(measured(), st.floats(0.3, 1.0), st.floats(0.3, 1.0))
@settings(max_examples=15)
def test_no_other_widths_within_the_budgets_have_a_smaller_error(found, bytes_share, macs_share):
    most = cost_of(found, "int8")
    budgets = {"weight_bytes": bytes_share * most.weight_bytes, "mac_bits": macs_share * most.mac_bits}
    cost = cost_of(found, search_widths(found, **budgets))
    assert cost.weight_bytes <= budgets["weight_bytes"]
    assert cost.mac_bits <= budgets["mac_bits"]
    costs = [cost_of(found, each) for each in every_precision()]
    fitting = [
        each.error
        for each in costs
        if each.weight_bytes <= budgets["weight_bytes"] and each.mac_bits <= budgets["mac_bits"]
    ]
    assert cost.error <= min(fitting) + 1e-5  # the solver's tolerance, of errors up to 1


@given(measured())
@settings(max_examples=5)
def test_joined_outputs_have_one_width(found):
    precision = search_widths(found, mac_bits=0.4 * cost_of(found, "int8").mac_bits)
    assert precision.of("b").activation == precision.of("c").activation


@given(measured())
@settings(max_examples=5)
def test_the_width_of_activations_can_be_given(found):
    precision = search_widths(found, weight_bytes=10**6, activation="uint4")
    assert {str(precision.of(path).activation) for path in "abc"} == {"uint4"}


@given(measured())
@settings(max_examples=5)
def test_a_budget_that_cannot_be_met_says_what_could(found):
    least = sum(each.num_weights * bits_of("ternary") / 8 for each in found.weights)
    with pytest.raises(
        PrecisionError, match=f"no widths fit weight_bytes=0.1: with the fewest bits .* it is {least:g}"
    ):
        search_widths(found, weight_bytes=0.1)


def test_no_budget_is_refused():
    with pytest.raises(ValueError, match="needs a budget: weight_bytes, mac_bits or both"):
        search_widths(Sensitivities((), ()))


def test_a_width_that_was_not_measured_is_refused():
    row = WeightSensitivity(("a",), {"int4": 0.1, "int8": 0.0}, 10, (10,), (None,))
    with pytest.raises(ValueError, match="a: int3 was not measured, only int4, int8"):
        cost_of(Sensitivities((row,), ()), "int3")
