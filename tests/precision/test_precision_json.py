"""Precisions as JSON: whatever a Precision says comes back, and nothing else is taken."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.precision.image_input import ImageInput
from ana_fx.precision.precision import Precision
from ana_fx.precision.precision_json import precision_from_json, precision_to_json, type_from_json, type_to_json

BITS = st.integers(2, 8)
SIGNED = st.builds(IntegerType, bits=BITS, signed=st.just(True), narrow=st.booleans())
UNSIGNED = st.builds(IntegerType, bits=BITS, signed=st.just(False))
WITH_ZERO_POINT = st.builds(IntegerType, bits=st.just(8), signed=st.just(True), zero_point=st.integers(1, 255))
SHARES, POSITIVE = st.floats(0, 1), st.floats(0.01, 100)
IMAGES = st.one_of(
    st.builds(ImageInput, SHARES, POSITIVE),
    st.builds(ImageInput, st.lists(SHARES, min_size=3, max_size=3), st.lists(POSITIVE, min_size=3, max_size=3)),
)


def precisions(overrides):
    return st.builds(
        Precision,
        SIGNED,
        st.one_of(SIGNED, UNSIGNED),
        st.one_of(st.just("auto"), SIGNED, UNSIGNED, WITH_ZERO_POINT, IMAGES),
        st.sampled_from(["auto", "int32", "int8", "float"]),
        rounding=st.sampled_from(["nearest", "floor"]),
        first=st.one_of(st.none(), SIGNED),
        last=st.one_of(st.none(), SIGNED),
        overrides=overrides,
    )


PRECISIONS = st.recursive(
    precisions(st.none()),
    lambda inner: precisions(st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=4,
)


@given(PRECISIONS)
def test_a_precision_comes_back_from_json(precision):
    assert precision_from_json(json.loads(json.dumps(precision_to_json(precision)))) == precision


@given(st.one_of(SIGNED, UNSIGNED, WITH_ZERO_POINT))
def test_a_type_comes_back_from_json(integer_type):
    assert type_from_json(json.loads(json.dumps(type_to_json(integer_type)))) == integer_type


def test_it_reads_as_a_person_would_write_it():
    precision = Precision("ternary", "uint2", first="int8", overrides={"head": "int4"})
    assert precision_to_json(precision) == {
        "weight": "ternary",
        "activation": "uint2",
        "first": "int8",
        "overrides": {"head": {"weight": "int4", "activation": "uint4"}},
    }


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, "an object with a weight"),
        ({"weight": "int8"}, "an object with a weight"),
        ({"weight": "int8", "activation": "int99"}, "unknown integer type"),
        ({"weight": "int8", "activation": {"bits": 4, "colour": "red"}}, "other fields"),
        ({"weight": "int8", "activation": ["uint8"]}, "needed an object"),
        ({"weight": "int8", "activation": "uint8", "input": {"image": {"mean": 0.5}}}, "other fields"),
        ({"weight": "int8", "activation": "uint8", "overrides": [1]}, "needed an object"),
        ({"weight": "int8", "activation": "uint8", "output": "int5"}, "unknown output 'int5'"),
        ({"weight": "int8", "activation": "uint8", "magic": 1}, "no magic; a newer ana_fx"),
    ],
)
def test_anything_else_is_refused(written, reason):
    with pytest.raises(ValueError, match=reason):
        precision_from_json(written)
