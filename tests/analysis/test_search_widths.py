"""The search: the best widths there are, within every budget; impossible ones are refused.

This covers `analysis/width_program.py` too.
"""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ana_fx.analysis.latency_table import LatencyTable
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


@st.composite
def tables(draw):
    """Latency tables of that chain, in which fewer bits may well take longer."""
    bits, cost = [bits_of(width) for width in ACTIVATIONS], st.integers(1, 1000)
    return LatencyTable({(path, w, a): draw(cost) for path in "abd" for w in bits for a in bits})


def fits(cost, budgets):
    return all(getattr(cost, name) <= budget for name, budget in budgets.items())


@given(measured(), st.floats(0.3, 1.0), st.floats(0.3, 1.0))
@settings(max_examples=15)
def test_no_other_widths_within_the_budgets_have_a_smaller_error(found, bytes_share, macs_share):
    most = cost_of(found, "int8")
    budgets = {"weight_bytes": bytes_share * most.weight_bytes, "mac_bits": macs_share * most.mac_bits}
    cost = cost_of(found, search_widths(found, **budgets))
    assert fits(cost, budgets)
    costs = [cost_of(found, each) for each in every_precision()]
    fitting = [each.error for each in costs if fits(each, budgets)]
    assert cost.error <= min(fitting) + 1e-5  # the solver's tolerance, of errors up to 1


@given(measured(), tables(), st.floats(0, 1))
@settings(max_examples=15)
def test_no_other_widths_within_a_latency_have_a_smaller_error(found, table, share):
    costs = [cost_of(found, each, table) for each in every_precision()]
    least, most = (end(each.latency for each in costs) for end in (min, max))
    budgets = {"latency": least + share * (most - least)}
    cost = cost_of(found, search_widths(found, **budgets, latency_table=table), table)
    assert fits(cost, budgets)
    fitting = [each.error for each in costs if fits(each, budgets)]
    assert cost.error <= min(fitting) + 1e-5  # the solver's tolerance, of errors up to 1


@given(measured(), tables())
@settings(max_examples=5)
def test_a_latency_that_cannot_be_met_says_what_could(found, table):
    least = min(cost_of(found, each, table).latency for each in every_precision())
    with pytest.raises(PrecisionError, match=f"no widths fit latency=0.1: .* it is {least:g}"):
        search_widths(found, latency=0.1, latency_table=table)


@given(measured())
@settings(max_examples=5)
def test_only_what_may_be_chosen_must_stand_in_the_table(found):
    table = LatencyTable({(path, bits, 8): float(bits) for path in "abd" for bits in (2, 4, 8)})
    with pytest.raises(ValueError, match=r"lacks entries .*\n  b \(b\): 2×2, 2×4, 4×2, 4×4, 8×2, 8×4"):
        search_widths(found, latency=12.0, latency_table=table)
    chosen = search_widths(found, latency=12.0, latency_table=table, activation="uint8")
    assert cost_of(found, chosen, table).latency <= 12.0


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
    with pytest.raises(ValueError, match="needs a budget: weight_bytes, mac_bits, latency, or several"):
        search_widths(Sensitivities((), ()))


def test_a_latency_without_a_table_is_refused():
    with pytest.raises(ValueError, match="needs latency and latency_table together"):
        search_widths(Sensitivities((), ()), latency=1.0)


def test_a_width_that_was_not_measured_is_refused():
    row = WeightSensitivity(("a",), {"int4": 0.1, "int8": 0.0}, 10, (10,), (None,))
    with pytest.raises(ValueError, match="a: int3 was not measured, only int4, int8"):
        cost_of(Sensitivities((row,), ()), "int3")
