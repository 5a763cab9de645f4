"""Latency tables: what stands in a file, what lies between entries, and what is missing."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ana_fx.analysis.latency_table import LatencyTable

SHAPE = "linear 64->10 weight 10x64"
CSV = f"layer,weight_bits,activation_bits,cost\nhead,4,8,16.5\n{SHAPE},2,8,9\n"


def test_csv_and_json_are_one_table():
    rows = [
        {"layer": "head", "weight_bits": 4, "activation_bits": 8, "cost": 16.5},
        {"layer": SHAPE, "weight_bits": 2, "activation_bits": 8, "cost": 9},
    ]
    assert LatencyTable.of_text(CSV) == LatencyTable.of_text(json.dumps(rows))


def test_a_path_goes_before_a_shape():
    table = LatencyTable({("head", 4, 8): 1.0, (SHAPE, 4, 8): 2.0})
    assert [table.cost(layer, SHAPE, 4, 8) for layer in ("head", "other")] == [1.0, 2.0]


@given(st.dictionaries(st.integers(1, 8), st.floats(0, 1e6), min_size=2))
def test_what_lies_between_entries_is_on_their_line_and_nothing_is_beyond_them(costs):
    table = LatencyTable({("head", bits, 8): cost for bits, cost in costs.items()}, interpolates=True)
    for bits in range(1, 9):
        found = table.cost("head", SHAPE, bits, 8)
        assert (found is None) == (not min(costs) <= bits <= max(costs))
    for low, high in pairwise(sorted(costs)):
        for bits in range(low, high + 1):
            weight = (bits - low) / (high - low)
            wanted = (1 - weight) * costs[low] + weight * costs[high]
            assert table.cost("head", SHAPE, bits, 8) == pytest.approx(wanted, abs=1e-9)  # rounding of float64


def test_inputs_lie_between_entries_too():
    corners = {("head", w, a): float(w * a) for w in (2, 8) for a in (2, 8)}
    assert LatencyTable(corners, interpolates=True).cost("head", SHAPE, 3, 5) == 15.0
    assert LatencyTable(corners).cost("head", SHAPE, 3, 5) is None


def test_what_is_missing_is_listed_by_layer():
    products = [("head", SHAPE, weight, 8) for weight in (2, 3, 4)] + [("stem", "convolution", 2, 8)]
    with pytest.raises(ValueError, match="lacks entries") as caught:
        LatencyTable.of_text(CSV).check(products)
    lines = str(caught.value).split("\n")
    assert lines[1:3] == [f"  head ({SHAPE}): 3×8", "  stem (convolution): 2×8"]
    assert "let the table interpolate" in lines[-1]
    LatencyTable.of_text(CSV).check([("head", SHAPE, 4, 8), ("other", SHAPE, 2, 8)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "layer,bits,cost\nhead,4,1",
            "has the columns layer, weight_bits, activation_bits, cost, got layer, bits, cost",
        ),
        ("", "got none"),
        ("[1", "no JSON"),
        ("[1]", "entry 1: 1 is none; needed layer"),
        (CSV + "head,4,8,3", "entry 3: .* stands there twice"),
        (CSV + "head,four,8,3", "entry 3: .* all but the layer are numbers"),
        ('[{"layer": "a", "weight_bits": 4.5, "activation_bits": 8, "cost": 1}]', "entry 1: .* are numbers"),
        (CSV + "head,4,8", "entry 3: .* all but the layer are numbers"),
        (CSV + "head,9,8,1", "'head', 9 bits times 8: weights and inputs have 1 to 8 bits"),
        (CSV + "stem,4,8,-1", "'stem', 4 bits times 8: needed a finite cost, 0 or more, got -1"),
        (CSV + "stem,4,8,inf", "needed a finite cost"),
    ],
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        LatencyTable.of_text(text)
