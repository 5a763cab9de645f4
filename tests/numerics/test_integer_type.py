"""Integer types: their names, their levels, and what they refuse."""

import pytest
import torch

from ana_fx.numerics.integer_type import IntegerType

BITS = range(2, 9)


@pytest.mark.parametrize("bits", BITS)
def test_signed_names_give_the_two_s_complement_range(bits):
    integer_type = IntegerType.parse(f"int{bits}")
    assert (integer_type.qmin, integer_type.qmax) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert integer_type.magnitude == 2 ** (bits - 1)
    assert str(integer_type) == f"int{bits}"


@pytest.mark.parametrize("bits", BITS)
def test_unsigned_names_give_the_range_from_zero(bits):
    integer_type = IntegerType.parse(f"uint{bits}")
    assert (integer_type.qmin, integer_type.qmax) == (0, 2**bits - 1)
    assert integer_type.magnitude == 2**bits - 1
    assert str(integer_type) == f"uint{bits}"


@pytest.mark.parametrize("bits", BITS)
def test_a_narrow_type_is_symmetric(bits):
    integer_type = IntegerType(bits=bits, signed=True, narrow=True)
    assert -integer_type.qmin == integer_type.qmax == integer_type.magnitude == 2 ** (bits - 1) - 1


def test_ternary_is_the_narrow_two_bit_type():
    ternary = IntegerType.parse("ternary")
    assert ternary == IntegerType(bits=2, signed=True, narrow=True)
    assert (ternary.qmin, ternary.qmax) == (-1, 1)
    assert str(ternary) == "ternary"


@pytest.mark.parametrize("sign", ["", "u"])
@pytest.mark.parametrize("bits", BITS)
def test_every_level_fits_the_torch_type(bits, sign):
    integer_type = IntegerType.parse(f"{sign}int{bits}")
    limits = torch.iinfo(integer_type.dtype)
    assert limits.min <= integer_type.qmin
    assert integer_type.qmax <= limits.max


@pytest.mark.parametrize(
    "name", ["", "int", "int1", "int9", "uint16", "int04", "Int4", "4", "int4 ", "uternary", "binary"]
)
def test_unknown_names_are_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"unknown integer type .*nown are 'bipolar', 'ternary', 'int2', .*'uint8'"):
        IntegerType.parse(name)


@pytest.mark.parametrize("bits", [-1, 0, 9, 16])
def test_widths_outside_one_to_eight_bits_are_refused(bits):
    with pytest.raises(ValueError, match=f"1 to 8 bits, got {bits}"):
        IntegerType(bits=bits, signed=True)


def test_an_unsigned_type_cannot_be_narrow():
    with pytest.raises(ValueError, match="only a signed integer type can be narrow"):
        IntegerType(bits=4, signed=False, narrow=True)


@pytest.mark.parametrize("limit", [64, 63])
def test_eight_bits_within_a_limit_are_cut_at_an_odd_number(limit):
    cut = IntegerType.parse("int8").within(limit)
    assert (cut.qmin, cut.qmax, cut.magnitude, cut.bits) == (-63, 63, 63, 8)
    assert str(cut) == "int8 within ±63"
    assert cut.dtype is torch.int8


@pytest.mark.parametrize("name", ["ternary", "int4", "int7"])
def test_a_type_within_its_limit_stays_as_it_is(name):
    assert IntegerType.parse(name).within(64) == IntegerType.parse(name)


@pytest.mark.parametrize(("narrow", "limit"), [(False, 63), (True, 127), (True, 0)])
def test_a_limit_that_cannot_be_is_refused(narrow, limit):
    with pytest.raises(ValueError, match=f"a limit is of a narrow type, in \\[1, 126\\], got {limit}"):
        IntegerType(bits=8, signed=True, narrow=narrow, limit=limit)
