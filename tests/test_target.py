"""What targets accept, and how packages add theirs.

This covers `target_registry.py` too.
"""

import re
from dataclasses import replace

import pytest

import ana_fx
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.target import LayerNeeds, Target
from ana_fx.target_registry import TargetList, target_called

INT4, INT8, UINT8 = IntegerType.parse("int4"), IntegerType.parse("int8"), IntegerType.parse("uint8")
SMALL = Target(
    "small",
    "for tests",
    emitter="nowhere:Nothing",
    operators=frozenset({"convolution", "linear"}),
    weight_bits=(2, 4),
    activation_bits=(8, 8),
    signed_activations=False,
    per_channel=False,
    spatial_axes=frozenset({2}),
    holds_floats=False,
)


def test_what_fits_is_not_refused():
    layer = LayerNeeds("convolution", weight=INT4, inputs=(UINT8,), output=UINT8, num_axes=2)
    assert SMALL.refusals(layer) == []


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (LayerNeeds("softmax"), "it is a softmax, needed one of convolution, linear"),
        (LayerNeeds("convolution", num_axes=1), "it has 1 spatial axes, needed 2"),
        (LayerNeeds("linear", leaves_float=True), "it stays in floats, needed integers"),
        (LayerNeeds("linear", weight=INT8), "weights have 8 bits (int8), needed 2 to 4"),
        (LayerNeeds("linear", inputs=(INT4,)), "its input has 4 bits (int4), needed 8 to 8"),
        (LayerNeeds("linear", output=INT8), "its output is int8, needed an unsigned type: put a ReLU behind it"),
        (LayerNeeds("linear", num_gains=3), "its channels have slopes of their own, needed one for all"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(layer, reason):
    (found,) = SMALL.refusals(layer)
    assert found.startswith(reason)


def test_the_list_says_what_each_target_accepts():
    listed = ana_fx.targets()
    assert {"onnxruntime", "integer"} <= {target.name for target in listed}
    assert "1 to 8 bits" in str(listed)
    assert "2 to 4 bits" in str(TargetList((SMALL,)))


def test_an_unknown_target_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"unknown target 'abacus'; known are 'onnxruntime', 'onnxruntime-vnni'"):
        target_called("abacus")


def test_a_description_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"weight_bits is a range within 1 to 8, got 0 to 8"):
        Target("odd", "for tests", emitter="nowhere:Nothing", weight_bits=(0, 8))


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Install a package with an entry point, as far as Python can tell."""

    def install(name, code):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[ana_fx.targets]\n{name} = {name}:TARGET\n")
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_a_package_adds_a_target_by_an_entry_point(register):
    register("anafx_added", "from ana_fx import Target\nTARGET = Target('added', 'by a package', emitter='a:B')\n")
    assert target_called("added").summary == "by a package"
    assert [target.name for target in ana_fx.targets()][-1] == "added"


@pytest.mark.parametrize(
    ("name", "code", "error", "reason"),
    [
        ("anafx_odd", "TARGET = 3\n", TypeError, "'anafx_odd:TARGET' of ana_fx.targets is int, needed a Target"),
        (
            "anafx_fft",
            "from ana_fx import Target\nTARGET = Target('fft', '', emitter='a:B', operators=frozenset({'fft'}))\n",
            ValueError,
            "target 'fft' names unknown operators fft; known are average, constant, convolution",
        ),
        (
            "anafx_twin",
            "from ana_fx import Target\nTARGET = Target('integer', 'again', emitter='a:B')\n",
            ValueError,
            "there is a target 'integer' already",
        ),
    ],
)
def test_an_entry_point_that_is_no_new_target_is_refused(register, name, code, error, reason):
    register(name, code)
    with pytest.raises(error, match=re.escape(reason)):
        ana_fx.targets()


@pytest.mark.parametrize(
    ("kind", "is_held"), [("uint4", True), ("int8", True), ("int2", True), ("uint3", False), ("ternary", False)]
)
def test_whole_ranges_are_all_levels_of_2_4_or_8_bits(kind, is_held):
    target = replace(SMALL, activation_bits=(2, 8), signed_activations=True, whole_ranges=True)
    integer_type = IntegerType.parse(kind)
    reasons = target.refusals(LayerNeeds("linear", inputs=(integer_type,), output=integer_type))
    assert reasons == [] if is_held else all("needed all levels of 2, 4 or 8 bits" in reason for reason in reasons)
    assert bool(reasons) != is_held
