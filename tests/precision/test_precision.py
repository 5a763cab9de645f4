"""Precision: presets, overrides, refusals and copies.

This covers `precision/rounding.py` too.
"""

import copy
import pickle

import pytest

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.precision.precision import Precision
from ana_fx.precision.rounding import Rounding

INT8 = IntegerType(bits=8, signed=True, narrow=True)


def nested():
    """A precision with every field set."""
    fine = Precision("int8", "uint8", overrides={"*.last": "int2"})
    return Precision("int3", "uint5", "uint8", "int8", rounding="floor", overrides={"a.*": fine, "*.head": "ternary"})


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_width_gives_signed_weights_and_unsigned_activations(bits):
    precision = Precision.parse(f"int{bits}")
    assert (precision.weight.bits, precision.weight.signed) == (bits, True)
    assert precision.activation == IntegerType(bits=bits, signed=False)
    assert (precision.input, precision.output, precision.rounding) == ("auto", "auto", Rounding.NEAREST)
    assert not precision.replaces_activation


def test_ternary_has_two_bit_features_behind_the_relu():
    precision = Precision.parse("ternary")
    assert (str(precision.weight), str(precision.activation)) == ("ternary", "uint2")
    assert not precision.replaces_activation


def test_all_ternary_replaces_the_relu():
    precision = Precision.parse("all-ternary")
    assert (str(precision.weight), str(precision.activation)) == ("ternary", "ternary")
    assert precision.replaces_activation


def test_the_default_is_the_preset_int8():
    assert Precision() == Precision.parse("int8")


def test_a_precision_is_parsed_to_itself():
    precision = nested()
    assert Precision.parse(precision) is precision


@pytest.mark.parametrize("name", ["", "int1", "int9", "uint4", "Ternary", "float"])
def test_unknown_presets_are_refused_with_the_known_ones(name):
    with pytest.raises(
        ValueError, match=f"unknown precision '{name}'.*nown are 'binary', 'ternary', 'all-ternary', 'int2'"
    ):
        Precision.parse(name)


@pytest.mark.parametrize("given", ["int8", IntegerType(bits=8, signed=True)])
def test_eight_bit_weights_are_symmetric(given):
    assert Precision(weight=given).weight == INT8


@pytest.mark.parametrize("bits", range(2, 8))
def test_narrower_weights_keep_all_their_levels(bits):
    assert Precision(weight=f"int{bits}").weight == IntegerType(bits=bits, signed=True)


@pytest.mark.parametrize("bits", range(2, 9))
def test_an_unsigned_activation_has_a_signed_sibling_of_its_width(bits):
    precision = Precision(activation=f"uint{bits}")
    assert precision.activation_type(True) == IntegerType(bits=bits, signed=False)
    assert precision.activation_type(False) == IntegerType(bits=bits, signed=True)


@pytest.mark.parametrize("name", ["ternary", "int5"])
def test_a_signed_activation_stays_signed(name):
    precision = Precision(activation=name)
    assert precision.activation_type(True) == precision.activation_type(False) == IntegerType.parse(name)


def test_the_last_matching_pattern_wins():
    precision = Precision("int4", "uint4", overrides={"*": "int8", "features.*": "int2", "*.0": "ternary"})
    assert precision.of("head") == Precision.parse("int8")
    assert precision.of("features.3") == Precision.parse("int2")
    assert precision.of("features.0") == Precision.parse("ternary")


def test_a_path_without_a_pattern_has_the_precision_itself():
    precision = Precision("int4", "uint4", overrides={"features.*": "int2"})
    assert precision.of("Features.0") is precision
    assert precision.of("features") is precision


def test_overrides_cannot_be_changed_from_outside():
    given = {"a": "int2"}
    precision = Precision(overrides=given)
    given["b"] = "int4"
    assert list(precision.overrides) == ["a"]
    with pytest.raises(TypeError, match="does not support item assignment"):
        precision.overrides["b"] = Precision()


@pytest.mark.parametrize("output", ["auto", "int32", "int8", "float"])
def test_known_outputs_are_taken(output):
    assert Precision(output=output).output == output


@pytest.mark.parametrize("output", ["", "uint8", "int16", None])
def test_unknown_outputs_are_refused_with_the_known_ones(output):
    with pytest.raises(ValueError, match=f"unknown output {output!r}.*nown are 'auto', 'int32', 'int8', 'float'"):
        Precision(output=output)


@pytest.mark.parametrize("name", ["int8", "uint8", "int4", "ternary"])
def test_an_input_is_a_type_or_its_name(name):
    assert Precision(input=name).input == Precision(input=IntegerType.parse(name)).input == IntegerType.parse(name)


@pytest.mark.parametrize("name", ["float", "int16", ""])
def test_unknown_inputs_are_refused(name):
    with pytest.raises(ValueError, match=f"unknown integer type '{name}'"):
        Precision(input=name)


@pytest.mark.parametrize("name", ["uint4", "uint8"])
def test_unsigned_weights_are_refused(name):
    with pytest.raises(ValueError, match=f"weights are signed, got {name}"):
        Precision(weight=name)


def test_unknown_overrides_and_roundings_are_refused():
    with pytest.raises(ValueError, match="unknown precision 'int1'"):
        Precision(overrides={"a": "int1"})
    with pytest.raises(ValueError, match="unknown rounding 'up'; known are 'nearest', 'floor'"):
        Precision(rounding="up")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda precision: pickle.loads(pickle.dumps(precision))])
def test_a_copy_is_equal_down_to_its_overrides(copied):
    precision, found = nested(), copied(nested())
    assert found == precision
    assert dict(found.overrides) == dict(precision.overrides)
    assert found.of("a.last").of("b.last") == Precision.parse("int2")
    with pytest.raises(TypeError, match="does not support item assignment"):
        found.overrides["b"] = precision
